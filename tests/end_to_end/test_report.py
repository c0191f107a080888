"""What a running daemon says of itself, held against the exchange's own books and the files it writes."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import orjson
import pytest

from poller.app import App
from poller.config import load, read_secrets
from poller.overview import Overview
from poller.simulator.amounts import plain
from poller.simulator.faults import Fault, FaultKind
from tests.end_to_end.daemons import Daemon, happens, running
from tests.end_to_end.processes import free_port

pytestmark = pytest.mark.real_time


def overview(daemon: Daemon) -> Overview:
    found = daemon.app.overview
    assert found is not None
    return found


async def test_a_fleet_that_is_well(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        see = overview(daemon)
        await happens(lambda: all(check.ok for check in see.status().ready))
        status = see.status()
        assert (status.accounts, status.states) == (8, {"ok": 8, "stale": 0, "quarantined": 0, "keyless": 0})
        assert status.configuration.path == str(daemon.file)
        assert status.unvalued == 0
        assert see.names() == [f"sim-000{n}" for n in range(1, 9)]
        accounts = see.summaries(see.names())
        values = [Decimal(account.total_btc or "NaN") for account in accounts]
        assert sum(values) == Decimal(status.total_btc)
        assert [account.account for account in accounts] == see.names()
        assert {account.error for account in accounts} == {""}
        [egress] = see.egress()
        assert (egress.egress, egress.limit, egress.allowed, egress.accounts) == (
            "default",
            12_000,
            10_800,
            8,
        )
        assert [sink.sink for sink in see.sinks()] == ["history", "log"]
        assert orjson.loads(orjson.dumps([status, accounts, egress, see.sinks(), see.happenings()]))
        await happens(lambda: len(see.egress()[0].seconds) >= 2)
        await happens(lambda: see.status().polls_per_s > 0)
        await happens(lambda: see.sinks()[0].rate_per_s > 0)


async def test_an_account_is_shown_as_the_exchange_has_it(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        see = overview(daemon)
        daemon.server.exchange.freeze()
        await daemon.polled_again(*see.names())
        for name in see.names():
            detail = see.account(name)
            assert detail is not None
            assert [(b.asset, b.free, b.locked) for b in detail.balances] == [
                (asset, plain(holding.free), plain(holding.locked))
                for asset, holding in sorted(daemon.server.exchange.books(name)[-1].balances)
            ]
            assert detail.summary.assets == len(detail.balances)
            assert detail.polls[0].outcome == "ok"
            assert detail.why[0].startswith("Its last good answer is ")
        assert see.account("nobody") is None


async def test_only_what_changed_is_handed_out_again(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        see = overview(daemon)
        number, everybody = see.changed()
        assert everybody == see.names()
        await daemon.polled_again("sim-0001")
        later, changed = see.changed(after=number)
        assert later > number
        assert "sim-0001" in changed
        daemon.remove("sim-0008")
        await daemon.app.reload()
        assert "sim-0008" not in see.names()
        assert "sim-0008" not in see.changed()[1]
        assert [one.account for one in see.summaries(["sim-0008", "sim-0007"])] == ["sim-0007"]


async def test_after_a_restart_the_whole_is_still_the_sum_of_what_is_shown(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        before = overview(daemon)
        await happens(lambda: all(check.ok for check in before.status().ready))
        exchange = daemon.server.exchange
        exchange.faults.set([Fault(FaultKind.ERROR_HTML)], exchange.now_us())
        await daemon.polled_again(*before.names())
        await daemon.stop()
        config = load(daemon.file)
        app, stop_it = App(config, read_secrets(config)), asyncio.Event()
        task = asyncio.create_task(app.run(stop_it))
        await happens(lambda: app.overview is not None)
        see = app.overview
        assert see is not None
        values = [Decimal(account.total_btc or "NaN") for account in see.summaries(see.names())]
        status = see.status()
        assert (Decimal(status.total_btc), status.unvalued) == (sum(values), 0)
        assert sum(values) > 0
        assert not status.ready[0].ok  # nobody has answered yet
        stop_it.set()
        await task


async def test_a_history_that_cannot_be_read_is_not_called_missing(tmp_path: Path) -> None:
    port = free_port()

    def serve(directory: Path) -> None:
        with (directory / "accounts.yaml").open("a") as file:
            file.write(f"server: {{listen: 127.0.0.1:{port}}}\n")

    def ask() -> tuple[int, Any]:
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/accounts/sim-0001/history") as answer:
                return answer.status, orjson.loads(answer.read())
        except HTTPError as error:
            return error.code, orjson.loads(error.read())

    async with running(tmp_path, prepare=serve) as daemon:
        doors = daemon.app.doors
        assert doors is not None
        await happens(lambda: doors.address is not None and (tmp_path / "data/history.db").exists())
        await happens(lambda: daemon.rows("SELECT count(*) FROM snapshots WHERE account = 'sim-0001'")[0][0])
        status, points = await asyncio.to_thread(ask)
        assert status == 200
        assert points
        (tmp_path / "data/history.db").unlink()
        (tmp_path / "data/history.db").mkdir()
        status, error = await asyncio.to_thread(ask)
        assert status == 503
        assert "history.db" in error["error"]


async def test_trouble_is_seen_where_it_is(tmp_path: Path) -> None:
    async with running(tmp_path, stale_after=3) as daemon:
        see = overview(daemon)
        await happens(lambda: all(check.ok for check in see.status().ready))
        exchange = daemon.server.exchange
        exchange.faults.set([Fault(FaultKind.ERROR_HTML)], exchange.now_us())
        await happens(lambda: not see.status().ready[0].ok)
        await happens(lambda: see.status().states["stale"] == 8)
        detail = see.account("sim-0002")
        assert detail is not None
        assert detail.summary.failures > 1
        assert detail.summary.error
        assert detail.why[0].startswith("It is stale: no good answer for ")
        assert detail.why[1].startswith("Its last ")
        assert [h.kind for h in see.happenings() if h.reason == "stale"] == ["status"] * 8
        exchange.faults.set([], exchange.now_us())
        await happens(lambda: all(check.ok for check in see.status().ready))


async def test_a_sink_that_is_dead_makes_the_daemon_not_ready_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.readiness.STUCK_AFTER_S", 0.5)
    async with running(tmp_path) as daemon:
        see = overview(daemon)
        daemon.edit(r"  log: [^\n]*\n", "  log: {kind: jsonl, path: /proc/nowhere/x.jsonl, retry_max: 1s}\n")
        await daemon.app.reload()
        await happens(lambda: not see.status().ready[2].ok)
        assert see.status().ready[2].text.startswith("log has not moved for ")
        [sink] = [sink for sink in see.sinks() if sink.sink == "log"]
        assert sink.backlog > 0
        assert sink.error
        await happens(lambda: see.sinks()[1].lag_s > 0)
        assert see.status().outbox.oldest_s > 0
        assert any("Sink log may not have its last record yet" in why for why in _why(see))


def _why(see: Overview) -> list[str]:
    details = (see.account(name) for name in see.names())
    return [sentence for detail in details if detail is not None for sentence in detail.why]


async def test_a_pause_is_counted_down(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        see = overview(daemon)
        exchange = daemon.server.exchange
        exchange.faults.set([Fault(FaultKind.ERROR, status=429)], exchange.now_us())
        await happens(lambda: see.egress()[0].pause_s > 0)
        [egress] = see.egress()
        assert egress.pause_cause == "rate_limited"
        assert egress.pause_until is not None
        assert "every request from egress default pauses" in see.status().ready[0].text
        await happens(lambda: any(second.is_paused for second in see.egress()[0].seconds))


async def test_a_refused_configuration_is_shown_until_one_is_good(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        see = overview(daemon)
        good = daemon.file.read_text()
        daemon.file.write_text(good + "nonsense: 1\n")
        with pytest.raises(Exception, match="nonsense"):
            await daemon.app.reload()
        seen = see.status().configuration
        assert "nonsense" in seen.problems[0]
        assert seen.refused_at is not None
        daemon.file.write_text(good.replace("share: 90%", "share: 70%"))
        await daemon.app.reload()
        seen = see.status().configuration
        assert (seen.problems, seen.refused_at) == ((), None)
        assert seen.changed == ("budget: share 0.9 -> 0.7",)
