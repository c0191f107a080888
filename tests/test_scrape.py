"""What a scrape sees: the present, of what there is, in a number of series that accounts do not change."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from poller.budget import BudgetStatus
from poller.health import AccountHealth
from poller.metrics import Metrics
from poller.model import Account, Baseline, State
from poller.scrape import is_fresh, scraped
from tests.registry import BUDGET, account, baseline, sources


def series(metrics: Metrics) -> int:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return sum(len(family.samples) for family in families)


async def test_a_scrape_sees_the_present_each_time() -> None:
    metrics = Metrics()
    budgets = [BUDGET]
    with scraped(metrics, sources(budgets=lambda: budgets)):
        assert metrics.value("weight_limit", egress="default") == 12_000
        assert metrics.value("weight_allowed", egress="default") == 10_800
        assert metrics.value("weight_capacity", egress="default") == 9_000
        assert metrics.value("weight_used", egress="default") == 4_000
        assert metrics.value("weight_foreign", egress="default") == 1_800
        assert metrics.value("weight_reported", egress="default") == 5_800
        assert metrics.value("budget_share_ratio", egress="default") == 0.9
        assert metrics.value("polls_in_flight", egress="default") == 3
        budgets[:] = [_with(egress="nat-b", own=17)]
        assert metrics.value("weight_used", egress="nat-b") == 17
        assert metrics.total("weight_used", egress="default") == 0, "what has gone has no series"
    assert metrics.total("weight_used") == 0


def _with(**figures: object) -> BudgetStatus:
    fields = {name: getattr(BUDGET, name) for name in BudgetStatus.__dataclass_fields__}
    return BudgetStatus(**(fields | figures))


async def test_what_the_exchange_never_said_has_no_series() -> None:
    metrics = Metrics()
    with scraped(metrics, sources(budgets=lambda: [_with(reported=None)])):
        names = {sample.name for metric in metrics.registry.collect() for sample in metric.samples}
    assert "poller_weight_reported" not in names
    assert "poller_weight_used" in names


async def test_a_pause_shows_with_its_cause_and_none_as_zero() -> None:
    metrics = Metrics()
    with scraped(metrics, sources(budgets=lambda: [_with(pause_s=42.5, pause_cause="banned")])):
        assert metrics.value("pause_left_seconds", egress="default", cause="banned") == 42.5
    with scraped(metrics, sources()):
        text = generate_latest(metrics.registry).decode()
    assert 'poller_pause_left_seconds{cause="none",egress="default"} 0.0' in text


async def test_outbox_and_sinks_show_as_they_stand() -> None:
    metrics = Metrics()
    with scraped(metrics, sources(ready=lambda: {"clock": True, "outbox": False})):
        assert metrics.value("outbox_records") == 38
        assert metrics.value("outbox_bytes") == 65_536
        assert metrics.value("outbox_max_bytes") == 1 << 30
        assert metrics.value("outbox_full") == 0
        assert metrics.value("outbox_oldest_seconds") == 33
        assert metrics.value("sink_backlog_records", sink="bus") == 7
        assert metrics.value("sink_lag_seconds", sink="bus") == 33
        assert metrics.value("sink_failing_seconds", sink="bus") == 12.5
        assert metrics.value("sink_breaker_open", sink="bus") == 1
        assert metrics.value("sink_dead_letters", sink="bus") == 2
        assert metrics.value("ready", check="clock") == 1
        text = generate_latest(metrics.registry).decode()
    assert 'poller_ready{check="outbox"} 0.0' in text


async def test_accounts_are_counted_by_priority_and_state_and_freshness() -> None:
    fleet = [
        account("a", silent_s=20.0),
        account("b", silent_s=20.1),
        account("c", silent_s=9e9),
        account("d", silent_s=1.0, state=State.QUARANTINED),
        account("e", silent_s=500.0, state=State.STALE, priority=7),
        account("f", silent_s=1.0, priority=7),
        account("g", silent_s=math.inf, state="keyless", priority=7),
    ]
    metrics = Metrics()
    with scraped(metrics, sources(accounts=lambda: fleet)):
        for priority, state, count in [
            ("0", "ok", 3), ("0", "stale", 0), ("0", "quarantined", 1),
            ("7", "ok", 1), ("7", "stale", 1), ("7", "quarantined", 0), ("0", "keyless", 0), ("7", "keyless", 1),
        ]:  # fmt: skip
            assert metrics.value("accounts", priority=priority, state=state) == count
        assert metrics.value("accounts_fresh", priority="0") == 1
        assert metrics.value("accounts_fresh", priority="7") == 1


@pytest.mark.parametrize(
    ("silent_s", "state", "fresh"),
    [
        (0.0, State.OK, True),
        (20.0, State.OK, True),
        (20.001, State.OK, False),
        (0.0, State.QUARANTINED, False),
        (0.0, State.STALE, True),
        (math.inf, "keyless", False),
    ],
)
def test_fresh_is_within_two_intervals(silent_s: float, state: str, *, fresh: bool) -> None:
    assert is_fresh(AccountHealth(Account("a", 10.0), state, silent_s)) is fresh


async def test_balances_are_no_series_unless_they_are_asked_for() -> None:
    metrics = Metrics()
    with scraped(metrics, sources(baselines=lambda: [baseline("a", BTC="2")])):
        assert metrics.total("balance") == 0


async def test_balances_stop_at_the_bound_and_say_how_many_are_left_out() -> None:
    held: Iterable[Baseline] = [baseline("a", BTC="2", ETH="0.5"), Baseline("new"), baseline("b", BTC="40")]
    metrics = Metrics()
    with scraped(metrics, sources(baselines=lambda: held, max_balances=2)):
        assert metrics.value("balance", account="a", asset="BTC") == 3.0, "the total: one is locked"
        assert metrics.value("balance", account="a", asset="ETH") == 1.5
        assert metrics.total("balance", account="b") == 0
        assert metrics.value("balance_series_omitted") == 1
    with scraped(metrics, sources(baselines=lambda: held, max_balances=3)):
        assert metrics.value("balance", account="b", asset="BTC") == 41.0
        assert metrics.value("balance_series_omitted") == 0


async def test_a_fleet_of_thousands_has_no_more_series_than_a_small_one() -> None:
    def series_of(count: int) -> int:
        fleet = [account(f"a{number}", silent_s=5.0) for number in range(count)]
        metrics = Metrics()
        for health in fleet:
            metrics.polls.labels("default", "ok", "none").inc()
            metrics.staleness.labels("default", str(health.account.priority)).observe(10.0)
        held = [baseline(health.account.name, BTC="1") for health in fleet]
        with scraped(metrics, sources(accounts=lambda: fleet, baselines=lambda: held)):
            return series(metrics)

    assert series_of(5_000) == series_of(5) < 300


async def test_nobody_is_asked_before_the_first_scrape() -> None:
    def never() -> list[BudgetStatus]:
        raise AssertionError

    with scraped(Metrics(), sources(budgets=never)):
        pass


def test_the_configuration_in_force_shows_when_it_was_loaded() -> None:
    metrics = Metrics()
    assert metrics.value("config_reloads_total", result="failure") == 0
    metrics.config_loaded(1000.0)
    assert metrics.value("config_last_reload_successful") == 1
    metrics.config_reloaded(1100.0, accepted=False)
    assert metrics.value("config_last_reload_successful") == 0
    assert metrics.value("config_last_reload_success_timestamp_seconds") == 1000
    metrics.config_reloaded(1200.0, accepted=True)
    assert metrics.value("config_last_reload_successful") == 1
    assert metrics.value("config_last_reload_success_timestamp_seconds") == 1200
    assert metrics.value("config_reloads_total", result="success") == 1
    assert metrics.value("config_reloads_total", result="failure") == 1


async def test_a_scrape_in_another_thread_asks_on_the_event_loop() -> None:
    here = threading.get_ident()

    def asked() -> list[BudgetStatus]:
        assert threading.get_ident() == here
        return [BUDGET]

    metrics = Metrics()
    with scraped(metrics, sources(budgets=asked)):
        text = await asyncio.to_thread(generate_latest, metrics.registry)
    assert b'poller_weight_used{egress="default"} 4000.0' in text


async def test_a_source_that_fails_in_another_thread_is_told_there() -> None:
    def fails() -> list[BudgetStatus]:
        raise LookupError("nothing is open")

    metrics = Metrics()
    with scraped(metrics, sources(budgets=fails)), pytest.raises(LookupError, match="nothing is open"):
        await asyncio.to_thread(generate_latest, metrics.registry)


@pytest.mark.real_time
async def test_a_loop_that_hangs_does_not_hold_a_scrape_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poller.scrape.ANSWER_S", 0.05)
    metrics = Metrics()
    with scraped(metrics, sources()), ThreadPoolExecutor(1) as pool:
        scrape = pool.submit(generate_latest, metrics.registry)
        with pytest.raises(TimeoutError, match="has not answered"):
            scrape.result()  # here, on the loop's thread: it hangs meanwhile
