"""Which records, cursors and dead letters go: by age, and by policy when there is no room."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from itertools import takewhile

from poller.model import Reason, Record
from poller.outbox import letters, tables
from poller.outbox.ledger import Ledger

logger = logging.getLogger(__name__)

STEP_RECORDS = 500  # deleted in one transaction: milliseconds, so that no poll waits for it


def delete_oldest(
    db: sqlite3.Connection, ledger: Ledger, *, to: int, before_ns: int | None, limit: int, policy: str
) -> int:
    """Delete some of the oldest records up to a position, and return how many.

    Args:
        before_ns: only those accepted before this time; ``None``: of any age.
        policy: under which those count as dropped that somebody had not acknowledged.
    """
    if to < ledger.first:
        return 0
    doomed = [
        position
        for position, _ in takewhile(
            lambda row: row[0] <= to and (before_ns is None or row[1] < before_ns),
            tables.oldest(db, limit),
        )
    ]
    if not doomed:
        return 0
    tables.delete_to(db, doomed[-1])
    ledger.drop_waiting(doomed, policy)
    first = ledger.gaps.present(doomed[-1] + 1)
    gaps = ledger.gaps.beginning_at(first)
    tables.replace_gaps(db, ledger.gaps, gaps)
    ledger.begin_at(first, gaps)
    return len(doomed)


def delete_superseded(db: sqlite3.Connection, ledger: Ledger, doomed: Sequence[int]) -> None:
    """Delete records, in order, whose account has newer ones."""
    tables.delete(db, doomed)
    ledger.drop_waiting(doomed, "conflate")
    gaps = ledger.gaps.with_deleted(doomed)
    first = gaps.present(ledger.first)
    gaps = gaps.beginning_at(first)
    tables.replace_gaps(db, ledger.gaps, gaps)
    ledger.begin_at(first, gaps)


def absent_since_before(ledger: Ledger, before_ns: int) -> list[str]:
    """Return the sinks that have been absent since before a time."""
    return [
        sink
        for sink, cursor in ledger.cursors.items()
        if cursor.absent_since_ns is not None and cursor.absent_since_ns <= before_ns
    ]


def forget(ledger: Ledger, sinks: Iterable[str]) -> None:
    """Forget the cursors of sinks."""
    for sink in sinks:
        logger.warning(
            "a sink was not configured for a week: its place in the outbox is forgotten",
            extra={"sink": sink, "records": ledger.backlog(sink)},
        )
        del ledger.cursors[sink]


def delete_letters(db: sqlite3.Connection, ledger: Ledger, before_ns: int) -> bool:
    """Delete some dead letters put aside before a time; return whether there may be more."""
    gone = letters.delete_before(db, before_ns, STEP_RECORDS)
    if not gone:
        return False
    for sink, count in gone.items():
        if sink in ledger.cursors:
            ledger.drop(sink, count, "dead_letter")
    ledger.letters, ledger.again = letters.counts(db)
    return sum(gone.values()) == STEP_RECORDS


class Conflation:
    """Finds records that newer ones of the same account supersede, from the oldest on.

    Of each account the newest status stays, the newest snapshot, and the newest one that is more than a poll
    without a change: sinks that chose ``emit: changed`` do not get the others.
    """

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str, bool], int] | None = None  # unknown until it is needed
        self._looked_at = 0  # the position up to which this round has come
        self._found = True  # anything in this round; the first one is never whole

    def accepted(self, records: Iterable[Record], first: int) -> None:
        """Note records that were accepted at ``first`` and behind it."""
        if self._newest is not None:
            for position, record in enumerate(records, first):
                self._newest[_subject(record.account, record.kind, record.reason)] = position

    def superseded(self, db: sqlite3.Connection) -> list[int] | None:
        """Return positions of records that can go, in order, none or some; ``None``: there are no more."""
        if self._newest is None:
            # The one time that every record is looked at: about a second a gigabyte.
            self._newest = _newest(db)
        rows = tables.subjects(db, self._looked_at, STEP_RECORDS)
        if not rows:
            if not self._found:
                return None
            self._looked_at, self._found = 0, False
            return []
        self._looked_at = rows[-1][0]
        doomed = [position for position, *subject in rows if self._newest[_subject(*subject)] > position]
        self._found = self._found or bool(doomed)
        return doomed


def _newest(db: sqlite3.Connection) -> dict[tuple[str, str, bool], int]:
    rows = db.execute(
        "SELECT account, kind, reason = ?, max(position) FROM records GROUP BY 1, 2, 3", (Reason.EVERY.value,)
    )
    return {(account, kind, bool(is_every)): position for account, kind, is_every, position in rows}


def _subject(account: str, kind: str, reason: str) -> tuple[str, str, bool]:
    return account, str(kind), reason == Reason.EVERY
