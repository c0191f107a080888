"""What is aimed at, what is said, and how often: the schedule and the budget are stood in for by figures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.budget import BudgetStatus
from poller.metrics import Metrics
from poller.stretching import GAIN, LINE, LOWEST, Stretching, aim
from poller.testing.virtual_time import VirtualClock

STATUS = BudgetStatus(
    egress="default",
    limit=12_000,
    allowed=10_800,
    capacity=10_800,
    own=0,
    foreign=0,
    reported=None,
    in_flight=0,
    granted=0,
    pause_s=0.0,
    pause_cause="",
)


class Figures:
    """A schedule and a budget in one: what is wanted, how many wait, what there is."""

    def __init__(self, wanted: dict[tuple[int, float], int], capacity: int) -> None:
        self.counts = wanted
        self.capacity = capacity
        self.waiting = 0
        self.set: list[tuple[float, dict[int, float]]] = []

    def wanted(self) -> Mapping[tuple[int, float], int]:
        return self.counts

    def overdue(self, now_s: float) -> int:
        return self.waiting

    def set_stretch(self, factors: Mapping[int, float], now_s: float) -> None:
        self.set.append((now_s, dict(factors)))

    def status(self) -> BudgetStatus:
        return replace(STATUS, capacity=self.capacity)


def stretching(figures: Figures, clock: VirtualClock, metrics: Metrics | None = None) -> Stretching:
    return Stretching(
        "default",
        figures,
        figures,
        window_s=60.0,
        weight=5,
        clock=clock,
        metrics=metrics or Metrics(),
    )


@pytest.mark.parametrize(
    ("waiting", "aimed"),
    [(0, 12_600), (200, 12_300), (400, 12_000), (800, 11_400), (2400, 9000), (1e9, 9000)],
)
def test_the_aim_is_above_the_capacity_while_few_wait_and_falls_as_the_line_grows(
    waiting: float, aimed: float
) -> None:
    assert aim(12_000, waiting) == pytest.approx(aimed)


@given(st.floats(5, 1e6), st.floats(0, 1e9))
def test_the_aim_stays_within_its_bounds_and_is_the_capacity_at_the_line(
    capacity: float, waiting: float
) -> None:
    assert capacity * LOWEST <= aim(capacity, waiting) <= capacity * (1 + GAIN)
    assert aim(capacity, capacity * LINE) == pytest.approx(capacity)


async def test_what_is_set_follows_the_aim_and_what_is_shown_the_capacity(clock: VirtualClock) -> None:
    figures, metrics = Figures({(0, 20.0): 1000, (7, 20.0): 10}, 10_800), Metrics()
    stretching(figures, clock, metrics).look()
    [(_, factors)] = figures.set
    assert factors == {7: 1.0, 0: pytest.approx(15_000 / (10_800 * 1.05 - 150))}
    shown = metrics.value("interval_stretch", egress="default", priority="0")
    assert shown == pytest.approx(15_000 / (10_800 - 150))
    assert metrics.value("interval_stretch", egress="default", priority="7") == 1.0


async def test_a_priority_that_nobody_has_any_more_is_not_shown(clock: VirtualClock) -> None:
    figures, metrics = Figures({(0, 20.0): 10, (7, 20.0): 10}, 10_800), Metrics()
    looking = stretching(figures, clock, metrics)
    looking.look()
    figures.counts = {(7, 20.0): 10}
    looking.look()
    assert metrics.total("interval_stretch", egress="default", priority="0") == 0.0
    assert metrics.value("interval_stretch", egress="default", priority="7") == 1.0
    metrics.forget_egress("other")
    metrics.forget_egress("default")
    assert metrics.total("interval_stretch") == 0.0


async def test_it_looks_every_five_seconds_and_wakes_whoever_sleeps_by_the_old_times(
    clock: VirtualClock,
) -> None:
    figures, woken = Figures({(0, 20.0): 1}, 10_800), []
    running = asyncio.create_task(stretching(figures, clock).run(lambda _: woken.append(clock.monotonic_s())))
    await asyncio.sleep(12)
    running.cancel()
    assert woken == [0.0, 5.0, 10.0]
    assert figures.set == [(at_s, {0: 1.0}) for at_s in woken]


async def test_an_address_that_others_use_up_stretches_far_but_not_without_end(clock: VirtualClock) -> None:
    figures = Figures({(0, 60.0): 100}, 0)
    result = stretching(figures, clock).look()
    assert result.stretches() == {0: pytest.approx(100)}  # one poll a window


async def test_a_change_of_state_is_said_once_and_at_most_once_a_minute(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    figures = Figures({(0, 60.0): 1000}, 10_800)  # 5,000 wanted
    looking = stretching(figures, clock)

    async def said_after(seconds: float, capacity: int) -> list[tuple[str, str]]:
        caplog.clear()
        figures.capacity = capacity
        for _ in range(round(seconds / 5)):
            looking.look()
            await asyncio.sleep(5)
        return [(record.levelname, vars(record)["demand"][-7:].strip("> <=")) for record in caplog.records]

    assert await said_after(60, 10_800) == []
    assert await said_after(30, 4000) == [("WARNING", "4,000")]
    assert await said_after(20, 10_800) == []  # not yet: the last line is younger than a minute
    assert await said_after(60, 10_800) == [("INFO", "10,800")]
    assert await said_after(120, 4900) == [("WARNING", "4,900")]
    assert await said_after(120, 5100) == []  # it fits, but by a hair: the state is as it was
    assert await said_after(60, 5200) == [("INFO", "5,200")]


async def test_the_line_says_what_comes_of_it(clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    figures = Figures({(0, 10.0): 240, (0, 60.0): 1440, (5, 60.0): 10}, 7250)
    stretching(figures, clock).look()
    [record] = caplog.records
    assert record.getMessage() == "the fleet wants more than the budget allows; intervals stretch"
    assert vars(record)["egress"] == "default"
    assert (
        vars(record)["demand"]
        == "240 accounts / 10 s + 1,450 accounts / 60 s = 14,450 weight per 60 s > 7,250"
    )
    assert vars(record)["achieved"] == {
        "priority 5": "60 s -> 60 s",
        "priority 0": "10 to 60 s -> 20 to 120 s",
    }
