"""The real thing in processes of its own: a simulated exchange and ``poller run``, as a user starts them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

POLLER = [sys.executable, "-m", "poller"]
PATIENCE_S = 60.0


@dataclass
class SimulatedExchange:
    url: str

    @cached_property
    def accounts(self) -> list[str]:
        return list(self.get("books")["accounts"])

    def get(self, page: str) -> Any:
        return self._ask("GET", page, None)

    def post(self, page: str, **document: Any) -> Any:
        return self._ask("POST", page, json.dumps(document))

    def _ask(self, method: str, page: str, body: str | None) -> Any:
        address = urlsplit(self.url)
        with closing(HTTPConnection(address.hostname or "", address.port, timeout=30)) as connection:
            connection.request(method, f"/simulator/{page}", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            document = json.load(answer)
        assert answer.status == 200, document
        return document

    def wait_until_all_polled(self, times: int = 2) -> None:
        """Wait until every account was asked so many times more."""
        before = self.polls()
        wait_for(lambda: all(count >= before[name] + times for name, count in self.polls().items()))

    def polls(self) -> dict[str, int]:
        """How often each account was asked, those never asked included."""
        return {**dict.fromkeys(self.accounts, 0), **self.get("status")["polls"]}


@contextmanager
def simulating(directory: Path, *options: str) -> Iterator[SimulatedExchange]:
    process = subprocess.Popen(
        [*POLLER, "simulate", "--write-config", str(directory), *options], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        told = process.stdout.readline()
        found = re.search(r"http://\S+", told)
        assert found, told
        yield SimulatedExchange(found.group())
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)
        process.stdout.close()


def start(directory: Path, *options: str, log: Path) -> subprocess.Popen[bytes]:
    """Start ``poller run`` with its log appended to a file."""
    with log.open("ab") as stderr:
        return subprocess.Popen(
            [*POLLER, "run", "-c", str(directory / "accounts.yaml"), *options],
            stdout=stderr,
            stderr=stderr,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )


def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=PATIENCE_S)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the poller to its end."""
    return subprocess.run(
        [*POLLER, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options
    )


def wait_for(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait for something in another process: it can only be asked, again and again."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
