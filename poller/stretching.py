"""Keeps intervals stretched to what there is: the plan of an address, made anew as its capacity changes.

Exactly at the capacity, the smallest error would let the budget idle or the line of overdue polls
grow without end. So the aim depends on that line: a little above the capacity while it is short,
below while it is long. It stays at about two seconds' worth at Binance's window, the budget always
has somebody to serve, and nobody is late by more.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from typing import Protocol

from poller.budget import BudgetStatus
from poller.clock import Clock
from poller.metrics import Metrics
from poller.plan import Plan, plan

logger = logging.getLogger(__name__)

LOOKS_PER_WINDOW = 12  # every 5 s at Binance's window
LINE = 1 / 30  # of a window's polls: how many should wait for their turn under overload
GAIN = 0.05  # of the capacity: aimed above it with nobody in line, the same below for each line too many
LOWEST = 0.75  # of the capacity: the deepest aim, however long the line
FITS_AGAIN_BELOW = 0.97  # of the capacity: a fleet at the very edge must not change state with each look
SPEAK_EVERY_S = 60.0


class Schedule(Protocol):
    """What is needed of a schedule."""

    def wanted(self) -> Mapping[tuple[int, float], int]:
        """How many accounts want polls, by priority and interval in seconds."""
        ...

    def overdue(self, now_s: float) -> int:
        """How many wait for their turn."""
        ...

    def set_stretch(self, factors: Mapping[int, float], now_s: float) -> None:
        """Let every interval of a priority take so many times as long from now on."""
        ...


class Budget(Protocol):
    """What is needed of a budget."""

    def status(self) -> BudgetStatus:
        """Its figures; ``capacity`` is what others leave us."""
        ...


def aim(capacity: float, waiting: float) -> float:
    """Return the weight per window to plan for, given how much weight waits for its turn."""
    lines = waiting / (capacity * LINE)
    return capacity * min(1 + GAIN, max(LOWEST, 1 + GAIN * (1 - lines)))


class Stretching:
    """Stretches the intervals of one address's accounts as far as they must be, and says so.

    Args:
        egress: name of the address.
        schedule: whose intervals stretch.
        budget: what there is.
        window_s: length of the exchange's window.
        weight: of one poll.
    """

    def __init__(
        self,
        egress: str,
        schedule: Schedule,
        budget: Budget,
        *,
        window_s: float,
        weight: int,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._egress = egress
        self._schedule = schedule
        self._budget = budget
        self._window_s = window_s
        self._weight = weight
        self._clock = clock
        self._metrics = metrics
        self._shown: set[int] = set()  # priorities with a gauge
        self._said = False  # that intervals stretch
        self._said_s = -math.inf

    async def run(self, changed: Callable[[Mapping[int, float]], object]) -> None:
        """Look twelve times a window, until cancelled; ``changed`` is told by what factor each priority waits."""
        while True:
            changed(self.look().stretches())
            await asyncio.sleep(self._window_s / LOOKS_PER_WINDOW)

    def look(self) -> Plan:
        """Stretch intervals to the present capacity, and return the plan that holds now."""
        now_s = self._clock.monotonic_s()
        wanted = self._schedule.wanted()
        # Not even one poll a window would be no stretch but a stop, and that is the budget's to decide.
        capacity = max(self._weight, self._budget.status().capacity)
        now = self._plan(wanted, capacity)
        waiting = self._schedule.overdue(now_s) * self._weight
        self._schedule.set_stretch(self._plan(wanted, aim(capacity, waiting)).stretches(), now_s)
        for priority, stretch in now.stretches().items():
            self._metrics.interval_stretch.labels(self._egress, str(priority)).set(stretch)
        for priority in self._shown - now.stretches().keys():  # nobody has it any more
            self._metrics.interval_stretch.remove(self._egress, str(priority))
        self._shown = set(now.stretches())
        self._say(now, now_s)
        return now

    def _plan(self, wanted: Mapping[tuple[int, float], int], capacity: float) -> Plan:
        return plan(self._egress, wanted, capacity=capacity, window_s=self._window_s, weight=self._weight)

    def _say(self, now: Plan, now_s: float) -> None:
        stretched = now.use > FITS_AGAIN_BELOW if self._said else not now.fits
        if stretched is self._said or now_s < self._said_s + SPEAK_EVERY_S:
            return
        self._said, self._said_s = stretched, now_s
        if stretched:
            logger.warning(
                "the fleet wants more than the budget allows; intervals stretch",
                extra={"egress": self._egress, "demand": now.verdict, "achieved": achieved(now)},
            )
        else:
            logger.info(
                "the fleet fits again; intervals are as configured",
                extra={"egress": self._egress, "demand": now.verdict},
            )


def achieved(result: Plan) -> dict[str, str]:
    """Return each priority's intervals as they come out: ``{"priority 0": "10 s -> 27.8 s"}``."""
    return {
        f"priority {demand.priority}": f"{_span(demand.shortest_s, demand.longest_s)} s -> "
        f"{_span(*demand.achieved_s)} s"
        for demand in result.demands
    }


def _span(shortest_s: float, longest_s: float) -> str:
    low, high = f"{shortest_s:.3g}", f"{longest_s:.3g}"
    return low if low == high else f"{low} to {high}"
