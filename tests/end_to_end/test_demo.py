"""The demo ended early: as right as one that ran its time."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.end_to_end.processes import POLLER, wait_for

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(120)]


@contextmanager
def demonstrating(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A demo that would run for long, once it has delivered something."""
    with (directory / "printed").open("w+") as printed:
        process = subprocess.Popen(
            [
                *POLLER,
                "demo",
                "--duration",
                "600",
                "--accounts",
                "20",
                "--directory",
                str(directory / "demo"),
            ],
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        records = directory / "demo" / "data" / "records.jsonl"
        try:
            wait_for(
                lambda: process.poll() is not None or (records.exists() and records.stat().st_size > 5_000)
            )
            assert process.poll() is None, (directory / "printed").read_text()
            yield process
        finally:
            process.kill()
            process.wait()


def test_its_page_is_there_while_it_runs(tmp_path: Path) -> None:
    with demonstrating(tmp_path) as process:
        wait_for(lambda: "Its page" in (tmp_path / "printed").read_text())
        [page] = re.findall(r"http://\S+/", (tmp_path / "printed").read_text())
        with closing(HTTPConnection(urlsplit(page).netloc, timeout=30)) as connection:
            connection.request("GET", "/api/status")
            assert json.load(connection.getresponse())["accounts"] == 20
            connection.request("GET", "/")
            assert b"<title>poller</title>" in connection.getresponse().read()
        process.send_signal(signal.SIGINT)
        assert "The history equals the exchange's books" in ended(process, tmp_path)


def ended(process: subprocess.Popen[bytes], directory: Path) -> str:
    assert process.wait(timeout=60) == 0, (directory / "printed").read_text()
    return (directory / "printed").read_text()


def test_ctrl_c_ends_it_early_with_the_same_verdict(tmp_path: Path) -> None:
    with demonstrating(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        assert "The history equals the exchange's books" in ended(process, tmp_path)


def test_a_second_ctrl_c_does_not_wait_for_the_last_polls(tmp_path: Path) -> None:
    with demonstrating(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert "The history equals the exchange's books" in ended(process, tmp_path)
