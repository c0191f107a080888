"""Durations, sizes and shares as people write them: ``10s``, ``64KiB``, ``90%``.

``Duration`` and ``Size`` are types for the fields of pydantic models, those of sinks' options too:
the field takes the text and holds a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BeforeValidator

_SECONDS: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final[Mapping[str, int]] = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
# Digits are bounded so that no number of them overflows what is computed from it.
_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)"
_DURATION = re.compile(_NUMBER + "(ms|s|m|h|d)")
_SIZE = re.compile(_NUMBER + "(B|kB|MB|GB|KiB|MiB|GiB)")
_SHARE = re.compile(_NUMBER + "%")
_SCALES: Final = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_SHOWN = 40  # characters of a wrong value that a message repeats


class UnitError(ValueError):
    """A text is no quantity of the kind asked for.

    Attributes:
        remedy: what to write instead.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def parse_duration(value: object) -> float:
    """Return the seconds that a text such as ``500ms``, ``10s``, ``5m``, ``1h``, ``7d`` means.

    Raises:
        UnitError: no such text; a bare number too, since nobody can tell seconds from milliseconds.
    """
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        # Rounded to the nanosecond: 200ms is 0.2 and not 0.2000...01.
        return round(float(match[1]) * _SECONDS[match[2]], 9)
    raise UnitError(
        f"{_shown(value)} is not a duration", _remedy(value, "s", "10s", "500ms, 10s, 5m, 1h, 7d")
    )


def parse_size(value: object) -> int:
    """Return the bytes that a text such as ``64KiB``, ``10MB``, ``1GiB`` means.

    Raises:
        UnitError: no such text, or not a whole number of bytes.
    """
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        size = float(match[1]) * _BYTES[match[2]]
        if size.is_integer():
            return int(size)
    raise UnitError(f"{_shown(value)} is not a size", _remedy(value, "B", "64KiB", "512B, 64KiB, 10MB, 1GiB"))


def parse_share(value: object) -> float:
    """Return the fraction that a text such as ``90%`` means: 0.9.

    Raises:
        UnitError: no such text.
    """
    if isinstance(value, str) and (match := _SHARE.fullmatch(value)):
        return round(float(match[1]) / 100, 9)
    raise UnitError(f"{_shown(value)} is not a share", _remedy(value, "%", "90%", "90%, 12.5%"))


def span(seconds: float) -> str:
    """Return a duration as people say it, in at most two units: ``0.4 s``, ``52 s``, ``2 min 5 s``, ``3 h 20 min``."""
    if seconds < 0.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    size, unit, part, smaller = next(scale for scale in _SCALES if whole >= scale[0])
    large, rest = divmod(whole, size)
    small = rest // part
    return f"{large} {unit} {small} {smaller}" if small and large < 10 else f"{large} {unit}"


def _remedy(value: object, unit: str, example: str, forms: str) -> str:
    """Name the value that was likely meant, if only its unit is missing."""
    text = str(value) if not isinstance(value, bool) else ""
    if re.fullmatch(_NUMBER, text):
        return f"write {text}{unit}"
    return f"write it like {example} (understood: {forms})"


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds, written as a duration."""

Size = Annotated[int, BeforeValidator(parse_size)]
"""Bytes, written as a size."""
