"""Maintenance on virtual time: recognised before anybody is blamed, waited out, and over when it is over."""

from __future__ import annotations

import asyncio
import logging

import pytest

from poller.errors import (
    AccessDenied,
    Banned,
    Maintenance,
    NoResponse,
    PollError,
    RateLimited,
    Unavailable,
)
from poller.exchange.client import SystemStatus
from poller.maintenance import ASK_EVERY_S, PAUSE_S
from poller.model import Account, State
from poller.testing.virtual_time import VirtualClock
from tests.test_polling import ONE_BTC, Outcome, World

NORMAL = SystemStatus(normal=True, message="normal")
DOWN = SystemStatus(normal=False, message="system_maintenance")
SAYS_SO = Maintenance("HTTP 503, code -10001", code=-10001, status=503)
REFUSED = AccessDenied("HTTP 400, code -2015", code=-2015, status=400)
FAILED = Unavailable("HTTP 502", status=502)

BEGUN = "the exchange is under maintenance: nothing but its status is asked"
OVER = "the maintenance is over: polls resume"


def world(clock: VirtualClock, accounts: int = 20, stale_after_s: float = 1e6) -> World:
    return World(clock, [Account(f"a{n}", 10.0, stale_after_s=stale_after_s) for n in range(accounts)])


async def endless(w: World, outcome: Outcome, until_s: float) -> float:
    """Let every poll end so from now on; return when the address fell silent."""
    w.exchange.script["*"] = [outcome] * 10_000
    begun = len(w.exchange.calls)
    await asyncio.sleep(until_s)
    assert len(w.exchange.calls) > begun
    return w.exchange.calls[-1][0]


def status_times(w: World) -> list[float]:
    return [at_s for at_s, _ in w.exchange.status_calls]


@pytest.mark.parametrize("error", [SAYS_SO, REFUSED, FAILED], ids=["named", "refused alike", "5xx of most"])
async def test_whatever_maintenance_looks_like_it_is_asked_about_and_waited_out(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture, error: PollError
) -> None:
    caplog.set_level(logging.WARNING)
    w = world(clock)
    async with w.running():
        await asyncio.sleep(30)
        w.exchange.status = DOWN
        silent_s = await endless(w, error, 600)
        assert w.budget.status().pause_cause == "maintenance"
        asked = status_times(w)
        assert asked[1:] == [pytest.approx(asked[0] + ASK_EVERY_S * n, abs=1) for n in range(1, len(asked))]
        assert len(asked) >= 9
        assert max(asked) > silent_s
        assert [at_s for at_s, _ in w.exchange.calls if at_s > asked[0] + 1] == []
        w.exchange.status = NORMAL
        w.exchange.script.clear()
        await asyncio.sleep(PAUSE_S + 30)
    assert {name for at_s, name in w.exchange.calls if at_s > 630} == {f"a{n}" for n in range(20)}
    assert w.dispatcher.status().states == {State.OK: 20, State.STALE: 0, State.QUARANTINED: 0}
    told = [record.message for record in caplog.records if record.name == "poller.maintenance"]
    assert told == [BEGUN, OVER]


async def test_after_the_end_the_fleet_comes_back_within_half_a_minute_and_spread_out(
    clock: VirtualClock,
) -> None:
    w = World(clock, [Account(f"a{n}", 60.0, stale_after_s=1e6) for n in range(600)])
    async with w.running():
        await asyncio.sleep(100)
        w.exchange.status = DOWN
        await endless(w, SAYS_SO, 200)
        w.exchange.status, w.exchange.script = NORMAL, {}
        asked = len(w.exchange.status_calls)
        await asyncio.sleep(200)
    over_s = status_times(w)[asked]
    resumed = [at_s for at_s, _ in w.exchange.calls if at_s > over_s]
    assert resumed[0] == pytest.approx(over_s + PAUSE_S - ASK_EVERY_S, abs=1.5)
    assert max(sum(at <= other < at + 1 for other in resumed) for at in resumed) <= 30


async def test_stale_accounts_are_told_during_maintenance_and_none_is_quarantined(
    clock: VirtualClock,
) -> None:
    w = world(clock, 3, stale_after_s=30.0)
    async with w.running():
        await asyncio.sleep(30)
        w.exchange.status = DOWN
        await endless(w, REFUSED, 900)
    assert {(record.kind, record.reason) for record in w.outbox.records if record.kind == "status"} == {
        ("status", "stale")
    }


