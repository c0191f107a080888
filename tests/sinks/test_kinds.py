"""How kinds of sink are found and loaded: through real distributions on the path."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller import sinks
from poller.config import load
from poller.errors import ConfigError

PLUG_IN = """
import {imported}
from typing import Any, ClassVar
from poller.sinks import SinkOptions

class NewSink:
    Options: ClassVar[type[SinkOptions]] = SinkOptions
    DEFAULTS: ClassVar[dict[str, Any]] = {{"batch": 7, "linger": "5s"}}

    def __init__(self, options: SinkOptions) -> None: ...
    async def open(self) -> None: ...
    async def write(self, batch: Any) -> None: ...
    async def close(self) -> None: ...
"""
ACCOUNTS = "accounts: {a: {api_key: env:A_KEY, secret: env:A_SECRET}}\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with the distribution ``new-sinks``, of two kinds."""
    folder = tmp_path / "site"
    information = folder / "new_sinks-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: new-sinks\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[poller.sinks]\n"
        "well = well_sink:NewSink\n"
        "lacking = lacking_sink:NewSink [queue]\n"
        "mistaken = mistaken_sink:NewSink\n"
        "absent = absent_sink:NewSink [queue]\n"
    )
    (folder / "well_sink.py").write_text(PLUG_IN.format(imported="json"))
    for name in ("lacking_sink", "mistaken_sink"):
        (folder / f"{name}.py").write_text(PLUG_IN.format(imported="no_such_client"))
    monkeypatch.syspath_prepend(folder)
    return tmp_path


def problems(directory: Path, kind: str) -> list[str]:
    path = directory / "accounts.yaml"
    path.write_text(f"{ACCOUNTS}sinks:\n  s: {{kind: {kind}}}\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


@pytest.mark.usefixtures("install")
def test_a_missing_client_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(
        sinks.MissingExtra, match="kind 'lacking' needs the package 'no_such_client'"
    ) as caught:
        sinks.load("lacking")
    assert caught.value.remedy == "run: pip install 'new-sinks[queue]'"


def test_the_configuration_says_it_where_the_kind_stands(install: Path) -> None:
    [problem] = problems(install, "lacking")
    assert problem == (
        "3: sinks.s.kind: kind 'lacking' needs the package 'no_such_client', which is not installed; "
        "run: pip install 'new-sinks[queue]'"
    )


@pytest.mark.parametrize("kind", ["mistaken", "absent"])
def test_what_no_extra_would_mend_is_said_as_it_is(install: Path, kind: str) -> None:
    [problem] = problems(install, kind)
    assert f"kind {kind!r} cannot be loaded: No module named" in problem
    assert "pip install" not in problem


def test_a_kind_may_have_defaults_of_its_own_and_what_is_written_comes_first(install: Path) -> None:
    path = install / "accounts.yaml"
    path.write_text(f"{ACCOUNTS}sinks: {{s: {{kind: well}}, t: {{kind: well, batch: 3}}}}\n")
    config = load(path)
    first, second = (config.sinks[name].delivery for name in ("s", "t"))
    assert (first.batch_records, first.linger_s) == (7, 5.0)
    assert (second.batch_records, second.linger_s) == (3, 5.0)
