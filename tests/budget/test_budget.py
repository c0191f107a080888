"""Turns, pauses and restarts of one address's budget, on virtual time."""

from __future__ import annotations

import asyncio
import json

import pytest

from poller.budget import Grant, WeightBudget, WeightWindow
from poller.budget.window import GUARD_S
from poller.errors import Banned, Blocked, OutboxFull, RateLimited
from poller.metrics import Metrics
from poller.testing.virtual_time import START_UTC_S, VirtualClock

WEIGHT = 5
FRESH = b'{"version":1,"boot_id":"boot-1","blocks":[],"pause":null,"strikes":0}'


class Ledger:
    """Keeps what was saved last, as a disk would; can be full."""

    def __init__(self) -> None:
        self.state: bytes | None = None
        self.writes = 0
        self.full = False

    async def save(self, state: bytes) -> None:
        if self.full:
            raise OutboxFull("no space left on device")
        self.writes += 1
        self.state = state


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def make(
    ledger: Ledger, clock: VirtualClock, state: bytes | None = FRESH, *, limit: int = 100, lost: bool = False
) -> WeightBudget:
    budget = WeightBudget("default", WeightWindow(limit=limit), clock, ledger.save, metrics=Metrics())
    budget.restore(state, lost=lost)
    return budget


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def spend(budget: WeightBudget, requests: int) -> list[float]:
    """Send and answer at once, as often as told; return when each was granted."""
    granted = []
    for _ in range(requests):
        grant = await budget.acquire(WEIGHT)
        assert grant is not None
        granted.append(now_s())
        budget.answered(grant, used_weight=None, good=True)
    return granted


async def test_the_window_is_used_up_evenly_and_never_exceeded(ledger: Ledger, clock: VirtualClock) -> None:
    granted = await spend(make(ledger, clock), 60)
    for start_s in granted:
        assert sum(start_s <= at < start_s + 60 for at in granted) <= 20
    assert granted[-1] == pytest.approx(2 * (60 + GUARD_S) + 57, abs=3.1)


async def test_who_asks_first_is_granted_first(ledger: Ledger, clock: VirtualClock) -> None:
    budget = make(ledger, clock)
    order: list[int] = []

    async def ask(number: int) -> None:
        grant = await budget.acquire(WEIGHT)
        assert grant is not None
        order.append(number)
        budget.answered(grant)

    async with asyncio.TaskGroup() as tasks:
        for number in range(50):
            tasks.create_task(ask(number))
    assert order == list(range(50))


async def test_a_cancelled_waiter_spends_nothing_and_blocks_nobody(
    ledger: Ledger, clock: VirtualClock
) -> None:
    budget = make(ledger, clock, limit=5)
    await spend(budget, 1)
    waiting = [asyncio.create_task(budget.acquire(WEIGHT)) for _ in range(3)]
    await asyncio.sleep(1)
    waiting[0].cancel()
    waiting[1].cancel()
    grant = await waiting[2]
    assert grant is not None
    assert now_s() == pytest.approx(60 + GUARD_S)
    assert budget.status().granted == 10


async def test_an_answer_makes_room_for_who_waits(ledger: Ledger, clock: VirtualClock) -> None:
    budget = make(ledger, clock, limit=5)
    first = await budget.acquire(WEIGHT)
    assert first is not None
    waiting = asyncio.create_task(budget.acquire(WEIGHT))
    await asyncio.sleep(10)
    budget.answered(first)
    assert await waiting is not None
    assert now_s() == pytest.approx(70 + GUARD_S)


async def test_weight_above_the_share_is_refused_at_once(ledger: Ledger, clock: VirtualClock) -> None:
    with pytest.raises(ValueError, match="weight 101 can never fit a share of 100"):
        await make(ledger, clock).acquire(101)


async def test_during_a_pause_nobody_is_granted_and_who_waited_is_told(
    ledger: Ledger, clock: VirtualClock
) -> None:
    budget = make(ledger, clock, limit=5)
    await spend(budget, 1)
    waiting = asyncio.create_task(budget.acquire(WEIGHT))
    await asyncio.sleep(1)
    await budget.pause(RateLimited("x", status=429, retry_after_s=35), exchange_ms=0)
    assert await waiting is None
    assert await budget.acquire(WEIGHT) is None
    assert now_s() == 1.0
    await budget.resumed()
    assert now_s() == 36.0


