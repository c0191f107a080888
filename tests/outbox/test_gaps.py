"""Holes between records: counted without looking at the records, whatever was deleted in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from poller.outbox.gaps import Gaps

LAST = 60
POSITIONS = st.sets(st.integers(1, LAST))


@given(deleted=st.lists(POSITIONS, max_size=4), first=st.integers(1, LAST + 1))
def test_holes_are_what_a_set_of_positions_would_be(deleted: list[set[int]], first: int) -> None:
    gaps = Gaps()
    for positions in deleted:
        gaps = gaps.with_deleted(sorted(positions))
    gone = set().union(*deleted)
    for gaps_now, gone_now in (
        (gaps, gone),
        (gaps.beginning_at(first), {position for position in gone if position >= first}),
    ):
        assert {position for position in range(LAST + 2) if position in gaps_now} == gone_now
        # Two that touch are one, so that there are never more than records between them.
        assert all(
            after[0] > before[1] + 1
            for before, after in zip(gaps_now.ranges, gaps_now.ranges[1:], strict=False)
        )
        for after in range(LAST + 2):
            for to in (after, LAST // 2, LAST):
                assert gaps_now.missing(after, to) == sum(after < position <= to for position in gone_now)
            assert gaps_now.present(after) == next(p for p in range(after, LAST + 2) if p not in gone_now)
