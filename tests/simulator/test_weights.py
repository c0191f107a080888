from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.simulator.weights import (
    FixedWindow,
    Neighbour,
    RollingWindow,
    Verdict,
    WeightRules,
    Weights,
    WindowKind,
)
from tests.simulator.fixtures import START_US

S = 1_000_000
LENGTH_US = 1000
GAPS = st.lists(st.tuples(st.integers(0, 1500), st.integers(1, 9)), max_size=60)


def at(arrivals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Turn gaps into times."""
    now_us, result = START_US, []
    for gap_us, weight in arrivals:
        now_us += gap_us
        result.append((now_us, weight))
    return result


def in_same_window(counted_us: int, now_us: int, kind: str) -> bool:
    """The obvious definition."""
    if kind == "fixed":
        return counted_us // LENGTH_US == now_us // LENGTH_US
    return now_us - LENGTH_US < counted_us <= now_us


def make_window(kind: str) -> FixedWindow | RollingWindow:
    return FixedWindow(LENGTH_US) if kind == "fixed" else RollingWindow(LENGTH_US)


@pytest.mark.parametrize("kind", ["fixed", "rolling"])
@given(arrivals=GAPS)
def test_a_window_counts_what_the_definition_says(kind: str, arrivals: list[tuple[int, int]]) -> None:
    window, seen = make_window(kind), []
    for now_us, weight in at(arrivals):
        seen.append((now_us, weight))
        expected = sum(counted for counted_us, counted in seen if in_same_window(counted_us, now_us, kind))
        assert window.add(now_us, weight) == expected


@pytest.mark.parametrize("kind", ["fixed", "rolling"])
@given(arrivals=GAPS, weight=st.integers(1, 9), limit=st.integers(9, 40))
def test_it_fits_at_the_first_moment_at_which_it_fits(
    kind: str, arrivals: list[tuple[int, int]], weight: int, limit: int
) -> None:
    window, seen = make_window(kind), at(arrivals)
    for counted_us, counted in seen:
        window.add(counted_us, counted)
    now_us = seen[-1][0] if seen else START_US
    fits_us = window.fits_at_us(now_us, weight, limit)

    def used(moment_us: int) -> int:
        return sum(counted for counted_us, counted in seen if in_same_window(counted_us, moment_us, kind))

    assert used(fits_us) + weight <= limit
    assert all(used(moment_us) + weight > limit for moment_us in range(now_us, fits_us))


@pytest.mark.parametrize("kind", ["fixed", "rolling"])
def test_what_can_never_fit_is_told_when_all_has_left(kind: str) -> None:
    window = make_window(kind)
    window.add(START_US + 1, 5)
    assert window.fits_at_us(START_US + 10, 50, 40) == START_US + LENGTH_US + (kind == "rolling")


def make_weights(window: WindowKind = "fixed", ban_after: int = 2, **options: int) -> Weights:
    return Weights(WeightRules(window, 60 * S, ban_after, **options), neighbour_pool="poll")


def charge(weights: Weights, seconds: float, address: str = "10.0.0.1", pool: str = "poll") -> Verdict:
    return weights.charge(address, pool, 5, 20, START_US + round(seconds * S))


def test_up_to_the_limit_all_is_well_and_the_next_is_warned_until_the_minute_ends() -> None:
    weights = make_weights()
    assert [charge(weights, 10) for _ in range(4)] == [Verdict(200, used) for used in (5, 10, 15, 20)]
    assert charge(weights, 12.5) == Verdict(429, 25, retry_after_s=48)
    assert charge(weights, 60) == Verdict(200, 5)


def test_in_a_rolling_window_the_warning_lasts_until_enough_has_left() -> None:
    weights = make_weights("rolling")
    for second in (1, 2, 3, 4):
        charge(weights, second)
    # 25 with the refused one, which counts as well: two must leave before another fits.
    assert charge(weights, 10) == Verdict(429, 25, retry_after_s=52)
    assert charge(weights, 62) == Verdict(200, 20)


def test_addresses_and_pools_are_counted_apart() -> None:
    weights = make_weights()
    for _ in range(4):
        charge(weights, 1)
    assert charge(weights, 1, address="10.0.0.2") == Verdict(200, 5)
    assert charge(weights, 1, pool="other") == Verdict(200, 5)
    assert weights.used("poll", START_US + S) == {"10.0.0.1": 20, "10.0.0.2": 5}


def test_who_goes_on_after_warnings_is_banned_everywhere_and_others_are_not() -> None:
    weights = make_weights(ban_after=2)
    statuses = [charge(weights, 1).status for _ in range(8)]
    assert statuses == [200] * 4 + [429] * 3 + [418]
    until_us = START_US + 121 * S
    assert charge(weights, 1.5) == Verdict(418, 40, retry_after_s=120, banned_until_us=until_us)
    assert charge(weights, 2, pool="other") == Verdict(418, 0, retry_after_s=119, banned_until_us=until_us)
    assert charge(weights, 2, address="10.0.0.2").status == 200
    assert weights.banned_until_us(START_US + 120 * S) == {"10.0.0.1": until_us}
    assert weights.banned_until_us(until_us) == {}
    assert charge(weights, 121).status == 200


def test_a_single_warning_that_is_obeyed_never_leads_to_a_ban() -> None:
    weights = make_weights(ban_after=0)
    for minute in range(5):
        assert [charge(weights, minute * 60 + 1).status for _ in range(5)] == [200] * 4 + [429]
    assert weights.record.bans == 0


def test_requests_after_warnings_are_forgiven_once_a_warning_was_waited_for() -> None:
    weights = make_weights(ban_after=2)
    for minute in range(3):
        statuses = [charge(weights, minute * 60 + 1).status for _ in range(7)]
        assert statuses == [200] * 4 + [429] * 3
    assert weights.record.bans == 0


def test_after_a_ban_within_the_same_minute_the_patience_is_a_new_one() -> None:
    weights = make_weights(ban_after=1, ban_min_us=2 * S)
    assert [charge(weights, 1).status for _ in range(7)] == [200] * 4 + [429] * 2 + [418]
    assert [charge(weights, 10).status for _ in range(2)] == [429, 418]


def test_each_ban_is_twice_as_long_up_to_the_longest() -> None:
    weights = make_weights(ban_after=0, ban_min_us=120 * S, ban_max_us=400 * S)
    lengths_us, now_s = [], 0.0
    for _ in range(4):
        verdict = charge(weights, now_s)
        while verdict.status != 418:
            verdict = charge(weights, now_s)
        lengths_us.append(verdict.banned_until_us - (START_US + round(now_s * S)))
        now_s = (verdict.banned_until_us - START_US) / S + 60
    assert lengths_us == [120 * S, 240 * S, 400 * S, 400 * S]


def test_a_request_that_fits_during_a_warning_is_served_but_noted() -> None:
    weights = make_weights("rolling")
    for second in (1, 2, 3, 4, 5):
        charge(weights, second)
    assert charge(weights, 61.5).status == 429
    assert charge(weights, 62.25).status == 429
    assert weights.record.during_warning == 2
    assert weights.record.longest_into_warning_us == round(57.25 * S)


def test_the_record_tells_how_late_the_last_request_of_a_ban_came() -> None:
    weights = make_weights(ban_after=0)
    for _ in range(6):
        charge(weights, 1)
    charge(weights, 1.25)
    charge(weights, 31)
    charge(weights, 200)
    record = weights.record
    assert (record.warnings, record.bans, record.during_ban) == (1, 1, 2)
    assert record.longest_into_ban_us == 30 * S


@pytest.mark.parametrize("window", ["fixed", "rolling"])
def test_the_worst_window_is_known_for_both_ways_to_cut_it(window: WindowKind) -> None:
    weights = make_weights(window)
    for second in (58, 59, 61, 62):  # 10 in each clock minute, 20 within four seconds
        charge(weights, second)
    assert (weights.record.worst_fixed, weights.record.worst_rolling) == (10, 20)


def test_a_step_of_the_clock_leaves_bans_and_warnings_as_long_as_they_were() -> None:
    weights = make_weights("rolling", ban_after=0)
    for _ in range(6):
        charge(weights, 1)
    charge(weights, 5, address="10.0.0.2")
    weights.step_clock(3600 * S)
    assert charge(weights, 3600 + 61).retry_after_s == 60
    assert weights.record.longest_into_ban_us == 60 * S
    assert charge(weights, 3600 + 64, address="10.0.0.2").used == 10
    assert charge(weights, 3600 + 65, address="10.0.0.2").used == 10


def test_an_even_neighbour_has_used_its_share_of_each_minute_when_it_ends() -> None:
    weights = make_weights()
    weights.neighbour = Neighbour(0.5)
    assert charge(weights, 30).used == 5 + 5
    assert charge(weights, 59.5).used == 10 + 10
    assert charge(weights, 30, pool="other", address="10.0.0.9").used == 5


def test_a_neighbour_can_use_up_what_is_left() -> None:
    weights = make_weights()
    weights.neighbour = Neighbour(0.9)
    assert charge(weights, 0.5).status == 200
    assert charge(weights, 59).status == 429


@given(st.integers(0, 2**32), st.integers(0, 10**6))
def test_a_bursting_neighbour_uses_its_share_at_one_moment_of_each_window(seed: int, number: int) -> None:
    neighbour = Neighbour(0.5, "bursts", seed)
    start_us = number * LENGTH_US
    uses = list(neighbour.uses(start_us - 1, start_us + 3 * LENGTH_US - 1, 100, LENGTH_US))
    assert [at_us // LENGTH_US for at_us, _ in uses] == [number, number + 1, number + 2]
    assert [weight for _, weight in uses] == [50, 50, 50]


@given(st.integers(0, 2**32), st.integers(0, 10**6), st.integers(1, 60))
def test_several_bursts_share_its_weight_of_each_window_in_the_order_of_time(
    seed: int, number: int, bursts: int
) -> None:
    neighbour = Neighbour(0.5, "bursts", seed, bursts)
    start_us = number * LENGTH_US
    uses = list(neighbour.uses(start_us - 1, start_us + LENGTH_US - 1, 1000, LENGTH_US))
    assert len(uses) == bursts
    assert sum(weight for _, weight in uses) == 500
    assert uses == sorted(uses, key=lambda use: use[0])
    # The first moment that is drawn is where a lone burst would be.
    alone = next(Neighbour(0.5, "bursts", seed).uses(start_us - 1, start_us + LENGTH_US - 1, 1000, LENGTH_US))
    assert alone[0] in [at_us for at_us, _ in uses]


@given(
    st.sampled_from(["even", "bursts"]),
    st.lists(st.integers(1, 3 * LENGTH_US), min_size=1, max_size=20),
    st.floats(0, 2),
)
def test_a_neighbour_is_counted_once_however_often_one_looks(
    mode: str, steps_us: list[int], share: float
) -> None:
    neighbour = Neighbour(share, "even" if mode == "even" else "bursts")
    moments = [START_US]
    for step_us in steps_us:
        moments.append(moments[-1] + step_us)
    piecewise = [
        use
        for after_us, until_us in pairwise(moments)
        for use in neighbour.uses(after_us, until_us, 1000, LENGTH_US)
    ]
    assert piecewise == list(neighbour.uses(moments[0], moments[-1], 1000, LENGTH_US))