async def test_a_key_that_is_refused_while_all_is_normal_is_still_quarantined(clock: VirtualClock) -> None:
    w = world(clock)
    w.exchange.script["a0"] = [ONE_BTC, *[REFUSED] * 5]
    await w.run(300)
    assert w.dispatcher.status().states[State.QUARANTINED] == 1
    assert len(w.exchange.status_calls) == 1  # asked once, before it was blamed


async def test_an_exchange_that_says_maintenance_in_errors_only_pauses_the_address_as_overloaded(
    clock: VirtualClock,
) -> None:
    w = world(clock)
    async with w.running():
        await asyncio.sleep(30)
        await endless(w, SAYS_SO, 20)
        assert 0 < w.budget.pause_left_s() <= 60.0
        assert len(w.exchange.status_calls) == 1


async def test_single_failures_of_the_exchange_ask_nothing(clock: VirtualClock) -> None:
    w = world(clock)
    w.exchange.script["a0"] = [FAILED] * 50
    w.exchange.script["a1"] = [FAILED] * 50
    await w.run(300)
    assert w.exchange.status_calls == []


async def test_failures_of_most_ask_once_a_minute_at_most(clock: VirtualClock) -> None:
    w = world(clock)
    async with w.running():
        await asyncio.sleep(30)
        await endless(w, FAILED, 300)
    assert 4 <= len(w.exchange.status_calls) <= 6
    assert min(b - a for a, b in zip(status_times(w), status_times(w)[1:], strict=False)) >= ASK_EVERY_S


@pytest.mark.parametrize("answer", [NoResponse("timed out", cause="timeout"), FAILED])
async def test_a_status_that_cannot_be_asked_ends_no_maintenance(
    clock: VirtualClock, answer: PollError
) -> None:
    w = world(clock)
    async with w.running():
        await asyncio.sleep(30)
        w.exchange.status = DOWN
        await endless(w, SAYS_SO, 100)
        w.exchange.status = answer
        before = len(w.exchange.calls)
        await asyncio.sleep(600)
        assert len(w.exchange.calls) == before
        assert w.budget.pause_left_s() > 0


async def test_a_ban_during_maintenance_forbids_the_question_too(clock: VirtualClock) -> None:
    w = world(clock)
    async with w.running():
        await asyncio.sleep(30)
        w.exchange.status = DOWN
        await endless(w, SAYS_SO, 100)
        w.exchange.status = Banned("418", status=418, retry_after_s=1800.0)
        await asyncio.sleep(60)
        banned_s = status_times(w)[-1]
        w.exchange.status = DOWN
        await asyncio.sleep(1700)
        assert status_times(w)[-1] == banned_s
        await asyncio.sleep(200)
        assert status_times(w)[-1] > banned_s + 1800
    assert [at_s for at_s, _ in w.exchange.calls if banned_s < at_s < banned_s + 1799] == []


async def test_a_limit_met_by_the_question_silences_the_address(clock: VirtualClock) -> None:
    w = world(clock)
    async with w.running():
        await asyncio.sleep(30)
        w.exchange.status = RateLimited("429", status=429, retry_after_s=300.0)
        await endless(w, FAILED, 60)
        assert w.budget.status().pause_cause == "rate_limited"
        asked_s = status_times(w)[-1]
        await asyncio.sleep(100)
    assert [at_s for at_s, _ in w.exchange.calls if at_s > asked_s + 0.1] == []


async def test_many_that_meet_it_at_once_ask_one_question(clock: VirtualClock) -> None:
    w = world(clock, 200)
    async with w.running():
        await asyncio.sleep(30)
        w.exchange.status = DOWN
        w.exchange.status_latency_s = 2.0
        await endless(w, SAYS_SO, 50)
    assert len(w.exchange.status_calls) == 1


async def test_a_clock_that_meets_maintenance_silences_the_polls(clock: VirtualClock) -> None:
    w = world(clock)
    w.exchange.status = DOWN
    w.measure_fails = [SAYS_SO]
    await w.run(50)
    assert w.exchange.calls == []
    assert w.budget.status().pause_cause == "maintenance"
