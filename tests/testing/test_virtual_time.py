"""The virtual loop: exact, instant, and loud where it cannot pretend."""

from __future__ import annotations

import asyncio
import time

import pytest

from poller.clock import rfc3339
from poller.testing import virtual_time
from poller.testing.virtual_time import VirtualClock, VirtualTimeLoop


async def test_a_day_passes_at_once_and_ends_exactly() -> None:
    started_s = time.monotonic()
    await asyncio.sleep(86_400)
    assert asyncio.get_running_loop().time() == 86_400.0
    assert time.monotonic() - started_s < 60


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        woken.append((name, asyncio.get_running_loop().time()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleeper("second", 2.5))
        tasks.create_task(sleeper("first", 0.1))
        tasks.create_task(sleeper("third", 3600))
    assert woken == [("first", 0.1), ("second", 2.5), ("third", 3600.0)]


async def test_time_stands_still_while_a_thread_works() -> None:
    def work() -> str:
        time.sleep(0.02)
        return "done"

    timer = asyncio.create_task(asyncio.sleep(1))
    assert await asyncio.to_thread(work) == "done"
    assert asyncio.get_running_loop().time() == 0.0
    await timer
    assert asyncio.get_running_loop().time() == 1.0


def test_waiting_for_nothing_is_an_error_instead_of_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "STUCK_AFTER_S", 0.01)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner, pytest.raises(RuntimeError, match="stuck"):
        runner.run(asyncio.Event().wait())


async def test_the_clock_follows_the_loop_and_steps_when_told() -> None:
    clock = VirtualClock()
    await asyncio.sleep(1.5)
    assert rfc3339(clock.utc_ns()) == "2026-01-01T00:00:01.500000Z"
    clock.wall_step_s = -3600
    assert rfc3339(clock.utc_ns()) == "2025-12-31T23:00:01.500000Z"
    clock.suspended_s = 10
    assert (clock.monotonic_s(), clock.uptime_s()) == (1.5, 11.5)
