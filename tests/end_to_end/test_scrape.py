"""A daemon that polls a simulated exchange, as a scrape sees it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from poller.app import App
from poller.config import load, read_secrets
from poller.metrics import Metrics
from tests.end_to_end.processes import simulating, wait_for

pytestmark = pytest.mark.real_time

ACCOUNTS = 8


async def test_a_scrape_of_a_running_daemon(tmp_path: Path) -> None:
    with simulating(
        tmp_path, "--accounts", str(ACCOUNTS), "--interval", "500ms", "--latency", "1-5"
    ) as exchange:
        with (tmp_path / "accounts.yaml").open("a") as file:
            file.write("metrics: {balances: true, max_series: 20}\n")
        config = load(tmp_path / "accounts.yaml")
        metrics, stop = Metrics(), asyncio.Event()
        app = App(config, read_secrets(config), metrics=metrics)
        running = asyncio.create_task(app.run(stop))
        await app.started.wait()
        # From a thread, as the server scrapes.
        await asyncio.to_thread(
            wait_for, lambda: metrics.total("account_staleness_seconds_count") >= 3 * ACCOUNTS
        )
        await asyncio.to_thread(wait_for, lambda: metrics.total("sink_backlog_records") == 0)
        text = (await asyncio.to_thread(generate_latest, metrics.registry)).decode()
        spent = exchange.get("status")["worst_window"]
        assert metrics.total("accounts") == ACCOUNTS
        assert metrics.value("accounts", priority="0", state="ok") == ACCOUNTS
        assert metrics.value("accounts_fresh", priority="0") == ACCOUNTS
        assert metrics.value("polls_total", egress="default", outcome="ok", scope="none") >= 4 * ACCOUNTS
        assert 0 < metrics.value("weight_used", egress="default") <= 10_800
        assert 0 < metrics.value("weight_reported", egress="default") <= spent + 5 * ACCOUNTS
        assert metrics.value("sink_lag_seconds", sink="history") == 0
        assert metrics.value("records_delivered_total", sink="log") >= ACCOUNTS
        assert metrics.value("outbox_records") >= ACCOUNTS
        assert metrics.value("loop_lag_seconds_count") > 0
        assert text.count("\npoller_balance{") == 20
        assert metrics.value("balance_series_omitted") > 0
        stop.set()
        await running
    _linted(text)


def _linted(text: str) -> None:
    """Let Prometheus' own linter look at it, where there is one."""
    if shutil.which("promtool") is None:
        return
    result = subprocess.run(
        ["promtool", "check", "metrics"], check=False, input=text, capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""
    assert result.returncode == 0
