"""What one grant of the weight budget costs with 10,000 waiting, against the same with an asyncio.Lock alone."""

from __future__ import annotations

import asyncio
import statistics
import time

from poller.budget import WeightBudget, WeightWindow
from poller.clock import SystemClock
from poller.metrics import Metrics

WAITING = 10_000
ROUNDS = 5


async def with_budget() -> float:
    async def save(state: bytes) -> None:
        """Free of charge: what a disk costs is not the question here."""

    window = WeightWindow(limit=5 * WAITING * 60, window_s=60.0)
    window._even_s = -1e9  # noqa: SLF001  # no pacing: the cost is asked for, not the wait
    budget = WeightBudget("default", window, SystemClock(), save, metrics=Metrics())

    async def one() -> None:
        grant = await budget.acquire(5)
        assert grant is not None
        budget.answered(grant, used_weight=5, good=True)

    return await seconds_for(one)


async def with_lock_alone() -> float:
    lock = asyncio.Lock()

    async def one() -> None:
        async with lock:
            pass

    return await seconds_for(one)


async def seconds_for(one: object) -> float:
    gate = asyncio.Event()

    async def waiting() -> None:
        await gate.wait()
        await one()  # type: ignore[operator]  # a coroutine function

    tasks = [asyncio.create_task(waiting()) for _ in range(WAITING)]
    await asyncio.sleep(0)
    gate.set()
    started = time.perf_counter()
    await asyncio.gather(*tasks)
    return time.perf_counter() - started


def main() -> None:
    ratios = []
    for _ in range(ROUNDS):
        budget_us = asyncio.run(with_budget()) / WAITING * 1e6
        floor_us = asyncio.run(with_lock_alone()) / WAITING * 1e6
        ratios.append(budget_us / floor_us)
        print(f"budget {budget_us:6.2f} µs a grant, lock alone {floor_us:6.2f} µs")
    print(f"ratio to the floor, median: {statistics.median(ratios):.1f}")
