"""What is kept of what was seen: bounded, and told once to whoever asks again."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from poller.errors import NoResponse
from poller.model import Account, Balance, Baseline, Change, Reason, Snapshot, State
from poller.observations import (
    HAPPENINGS_KEPT,
    POINT_FIRST_MS,
    POINT_LAST_MS,
    POINTS_KEPT,
    POLLS_KEPT,
    Line,
    Observations,
)
from poller.overview import AmountChange
from poller.records import snapshot_record, status_record
from poller.testing.virtual_time import VirtualClock

ALICE = Account("alice", 60.0)


def answer(value: str | None = "0.5") -> Snapshot:
    balance = Balance("BTC", Decimal(2), btc_valuation=None if value is None else Decimal(value))
    return Snapshot("alice", (balance,), observed_ns=0, uncertainty_ms=1.0, latency_ms=41.26)


async def test_a_good_answer_is_seen_whole(clock: VirtualClock) -> None:
    seen = Observations(clock)
    seen.polled(ALICE, answer(), 0.25)
    alice = seen.of("alice")
    assert alice is not None
    assert (alice.good_ns, alice.lateness_s, alice.total_btc) == (clock.utc_ns(), 0.25, Decimal("0.5"))
    assert (alice.error, alice.error_kind, alice.failures) == ("", "", 0)
    assert alice.line.points() == [0.5]
    [poll] = alice.polls()
    assert (poll.outcome, poll.text, poll.lateness_s, poll.latency_ms) == ("ok", "", 0.25, 41.3)
    assert seen.polls == 1


async def test_what_was_accepted_before_the_start_counts_until_a_good_answer(clock: VirtualClock) -> None:
    def held(account: str, value: str | None) -> Baseline:
        return Baseline(account, balances=answer(value).balances)

    seen = Observations(clock)
    seen.restore([held("alice", "0.25"), held("bob", None), Baseline("carol")])
    alice, bob = seen.of("alice"), seen.of("bob")
    assert alice is not None
    assert bob is not None
    assert (alice.total_btc, alice.good_ns, alice.line.points()) == (Decimal("0.25"), None, [])
    assert bob.total_btc is None
    assert seen.of("carol") is None
    seen.polled(ALICE, NoResponse("no whole answer within 15 s", cause="timeout"), 0.0)
    assert alice.total_btc == Decimal("0.25")
    seen.polled(ALICE, answer(), 0.0)
    assert alice.total_btc == Decimal("0.5")


async def test_failures_are_counted_until_one_is_good(clock: VirtualClock) -> None:
    seen = Observations(clock)
    for _ in range(3):
        seen.polled(ALICE, NoResponse("no whole answer within 15 s", cause="timeout"), 0.0)
    alice = seen.of("alice")
    assert alice is not None
    assert (alice.failures, alice.error_kind, alice.good_ns) == (3, "no_response", None)
    assert alice.polls()[0].latency_ms is None
    seen.polled(ALICE, answer(None), 0.0)
    assert (alice.failures, alice.error, alice.total_btc) == (0, "", None)
    assert alice.line.points() == []


async def test_only_so_many_polls_are_kept_the_newest_first(clock: VirtualClock) -> None:
    seen = Observations(clock)
    for number in range(POLLS_KEPT + 5):
        seen.polled(ALICE, answer(), float(number))
    alice = seen.of("alice")
    assert alice is not None
    assert [poll.lateness_s for poll in alice.polls()] == [float(n) for n in range(POLLS_KEPT + 4, 4, -1)]


async def test_whoever_asks_again_is_told_what_changed_since(clock: VirtualClock) -> None:
    seen = Observations(clock)
    for name in ("a", "b", "c"):
        seen.polled(Account(name, 60.0), answer(), 0.0)
    number = seen.number
    assert seen.changed(number) == []
    seen.polled(Account("b", 60.0), answer(), 0.0)
    assert seen.changed(number) == ["b"]
    seen.touch("a")
    assert seen.changed(number) == ["a", "b"]
    seen.forget("b")
    assert seen.changed(number) == ["a"]
    assert seen.of("b") is None


async def test_changes_and_states_happen_and_unchanged_snapshots_do_not(clock: VirtualClock) -> None:
    positions = iter((7, 8, 9))
    seen = Observations(clock, position=lambda: next(positions))
    change = Change("BTC", "free", Decimal("1.50"), Decimal("2E-8"))

    def told(reason: Reason) -> None:
        record = snapshot_record(ALICE, answer(), id=str(reason), sequence=4, reason=reason, changes=[change])
        seen.told(record, [change] if reason is Reason.CHANGED else [])

    told(Reason.CHANGED)
    told(Reason.HEARTBEAT)
    stale = status_record(ALICE, id="s", sequence=4, state=State.STALE, reason="silent", since_ns=1)
    seen.told(stale, ())
    changed, turned = seen.happenings()
    first = changed.number
    assert (changed.kind, changed.reason, changed.account) == ("snapshot", "changed", "alice")
    assert changed.changes == [AmountChange("BTC", "free", "1.5", "0.00000002")]
    assert (turned.kind, turned.reason, turned.text) == ("status", "stale", "silent")
    assert seen.happenings(after=first) == [turned]
    assert turned.number == first + 1
    assert seen.happenings(after=first + 1) == []
    alice = seen.of("alice")
    assert alice is not None
    assert (alice.sequence, alice.position, alice.reason) == (4, 9, "silent")


async def test_only_the_last_happenings_are_kept_and_their_numbers_go_on(clock: VirtualClock) -> None:
    seen = Observations(clock)
    record = status_record(ALICE, id="s", sequence=0, state=State.STALE, reason="", since_ns=1)
    for _ in range(HAPPENINGS_KEPT + 10):
        seen.told(record, ())
    numbers = [h.number for h in seen.happenings()]
    assert numbers == list(range(numbers[0], numbers[0] + HAPPENINGS_KEPT))
    assert [h.number for h in seen.happenings(after=numbers[-3])] == numbers[-2:]
    assert numbers == [h.number for h in seen.happenings(after=numbers[0] - 5)]


async def test_who_knows_what_happened_before_a_restart_misses_nothing_after_it(clock: VirtualClock) -> None:
    record = status_record(ALICE, id="s", sequence=0, state=State.STALE, reason="", since_ns=1)
    before = Observations(clock)
    for _ in range(50):
        before.told(record, ())
    known = before.happenings()[-1].number
    await asyncio.sleep(0.1)
    seen = Observations(clock)
    seen.told(record, ())
    assert seen.happenings(after=known) == seen.happenings() != []


@given(st.lists(st.integers(1, 3 * POINT_LAST_MS), max_size=300))
def test_a_line_is_bounded_and_ends_with_the_last_value(steps: list[int]) -> None:
    line, at_ms = Line(), 0
    for number, step in enumerate(steps):
        at_ms += step
        line.add(Decimal(number), at_ms)
    points = line.points()
    assert len(points) <= POINTS_KEPT
    assert points == sorted(points)
    assert points[-1:] == ([float(len(steps) - 1)] if steps else [])


def test_a_line_thins_itself_out_until_its_points_are_half_an_hour_apart() -> None:
    line = Line()
    for number in range(POINTS_KEPT):
        line.add(Decimal(number), number * POINT_FIRST_MS)
    assert line.points() == [float(n) for n in range(POINTS_KEPT)]
    line.add(Decimal(48), 48 * POINT_FIRST_MS)
    assert line.points() == [*(float(n) for n in range(1, POINTS_KEPT, 2)), 48.0]
    for number in range(1, 400):
        line.add(Decimal(number), number * POINT_LAST_MS)
    assert line.points() == [float(n) for n in range(352, 400)]
