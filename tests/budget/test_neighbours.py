"""The budget beside somebody else, against the simulator's own count of weight, on virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from random import Random

import pytest

from bench.bursts import within_reach
from poller.budget import Grant, WeightBudget, WeightWindow
from poller.errors import Banned, RateLimited
from poller.metrics import Metrics
from poller.simulator.weights import US_PER_S, Neighbour, WeightRules, Weights, WindowKind
from poller.testing.virtual_time import VirtualClock

WEIGHT = 5
LIMIT = 2000
WINDOW_S = 10.0
LEARNING = 2  # windows
WINDOWS = 30  # after those
SHARE = 0.4


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "poller")


class Fleet:
    """Polls as fast as the budget lets it, 20 to 80 ms each."""

    def __init__(self, window: WindowKind, neighbour: Neighbour, seed: int) -> None:
        self._random = Random(seed)
        self._clock = VirtualClock()
        rules = WeightRules(window=window, length_us=round(WINDOW_S * US_PER_S))
        self.weights = Weights(rules, "polls", neighbour)
        self.statuses: Counter[int] = Counter()
        self._budget = WeightBudget(
            "default",
            WeightWindow(limit=LIMIT, window_s=WINDOW_S),
            self._clock,
            self._save,
            metrics=Metrics(),
        )
        self._budget.restore(None)

    async def poll_for(self, seconds: float) -> None:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as polls:
            while True:
                await self._budget.resumed()
                if (grant := await self._budget.acquire(WEIGHT)) is not None:
                    polls.create_task(self._poll(grant))

    async def _poll(self, grant: Grant) -> None:
        latency_s = self._random.uniform(0.02, 0.08)
        there_s = self._random.uniform(0, latency_s)
        await asyncio.sleep(there_s)
        verdict = self.weights.charge("192.0.2.1", "polls", WEIGHT, LIMIT, self._clock.utc_ns() // 1000)
        await asyncio.sleep(latency_s - there_s)
        self.statuses[verdict.status] += 1
        self._budget.answered(
            grant,
            weight=WEIGHT,
            used_weight=verdict.used,
            good=verdict.status == 200,
            limited=verdict.status == 429,
        )
        if verdict.status != 200:
            error = RateLimited if verdict.status == 429 else Banned
            await self._budget.pause(
                error("refused", status=verdict.status, retry_after_s=verdict.retry_after_s),
                exchange_ms=self._clock.utc_ns() / 1e6,
            )

    async def _save(self, _state: bytes) -> None:
        await asyncio.sleep(0.002)


async def used(fleet: Fleet) -> float:
    """Return the part of what the neighbour leaves that is used once it is known; ``statuses`` are of then."""
    asyncio.get_running_loop().call_later(LEARNING * WINDOW_S, fleet.statuses.clear)
    with pytest.raises(TimeoutError):
        await fleet.poll_for((LEARNING + WINDOWS) * WINDOW_S)
    return fleet.statuses[200] * WEIGHT / (WINDOWS * LIMIT * (1 - SHARE))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("window", "bursts", "least"),
    [("fixed", 1, 0.90), ("fixed", 10, 0.94), ("rolling", 1, 0.25), ("rolling", 3, 0.60), ("rolling", 10, 0.75), ("rolling", 40, 0.80)],
)  # fmt: skip
async def test_beside_bursts_most_of_what_can_be_had_is_used_and_nobody_is_banned(
    window: WindowKind, bursts: int, least: float, seed: int
) -> None:
    fleet = Fleet(window, Neighbour(SHARE, "bursts", seed, bursts), seed)
    assert await used(fleet) >= least
    assert fleet.weights.record.bans == 0
    # Bursts that came together while we were silent are met by whoever looks first.
    assert fleet.statuses[429] <= (0 if window == "fixed" else 0.005 * fleet.statuses[200])


@pytest.mark.parametrize("window", ["fixed", "rolling"])
async def test_beside_an_even_neighbour_no_429_is_met(window: WindowKind) -> None:
    fleet = Fleet(window, Neighbour(SHARE), 1)
    assert await used(fleet) >= 0.95
    assert fleet.statuses[429] == 0


def test_what_can_be_had_beside_bursts_grows_as_they_become_smaller() -> None:
    reached = [
        within_reach(Neighbour(SHARE, "bursts", bursts=bursts), windows=300) for bursts in (1, 3, 10, 40)
    ]
    assert reached == sorted(reached)
    assert 0.55 < reached[0] < 0.65
    assert reached[1] > 0.8
