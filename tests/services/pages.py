"""What a page of ``docs/sinks/`` shows, run as a reader would: its configuration, then its consumer.

A test gives the page's placeholders values of its own, so that it keeps to a namespace of its own::

    with running_page("redis", tmp_path, {"REDIS_URL": url}, replace={"balances": stream}) as page:
        printed = page.consume()
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.processes import POLLER, SimulatedExchange, simulating, stop

SINK_PAGES = Path(__file__).parents[2] / "docs" / "sinks"
PATIENCE_S = 60.0


@dataclass
class RunningPage:
    """A page whose configuration a daemon is running.

    Attributes:
        exchange: whose accounts are polled.
        log: of the daemon.
    """

    name: str
    directory: Path
    exchange: SimulatedExchange
    environment: Mapping[str, str]
    replace: Mapping[str, str]

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def consume(self, number: int = 0) -> str:
        """Run one of the page's Python blocks in a process of its own; return what it printed."""
        snippet = replaced(blocks(self.name, "python")[number], self.replace)
        result = subprocess.run(
            [sys.executable, "-W", "error::SyntaxWarning", "-c", snippet],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            cwd=self.directory,
            env={**os.environ, **self.environment},
        )
        assert result.returncode == 0, result.stderr + self.log
        return result.stdout


def blocks(name: str, language: str) -> list[str]:
    """Return a page's blocks in a language."""
    text = (SINK_PAGES / f"{name}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def replaced(text: str, replace: Mapping[str, str]) -> str:
    for shown, value in replace.items():
        assert shown in text, f"{shown} does not stand in:\n{text}"
        text = text.replace(shown, value)
    return text


@contextmanager
def running_page(
    name: str,
    directory: Path,
    environment: Mapping[str, str],
    *,
    replace: Mapping[str, str] | None = None,
    number: int = 0,
    accounts: int = 5,
) -> Iterator[RunningPage]:
    """Run a daemon with the sinks of one of a page's YAML blocks, against a simulated exchange.

    Args:
        environment: what the configuration's ``env:`` references name.
        replace: what to put in the place of texts of the page.
        number: which of the page's YAML blocks.
    """
    replace = replace or {}
    sinks = replaced(blocks(name, "yaml")[number], replace)
    with simulating(directory, "--accounts", str(accounts), "--interval", "1s") as exchange:
        main = directory / "accounts.yaml"
        without = re.sub(r"^sinks:\n(?:[ \t].*\n)*", "", main.read_text(), flags=re.MULTILINE)
        main.write_text(without + "\n" + sinks)
        with (directory / "log").open("ab") as log:
            daemon = subprocess.Popen(
                [*POLLER, "run", "-c", str(main)], stdout=log, stderr=log, env={**os.environ, **environment}
            )
        try:
            yield RunningPage(name, directory, exchange, environment, replace)
        finally:
            assert stop(daemon) == 0, (directory / "log").read_text()
