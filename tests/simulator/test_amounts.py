from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.simulator.amounts import padded, part_of, plain

UNITS = st.integers(min_value=0, max_value=10**30)


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (0, "0"),
        (1, "0.00000001"),
        (90_000_000, "0.9"),
        (100_000_000, "1"),
        (10**10, "100"),
        (5_030_000_000_144_911_105, "50300000001.44911105"),
    ],
)
def test_amounts_are_printed_without_exponent_and_without_trailing_zeros(units: int, text: str) -> None:
    assert plain(units) == text


def test_valuations_keep_all_eight_decimals() -> None:
    assert [padded(0), padded(150_000_000)] == ["0.00000000", "1.50000000"]


@given(UNITS)
def test_what_is_printed_is_exactly_the_amount(units: int) -> None:
    assert Fraction(plain(units)) * 10**8 == units
    assert Fraction(padded(units)) * 10**8 == units


@given(st.integers(min_value=1, max_value=10**30), st.integers())
def test_a_part_is_never_nothing_and_never_more_than_there_is(units: int, seed: int) -> None:
    assert 1 <= part_of(units, Random(seed)) <= units