async def test_the_later_end_of_two_pauses_wins(ledger: Ledger, clock: VirtualClock) -> None:
    budget = make(ledger, clock)
    await budget.pause(Banned("x", retry_after_s=500), exchange_ms=0)
    await budget.pause(RateLimited("x", retry_after_s=35), exchange_ms=0)
    assert (budget.status().pause_s, budget.status().pause_cause) == (500.0, "banned")


async def test_after_a_pause_one_request_goes_alone_until_it_is_answered(
    ledger: Ledger, clock: VirtualClock
) -> None:
    budget = make(ledger, clock, limit=1000)
    await budget.pause(RateLimited("x", retry_after_s=35), exchange_ms=0)
    await budget.resumed()
    first = await budget.acquire(WEIGHT)
    assert first is not None
    second = asyncio.create_task(budget.acquire(WEIGHT))
    await asyncio.sleep(12)
    assert not second.done()
    budget.answered(first, good=True)
    assert await second is not None


async def test_offences_double_what_is_not_named_until_an_answer_is_good(
    ledger: Ledger, clock: VirtualClock
) -> None:
    budget = make(ledger, clock)
    lengths = []
    for good in (False, False, True, False):
        if good:
            await spend(budget, 1)
        await budget.pause(Blocked("x", status=403), exchange_ms=0)
        lengths.append(budget.pause_left_s())
        await budget.resumed()
    assert lengths == [300.0, 600.0, 300.0, 600.0]


async def test_answers_that_were_under_way_are_not_new_offences(ledger: Ledger, clock: VirtualClock) -> None:
    budget = make(ledger, clock)
    for _ in range(5):
        await budget.pause(Blocked("x", status=403), exchange_ms=0)
    assert budget.pause_left_s() == 300.0


async def test_a_pause_is_durable_before_anybody_is_told(ledger: Ledger, clock: VirtualClock) -> None:
    await make(ledger, clock).pause(Banned("x", retry_after_s=500), exchange_ms=0)
    await asyncio.sleep(100)
    restarted = make(ledger, clock, ledger.state)
    assert restarted.pause_left_s() == 400.0
    assert await restarted.acquire(WEIGHT) is None


async def test_a_pause_that_cannot_be_written_is_in_force_all_the_same(
    ledger: Ledger, clock: VirtualClock
) -> None:
    budget = make(ledger, clock)
    ledger.full = True
    with pytest.raises(OutboxFull):
        await budget.pause(Banned("x", retry_after_s=500), exchange_ms=0)
    assert budget.pause_left_s() == 500.0


async def test_a_pause_ends_for_a_machine_that_slept_through_it(ledger: Ledger, clock: VirtualClock) -> None:
    budget = make(ledger, clock)
    await budget.pause(Banned("x", retry_after_s=5000), exchange_ms=0)
    clock.suspended_s = 4990.0
    await budget.resumed()
    assert now_s() <= 60.0


async def test_a_stepped_wall_clock_does_not_end_a_pause(ledger: Ledger, clock: VirtualClock) -> None:
    budget = make(ledger, clock)
    await budget.pause(Banned("x", retry_after_s=500), exchange_ms=0)
    clock.wall_step_s = 86_400.0
    assert budget.pause_left_s() == 500.0
    assert make(ledger, clock, ledger.state).pause_left_s() == 500.0


async def test_after_a_reboot_a_pause_is_still_in_force(ledger: Ledger, clock: VirtualClock) -> None:
    await make(ledger, clock).pause(Banned("x", retry_after_s=500), exchange_ms=0)
    rebooted = VirtualClock(START_UTC_S + 200, boot="boot-2")
    assert make(ledger, rebooted, ledger.state).pause_left_s() == 300.0


