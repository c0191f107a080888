"""Rates over the last minute: exact, and never of something else."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from poller.sampling import RATE_OVER_S, Rate


def rate(*counts: int) -> Rate:
    """Count something once a second."""
    found = Rate()
    for second, count in enumerate(counts):
        found.note(float(second), count)
    return found


def test_there_is_no_rate_before_there_is_something_to_compare() -> None:
    assert rate().per_s() == 0.0
    assert rate(7).per_s() == 0.0
    found = rate(7)
    found.note(0.0, 9)  # no time has passed
    assert found.per_s() == 0.0


def test_it_is_the_growth_over_as_long_as_it_is_watched_and_then_over_a_minute() -> None:
    assert rate(0, 3, 4).per_s() == 2.0
    assert rate(*[0] * 10, *range(RATE_OVER_S + 1)).per_s() == 1.0
    assert rate(1000, *[5000] * (RATE_OVER_S + 1)).per_s() == 0.0


def test_a_count_that_begins_anew_is_no_negative_rate() -> None:
    assert rate(100, 200, 0).per_s() == 0.0
    assert rate(100, 200, 0, 4).per_s() == 4.0


@given(st.lists(st.integers(0, 50), max_size=200))
def test_it_is_never_negative_and_never_more_than_the_fastest_second(counts: list[int]) -> None:
    steps = [after - before for before, after in itertools.pairwise(counts)]
    assert 0.0 <= rate(*counts).per_s() <= max([0, *steps])
