"""Keeps the exchange's clock measured: at the start, every few minutes, and when a timestamp was refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from poller.clock import Clock
from poller.errors import PollError

logger = logging.getLogger(__name__)

# Right after a measurement another refused timestamp tells nothing new: it was signed before it.
FRESH_FOR_S = 5.0
RETRY_FIRST_S = 1.0
RETRY_LONGEST_S = 60.0
ATTEMPTS_BEFORE_TRUSTING_OURS = 3


class TimeKeeper:
    """Measures the exchange's clock through one egress address.

    Args:
        measure: takes several samples; raises ``PollError`` if it cannot.
        blame: told of every error, so that a 429 on the clock silences the address as any other does.
        clock: time.
        interval_s: seconds between two measurements.
    """

    def __init__(
        self,
        measure: Callable[[], Awaitable[None]],
        blame: Callable[[PollError], Awaitable[None]],
        clock: Clock,
        *,
        interval_s: float = 600.0,
    ) -> None:
        self._measure = measure
        self._blame = blame
        self._clock = clock
        self._interval_s = interval_s
        self._measuring = asyncio.Lock()
        self._measured_s: float | None = None
        self._tried = asyncio.Event()
        self._failing = ""  # kind of the last error, as it was said

    async def run(self) -> None:
        """Measure until cancelled."""
        failures = 0
        while True:
            if await self.refresh():
                failures = 0
                delay_s = self._interval_s
            else:
                failures += 1
                delay_s = min(RETRY_FIRST_S * 2 ** min(failures - 1, 10), RETRY_LONGEST_S)
            if failures in {0, ATTEMPTS_BEFORE_TRUSTING_OURS}:
                self._tried.set()
            await asyncio.sleep(delay_s)

    def set_interval(self, interval_s: float) -> None:
        """Measure this often, from the next measurement on."""
        self._interval_s = interval_s

    async def ready(self) -> None:
        """Wait until the exchange's clock is known, or has refused to be: polls go by ours then."""
        await self._tried.wait()

    async def refresh(self) -> bool:
        """Measure now, unless it was just done; return whether the clock is known afresh."""
        async with self._measuring:
            now_s = self._clock.monotonic_s()
            if self._measured_s is not None and now_s - self._measured_s < FRESH_FOR_S:
                return True
            try:
                await self._measure()
            except PollError as error:
                if error.kind != self._failing:
                    self._failing = error.kind
                    logger.warning(
                        "the exchange's clock could not be measured",
                        extra={"error_kind": error.kind, "error": str(error)},
                    )
                await self._blame(error)
                return False
            if self._failing:
                logger.info("the exchange's clock is measured again", extra={"error_kind": self._failing})
                self._failing = ""
            self._measured_s = self._clock.monotonic_s()
            return True
