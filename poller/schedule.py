"""Who is due when. Pure: time is an argument, in seconds on the monotonic scale.

Every account has its own place in its interval, computed from its name and pinned to the wall
clock's epoch. So a fleet is spread evenly without randomness, an account keeps its place over
restarts, and a crash loop cannot poll anybody twice in one interval by re-rolling dice.

Among those due, the higher priority goes first, then the earlier deadline (due plus interval), so
a short interval is not stuck behind a long one. Polls that were missed coalesce into one.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable
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
    due_s: float
    in_flight: bool = False
    version: int = 0  # what lies in a heap under another version is void


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
    """The fleet's due times. Every operation is logarithmic in the number of accounts."""

    def __init__(self, *, now_s: float, utc_s: float) -> None:
        """Pin the grid: ``now_s`` on the monotonic scale is ``utc_s`` since the epoch."""
        self._epoch_s = utc_s - now_s
        self._entries: dict[str, _Entry] = {}
        self._later: list[tuple[float, str, int]] = []  # by due time
        self._due: list[tuple[int, float, str, int]] = []  # by priority, then deadline

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def add(self, account: Account, now_s: float) -> None:
        """Take up an account that is not in the schedule yet; its first poll comes soon, not at once."""
        if account.name in self._entries:
            raise ValueError(f"account {account.name!r} is scheduled already")
        first_s = self._slot_s(account, min(account.interval_s, FIRST_POLL_WITHIN_S), now_s)
        entry = self._entries[account.name] = _Entry(account, first_s)
        self._push(entry)

    def remove(self, name: str) -> None:
        """Forget an account; a poll in flight finishes, and its ``done`` changes nothing."""
        self._entries.pop(name, None)

    def next_s(self) -> float:
        """Return when somebody is or was next due; infinity if nobody waits."""
        self._drop_void()
        if self._due:
            return self._entries[self._due[0][2]].due_s
        return self._later[0][0] if self._later else math.inf

    def overdue(self, now_s: float) -> int:
        """Return how many are due and wait for their turn."""
        self._collect(now_s)
        return sum(self._valid(name, version) for _, _, name, version in self._due)

    def take(self, now_s: float) -> Due | None:
        """Return who goes first among those due, and count it as in flight; ``None`` if nobody is due."""
        self._collect(now_s)
        self._drop_void()
        if not self._due:
            return None
        _, _, name, _ = heapq.heappop(self._due)
        entry = self._entries[name]
        entry.version += 1
        entry.in_flight = True
        return Due(entry.account, entry.due_s)

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
        entry.due_s = self._slot_s(entry.account, entry.account.interval_s, max(now_s, not_before_s))
        self._push(entry)

    def respread(self, now_s: float) -> int:
        """Move everybody who is overdue to their next place, and return how many that were.

        For the end of a pause and a machine that was suspended: polled where they stand, the whole
        fleet would go at once, which is how a warning becomes a ban.
        """
        self._collect(now_s)
        moved = [self._entries[name] for _, _, name, version in self._due if self._valid(name, version)]
        self._due.clear()
        for entry in moved:
            spread_s = min(entry.account.interval_s, FIRST_POLL_WITHIN_S)
            entry.due_s = self._slot_s(entry.account, spread_s, now_s)
            entry.version += 1
            self._push(entry)
        return len(moved)

    def _slot_s(self, account: Account, interval_s: float, after_s: float) -> float:
        phase = phase_s(account.name, interval_s)
        return next_slot_s(phase, interval_s, after_s + self._epoch_s) - self._epoch_s

    def _push(self, entry: _Entry) -> None:
        heapq.heappush(self._later, (entry.due_s, entry.account.name, entry.version))

    def _collect(self, now_s: float) -> None:
        while self._later and self._later[0][0] <= now_s:
            due_s, name, version = heapq.heappop(self._later)
            if self._valid(name, version):
                account = self._entries[name].account
                heapq.heappush(self._due, (-account.priority, due_s + account.interval_s, name, version))

    def _drop_void(self) -> None:
        while self._due and not self._valid(self._due[0][2], self._due[0][3]):
            heapq.heappop(self._due)
        while self._later and not self._valid(self._later[0][1], self._later[0][2]):
            heapq.heappop(self._later)

    def _valid(self, name: str, version: int) -> bool:
        entry = self._entries.get(name)
        return entry is not None and entry.version == version and not entry.in_flight


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
