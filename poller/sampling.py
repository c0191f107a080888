"""Looks at a running daemon once a second: weights, rates, and how old what waits for each sink is."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from poller.clock import Clock
from poller.errors import OutboxError
from poller.outbox.ages import Ages
from poller.overview import WeightSeen
from poller.parts import Parts

EVERY_S: Final = 1.0
SECONDS_KEPT: Final = 120
RATE_OVER_S: Final = 60


class Rate:
    """How fast a count grows, over the last minute or as long as it is watched."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque(maxlen=RATE_OVER_S + 1)

    def note(self, now_s: float, count: int) -> None:
        """Note what the count is now. One that has begun anew, as a sink's that was replaced, is told from itself."""
        if self._counts and count < self._counts[-1][1]:
            self._counts.clear()
        self._counts.append((now_s, count))

    def per_s(self) -> float:
        """Return the growth in a second; 0.0 while there is nothing to tell it from."""
        if len(self._counts) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._counts[0], self._counts[-1]
        return round((last - first) / (last_s - first_s), 3) if last_s > first_s else 0.0


class Sampling:
    """The last two minutes of a daemon, second by second.

    Args:
        parts: what is looked at.
    """

    def __init__(self, parts: Parts, clock: Clock) -> None:
        self._parts = parts
        self._clock = clock
        self._weights: dict[str, deque[WeightSeen]] = {}
        self._delivered: dict[str, Rate] = {}
        self._ages = Ages(parts.outbox, clock)
        self._polls = Rate()

    async def run(self) -> None:
        """Look once a second, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Look once."""
        now_s = self._clock.monotonic_s()
        for name, egress in self._parts.egress.items():
            status = egress.budget.status()
            seconds = self._weights.setdefault(name, deque(maxlen=SECONDS_KEPT))
            seconds.append(WeightSeen(status.own, status.foreign, status.reported, status.pause_s > 0))
        self._polls.note(now_s, self._parts.observations.polls)
        for name, delivery in list(self._parts.deliveries.items()):
            self._delivered.setdefault(name, Rate()).note(now_s, delivery.status().delivered)
        with suppress(OutboxError):  # it is said elsewhere, and ends the process
            await self._ages.look()
        for kept, there in (
            (self._weights, set(self._parts.egress)),
            (self._delivered, set(self._parts.deliveries)),
        ):
            for name in kept.keys() - there:
                del kept[name]

    def seconds(self, egress: str) -> list[WeightSeen]:
        """Return the last two minutes of an address, oldest first."""
        return list(self._weights.get(egress, ()))

    def lag_s(self, sink: str) -> float:
        """Return how old the oldest record is that waits for a sink; 0.0 if none does."""
        return self._ages.waits_s(sink)

    def delivered_per_s(self, sink: str) -> float:
        """Return the records that a sink acknowledged in a second of the last minute."""
        rate = self._delivered.get(sink)
        return 0.0 if rate is None else rate.per_s()

    def polls_per_s(self) -> float:
        """Return the polls in a second of the last minute."""
        return self._polls.per_s()
