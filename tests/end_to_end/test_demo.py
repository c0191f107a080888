"""The demo ended early: as right as one that ran its time."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.processes import POLLER, wait_for

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(120)]


def start(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*POLLER, "demo", "--duration", "600", "--accounts", "20", "--directory", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    records = directory / "data" / "records.jsonl"
    wait_for(lambda: records.exists() and records.stat().st_size > 20_000)
    return process


def test_ctrl_c_ends_it_early_with_the_same_verdict(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert "The history equals the exchange's books" in printed
    assert process.returncode == 0


def test_a_second_ctrl_c_does_not_wait_for_the_last_polls(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert "The history equals the exchange's books" in printed
    assert process.returncode == 0
