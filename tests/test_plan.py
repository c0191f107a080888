"""Who gets how much of what there is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.model import Account
from poller.plan import FLOOR, divide, plan


def fleet(count: int, interval_s: float, priority: int = 0) -> list[Account]:
    return [Account(f"p{priority}-{n}", interval_s, priority=priority) for n in range(count)]


def test_a_fleet_that_fits_keeps_its_intervals() -> None:
    result = plan("default", fleet(1000, 60.0), capacity=10_800, window_s=60.0)
    assert (result.wanted, result.fits, result.headroom) == (5000, True, 5800)
    assert [demand.stretch for demand in result.demands] == [1.0]


def test_a_fleet_of_one_priority_is_stretched_alike() -> None:
    result = plan("default", fleet(3000, 60.0), capacity=10_800, window_s=60.0)
    assert not result.fits
    assert result.use == pytest.approx(15_000 / 10_800)
    assert result.demands[0].stretch == pytest.approx(15_000 / 10_800)


def test_the_higher_priority_goes_first_and_the_lower_keeps_its_floor() -> None:
    accounts = fleet(1000, 60.0, priority=1) + fleet(2000, 60.0)
    high, low = plan("default", accounts, capacity=10_000, window_s=60.0).demands
    assert (high.priority, high.stretch) == (1, 1.0)
    assert low.given == pytest.approx(5000)
    high, low = plan("default", accounts, capacity=5000, window_s=60.0).demands
    assert low.given == pytest.approx(5000 * FLOOR * 2 / 3)
    assert high.given == pytest.approx(5000 - low.given)


@given(st.dictionaries(st.integers(0, 9), st.floats(0.1, 1e6), min_size=1, max_size=5), st.floats(1.0, 1e6))
def test_nothing_is_wasted_nobody_starves_and_priorities_hold(
    wanted: dict[int, float], capacity: float
) -> None:
    result = divide(wanted, capacity)
    assert sum(result.values()) == pytest.approx(min(capacity, sum(wanted.values())))
    for priority, want in wanted.items():
        assert 0 < result[priority] <= want * (1 + 1e-9)
        assert result[priority] >= min(want, FLOOR * capacity * want / sum(wanted.values())) * (1 - 1e-9)
    stretches = [wanted[priority] / result[priority] for priority in sorted(wanted, reverse=True)]
    assert all(higher <= lower * (1 + 1e-6) for higher, lower in itertools.pairwise(stretches))
