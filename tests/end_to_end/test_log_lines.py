"""The log of a real daemon in trouble: every line is as docs/logs.md has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.test_logs_page import wrong_with
from tests.end_to_end.processes import simulating, start, stop, wait_for

pytestmark = pytest.mark.real_time


def test_every_line_of_a_daemon_is_as_documented(tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ("--accounts", "6", "--interval", "300ms", "--latency", "1-5", "--window-length", "2")
    with simulating(tmp_path, *options) as exchange:
        with (tmp_path / "accounts.yaml").open("a") as file:
            file.write("logging: {format: json, level: debug}\n")
        exchange.post("revoke", account="sim-0001")
        exchange.post("permissions", account="sim-0002", enableWithdrawals=True)
        exchange.post("faults", faults=[{"kind": "error_html", "rate": 0.2}, {"kind": "reset", "rate": 0.2}])
        daemon = start(tmp_path, log=log)
        exchange.wait_until_all_polled(1)
        wait_for(lambda: log.read_text().count('"polls fail"') >= 3)
        exchange.post("faults", faults=[{"kind": "error", "status": 429, "count": 1}])
        wait_for(lambda: '"the pause is over"' in log.read_text())
        assert stop(daemon) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [wrong for line in lines for wrong in wrong_with(line)] == []
    messages = [line["message"] for line in lines]
    assert messages[0] == "started"
    # Polls under way at the signal end in between, and may say what they found.
    assert [message for message in messages if message.startswith("stop")] == [
        "stopping: polls end, sinks drain",
        "stopped",
    ]
    assert messages[-1] == "stopped"
    assert "every request from this address pauses" in messages
    assert "keys can do more than read" in messages
