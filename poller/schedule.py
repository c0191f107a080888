"""Who is due when. Pure: time is an argument, in seconds on the monotonic scale.

Every account has its own place in its interval, computed from its name and pinned to the wall
clock's epoch. So a fleet is spread evenly without randomness, an account keeps its place over
restarts, and a crash loop cannot poll anybody twice in one interval by re-rolling dice.

Among those due, the higher priority goes first, then the earlier deadline (due plus interval), so
a short interval is not stuck behind a long one. Polls that were missed coalesce into one.

When there is not enough weight for all, a priority's intervals stretch by one factor: everybody of
that priority goes by a clock that runs so much slower. Proportions and order hold by themselves,
whatever the factor does over time.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from poller.model import Account

# After a start an account with a long interval is polled within this time all the same, at a
# place of its own: an hour of not knowing is no price for keeping to the grid.
FIRST_POLL_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Due:
    """One poll that may go now. ``due_s`` is when it should have gone: the difference is its lateness."""

    account: Account
    due_s: float


@dataclass(slots=True)
class _Entry:
    account: Account
    place_s: float  # on the clock of its priority
    due_s: float = math.inf  # when that clock reached the place, once it has
    in_flight: bool = False
    is_released: bool = False  # while in flight: whatever its end says of holding is about another key
    version: int = 0  # what lies in a heap under another version is void


class _SlowedClock:
    """The clock that everybody of one priority goes by. It runs behind while their intervals stretch."""

    __slots__ = ("_read_s", "_set_s", "stretch")

    def __init__(self) -> None:
        self.stretch = 1.0
        self._set_s = self._read_s = 0.0  # until it is slowed it is the monotonic clock, to the last bit

    def at_s(self, now_s: float) -> float:
        """Return what it shows now."""
        return self._read_s + (now_s - self._set_s) / self.stretch

    def when_s(self, shown_s: float) -> float:
        """Return when it will show that, if it goes on as it does."""
        return self._set_s + (shown_s - self._read_s) * self.stretch

    def slow(self, stretch: float, now_s: float) -> None:
        """Let a second take ``stretch`` seconds from now on."""
        self._set_s, self._read_s = now_s, self.at_s(now_s)
        self.stretch = stretch


@dataclass(slots=True)
class _Lane:
    """The accounts of one priority."""

    clock: _SlowedClock
    later: list[tuple[float, str, int]]  # heap by place
    due: list[tuple[float, str, int]]  # heap by deadline, on the same clock


def phase_s(name: str, interval_s: float) -> float:
    """Return the account's place in its interval, in seconds from its start: the same for ever."""
    digest = blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 * interval_s


def next_slot_s(phase: float, interval_s: float, after_s: float) -> float:
    """Return the first of ``phase``, ``phase + interval_s``, … that is later than ``after_s``."""
    slot = phase + (math.floor((after_s - phase) / interval_s) + 1) * interval_s
    # Rounding may give back the instant itself: a slot is never now, or a poll would follow itself.
    return slot if slot > after_s else slot + interval_s


