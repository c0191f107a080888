"""The dispatcher on virtual time: who is polled when, and what each outcome leads to."""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from poller.acceptance import Acceptance
from poller.beat import Beat
from poller.budget import WeightBudget, WeightWindow
from poller.errors import (
    AccessDenied,
    BadAnswer,
    BadRequest,
    Banned,
    ClockSkew,
    NoResponse,
    OutboxFailed,
    OutboxFull,
    Overloaded,
    PollError,
    RateLimited,
    StaleConnection,
    Unavailable,
)
from poller.exchange.client import Answer, SystemStatus
from poller.maintenance import MaintenanceWatch
from poller.metrics import Metrics
from poller.model import Account, Balance, Baseline, Record, Snapshot, State
from poller.outcomes import Outcomes
from poller.polling import WEIGHT, Dispatcher
from poller.schedule import Schedule, phase_s
from poller.stretching import Stretching
from poller.testing.virtual_time import START_UTC_S, VirtualClock
from poller.timekeeping import TimeKeeper
from poller.tracing import DeliveryTrace, PollTrace

KNOWN_PAST = b'{"version":1,"boot_id":"boot-1","blocks":[],"pause":null,"strikes":0}'
ONE_BTC = (Balance("BTC", Decimal(1)),)
TWO_BTC = (Balance("BTC", Decimal(2)),)

Outcome = tuple[Balance, ...] | PollError | float | Exception


class ScriptedExchange:
    """Answers as told, per account: balances, an error, or first a delay in seconds. Then one BTC for ever."""

    def __init__(self, clock: VirtualClock, latency_s: float = 0.05) -> None:
        self._clock = clock
        self._latency_s = latency_s
        self.script: dict[str, list[Outcome]] = {}
        self.calls: list[tuple[float, str]] = []
        self.under_way: set[str] = set()
        self.foreign: int | None = None  # what others used in the last minute; None: answers tell nothing
        self.status: SystemStatus | PollError = SystemStatus(normal=True, message="normal")
        self.status_calls: list[tuple[float, str]] = []
        self.status_latency_s = 0.05

    async def system_status(self, egress: str) -> SystemStatus:
        self.status_calls.append((self._clock.monotonic_s(), egress))
        await asyncio.sleep(self.status_latency_s)
        if isinstance(self.status, PollError):
            raise self.status
        return self.status

    async def user_assets(self, account: Account) -> Answer:
        sent_s = self._clock.monotonic_s()
        self.calls.append((sent_s, account.name))
        assert account.name not in self.under_way, "two polls of one account at once"
        self.under_way.add(account.name)
        try:
            script = self.script.get(account.name) or self.script.get("*") or []
            step: Outcome = script.pop(0) if script else ONE_BTC
            if isinstance(step, float):
                await asyncio.sleep(step)
                step = script.pop(0) if script else ONE_BTC
            await asyncio.sleep(self._latency_s)
        finally:
            self.under_way.discard(account.name)
        if isinstance(step, tuple):
            outcome: Snapshot | PollError = Snapshot(account.name, step, self._clock.utc_ns(), 25.0, 50.0)
        elif isinstance(step, PollError):
            outcome = step
        else:
            raise step  # type: ignore[misc]  # a bug of ours, as told
        return Answer(outcome, self._used_weight(), sent_s, self._clock.monotonic_s())

    def _used_weight(self) -> int | None:
        if self.foreign is None:
            return None
        last_minute_s = self._clock.monotonic_s() - 60
        ours = len(self.calls) - bisect_right(self.calls, last_minute_s, key=lambda call: call[0])
        return self.foreign + WEIGHT * ours

    def times(self, account: str = "alice") -> list[float]:
        return [at_s for at_s, name in self.calls if name == account]


class MemoryOutbox:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.fails: Exception | None = None
        self.room = asyncio.Event()
        self.room.set()
        self.states: list[bytes] = []

    async def accept(self, baseline: Baseline, records: Sequence[Record]) -> None:
        if self.fails:
            raise self.fails
        self.records.extend(records)

    @property
    def is_full(self) -> bool:
        return not self.room.is_set()

    async def wait_for_room(self) -> None:
        await self.room.wait()

    async def save(self, state: bytes) -> None:
        self.states.append(state)

    def told(self, account: str = "alice") -> list[tuple[int, str]]:
        return [(record.sequence, record.reason) for record in self.records if record.account == account]