async def test_a_pause_that_was_carried_over_a_reboot_is_not_stepped_away(
    ledger: Ledger, clock: VirtualClock
) -> None:
    await make(ledger, clock).pause(Banned("x", retry_after_s=500), exchange_ms=0)
    rebooted = VirtualClock(START_UTC_S + 200, boot="boot-2")
    budget = make(ledger, rebooted, ledger.state)
    rebooted.wall_step_s = 86_400.0
    assert budget.pause_left_s() == 300.0


@pytest.mark.parametrize("reboot", [False, True])
async def test_a_hundred_restarts_in_a_row_never_overspend(
    ledger: Ledger, clock: VirtualClock, reboot: bool
) -> None:
    granted: list[float] = []
    state: bytes | None = FRESH
    for number in range(100):
        if reboot:
            clock = VirtualClock(START_UTC_S, boot=f"boot-{number}")
        budget = make(ledger, clock, state, limit=600)
        try:
            async with asyncio.timeout(1.7):
                while True:
                    assert await budget.acquire(WEIGHT) is not None
                    granted.append(now_s())
        except TimeoutError:
            pass  # killed with everything in flight
        state = ledger.state
    assert len(granted) >= 120 * 2
    for start_s in granted:
        assert sum(start_s <= at < start_s + 60 for at in granted) <= 120


async def test_weight_is_reserved_once_a_second_and_not_for_every_grant(
    ledger: Ledger, clock: VirtualClock
) -> None:
    await spend(make(ledger, clock, limit=12_000), 400)
    assert 1 <= ledger.writes <= 12  # 400 grants at 40 a second after a head start of three seconds


async def test_what_cannot_be_reserved_is_not_granted(ledger: Ledger, clock: VirtualClock) -> None:
    budget = make(ledger, clock)
    ledger.full = True
    with pytest.raises(OutboxFull):
        await budget.acquire(WEIGHT)
    assert budget.status().granted == 0
    ledger.full = False
    assert isinstance(await budget.acquire(WEIGHT), Grant)


async def test_without_a_past_one_request_goes_first_and_its_answer_tells(
    ledger: Ledger, clock: VirtualClock
) -> None:
    budget = make(ledger, clock, None, limit=100)
    first = await budget.acquire(WEIGHT)
    assert first is not None
    second = asyncio.create_task(budget.acquire(WEIGHT))
    await asyncio.sleep(1)
    assert not second.done()
    budget.answered(first, used_weight=95, good=True)
    assert budget.status().capacity == 10
    assert await second is not None


async def test_without_a_past_and_without_a_report_the_window_is_taken_as_spent(
    ledger: Ledger, clock: VirtualClock
) -> None:
    budget = make(ledger, clock, None)
    await spend(budget, 2)
    assert now_s() == pytest.approx(60.0, abs=0.1)


@pytest.mark.parametrize("state", [b"", b"\0" * 64, b"{}", b'{"version":99}', FRESH[:-9], b"[]"])
async def test_an_unreadable_past_is_taken_as_a_full_window(
    ledger: Ledger, clock: VirtualClock, state: bytes
) -> None:
    await spend(make(ledger, clock, state), 1)
    assert now_s() == pytest.approx(75.0, abs=0.1)


async def test_a_past_that_is_known_to_be_lost_is_taken_as_a_full_window(
    ledger: Ledger, clock: VirtualClock
) -> None:
    await spend(make(ledger, clock, None, lost=True), 1)
    assert now_s() == pytest.approx(75.0, abs=0.1)