class Schedule:
    """The fleet's due times. Every operation on an account is logarithmic in the number of accounts."""

    def __init__(self, *, now_s: float, utc_s: float) -> None:
        """Pin the grid: ``now_s`` on the monotonic scale is ``utc_s`` since the epoch."""
        self._epoch_s = utc_s - now_s
        self._entries: dict[str, _Entry] = {}
        self._lanes: dict[int, _Lane] = {}  # the highest priority first
        self._held: dict[str, float] = {}  # accounts that must not be asked, and until when
        self._wanted: Counter[tuple[int, float]] = Counter()
        self._versions = itertools.count(1)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def add(self, account: Account, now_s: float) -> None:
        """Take up an account that is not in the schedule yet; its first poll comes soon, not at once."""
        if account.name in self._entries:
            raise ValueError(f"account {account.name!r} is scheduled already")
        self._ensure_lane(account.priority)
        entry = self._entries[account.name] = _Entry(account, -math.inf)
        self._wanted[_kind(account)] += 1
        self._place(entry, min(account.interval_s, FIRST_POLL_WITHIN_S), now_s)

    def remove(self, name: str) -> None:
        """Forget an account; a poll in flight finishes, and its ``done`` changes nothing."""
        entry = self._entries.pop(name, None)
        if entry is not None and self._held.pop(name, None) is None:
            self._wanted[_kind(entry.account)] -= 1

    def change(self, account: Account, now_s: float) -> None:
        """Take an account's new settings over. Who keeps interval and priority keeps the place as well.

        Anybody else is due soon at a place of the new interval.
        """
        entry = self._entries[account.name]
        before, entry.account = entry.account, account
        if _kind(before) == _kind(account):
            return
        until_s = self._held.get(account.name)
        if until_s is None:
            self._wanted[_kind(before)] -= 1
            self._wanted[_kind(account)] += 1
        self._ensure_lane(account.priority)
        entry.place_s = -math.inf  # the other priority's clock may show another time
        if until_s is not None:
            self._place(entry, account.interval_s, max(now_s, until_s))
        elif not entry.in_flight:
            self._place(entry, min(account.interval_s, FIRST_POLL_WITHIN_S), now_s)

    def release(self, name: str, now_s: float) -> None:
        """Let an account that must not be asked for a while be due again soon: its key was exchanged.

        Of one in flight the end holds nothing: it was begun with the key from before.
        """
        entry = self._entries[name]
        entry.is_released = entry.in_flight
        if self._held.pop(name, None) is not None:
            self._wanted[_kind(entry.account)] += 1
            entry.place_s = -math.inf
            self._place(entry, min(entry.account.interval_s, FIRST_POLL_WITHIN_S), now_s)

    def due_s(self, name: str) -> float | None:
        """Return when an account is or was next due; ``None`` if it is not in the schedule, or in flight."""
        entry = self._entries.get(name)
        if entry is None or entry.in_flight:
            return None
        if math.isfinite(entry.due_s):
            return entry.due_s
        return self._lanes[entry.account.priority].clock.when_s(entry.place_s)

    def wanted(self) -> dict[tuple[int, float], int]:
        """Return how many accounts want polls, by priority and interval in seconds.

        Those that are held are left out: what they do not use is for the others.
        """
        return {kind: count for kind, count in self._wanted.items() if count}

    def set_stretch(self, factors: Mapping[int, float], now_s: float) -> None:
        """Let every interval of a priority take so many times as long from now on.

        Whoever is half-way to the next poll stays half-way: nobody loses or gains a turn against an equal,
        however often factors change.

        Args:
            factors: by priority; one that is not named keeps its intervals as configured.
            now_s: the present.
        """
        self._collect(now_s)  # who is due stays due
        for priority, lane in self._lanes.items():
            lane.clock.slow(max(1.0, factors.get(priority, 1.0)), now_s)
        for name, until_s in self._held.items():
            entry = self._entries[name]
            if not entry.in_flight and entry.due_s > now_s:
                entry.place_s = -math.inf
                self._place(entry, entry.account.interval_s, max(now_s, until_s))

    def next_s(self) -> float:
        """Return when somebody is or was next due; infinity if nobody waits."""
        soonest_s = math.inf
        for lane in self._lanes.values():
            self._drop_void(lane)
            if lane.due:
                return self._entries[lane.due[0][1]].due_s
            if lane.later:
                soonest_s = min(soonest_s, lane.clock.when_s(lane.later[0][0]))
        return soonest_s

    def overdue(self, now_s: float) -> int:
        """Return how many are due and wait for their turn."""
        self._collect(now_s)
        return sum(
            self._valid(name, version) for lane in self._lanes.values() for _, name, version in lane.due
        )

    def take(self, now_s: float) -> Due | None:
        """Return who goes first among those due, and count it as in flight; ``None`` if nobody is due."""
        self._collect(now_s)
        for lane in self._lanes.values():
            self._drop_void(lane)
            if lane.due:
                _, name, _ = heapq.heappop(lane.due)
                entry = self._entries[name]
                entry.in_flight, entry.is_released = True, False
                if self._held.pop(name, None) is not None:
                    self._wanted[_kind(entry.account)] += 1
                return Due(entry.account, entry.due_s)
        return None

    def done(self, name: str, now_s: float, *, not_before_s: float = 0.0) -> None:
        """Note the end of a poll: the account is next due at its next place that is still to come.

        Args:
            name: the account.
            now_s: the present.
            not_before_s: no poll before this instant; the place after it is taken.
        """
        entry = self._entries.get(name)
        if entry is None or not entry.in_flight:
            return
        entry.in_flight = False
        if entry.is_released:
            not_before_s = 0.0
        if not_before_s > now_s:
            self._held[name] = not_before_s
            self._wanted[_kind(entry.account)] -= 1
        self._place(entry, entry.account.interval_s, max(now_s, not_before_s))

    def respread(self, now_s: float) -> int:
        """Move everybody who is overdue to their next place, and return how many that were.

        For the end of a pause and a machine that was suspended: polled where they stand, the whole
        fleet would go at once, which is how a warning becomes a ban.
        """
        self._collect(now_s)
        moved = 0
        for lane in self._lanes.values():
            late = [self._entries[name] for _, name, version in lane.due if self._valid(name, version)]
            lane.due.clear()
            for entry in late:
                self._place(entry, min(entry.account.interval_s, FIRST_POLL_WITHIN_S), now_s)
            moved += len(late)
        return moved

    def _ensure_lane(self, priority: int) -> None:
        if priority not in self._lanes:
            self._lanes[priority] = _Lane(_SlowedClock(), [], [])
            self._lanes = dict(sorted(self._lanes.items(), reverse=True))

    def _place(self, entry: _Entry, interval_s: float, after_s: float) -> None:
        """Make the account due at its first place after that instant, and void what was planned for it."""
        lane = self._lanes[entry.account.priority]
        phase = phase_s(entry.account.name, interval_s)
        # Later than its last place too: read back, a slowed clock may differ from it in the last bit.
        after_s = max(lane.clock.at_s(after_s), entry.place_s)
        entry.place_s = next_slot_s(phase, interval_s, after_s + self._epoch_s) - self._epoch_s
        entry.due_s = math.inf
        entry.version = next(self._versions)
        heapq.heappush(lane.later, (entry.place_s, entry.account.name, entry.version))

    def _collect(self, now_s: float) -> None:
        for lane in self._lanes.values():
            # The same arithmetic as in next_s, so that what it announced is due when its time has come.
            while lane.later and (due_s := lane.clock.when_s(lane.later[0][0])) <= now_s:
                place_s, name, version = heapq.heappop(lane.later)
                if self._valid(name, version):
                    entry = self._entries[name]
                    entry.due_s = due_s
                    heapq.heappush(lane.due, (place_s + entry.account.interval_s, name, version))

    def _drop_void(self, lane: _Lane) -> None:
        for heap in (lane.due, lane.later):
            while heap and not self._valid(heap[0][1], heap[0][2]):
                heapq.heappop(heap)

    def _valid(self, name: str, version: int) -> bool:
        entry = self._entries.get(name)
        return entry is not None and entry.version == version and not entry.in_flight


def _kind(account: Account) -> tuple[int, float]:
    return account.priority, account.interval_s


class Sweep:
    """Every account once, now: what ``Schedule`` is for a daemon, for a single round."""

    def __init__(self, accounts: Iterable[Account], *, now_s: float) -> None:
        """Line the accounts up, the higher priority first, then in the order given."""
        self._started_s = now_s
        self._waiting = deque(sorted(accounts, key=lambda account: -account.priority))

    def next_s(self) -> float:
        """Return the start of the round while somebody waits, then infinity."""
        return self._started_s if self._waiting else math.inf

    def take(self, now_s: float) -> Due | None:
        """Return who goes next; ``None`` once everybody went."""
        return Due(self._waiting.popleft(), self._started_s) if self._waiting else None

    def done(self, name: str, now_s: float, *, not_before_s: float = 0.0) -> None:
        """Nobody goes twice."""

    def respread(self, now_s: float) -> int:
        """Nobody has another place to go to: the budget's own ramp spreads the rest of the round."""
        return 0
