"""Capacity: what a fleet wants of an address's weight, what there is, and who waits how much longer. Pure.

When the fleet wants more than there is, intervals stretch: the higher priority keeps its own as far
as it goes, everybody of one priority is stretched by the same factor, and every priority keeps a
floor, so that nobody starves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from poller.model import Account

# Of the capacity, divided by demand, before priorities count: the last in line is polled at a fifth of
# what equal treatment would give it, and never not at all.
FLOOR = 0.2


@dataclass(frozen=True, slots=True)
class Demand:
    """What the accounts of one priority on one address want and get.

    Attributes:
        accounts: how many there are.
        wanted: weight per window.
        given: weight per window.
        shortest_s: the shortest interval among them, as configured.
        stretch: by what factor each interval grows; 1.0 if everybody gets what they want.
    """

    priority: int
    accounts: int
    wanted: float
    given: float
    shortest_s: float

    @property
    def stretch(self) -> float:
        """Achieved interval over the configured one."""
        return self.wanted / self.given if self.given > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One address.

    Attributes:
        capacity: weight per window that we may use.
        demands: by priority, the highest first.
    """

    egress: str
    capacity: float
    demands: tuple[Demand, ...]

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
        return self.wanted / self.capacity if self.capacity > 0 else float("inf")

    @property
    def headroom(self) -> float:
        """Weight per window that nobody wants; 0.0 if there is none."""
        return max(0.0, self.capacity - self.wanted)


def plan(
    egress: str, accounts: Iterable[Account], *, capacity: float, window_s: float, weight: int = 5
) -> Plan:
    """Divide an address's weight among its accounts.

    Args:
        egress: name of the address.
        accounts: those that use it.
        capacity: weight per window that they may use together.
        window_s: length of the window.
        weight: of one poll.
    """
    wanted: dict[int, float] = {}
    counts: dict[int, int] = {}
    shortest: dict[int, float] = {}
    for account in accounts:
        priority = account.priority
        wanted[priority] = wanted.get(priority, 0.0) + weight * window_s / account.interval_s
        counts[priority] = counts.get(priority, 0) + 1
        shortest[priority] = min(shortest.get(priority, account.interval_s), account.interval_s)
    given = divide(wanted, capacity)
    demands = tuple(
        Demand(priority, counts[priority], wanted[priority], given[priority], shortest[priority])
        for priority in sorted(wanted, reverse=True)
    )
    return Plan(egress, capacity, demands)


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