async def test_a_lower_limit_is_learned_from_a_429_said_and_known_after_a_restart(
    ledger: Ledger, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    budget = make(ledger, clock, limit=1000)
    for allowed in (1000, 500):
        grant = await budget.acquire(WEIGHT)
        assert grant is not None
        budget.answered(grant, weight=WEIGHT, used_weight=505, limited=True)
        assert budget.status().allowed == allowed
    assert "the exchange allows less than is configured" in caplog.text
    await budget.pause(RateLimited("x", retry_after_s=1), exchange_ms=0)
    assert make(ledger, clock, ledger.state, limit=1000).status().allowed == 500
    await asyncio.sleep(90_000)
    assert make(ledger, clock, ledger.state, limit=1000).status().allowed == 1000


async def test_a_heavier_weight_is_learned_said_and_spent(
    ledger: Ledger, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    budget = make(ledger, clock, limit=12_000)
    for number in range(1, 55):
        grant = await budget.acquire(WEIGHT)
        assert grant is not None
        await asyncio.sleep(0.1)
        budget.answered(grant, weight=WEIGHT, used_weight=10 * number, good=True)
    assert "the exchange charges another weight than is documented" in caplog.text
    grant = await budget.acquire(WEIGHT)
    assert grant is not None
    assert grant.weight == 10


async def test_a_neighbour_is_told_once_and_again_when_gone(
    ledger: Ledger, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    budget = make(ledger, clock, limit=1000)
    for used in (305, 310, 315):
        grant = await budget.acquire(WEIGHT)
        assert grant is not None
        budget.answered(grant, weight=WEIGHT, used_weight=used, good=True)
    await asyncio.sleep(121)
    await spend(budget, 2)
    told = [record.message for record in caplog.records]
    assert told == [
        "somebody else uses weight of this address; our part shrinks by it",
        "nobody else uses weight of this address any more",
    ]


# ---- what changes while it is used


async def test_a_lower_share_waits_until_what_was_spent_fits_it(ledger: Ledger, clock: VirtualClock) -> None:
    budget = make(ledger, clock, limit=100)
    granted = await spend(budget, 10)
    budget.reconfigure(limit=100, share=0.2, in_flight_s=15.0)
    assert budget.status().allowed == 20
    [next_s] = await spend(budget, 1)
    # 50 are spent: the seventh of those ten has to leave the window first.
    assert next_s == pytest.approx(granted[6] + 60 + GUARD_S)


async def test_a_higher_share_wakes_whoever_waits(ledger: Ledger, clock: VirtualClock) -> None:
    budget = make(ledger, clock, limit=100)
    budget.reconfigure(limit=100, share=0.3, in_flight_s=15.0)
    granted = await spend(budget, 6)
    waiting = asyncio.create_task(spend(budget, 1))
    await asyncio.sleep(0.5)
    budget.reconfigure(limit=100, share=1.0, in_flight_s=15.0)
    begun_s = now_s()
    [granted_s] = await waiting
    assert begun_s <= granted_s < granted[0] + 60  # before any of those six has left the window


async def test_from_another_address_one_request_goes_alone_and_only_its_answer_counts(
    ledger: Ledger, clock: VirtualClock
) -> None:
    budget = make(ledger, clock, limit=12_000)
    before = await budget.acquire(WEIGHT)
    assert before is not None
    await asyncio.sleep(1)
    budget.leave_elsewhere()
    await asyncio.sleep(1)
    budget.answered(before, weight=WEIGHT, used_weight=WEIGHT, good=True)
    assert budget.status().reported is None
    alone = await budget.acquire(WEIGHT)
    assert alone is not None
    waiting = asyncio.create_task(budget.acquire(WEIGHT))
    await asyncio.sleep(5)
    assert not waiting.done()
    budget.answered(alone, weight=WEIGHT, used_weight=9_000, good=True)
    assert budget.status().foreign >= 8_990
    assert await waiting is not None


async def test_a_pause_stays_when_requests_leave_from_elsewhere(ledger: Ledger, clock: VirtualClock) -> None:
    budget = make(ledger, clock)
    await budget.pause(Banned("418", retry_after_s=600.0), exchange_ms=0.0)
    budget.leave_elsewhere()
    assert budget.pause_left_s() == 600.0


@pytest.mark.parametrize(("in_flight_s", "kept"), [(15.0, 1), (60.0, 2)])
async def test_what_is_reserved_counts_for_as_long_as_requests_may_be_under_way_now(
    ledger: Ledger, clock: VirtualClock, in_flight_s: float, kept: int
) -> None:
    budget = make(ledger, clock)
    budget.reconfigure(limit=100, share=1.0, in_flight_s=in_flight_s)
    await spend(budget, 1)
    await asyncio.sleep(100)
    await spend(budget, 1)
    assert ledger.state is not None
    assert len(json.loads(ledger.state)["blocks"]) == kept