class World:
    """One address with a scripted exchange behind it."""

    def __init__(self, clock: VirtualClock, accounts: Sequence[Account], *, limit: int = 12_000) -> None:
        self.clock = clock
        self.exchange = ScriptedExchange(clock)
        self.outbox = MemoryOutbox()
        self.metrics = Metrics()
        self.beat = Beat()
        self.measured: list[float] = []
        self.measure_fails: list[PollError] = []
        self.polls: list[PollTrace] = []
        self.observed: list[tuple[str, Snapshot | PollError]] = []
        self.budget = WeightBudget(
            "default", WeightWindow(limit=limit), clock, self.outbox.save, metrics=self.metrics
        )
        self.budget.restore(KNOWN_PAST)
        schedule = Schedule(now_s=clock.monotonic_s(), utc_s=START_UTC_S)
        for account in accounts:
            schedule.add(account, clock.monotonic_s())
        outcomes = Outcomes(
            "default",
            accounts,
            self.budget,
            Acceptance(self.outbox, clock, metrics=self.metrics),
            exchange_ns=clock.utc_ns,
            clock=clock,
            metrics=self.metrics,
            maintenance=MaintenanceWatch(
                "default",
                self.budget,
                partial(self.exchange.system_status, "default"),
                exchange_ns=clock.utc_ns,
                clock=clock,
            ),
        )
        self.timekeeper = TimeKeeper(self._measure, outcomes.blame, clock)
        self.dispatcher = Dispatcher(
            "default",
            schedule,
            self.budget,
            self.exchange,
            outcomes,
            self.timekeeper,
            room=self.outbox,
            clock=clock,
            metrics=self.metrics,
            stretching=Stretching(
                "default",
                schedule,
                self.budget,
                window_s=60.0,
                weight=WEIGHT,
                clock=clock,
                metrics=self.metrics,
            ),
            observer=lambda account, outcome, _lateness_s: self.observed.append((account.name, outcome)),
            beat=self.beat,
            tracer=self,
        )

    def poll(self, trace: PollTrace) -> None:
        self.polls.append(trace)

    def delivery(self, trace: DeliveryTrace) -> None:
        raise AssertionError

    async def _measure(self) -> None:
        self.measured.append(self.clock.monotonic_s())
        if self.measure_fails:
            raise self.measure_fails.pop(0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        keeping = asyncio.create_task(self.timekeeper.run())
        running = asyncio.create_task(self.dispatcher.run())
        yield
        self.dispatcher.stop()
        await running
        keeping.cancel()

    async def run(self, seconds: float) -> None:
        async with self.running():
            await asyncio.sleep(seconds)


MakeWorld = Callable[..., World]


@pytest.fixture
def world(clock: VirtualClock) -> MakeWorld:
    def make(*accounts: Account, **options: Any) -> World:
        return World(clock, accounts or (Account("alice", 10.0, stale_after_s=30.0),), **options)

    return make


def alice_at(*slots: int) -> list[Any]:
    return [pytest.approx(phase_s("alice", 10.0) + 10 * slot) for slot in slots]


async def test_an_account_is_polled_at_its_place_and_what_changed_is_accepted(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [ONE_BTC, ONE_BTC, TWO_BTC]
    await w.run(40)
    assert w.exchange.times() == alice_at(0, 1, 2, 3)
    assert w.outbox.told() == [(1, "first"), (2, "changed"), (3, "changed")]
    assert w.metrics.value("polls_total", egress="default", outcome="ok", scope="none") == 4


async def test_a_failed_poll_is_never_a_balance_and_the_next_one_is_the_retry(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [
        ONE_BTC,
        Unavailable("HTTP 503", status=503),
        NoResponse("timed out", cause="timeout"),
        BadAnswer("an object", reason="not_a_list"),
    ]
    await w.run(50)
    assert w.exchange.times() == alice_at(0, 1, 2, 3, 4)
    assert w.outbox.told() == [(1, "first"), (1, "stale"), (1, "ok")]
    assert w.metrics.value("rejected_answers_total", reason="not_a_list") == 1


async def test_a_hung_poll_delays_no_other_account_and_is_not_doubled(world: MakeWorld) -> None:
    w = world(Account("alice", 10.0), Account("bob", 10.0))
    w.exchange.script["alice"] = [35.0]
    await w.run(60)
    assert w.exchange.times("bob") == [pytest.approx(phase_s("bob", 10.0) + 10 * n) for n in range(6)]
    assert w.exchange.times() == alice_at(0, 4, 5)


async def test_a_dead_connection_is_retried_at_once_and_charged(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [StaleConnection("reset")]
    await w.run(10)
    assert w.exchange.times() == [*alice_at(0), pytest.approx(phase_s("alice", 10.0) + 0.05)]
    assert w.budget.status().granted == 2 * WEIGHT
    assert w.outbox.told() == [(1, "first")]


async def test_a_refused_timestamp_measures_the_clock_and_repeats_once(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [100.0, ClockSkew("-1021", code=-1021), ClockSkew("-1021", code=-1021)]
    await w.run(110)
    assert len(w.measured) == 2
    assert len(w.exchange.times()) == 2
    assert w.observed[0][1].kind == "clock_skew"  # type: ignore[union-attr]  # it is an error
    assert w.metrics.value("poll_retries_total", reason="clock_skew") == 1


async def test_nothing_after_something_is_confirmed_before_it_is_believed(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [ONE_BTC, (), ONE_BTC, (), ()]
    await w.run(30)
    assert len(w.exchange.calls) == 5
    assert w.outbox.told() == [(1, "first"), (2, "changed")]
    assert w.outbox.records[1].document["balances"] == []


async def test_nothing_that_cannot_be_confirmed_is_not_believed(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [ONE_BTC, (), Unavailable("HTTP 503", status=503), ()]
    await w.run(20)
    assert w.outbox.told() == [(1, "first")]


async def test_an_account_that_never_held_anything_needs_no_confirmation(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [(), ()]
    await w.run(20)
    assert len(w.exchange.calls) == 2
    assert w.outbox.told() == [(1, "first")]


@pytest.mark.parametrize(
    ("error", "silent_s"),
    [
        (RateLimited("429", status=429, retry_after_s=35.0), 35.0),
        (Banned("418", status=418, retry_after_s=600.0), 600.0),
        (Overloaded("-1008", code=-1008), 60.0),
    ],
)
async def test_an_address_that_was_told_to_wait_is_silent_for_every_account(
    world: MakeWorld, error: PollError, silent_s: float
) -> None:
    w = world(*(Account(f"a{n}", 1.0) for n in range(20)))
    async with w.running():
        await asyncio.sleep(5)
        w.exchange.script["*"] = [error]
        await asyncio.sleep(silent_s + 20)
    struck_s = next(at_s for at_s, _ in w.exchange.calls if at_s >= 5) + 0.05
    silence = [at_s for at_s, _ in w.exchange.calls if struck_s < at_s < struck_s + silent_s]
    assert silence == []
    assert [at_s for at_s, _ in w.exchange.calls if at_s >= struck_s + silent_s] != []


async def test_after_a_pause_the_fleet_comes_back_spread_out(world: MakeWorld) -> None:
    w = world(*(Account(f"a{n}", 60.0) for n in range(600)))
    async with w.running():
        await asyncio.sleep(100)
        w.exchange.script["*"] = [RateLimited("429", status=429, retry_after_s=90.0)]
        await asyncio.sleep(180)
    resumed = [at_s for at_s, _ in w.exchange.calls if at_s > 185]
    assert max(sum(at <= other < at + 1 for other in resumed) for at in resumed) <= 25
    assert len({name for at_s, name in w.exchange.calls if at_s > 185}) == 600


async def test_a_refused_key_is_confirmed_quarantined_probed_and_comes_back(world: MakeWorld) -> None:
    w = world(Account("alice", 10.0, stale_after_s=1e6), *(Account(f"a{n}", 10.0) for n in range(8)))
    refused = AccessDenied("-2015", code=-2015)
    w.exchange.script["alice"] = [ONE_BTC, *[refused] * 4]
    await w.run(3100)
    gaps = [b - a for a, b in zip(w.exchange.times(), w.exchange.times()[1:], strict=False)][:5]
    assert gaps == [
        pytest.approx(10),
        pytest.approx(70, abs=10),
        pytest.approx(70, abs=10),
        pytest.approx(910, abs=10),
        pytest.approx(1810, abs=10),
    ]
    assert w.outbox.told() == [(1, "first"), (1, "quarantined"), (1, "heartbeat"), (1, "ok")]
    assert len(w.exchange.times("a0")) == 310


async def test_a_fleet_that_is_refused_alike_is_not_quarantined(world: MakeWorld) -> None:
    w = world(*(Account(f"a{n}", 10.0, stale_after_s=1e6) for n in range(50)))
    async with w.running():
        await asyncio.sleep(20)
        w.exchange.script["*"] = [AccessDenied("-2015", code=-2015)] * 60
        await asyncio.sleep(1800)
    assert w.dispatcher.status().states == {State.OK: 50, State.STALE: 0, State.QUARANTINED: 0}
    assert {record.kind for record in w.outbox.records} == {"snapshot"}


async def test_one_account_with_a_wrong_parameter_does_not_stop_the_others(world: MakeWorld) -> None:
    w = world(Account("alice", 10.0), Account("bob", 10.0))
    w.exchange.script["alice"] = [BadRequest("-3002", code=-3002)] * 100
    await w.run(60)
    assert len(w.exchange.times("bob")) == 6
    assert w.budget.pause_left_s() == 0


async def test_many_accounts_with_a_wrong_request_stop_the_endpoint(world: MakeWorld) -> None:
    w = world(*(Account(f"a{n}", 10.0) for n in range(20)))
    w.exchange.script["*"] = [BadRequest("-1102", code=-1102)] * 100
    await w.run(12)
    assert len(w.exchange.calls) < 20
    assert w.budget.status().pause_cause == "bad_request"


async def test_an_account_without_good_answers_is_called_stale_once_and_ok_again(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [ONE_BTC, *[Unavailable("503", status=503)] * 8]
    await w.run(110)
    assert w.outbox.told() == [(1, "first"), (1, "stale"), (1, "ok")]
    assert w.outbox.records[1].document["reason"] == "no good answer for 30 s"


async def test_staleness_is_told_during_a_pause_too(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [ONE_BTC, Banned("418", status=418, retry_after_s=3600.0)]
    await w.run(120)
    assert w.outbox.told() == [(1, "first"), (1, "stale")]


async def test_polls_wait_while_the_outbox_is_full_and_resume_by_themselves(world: MakeWorld) -> None:
    w = world()
    async with w.running():
        await asyncio.sleep(12)
        w.outbox.room.clear()
        await asyncio.sleep(100)
        assert w.exchange.times() == alice_at(0) or w.exchange.times() == alice_at(0, 1)
        w.outbox.room.set()
        await asyncio.sleep(20)
    assert len(w.exchange.times()) >= 3


async def test_an_answer_that_could_not_be_accepted_is_not_forgotten(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [ONE_BTC, TWO_BTC, TWO_BTC]
    async with w.running():
        await asyncio.sleep(10)
        w.outbox.fails = OutboxFull("no space left on device")
        await asyncio.sleep(10)
        w.outbox.fails = None
        await asyncio.sleep(10)
    assert w.outbox.told() == [(1, "first"), (2, "changed")]


async def test_when_nothing_can_be_promised_any_more_the_dispatcher_stops(world: MakeWorld) -> None:
    w = world()
    w.outbox.fails = OutboxFailed("input/output error")
    keeping = asyncio.create_task(w.timekeeper.run())
    with pytest.raises(ExceptionGroup) as caught:
        await w.dispatcher.run()
    assert caught.group_contains(OutboxFailed)
    keeping.cancel()


async def test_a_bug_in_one_poll_is_that_polls_bug(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [ZeroDivisionError("a bug")]
    await w.run(20)
    assert w.exchange.times() == alice_at(0, 1)
    assert w.metrics.value("polls_total", egress="default", outcome="bug", scope="poll") == 1
    assert w.budget.status().in_flight == 0


async def test_no_poll_goes_before_the_clock_was_measured(world: MakeWorld) -> None:
    w = world(*(Account(f"a{n}", 1.0) for n in range(20)))
    w.measure_fails = [NoResponse("refused", cause="connect")]
    await w.run(3)
    assert w.measured == [0.0, 1.0]
    assert min(at_s for at_s, _ in w.exchange.calls) >= 1.0


async def test_a_clock_that_refuses_to_be_measured_does_not_stop_the_polls_for_ever(world: MakeWorld) -> None:
    w = world()
    w.measure_fails = [Unavailable("503", status=503)] * 50
    await w.run(20)
    assert w.exchange.times() != []


async def test_a_limit_met_by_the_clock_silences_the_polls_too(world: MakeWorld) -> None:
    w = world()
    w.measure_fails = [RateLimited("429", status=429, retry_after_s=45.0)]
    await w.run(100)
    assert min(w.exchange.times()) >= 45.0


async def test_a_machine_that_slept_polls_nobody_twice_and_not_all_at_once(
    world: MakeWorld, clock: VirtualClock
) -> None:
    w = world(*(Account(f"a{n}", 60.0) for n in range(120)))
    async with w.running():
        await asyncio.sleep(130)
        before = len(w.exchange.calls)
        clock.suspended_s += 6 * 3600
        await asyncio.sleep(60)
    after = [name for at_s, name in w.exchange.calls[before:]]
    assert len(w.measured) == 2
    assert max(after.count(name) for name in after) <= 2


async def test_stopping_lets_a_poll_finish_and_grants_no_other(world: MakeWorld) -> None:
    w = world(Account("alice", 10.0), Account("bob", 10.0))
    w.exchange.script["*"] = [5.0, ONE_BTC]
    async with w.running():
        await asyncio.sleep(min(phase_s("alice", 10.0), phase_s("bob", 10.0)) + 0.01)
    assert len(w.exchange.calls) == 1
    assert len(w.outbox.records) == 1


def fleet(count: int, interval_s: float, *, prefix: str = "a", priority: int = 0) -> list[Account]:
    return [Account(f"{prefix}{n}", interval_s, priority=priority, stale_after_s=1e6) for n in range(count)]


def interval_s(w: World, accounts: Sequence[Account], from_s: float, until_s: float) -> float:
    """The mean time between two polls of one account; equals must have been polled equally often."""
    counts = Counter(name for at_s, name in w.exchange.calls if from_s <= at_s < until_s)
    polls = [counts[account.name] for account in accounts]
    assert max(polls) - min(polls) <= 1
    return (until_s - from_s) * len(polls) / sum(polls)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "poller.stretching"
    ]


STRETCHED = ("WARNING", "the fleet wants more than the budget allows; intervals stretch")
FITS_AGAIN = ("INFO", "the fleet fits again; intervals are as configured")


async def test_more_accounts_than_fit_are_all_served_alike_and_use_up_the_budget(world: MakeWorld) -> None:
    accounts = fleet(100, 10.0)
    w = world(*accounts, limit=1200)  # 240 polls a minute for 600 wanted
    await w.run(600)
    assert interval_s(w, accounts, 0, 600) == pytest.approx(25, rel=0.005)
    assert w.metrics.value("interval_stretch", egress="default", priority="0") == 2.5


async def test_short_and_long_intervals_stretch_by_the_same_factor(world: MakeWorld) -> None:
    short, long = fleet(40, 10.0, prefix="short"), fleet(240, 60.0, prefix="long")
    w = world(*short, *long, limit=1200)  # each group alone would use it up
    await w.run(900)
    assert interval_s(w, short, 300, 900) == pytest.approx(20, rel=0.02)
    assert interval_s(w, long, 300, 900) == pytest.approx(120, rel=0.02)
    assert w.budget.status().granted == pytest.approx(15 * 1200, rel=0.005)


async def test_the_higher_priority_keeps_its_interval_and_the_lower_stretches(world: MakeWorld) -> None:
    high, low = fleet(20, 10.0, prefix="high", priority=5), fleet(80, 10.0, prefix="low")
    w = world(*high, *low, limit=1200)
    await w.run(600)
    assert interval_s(w, high, 0, 600) == pytest.approx(10, rel=0.01)
    assert interval_s(w, low, 0, 600) == pytest.approx(40, rel=0.01)
    lateness = w.metrics.value("poll_lateness_seconds_sum", egress="default")
    assert (
        lateness / len(w.exchange.calls) < 3.0
    )  # late by the interval that holds, not by the one configured


async def test_nobody_starves_below_a_priority_that_alone_wants_twice_of_all(world: MakeWorld) -> None:
    high, low = fleet(80, 10.0, prefix="high", priority=9), fleet(20, 10.0, prefix="low")
    w = world(*high, *low, limit=1200)
    await w.run(1800)
    # A fifth of what equal treatment would give: 0.2 x 1200 x 20/100 weight a minute, for 20 accounts.
    assert interval_s(w, low, 300, 1800) == pytest.approx(125, rel=0.03)
    assert interval_s(w, high, 300, 1800) == pytest.approx(80 / (240 - 9.6) * 60, rel=0.03)


async def test_weight_that_others_begin_and_cease_to_use_stretches_and_relaxes_intervals(
    world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    accounts = fleet(100, 10.0)
    w = world(*accounts, limit=4800)  # 3000 wanted
    async with w.running():
        w.exchange.foreign = 0
        await asyncio.sleep(300)
        assert said(caplog) == []
        w.exchange.foreign = 3300  # 1500 are left
        await asyncio.sleep(600)
        stretch = w.metrics.value("interval_stretch", egress="default", priority="0")
        w.exchange.foreign = 0
        await asyncio.sleep(600)
    assert interval_s(w, accounts, 0, 300) == pytest.approx(10, rel=0.01)
    assert 2.0 <= stretch < 2.3
    assert interval_s(w, accounts, 500, 900) == pytest.approx(10 * stretch, rel=0.05)
    assert interval_s(w, accounts, 1300, 1500) == pytest.approx(10, rel=0.01)
    assert w.metrics.value("interval_stretch", egress="default", priority="0") == 1.0
    assert said(caplog) == [STRETCHED, FITS_AGAIN]


async def test_a_fleet_that_does_not_fit_is_told_at_the_start_with_the_sum_and_what_comes_of_it(
    world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    high, low = fleet(20, 10.0, prefix="high", priority=5), fleet(80, 10.0, prefix="low")
    await world(*high, *low, limit=1200).run(300)
    assert said(caplog) == [STRETCHED]
    [told] = [record for record in caplog.records if record.name == "poller.stretching"]
    assert vars(told)["demand"] == "100 accounts / 10 s = 3,000 weight per 60 s > 1,200"
    assert vars(told)["achieved"] == {"priority 5": "10 s -> 10 s", "priority 0": "10 s -> 40 s"}


async def test_the_budget_of_keys_that_are_refused_is_for_the_others(world: MakeWorld) -> None:
    good, refused = fleet(60, 10.0, prefix="good"), fleet(40, 10.0, prefix="refused")
    w = world(*good, *refused, limit=1200)
    for account in refused:
        w.exchange.script[account.name] = [AccessDenied("-2015", code=-2015)] * 20
    await w.run(900)
    # 60 accounts share 240 polls a minute: 15 s, where all 100 would have had 25 s.
    assert interval_s(w, good, 300, 900) == pytest.approx(15, rel=0.03)


async def test_a_poll_waits_for_its_weight_but_nobody_is_late_by_more_than_a_few_seconds(
    world: MakeWorld,
) -> None:
    accounts = fleet(3000, 60.0)
    w = world(*accounts, limit=12_000)  # 15,000 wanted
    await w.run(300)
    assert w.budget.status().granted >= 0.995 * 5 * 12_000
    assert interval_s(w, accounts, 0, 300) == pytest.approx(75, rel=0.005)
    for name in ("a0", "a1", "a2999"):
        gaps = [later - at for at, later in itertools.pairwise(w.exchange.times(name))]
        assert gaps == [pytest.approx(75, abs=5)] * len(gaps)


async def test_every_poll_is_traced_whole_its_repetitions_included(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [ONE_BTC, StaleConnection("dead"), ONE_BTC, Unavailable("no", status=503)]
    await w.run(30)
    good, again, failed = w.polls
    assert [(trace.outcome, trace.scope, trace.weight) for trace in w.polls] == [
        ("ok", "none", WEIGHT), ("ok", "none", 2 * WEIGHT), ("unavailable", "poll", WEIGHT)
    ]  # fmt: skip
    assert (good.account, good.egress) == ("alice", "default")
    assert good.lateness_s == pytest.approx(0.0, abs=1e-6)
    assert good.latency_s == pytest.approx(0.05)
    assert good.began_ns / 1e9 == pytest.approx(START_UTC_S + phase_s("alice", 10.0))
    assert (good.ended_ns - good.began_ns) / 1e9 == pytest.approx(0.05)
    assert (again.ended_ns - again.began_ns) / 1e9 == pytest.approx(0.1)
    assert failed.latency_s == pytest.approx(0.05)


async def test_what_was_never_sent_is_no_poll_to_trace(world: MakeWorld) -> None:
    w = world()
    w.exchange.script["alice"] = [ZeroDivisionError("a bug")]
    await w.run(10)
    assert w.polls == []
