"""A sink that has to be there when the daemon starts, in processes as a user starts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.processes import run, simulating, start, stop, wait_for

pytestmark = pytest.mark.real_time


def replace_log_sink(directory: Path, options: str) -> None:
    config = directory / "accounts.yaml"
    shown = "log: {kind: jsonl, path: data/records.jsonl}"
    assert shown in config.read_text()
    config.write_text(config.read_text().replace(shown, f"log: {{kind: jsonl, {options}}}"))


def test_with_fail_the_daemon_ends_and_says_which_and_why(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").mkdir()
    with simulating(tmp_path, "--accounts", "2"):
        replace_log_sink(tmp_path, "path: in-the-way, on_start: fail")
        result = run("run", "-c", str(tmp_path / "accounts.yaml"))
    assert result.returncode == 69
    assert "error: sinks.log: cannot be opened, and has 'on_start: fail': " in result.stderr
    assert "in-the-way" in result.stderr
    assert "Traceback" not in result.stderr


def test_with_retry_the_daemon_polls_and_the_others_get_their_records(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").mkdir()
    with simulating(tmp_path, "--accounts", "2"):
        replace_log_sink(tmp_path, "path: in-the-way, on_start: retry")
        daemon = start(tmp_path, log=tmp_path / "log")
        try:
            wait_for((tmp_path / "data" / "history.db").exists)
            wait_for(lambda: "a sink does not take its records" in (tmp_path / "log").read_text())
        finally:
            daemon.terminate()
            assert daemon.wait(timeout=60) == 0


def test_a_sink_that_opens_may_be_required(tmp_path: Path) -> None:
    with simulating(tmp_path, "--accounts", "2") as exchange:
        replace_log_sink(tmp_path, "path: data/records.jsonl, on_start: fail")
        daemon = start(tmp_path, log=tmp_path / "log")
        try:
            exchange.wait_until_all_polled(1)
        finally:
            assert stop(daemon) == 0
    assert (tmp_path / "data" / "records.jsonl").read_text()
