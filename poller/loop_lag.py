"""Measures how late the event loop is: how much longer than asked for a sleeping task sleeps."""

from __future__ import annotations

import asyncio

from poller.clock import Clock
from poller.metrics import Metrics

LOOK_EVERY_S = 0.5


async def watch_loop(clock: Clock, metrics: Metrics) -> None:
    """Sleep, and observe the overshoot, until cancelled.

    Whatever holds the loop up, from a slow call to a machine without time for us, shows here and only here:
    each sleep is measured by itself, so one stall is one observation of its whole length.
    """
    while True:
        planned_s = clock.monotonic_s() + LOOK_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)
        metrics.loop_lag.observe(max(0.0, clock.monotonic_s() - planned_s))
