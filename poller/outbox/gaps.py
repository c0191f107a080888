"""Positions between records at which there is nothing any more. Pure.

Records are deleted from the oldest end, except when the outbox is conflated: that leaves holes. A backlog is
counted by positions, so what is missing among them has to be known without looking at the records.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

Range = tuple[int, int]
"""First and last position of a hole, both included."""


class Gaps:
    """Holes, disjoint and in order. Never changed: what changes them returns another one."""

    __slots__ = ("_firsts", "_sums", "ranges")

    def __init__(self, ranges: Sequence[Range] = ()) -> None:
        """``ranges`` are in order, and two that touch are one."""
        self.ranges = tuple(ranges)
        self._firsts = [first for first, _ in self.ranges]
        self._sums = [0, *accumulate(last - first + 1 for first, last in self.ranges)]

    def __contains__(self, position: int) -> bool:
        place = bisect_right(self._firsts, position)
        return place > 0 and position <= self.ranges[place - 1][1]

    def missing(self, after: int, to: int) -> int:
        """Count the missing positions behind one and up to another, which is included."""
        return max(0, self._missing_to(to) - self._missing_to(after))

    def present(self, position: int) -> int:
        """Return the position itself, or where the hole ends that it lies in."""
        place = bisect_right(self._firsts, position)
        if place and position <= self.ranges[place - 1][1]:
            return self.ranges[place - 1][1] + 1
        return position

    def with_deleted(self, positions: Iterable[int]) -> Gaps:
        """Return the holes there are after more was deleted."""
        merged: list[Range] = []
        for first, last in sorted([*self.ranges, *((position, position) for position in positions)]):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return Gaps(merged)

    def beginning_at(self, position: int) -> Gaps:
        """Return what is left of them when everything before a position is forgotten."""
        if not self.ranges or self.ranges[0][0] >= position:
            return self
        return Gaps([(max(first, position), last) for first, last in self.ranges if last >= position])

    def _missing_to(self, position: int) -> int:
        place = bisect_right(self._firsts, position)
        if place == 0:
            return 0
        first, last = self.ranges[place - 1]
        return self._sums[place - 1] + min(position, last) - first + 1
