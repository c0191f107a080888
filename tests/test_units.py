from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from poller.units import Duration, Size, UnitError, parse_duration, parse_share, parse_size, span


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("200ms", 0.2),
        ("10s", 10.0),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("24h", 86400.0),
        ("7d", 604800.0),
    ],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("512B", 512), ("1kB", 1000), ("10MB", 10**7), ("2GB", 2 * 10**9), ("64KiB", 65536),
     ("1.5MiB", 1572864), ("1GiB", 2**30)],
)  # fmt: skip
def test_a_size_is_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert isinstance(parse_size(text), int)


@pytest.mark.parametrize(("text", "fraction"), [("90%", 0.9), ("12.5%", 0.125), ("100%", 1.0), ("0%", 0.0)])
def test_a_share_is_a_fraction(text: str, fraction: float) -> None:
    assert parse_share(text) == fraction


@pytest.mark.parametrize(
    ("parse", "value", "message", "remedy"),
    [
        (parse_duration, 10, "10 is not a duration", "write 10s"),
        (parse_duration, "2.5", "'2.5' is not a duration", "write 2.5s"),
        (parse_duration, "10 s", "'10 s' is not a duration", "write it like 10s (understood: 500ms, 10s, 5m, 1h, 7d)"),
        (parse_duration, "-1s", "'-1s' is not a duration", "write it like 10s (understood: 500ms, 10s, 5m, 1h, 7d)"),
        (parse_duration, "1h30m", "'1h30m' is not a duration", "write it like 10s (understood: 500ms, 10s, 5m, 1h, 7d)"),
        (parse_duration, "\u0661s", "'\u0661s' is not a duration", "write it like 10s (understood: 500ms, 10s, 5m, 1h, 7d)"),
        (parse_duration, "", "'' is not a duration", "write it like 10s (understood: 500ms, 10s, 5m, 1h, 7d)"),
        (parse_duration, True, "True is not a duration", "write it like 10s (understood: 500ms, 10s, 5m, 1h, 7d)"),
        (parse_duration, [1], "a list is not a duration", "write it like 10s (understood: 500ms, 10s, 5m, 1h, 7d)"),
        (parse_duration, "x" * 99, f"'{'x' * 39}... is not a duration",
         "write it like 10s (understood: 500ms, 10s, 5m, 1h, 7d)"),
        (parse_size, 1024, "1024 is not a size", "write 1024B"),
        (parse_size, "1mb", "'1mb' is not a size", "write it like 64KiB (understood: 512B, 64KiB, 10MB, 1GiB)"),
        (parse_size, "0.3B", "'0.3B' is not a size", "write it like 64KiB (understood: 512B, 64KiB, 10MB, 1GiB)"),
        (parse_share, 90, "90 is not a share", "write 90%"),
        (parse_share, 0.9, "0.9 is not a share", "write 0.9%"),
        (parse_share, "ninety", "'ninety' is not a share", "write it like 90% (understood: 90%, 12.5%)"),
    ],
)  # fmt: skip
def test_what_is_no_quantity_is_refused_with_what_to_write(
    parse: Callable[[object], float], value: object, message: str, remedy: str
) -> None:
    with pytest.raises(UnitError) as caught:
        parse(value)
    assert (str(caught.value), caught.value.remedy) == (message, remedy)


@given(st.integers(0, 10**9))
def test_whole_milliseconds_and_bytes_are_exact(number: int) -> None:
    assert parse_duration(f"{number}ms") == number / 1000
    assert parse_size(f"{number}B") == number


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
def test_any_value_is_a_quantity_or_refused_and_nothing_else_is_raised(value: object) -> None:
    for parse in (parse_duration, parse_size, parse_share):
        with contextlib.suppress(UnitError):
            assert parse(value) >= 0


def test_the_types_serve_models_of_others() -> None:
    class Options(BaseModel):
        every: Duration = 3600.0
        size: Size = 1024

    options = Options.model_validate({"every": "5m", "size": "64KiB"})
    assert (options.every, options.size) == (300.0, 65536)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0.0 s"),
        (0.04, "0.0 s"),
        (0.44, "0.4 s"),
        (0.96, "1 s"),
        (52.4, "52 s"),
        (89.4, "89 s"),
        (90.0, "1 min 30 s"),
        (3599.0, "59 min"),
        (3600.0, "1 h"),
        (12_000.0, "3 h 20 min"),
        (40_000.0, "11 h"),
        (90_000.0, "1 d 1 h"),
        (2_000_000.0, "23 d"),
    ],
)
def test_a_span_is_said_in_at_most_two_units(seconds: float, text: str) -> None:
    assert span(seconds) == text
