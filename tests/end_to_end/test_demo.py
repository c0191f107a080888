"""The demo ended early: as right as one that ran its time."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
