"""How a task that waits shows that it still turns; see ``poller.beat``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from poller.beat import TURN_EVERY_S, Beat
from poller.clock import Clock


class Turning:
    """The signs of life of one task.

    Args:
        name: of the task, for the beat.
        beat: ``None`` if nobody looks.
    """

    def __init__(self, name: str, beat: Beat | None, clock: Clock) -> None:
        self._name = name
        self._beat = beat
        self._clock = clock

    def turn(self, doing: str) -> None:
        """Say that the task turns, and what it is about to do."""
        if self._beat is not None:
            self._beat.touch(self._name, self._clock.monotonic_s(), doing)

    def end(self) -> None:
        """Say that the task has come to its end."""
        if self._beat is not None:
            self._beat.forget(self._name)

    async def in_slices(
        self, wait: Callable[[], Awaitable[object]], doing: str, *, until_s: float = math.inf
    ) -> None:
        """Wait for something, at most until a time, and look afresh every few seconds: so it is seen that we turn."""
        while True:
            self.turn(doing)
            try:
                async with asyncio.timeout_at(min(until_s, self._clock.monotonic_s() + TURN_EVERY_S)):
                    await wait()
            except TimeoutError:
                if self._clock.monotonic_s() < until_s:
                    continue
            break
        self.turn("dispatching")

    @contextmanager
    def waiting(self, doing: str, left_s: Callable[[], float]) -> Iterator[None]:
        """Wait within it for what must not be asked for anew, or a turn would be lost; see ``Beat.waits``."""
        if self._beat is not None:
            self._beat.waits(self._name, self._clock.monotonic_s(), doing, left_s)
        yield
        self.turn("dispatching")
