"""What the outbox knows without looking into its file: positions, cursors, holes, counts."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from poller.outbox.gaps import Gaps
from poller.outbox.values import Cursor


@dataclass(slots=True)
class Ledger:
    """The account of one state of the file.

    A transaction works on a copy, which takes the place of the last one when it is committed. So what is here
    is what is on the disk, and once handed out it does not change any more.

    Attributes:
        first: position of the oldest record kept; ``last + 1`` if none is.
        last: position of the newest record ever accepted; 0 before the first.
        cursors: by sink.
        gaps: positions between the two at which there is nothing any more.
        letters: dead letters, by sink.
        again: those of them that are to be delivered again, by sink.
        drops: records dropped since the outbox was opened, by sink and policy.
        replayed: records that came back by moving a cursor, since the outbox was opened, by sink.
    """

    first: int
    last: int
    cursors: dict[str, Cursor]
    gaps: Gaps
    letters: dict[str, int] = field(default_factory=dict)
    again: dict[str, int] = field(default_factory=dict)
    drops: Counter[tuple[str, str]] = field(default_factory=Counter)
    replayed: Counter[str] = field(default_factory=Counter)

    def copy(self) -> Ledger:
        """Return one that can be changed. Cursors and holes are values: they can be shared."""
        return replace(
            self,
            cursors=dict(self.cursors),
            letters=dict(self.letters),
            again=dict(self.again),
            drops=self.drops.copy(),
            replayed=self.replayed.copy(),
        )

    def position(self, sink: str) -> int:
        """Return the position up to which nothing waits for a sink."""
        return max(self.cursors[sink].position, self.first - 1)

    def behind(self, position: int) -> int:
        """Count the records behind a position."""
        after = max(position, self.first - 1)
        return max(0, self.last - after) - self.gaps.missing(after, self.last)

    def backlog(self, sink: str) -> int:
        """Count the records that a sink has not acknowledged."""
        return self.behind(self.cursors[sink].position)

    def has_more_than(self, old: Ledger) -> bool:
        """Whether there is something to deliver that was not there before."""
        return (
            self.last > old.last
            or self.again != old.again
            or any(
                cursor.epoch != old.cursors[sink].epoch
                for sink, cursor in self.cursors.items()
                if sink in old.cursors
            )
        )

    def holds(self, position: int) -> bool:
        """Whether there is a record at a position."""
        return self.first <= position <= self.last and position not in self.gaps

    def drop(self, sink: str, count: int, policy: str, *, missed: int = 0) -> None:
        """Count records that a sink will not get; ``missed``: those that it could not know of."""
        cursor = self.cursors[sink]
        self.cursors[sink] = replace(cursor, dropped=cursor.dropped + count, missed=cursor.missed + missed)
        self.drops[sink, policy] += count

    def drop_waiting(self, doomed: Sequence[int], policy: str) -> None:
        """Count the deletion of records, in order, for every sink that has not acknowledged them."""
        for sink, cursor in list(self.cursors.items()):
            if lost := len(doomed) - bisect_right(doomed, cursor.position):
                self.drop(sink, lost, policy, missed=0 if cursor.absent_since_ns is None else lost)

    def begin_at(self, position: int, gaps: Gaps) -> None:
        """Note that there is nothing before a position any more, and which holes are left behind it."""
        self.first, self.gaps = position, gaps
        for sink, cursor in self.cursors.items():
            if cursor.position < position - 1:
                self.cursors[sink] = replace(cursor, position=position - 1)
