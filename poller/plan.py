"""Capacity: what a fleet wants of an address's weight, what there is, and who waits how much longer. Pure.

When the fleet wants more than there is, intervals stretch: the higher priority keeps its own as far
as it goes, everybody of one priority is stretched by the same factor, and every priority keeps a
floor, so that nobody starves.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from poller.model import Account

# Of the capacity, divided by demand, before priorities count: the last in line is polled at a fifth of
# what equal treatment would give it, and never not at all.
FLOOR = 0.2

ARITHMETIC_TERMS = 4  # more of them nobody adds up in their head

# What accounts want, as a count by priority and interval in seconds: all that matters here.
Wanted = Mapping[tuple[int, float], int]


@dataclass(frozen=True, slots=True)
class Demand:
    """What the accounts of one priority on one address want and get.

    Attributes:
        accounts: how many there are.
        wanted: weight per window.
        given: weight per window.
        shortest_s: the shortest interval among them, as configured.
        longest_s: the longest.
    """

    priority: int
    accounts: int
    wanted: float
    given: float
    shortest_s: float
    longest_s: float

    @property
    def stretch(self) -> float:
        """By what factor each interval grows: 1.0 if everybody gets what they want."""
        return max(1.0, self.wanted / self.given) if self.given > 0 else math.inf

    @property
    def achieved_s(self) -> tuple[float, float]:
        """The shortest and the longest interval that come of it."""
        return self.shortest_s * self.stretch, self.longest_s * self.stretch


@dataclass(frozen=True, slots=True)
class Plan:
    """One address.

    Attributes:
        capacity: weight per window that we may use.
        window_s: length of the window.
        weight: of one poll.
        demands: by priority, the highest first.
        arithmetic: how the wanted weight comes together, such as
            ``1,000 accounts / 20 s = 15,000 weight per 60 s``.
    """

    egress: str
    capacity: float
    window_s: float
    weight: int
    demands: tuple[Demand, ...]
    arithmetic: str

    @property
    def accounts(self) -> int:
        """How many accounts use the address."""
        return sum(demand.accounts for demand in self.demands)

    @property
    def wanted(self) -> float:
        """Weight per window that all accounts together want."""
        return sum(demand.wanted for demand in self.demands)

    @property
    def fits(self) -> bool:
        """Say whether everybody gets their interval."""
        return self.wanted <= self.capacity * (1 + 1e-9)

    @property
    def use(self) -> float:
        """Demand over capacity: 1.0 is saturated."""
        return self.wanted / self.capacity if self.capacity > 0 else math.inf

    @property
    def headroom(self) -> float:
        """Weight per window that nobody wants; 0.0 if there is none."""
        return max(0.0, self.capacity - self.wanted)

    @property
    def verdict(self) -> str:
        """The arithmetic against the capacity, in one line."""
        return f"{self.arithmetic} {'<=' if self.fits else '>'} {self.capacity:,.0f}"

    def stretches(self) -> dict[int, float]:
        """Return each priority's factor."""
        return {demand.priority: demand.stretch for demand in self.demands}

    def room_for(self, interval_s: float) -> int:
        """Return how many more accounts fit at that interval, in seconds."""
        return math.floor(self.headroom * interval_s / (self.weight * self.window_s) + 1e-9)


def count(accounts: Iterable[Account]) -> Wanted:
    """Return what the accounts want."""
    return Counter((account.priority, account.interval_s) for account in accounts)


def plan(egress: str, wanted: Wanted, *, capacity: float, window_s: float, weight: int = 5) -> Plan:
    """Divide an address's weight among its accounts.

    Args:
        egress: name of the address.
        wanted: what its accounts want.
        capacity: weight per window that they may use together.
        window_s: length of the window.
        weight: of one poll.
    """
    weights: dict[int, float] = {}
    for (priority, interval_s), accounts in wanted.items():
        weights[priority] = weights.get(priority, 0.0) + accounts * weight * window_s / interval_s
    given = divide(weights, capacity)
    demands = []
    for priority in sorted(weights, reverse=True):
        intervals = [interval_s for one, interval_s in wanted if one == priority]
        accounts = sum(accounts for (one, _), accounts in wanted.items() if one == priority)
        demands.append(
            Demand(priority, accounts, weights[priority], given[priority], min(intervals), max(intervals))
        )
    return Plan(egress, capacity, window_s, weight, tuple(demands), _arithmetic(wanted, window_s, weight))


def _arithmetic(wanted: Wanted, window_s: float, weight: int) -> str:
    counts: Counter[float] = Counter()
    for (_, interval_s), accounts in wanted.items():
        counts[interval_s] += accounts
    terms = [f"{_accounts(accounts)} / {interval_s:g} s" for interval_s, accounts in sorted(counts.items())]
    if len(terms) > ARITHMETIC_TERMS:
        terms = [f"{_accounts(counts.total())} at {len(terms)} intervals"]
    total = sum(accounts * weight * window_s / interval_s for interval_s, accounts in counts.items())
    return f"{' + '.join(terms) or 'no account'} = {total:,.0f} weight per {window_s:g} s"


def _accounts(number: int) -> str:
    return f"{number:,} account{'' if number == 1 else 's'}"


def divide(wanted: Mapping[int, float], capacity: float) -> dict[int, float]:
    """Return what each priority gets: its floor first, then what it wants, the highest first."""
    total = sum(wanted.values())
    if total <= capacity:
        return dict(wanted)
    given = {priority: FLOOR * capacity * want / total for priority, want in wanted.items()}
    left = capacity * (1 - FLOOR)
    for priority in sorted(wanted, reverse=True):
        more = min(left, wanted[priority] - given[priority])
        given[priority] += more
        left -= more
    return given
