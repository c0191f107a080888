"""A line over time, drawn in braille: 2 by 4 dots a character. Pure; floats are good enough to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float | None]
"""Seconds, and the value from then on; ``None`` if it is not known."""

_BLANK = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of a character: by column, then by row
_MOST_DIGITS = 8


def plot(points: Sequence[Point], *, cells: int, lines: int, first: str, last: str) -> list[str]:
    """Draw values that hold until the next point, with labels at both axes.

    Args:
        points: in the order of time; at least one of them with a value.
        cells: width of the whole.
        lines: height of the drawing without the axis below it.
        first, last: what stands below the left and the right end.
    """
    known = [value for _, value in points if value is not None]
    low, high = min(known), max(known)
    labels = _labels(low, high, lines)
    margin = max(len(label) for label in labels.values())
    width = max(1, cells - margin - 3)
    drawn = _draw(_columns(points, width * 2), low, high, width, lines)
    rows = [f"{labels.get(number, ''):>{margin}} ┤{row}" for number, row in enumerate(drawn)]
    ends = first + last.rjust(max(1, width - len(first)))
    return [*rows, " " * margin + " └" + "─" * width, " " * (margin + 2) + ends]


def _columns(points: Sequence[Point], count: int) -> list[tuple[float, float] | None]:
    """Return the lowest and the highest value of each column; ``None`` where none is known."""
    begin_s, end_s = points[0][0], points[-1][0]
    width_s = (end_s - begin_s) / count
    seen: list[list[float]] = [[] for _ in range(count)]
    holds: float | None = None
    at = 0
    for seconds, value in points:
        column = min(count - 1, int((seconds - begin_s) / width_s)) if width_s > 0 else 0
        if holds is not None:
            for between in range(at, column + 1):
                seen[between].append(holds)
        if value is not None:
            seen[column].append(value)
        holds, at = value, column
    if holds is not None:
        for between in range(at, count):
            seen[between].append(holds)
    return [(min(values), max(values)) if values else None for values in seen]


def _draw(
    columns: Sequence[tuple[float, float] | None], low: float, high: float, width: int, lines: int
) -> list[str]:
    codes = [[_BLANK] * width for _ in range(lines)]
    rows = lines * 4
    for x, ends in enumerate(columns):
        if ends is None:
            continue
        lowest, highest = (_row(value, low, high, rows) for value in ends)
        for y in range(highest, lowest + 1):
            codes[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
    return ["".join(map(chr, row)) for row in codes]


def _row(value: float, low: float, high: float, rows: int) -> int:
    """Return the row of dots, counted from above."""
    if high <= low:
        return rows // 2
    return round((high - value) / (high - low) * (rows - 1))


def _labels(low: float, high: float, lines: int) -> dict[int, str]:
    """Return what stands beside which line: top, middle and bottom, with as many digits as tell them apart."""
    if high <= low:
        return {
            lines // 2: _number(low, _MOST_DIGITS).rstrip("0").rstrip(".") if low % 1 else _number(low, 0)
        }
    digits = min(_MOST_DIGITS, max(0, 3 - math.floor(math.log10(high - low))))
    places = {lines - 1: low, 0: high} | ({lines // 2: (low + high) / 2} if lines >= 5 else {})
    return {line: _number(value, digits) for line, value in places.items()}


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"
