"""Who gets how much of what there is."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.model import Account
from poller.plan import FLOOR, Demand, Plan, Wanted, count, divide, plan


def planned(wanted: Wanted, *, capacity: float = 10_800, window_s: float = 60.0) -> Plan:
    return plan("default", wanted, capacity=capacity, window_s=window_s)


def test_accounts_are_counted_by_priority_and_interval() -> None:
    fleet = [Account("a", 10.0), Account("b", 10.0), Account("c", 60.0), Account("d", 10.0, priority=2)]
    assert count(fleet) == {(0, 10.0): 2, (0, 60.0): 1, (2, 10.0): 1}


def test_a_fleet_that_fits_keeps_its_intervals() -> None:
    result = planned({(0, 60.0): 1000})
    assert (result.accounts, result.wanted, result.fits, result.headroom) == (1000, 5000, True, 5800)
    assert result.demands == (Demand(0, 1000, 5000, 5000, 60.0, 60.0),)
    assert result.stretches() == {0: 1.0}


def test_a_fleet_of_one_priority_is_stretched_alike() -> None:
    result = planned({(0, 60.0): 3000})
    assert not result.fits
    assert result.headroom == 0
    assert result.use == pytest.approx(15_000 / 10_800)
    assert result.stretches() == {0: pytest.approx(15_000 / 10_800)}


def test_mixed_intervals_of_one_priority_stretch_by_one_factor() -> None:
    result = planned({(0, 10.0): 240, (0, 60.0): 1440}, capacity=7200)
    assert result.demands[0].achieved_s == pytest.approx((20.0, 120.0))


def test_the_higher_priority_goes_first_and_the_lower_keeps_its_floor() -> None:
    wanted = {(1, 60.0): 1000, (0, 60.0): 2000}
    high, low = planned(wanted, capacity=10_000).demands
    assert (high.priority, high.stretch) == (1, 1.0)
    assert low.given == pytest.approx(5000)
    high, low = planned(wanted, capacity=5000).demands
    assert low.given == pytest.approx(5000 * FLOOR * 2 / 3)
    assert high.given == pytest.approx(5000 - low.given)


@pytest.mark.parametrize(
    ("wanted", "verdict"),
    [
        ({(0, 20.0): 1000}, "1,000 accounts / 20 s = 15,000 weight per 60 s > 10,800"),
        ({(0, 60.0): 2160}, "2,160 accounts / 60 s = 10,800 weight per 60 s <= 10,800"),
        (
            {(0, 60.0): 400, (0, 10.0): 100, (3, 10.0): 20},
            "120 accounts / 10 s + 400 accounts / 60 s = 5,600 weight per 60 s <= 10,800",
        ),
        ({(0, 10.0 * n): 10 * n for n in range(1, 8)}, "280 accounts at 7 intervals = 2,100 weight per 60 s <= 10,800"),
        ({(0, 0.5): 1}, "1 account / 0.5 s = 600 weight per 60 s <= 10,800"),
        ({}, "no account = 0 weight per 60 s <= 10,800"),
    ],
)  # fmt: skip
def test_the_verdict_is_a_sum_that_can_be_checked_by_hand(wanted: Wanted, verdict: str) -> None:
    assert planned(wanted).verdict == verdict


def test_there_is_room_for_as_many_as_fit_and_not_one_more() -> None:
    wanted = {(0, 60.0): 1000}
    room = planned(wanted).room_for(30.0)
    assert room == 580
    assert planned({**wanted, (0, 30.0): room}).fits
    assert not planned({**wanted, (0, 30.0): room + 1}).fits
    assert planned({(0, 60.0): 3000}).room_for(30.0) == 0


def test_without_any_capacity_everybody_waits_for_ever() -> None:
    result = planned({(0, 60.0): 10}, capacity=0)
    assert (result.use, result.stretches()) == (math.inf, {0: math.inf})


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
