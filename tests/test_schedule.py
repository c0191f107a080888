"""Who is due when: exact times, and what holds for every fleet."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from poller.model import Account
from poller.schedule import FIRST_POLL_WITHIN_S, Schedule, Sweep, next_slot_s, phase_s

UTC_S = 1_767_225_600.0


def fleet(*accounts: Account, now_s: float = 0.0) -> Schedule:
    schedule = Schedule(now_s=now_s, utc_s=UTC_S + now_s)
    for account in accounts:
        schedule.add(account, now_s)
    return schedule


def polls(schedule: Schedule, until_s: float, *, takes_s: float = 0.0) -> list[tuple[str, float]]:
    """Poll whenever somebody is due, one after another; return (name, due time)."""
    seen = []
    now_s = 0.0
    while (now_s := max(now_s, schedule.next_s())) <= until_s:
        due = schedule.take(now_s)
        assert due is not None
        seen.append((due.account.name, due.due_s))
        now_s += takes_s
        schedule.done(due.account.name, now_s)
    return seen


def test_phases_are_known_and_do_not_move() -> None:
    assert phase_s("alice", 60.0) == pytest.approx(18.2620, abs=1e-4)
    assert phase_s("bob", 60.0) == pytest.approx(27.4101, abs=1e-4)
    assert phase_s("alice", 10.0) == pytest.approx(3.0437, abs=1e-4)


@given(st.floats(0, 1e9), st.floats(0.1, 86_400), st.floats(0, 1))
def test_a_slot_is_the_first_of_its_grid_after_now(after_s: float, interval_s: float, place: float) -> None:
    slot = next_slot_s(place * interval_s, interval_s, after_s)
    assert slot > after_s
    assert slot - after_s <= interval_s * (1 + 1e-6) + 1e-6


def test_an_account_is_polled_once_an_interval_at_its_own_place() -> None:
    phase = phase_s("alice", 10.0)
    due = [at for _, at in polls(fleet(Account("alice", 10.0)), until_s=40)]
    assert due == pytest.approx([phase, phase + 10, phase + 20, phase + 30])


def test_a_restart_keeps_everybody_at_their_place() -> None:
    accounts = [Account(f"sub-{n}", 60.0) for n in range(20)]
    before = {name: at % 60 for name, at in polls(fleet(*accounts), until_s=60)}
    restarted = Schedule(now_s=5000.0, utc_s=UTC_S + 123.456)
    for account in accounts:
        restarted.add(account, 5000.0)
    after: dict[str, float] = {}
    while len(after) < 20:
        due = restarted.take(restarted.next_s())
        assert due is not None
        after[due.account.name] = (due.due_s - 5000.0 + 123.456) % 60
    assert after == pytest.approx(before)


def test_a_fleet_is_spread_over_the_interval() -> None:
    places = Counter(int(phase_s(f"sub-{n}", 60.0)) for n in range(6000))
    assert len(places) == 60
    assert max(places.values()) < 150  # 100 on average


def test_a_long_interval_does_not_delay_the_first_poll() -> None:
    [(_, first), (_, second)] = polls(fleet(Account("slow", 3600.0)), until_s=3660)
    assert first <= FIRST_POLL_WITHIN_S
    assert second == pytest.approx(phase_s("slow", 3600.0))


def test_the_earliest_deadline_goes_first_among_those_due() -> None:
    schedule = fleet(Account("slow", 60.0), Account("fast", 5.0))
    due = schedule.take(60.0)
    assert due is not None
    assert due.account.name == "fast"


def test_priority_goes_before_the_deadline() -> None:
    schedule = fleet(Account("fast", 5.0), Account("vip", 60.0, priority=1))
    due = schedule.take(60.0)
    assert due is not None
    assert due.account.name == "vip"


def test_an_account_in_flight_is_not_taken_again() -> None:
    schedule = fleet(Account("alice", 5.0))
    assert schedule.take(10.0) is not None
    assert schedule.take(100.0) is None
    assert schedule.next_s() == float("inf")
    schedule.done("alice", 100.0)
    assert 100.0 < schedule.next_s() <= 105.0


def test_missed_polls_coalesce_into_one() -> None:
    schedule = fleet(Account("alice", 10.0))
    phase = phase_s("alice", 10.0)
    due = schedule.take(95.0)
    assert due is not None
    assert due.due_s == pytest.approx(phase)
    schedule.done("alice", 95.0)
    assert schedule.take(95.0) is None
    assert schedule.next_s() == pytest.approx(phase + 100 if phase + 90 <= 95 else phase + 90)


def test_a_hold_moves_the_next_poll_behind_it() -> None:
    schedule = fleet(Account("alice", 10.0))
    schedule.take(10.0)
    schedule.done("alice", 10.0, not_before_s=910.0)
    assert 910.0 < schedule.next_s() <= 920.0


def test_after_a_stall_the_fleet_is_spread_anew_instead_of_going_at_once() -> None:
    accounts = [Account(f"sub-{n}", 30.0) for n in range(300)]
    schedule = fleet(*accounts)
    assert schedule.overdue(21_600.0) == 300
    assert schedule.respread(21_600.0) == 300
    assert schedule.take(21_600.0) is None
    per_second: Counter[int] = Counter()
    while (at := schedule.next_s()) <= 21_630.0:
        schedule.take(at)
        per_second[int(at)] += 1
    assert sum(per_second.values()) == 300
    assert max(per_second.values()) < 25  # 10 on average


def test_an_account_that_was_removed_is_never_due() -> None:
    schedule = fleet(Account("alice", 10.0), Account("bob", 10.0))
    schedule.take(3.0)
    schedule.remove("alice")
    schedule.done("alice", 20.0)
    assert {name for name, _ in polls(schedule, until_s=60)} == {"bob"}
    assert "alice" not in schedule


def test_the_same_name_twice_is_refused() -> None:
    schedule = fleet(Account("alice", 10.0))
    with pytest.raises(ValueError, match="'alice' is scheduled already"):
        schedule.add(Account("alice", 20.0), 0.0)


def test_a_stretched_interval_takes_so_many_times_as_long() -> None:
    schedule = fleet(Account("alice", 10.0), Account("vip", 10.0, priority=1))
    schedule.set_stretch({0: 2.5}, 0.0)
    seen = polls(schedule, until_s=100.0)
    assert [at for name, at in seen if name == "vip"] == pytest.approx(
        [phase_s("vip", 10.0) + 10 * n for n in range(10)]
    )
    assert [at for name, at in seen if name == "alice"] == pytest.approx(
        [2.5 * phase_s("alice", 10.0) + 25 * n for n in range(4)]
    )


def test_a_factor_below_one_shortens_nothing() -> None:
    schedule = fleet(Account("alice", 10.0))
    schedule.set_stretch({0: 0.5}, 0.0)
    assert schedule.next_s() == pytest.approx(phase_s("alice", 10.0))


def test_whoever_is_half_way_stays_half_way_when_the_stretch_changes() -> None:
    schedule = fleet(Account("alice", 10.0))
    due_s = phase_s("alice", 10.0)
    schedule.take(due_s)
    schedule.done("alice", due_s)
    schedule.set_stretch({0: 4.0}, due_s + 5.0)  # 5 s of 10 are left: now they take 20
    assert schedule.next_s() == pytest.approx(due_s + 25.0)
    schedule.set_stretch({}, due_s + 15.0)  # 10 of those 20 are left: 2.5 s unstretched
    assert schedule.next_s() == pytest.approx(due_s + 17.5)


def test_whoever_is_due_stays_due_when_the_stretch_changes() -> None:
    schedule = fleet(Account("alice", 10.0))
    due_s = schedule.next_s()
    schedule.set_stretch({0: 100.0}, due_s)
    assert schedule.next_s() == due_s
    assert schedule.take(due_s) is not None


@pytest.mark.parametrize("stretch", [1.0, 3.0])
def test_a_hold_is_kept_whatever_the_stretch_becomes(stretch: float) -> None:
    schedule = fleet(Account("alice", 10.0))
    schedule.set_stretch({0: 20.0}, 0.0)
    schedule.take(200.0)
    schedule.done("alice", 200.0, not_before_s=1100.0)
    schedule.set_stretch({0: stretch}, 300.0)
    assert 1100.0 < schedule.next_s() <= 1100.0 + 10 * stretch


def test_what_is_wanted_leaves_out_those_who_are_held_until_they_are_polled_again() -> None:
    schedule = fleet(Account("alice", 10.0), Account("bob", 10.0), Account("carol", 60.0, priority=4))
    everybody = {(0, 10.0): 2, (4, 60.0): 1}
    assert schedule.wanted() == everybody
    taken = schedule.take(60.0)
    assert taken is not None
    assert schedule.wanted() == everybody
    schedule.done(taken.account.name, 60.0, not_before_s=960.0)
    assert schedule.wanted() == {(0, 10.0): 2}
    assert schedule.respread(60.0) == 2
    while (due := schedule.take(schedule.next_s())) is not None and due.account.name != "carol":
        schedule.done(due.account.name, due.due_s)
    assert schedule.wanted() == everybody
    schedule.remove("bob")
    schedule.remove("bob")
    assert schedule.wanted() == {(0, 10.0): 1, (4, 60.0): 1}


def test_an_account_that_comes_back_under_its_name_is_due_once() -> None:
    schedule = fleet(Account("alice", 10.0))
    schedule.remove("alice")
    schedule.add(Account("alice", 10.0), 0.0)
    assert [name for name, _ in polls(schedule, until_s=30.0)] == ["alice"] * 3


@given(
    st.lists(st.tuples(st.floats(0.1, 300.0), st.floats(1.0, 50.0)), min_size=1, max_size=12),
    st.lists(st.sampled_from([5.0, 10.0, 60.0]), min_size=2, max_size=6),
)
def test_equals_are_polled_equally_often_however_the_stretch_changes(
    changes: list[tuple[float, float]], intervals: list[float]
) -> None:
    accounts = [
        Account(f"a{n}-{twin}", interval_s) for n, interval_s in enumerate(intervals) for twin in "xy"
    ]
    schedule = fleet(*accounts)
    counts: Counter[str] = Counter()
    now_s = 0.0
    for length_s, stretch in changes:
        schedule.set_stretch({0: stretch}, now_s)
        until_s = now_s + length_s
        while (at_s := schedule.next_s()) <= until_s:
            due = schedule.take(at_s)
            assert due is not None, "announced, and not there when its time has come"
            counts[due.account.name] += 1
            schedule.done(due.account.name, at_s)
        now_s = until_s
    for interval_s in set(intervals):
        equals = [counts[account.name] for account in accounts if account.interval_s == interval_s]
        assert max(equals) - min(equals) <= 1


class ScheduleAgainstReference(RuleBasedStateMachine):
    """The heaps against a plain list that is searched from end to end, on clocks that add up step by step."""

    @initialize(intervals=st.lists(st.sampled_from([1.0, 2.5, 10.0, 60.0]), min_size=1, max_size=6))
    def start(self, intervals: list[float]) -> None:
        self.now_s = 0.0
        self.clocks = {0: 0.0, 1: 0.0}  # what each priority's slowed clock shows
        self.stretch = {0: 1.0, 1: 1.0}
        self.held: dict[str, float] = {}
        self.schedule = Schedule(now_s=0.0, utc_s=UTC_S)
        self.accounts = {
            f"a{n}": Account(f"a{n}", interval_s, priority=n % 2) for n, interval_s in enumerate(intervals)
        }
        self.due: dict[str, float] = {}  # on the clock of the priority
        self.in_flight: set[str] = set()
        for name, account in self.accounts.items():
            self.schedule.add(account, 0.0)
            self.due[name] = self.slot(name)

    def clock(self, name: str) -> float:
        return self.clocks[self.accounts[name].priority]

    def waiting(self) -> list[str]:
        return [name for name, due_s in self.due.items() if due_s <= self.clock(name)]

    def slot(self, name: str, later_s: float = 0.0) -> float:
        account = self.accounts[name]
        interval_s = account.interval_s
        after_s = self.clock(name) + later_s / self.stretch[account.priority]
        return next_slot_s(phase_s(name, interval_s), interval_s, after_s + UTC_S) - UTC_S

    @rule(seconds=st.sampled_from([0.1, 0.7, 3.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        for priority, stretch in self.stretch.items():
            self.clocks[priority] += seconds / stretch

    @rule(priority=st.sampled_from([0, 1]), stretch=st.sampled_from([1.0, 1.3, 7.0]))
    def stretch_changes(self, priority: int, stretch: float) -> None:
        waiting = self.waiting()
        self.stretch[priority] = stretch
        self.schedule.set_stretch(self.stretch, self.now_s)
        for name, until_s in self.held.items():
            if name not in waiting:
                self.due[name] = self.slot(name, max(0.0, until_s - self.now_s))

    @rule()
    def take(self) -> None:
        best = min(
            self.waiting(),
            key=lambda name: (
                -self.accounts[name].priority,
                self.due[name] + self.accounts[name].interval_s,
                name,
            ),
            default=None,
        )
        taken = self.schedule.take(self.now_s)
        assert (taken.account.name if taken else None) == best
        if best is not None:
            assert taken is not None
            assert taken.due_s <= self.now_s
            del self.due[best]
            self.held.pop(best, None)
            self.in_flight.add(best)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), hold_s=st.sampled_from([0.0, 30.0]))
    def done(self, data: st.DataObject, hold_s: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.in_flight)))
        self.in_flight.discard(name)
        self.schedule.done(name, self.now_s, not_before_s=self.now_s + hold_s)
        self.due[name] = self.slot(name, hold_s)
        if hold_s:
            self.held[name] = self.now_s + hold_s

    @rule()
    def respread(self) -> None:
        late = self.waiting()
        assert self.schedule.respread(self.now_s) == len(late)
        for name in late:
            self.due[name] = self.slot(name)

    @invariant()
    def agrees_on_how_many_wait(self) -> None:
        if hasattr(self, "due"):
            assert self.schedule.overdue(self.now_s) == len(self.waiting())

    @invariant()
    def announces_who_is_next(self) -> None:
        if hasattr(self, "due") and self.due and not self.waiting():
            soonest_s = min(
                (due_s - self.clock(name)) * self.stretch[self.accounts[name].priority]
                for name, due_s in self.due.items()
            )
            assert self.schedule.next_s() - self.now_s == pytest.approx(soonest_s, abs=1e-6)


TestScheduleAgainstReference = ScheduleAgainstReference.TestCase


def test_a_sweep_takes_everybody_once_the_higher_priority_first() -> None:
    sweep = Sweep([Account("alice", 60.0), Account("bob", 60.0), Account("vip", 60.0, priority=3)], now_s=5.0)
    taken = []
    while sweep.next_s() <= 5.0:
        due = sweep.take(5.0)
        assert due is not None
        taken.append((due.account.name, due.due_s))
        sweep.done(due.account.name, 6.0)
    assert taken == [("vip", 5.0), ("alice", 5.0), ("bob", 5.0)]
    assert sweep.take(7.0) is None


# ---- accounts that change while they are polled


def test_who_keeps_interval_and_priority_keeps_the_place() -> None:
    schedule = fleet(Account("alice", 10.0), Account("bob", 10.0))
    before = schedule.due_s("alice"), schedule.due_s("bob")
    schedule.change(Account("alice", 10.0, labels={"desk": "mm"}), 1.0)
    assert (schedule.due_s("alice"), schedule.due_s("bob")) == before
    due = schedule.take(10.0)
    assert due is not None
    assert due.account.labels == {"desk": "mm"}


def test_another_interval_takes_its_place_in_that_and_the_others_keep_theirs() -> None:
    schedule = fleet(Account("alice", 3600.0), Account("bob", 60.0))
    bob_s = schedule.due_s("bob")
    schedule.change(Account("alice", 10.0), 5.0)
    assert schedule.due_s("alice") == pytest.approx(
        phase_s("alice", 10.0) + 10 * (phase_s("alice", 10.0) <= 5)
    )
    assert schedule.due_s("bob") == bob_s
    assert schedule.wanted() == {(0, 10.0): 1, (0, 60.0): 1}


def test_a_change_in_flight_counts_from_its_end() -> None:
    schedule = fleet(Account("alice", 10.0))
    assert schedule.take(10.0) is not None
    schedule.change(Account("alice", 60.0, priority=3), 10.5)
    assert schedule.due_s("alice") is None
    schedule.done("alice", 11.0)
    assert schedule.due_s("alice") == pytest.approx(phase_s("alice", 60.0))
    assert schedule.wanted() == {(3, 60.0): 1}


def test_an_overdue_account_whose_priority_changes_goes_once() -> None:
    schedule = fleet(Account("alice", 10.0))
    assert schedule.overdue(10.0) == 1
    schedule.change(Account("alice", 10.0, priority=5), 10.0)
    assert schedule.overdue(10.0) == 0
    assert [name for name, _ in polls(schedule, 30.0)] == ["alice", "alice"]


def test_who_must_not_be_asked_is_due_soon_once_that_is_over() -> None:
    schedule = fleet(Account("alice", 10.0))
    assert schedule.take(10.0) is not None
    schedule.done("alice", 10.5, not_before_s=5000.0)
    assert schedule.wanted() == {}
    schedule.change(Account("alice", 20.0), 11.0)
    assert (schedule.due_s("alice") or 0.0) > 5000.0
    schedule.release("alice", 12.0)
    assert 12.0 < (schedule.due_s("alice") or 0.0) <= 32.0
    assert schedule.wanted() == {(0, 20.0): 1}
    schedule.release("alice", 12.0)  # harmless when nothing holds it
    assert schedule.wanted() == {(0, 20.0): 1}


def test_a_release_in_flight_outlasts_the_hold_that_its_end_asks_for() -> None:
    schedule = fleet(Account("alice", 10.0))
    assert schedule.take(10.0) is not None
    schedule.release("alice", 10.2)
    schedule.done("alice", 10.5, not_before_s=5000.0)
    assert 10.5 < (schedule.due_s("alice") or 0.0) <= 20.5
    assert schedule.wanted() == {(0, 10.0): 1}
    assert schedule.take(21.0) is not None
    schedule.done("alice", 21.5, not_before_s=5000.0)  # the next one counts again
    assert (schedule.due_s("alice") or 0.0) > 5000.0


def test_whoever_comes_changes_or_goes_the_others_keep_their_places_to_the_last_bit() -> None:
    others = [Account(f"a{number}", 10.0 + number, priority=number % 3) for number in range(30)]
    alone, crowded = fleet(*others), fleet(*others, Account("guest", 7.0), Account("held", 7.0, priority=1))
    quiet = polls(alone, 200.0)
    taken = []
    for now_s in range(0, 200, 10):
        match now_s:
            case 50:
                crowded.change(Account("guest", 3.0, priority=2), 50.0)
            case 90:
                crowded.remove("guest")
            case 120:
                crowded.add(Account("guest", 11.0, priority=9), 120.0)
            case 150:
                crowded.release("held", 150.0)
        taken += polls(crowded, now_s + 10.0)
    names = {account.name for account in others}
    assert sorted(poll for poll in taken if poll[0] in names) == sorted(quiet)


def test_nobody_is_due_who_is_not_there() -> None:
    assert fleet().due_s("alice") is None


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["change", "release", "poll", "hold", "stretch", "wait"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([5.0, 60.0, 600.0]),
        st.integers(0, 2),
    ),
    max_size=40,
)


@given(_CHANGES)
def test_whatever_changes_everybody_stays_in_the_schedule_once(
    steps: list[tuple[str, str, float, int]],
) -> None:
    accounts = {name: Account(name, 60.0) for name in ("a", "b", "c")}
    schedule = fleet(*accounts.values())
    held: set[str] = set()
    now_s = 0.0
    for what, name, interval_s, priority in steps:
        match what:
            case "change":
                accounts[name] = Account(name, interval_s, priority=priority)
                schedule.change(accounts[name], now_s)
            case "release":
                schedule.release(name, now_s)
                held.discard(name)
            case "stretch":
                schedule.set_stretch({priority: 1.0 + interval_s / 60.0}, now_s)
            case "wait":
                now_s += interval_s / 3
            case _:
                due = schedule.take(now_s)
                if due is not None:
                    held.discard(due.account.name)
                    assert due.account is accounts[due.account.name]
                    if what == "hold":
                        held.add(due.account.name)
                    schedule.done(due.account.name, now_s, not_before_s=now_s + 900 * (what == "hold"))
        wanted = Counter((a.priority, a.interval_s) for a in accounts.values() if a.name not in held)
        assert schedule.wanted() == dict(wanted)
        assert all(schedule.due_s(name) is not None for name in accounts)
    # In the end everybody is taken exactly once before anybody is taken again.
    now_s += 1e5
    taken = [schedule.take(now_s) for _ in range(3)]
    assert sorted(due.account.name for due in taken if due is not None) == ["a", "b", "c"]
    assert schedule.take(now_s) is None
