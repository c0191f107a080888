"""The loop's lag, on virtual time: exact."""

from __future__ import annotations

import asyncio

from poller.loop_lag import watch_loop
from poller.metrics import Metrics
from poller.testing.virtual_time import VirtualClock, VirtualTimeLoop


async def test_a_loop_that_is_never_held_up_has_no_lag(clock: VirtualClock) -> None:
    metrics = Metrics()
    watching = asyncio.create_task(watch_loop(clock, metrics))
    await asyncio.sleep(10.1)
    watching.cancel()
    assert metrics.value("loop_lag_seconds_count") == 20
    assert metrics.value("loop_lag_seconds_sum") == 0


async def test_a_call_that_holds_the_loop_up_shows_with_its_length(clock: VirtualClock) -> None:
    metrics = Metrics()
    watching = asyncio.create_task(watch_loop(clock, metrics))
    await asyncio.sleep(1.25)  # half way into the third sleep
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop._jumping.now_ns += 3 * 10**9  # as if a call had taken so long
    await asyncio.sleep(0.1)
    watching.cancel()
    assert metrics.value("loop_lag_seconds_count") == 3
    assert metrics.value("loop_lag_seconds_sum") == 2.75
    assert metrics.value("loop_lag_seconds_bucket", le="2.5") == 2
    assert metrics.value("loop_lag_seconds_bucket", le="5.0") == 3
