"""``history``, ``doctor`` and ``balances`` beside a real daemon and after it: exact, and without a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import run, simulating, start, stop, wait_for
from tests.end_to_end.test_canaries import leaks

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(180)]


def asked(directory: Path, *arguments: str) -> Any:
    result = run(*arguments, "-c", str(directory / "accounts.yaml"), "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout)


def records(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "data" / "records.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["schema"] == "poller.snapshot/1"]


def test_what_is_shown_is_what_was_delivered(tmp_path: Path) -> None:
    with simulating(tmp_path, "--accounts", "4", "--interval", "1s", "--moves-per-second", "8") as exchange:
        config = tmp_path / "accounts.yaml"
        daemon = start(tmp_path, log=tmp_path / "log")
        try:
            exchange.wait_until_all_polled(3)
            account = exchange.accounts[0]
            wait_for((tmp_path / "data" / "history.db").exists)
            wait_for(lambda: asked(tmp_path, "history", account)["points"])
            held = asked(tmp_path, "balances")
            assert sorted(row["account"] for row in held["rows"]) == sorted(exchange.accounts)
            report = asked(tmp_path, "doctor")
            [running] = [
                one for one in report["findings"] if (one["section"], one["name"]) == ("daemon", "running")
            ]
            assert f"process {daemon.pid}" in running["text"]
            readable = run("doctor", "-c", str(config))
            (tmp_path / "report").write_text(json.dumps(report) + readable.stdout + readable.stderr)
        finally:
            assert stop(daemon) == 0
    assert leaks(tmp_path) == []

    delivered = records(tmp_path)
    last = {record["account"]: record for record in delivered}
    shown = asked(tmp_path, "balances")
    assert {row["account"]: row["balances"] for row in shown["rows"]} == {
        name: record["balances"] for name, record in last.items()
    }
    assert (shown["never_polled"], shown["not_configured"]) == ([], [])

    points = asked(tmp_path, "history", account)["points"]
    assert [(point["at"], point["total_btc"], point["sequence"]) for point in points] == [
        (record["observed_at"], record["total_btc"], record["sequence"])
        for record in delivered
        if record["account"] == account
    ]
    asset = last[account]["balances"][0]["asset"]
    of_asset = asked(tmp_path, "history", account, "--asset", asset)["points"]
    assert of_asset[-1]["total"] == last[account]["balances"][0]["total"]
