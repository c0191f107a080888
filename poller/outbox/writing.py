"""What each write does to the tables and the ledger, within a transaction of the store's."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from poller.outbox import letters, tables
from poller.outbox.ledger import Ledger
from poller.outbox.values import (
    Accept,
    Acknowledge,
    Cursor,
    Discard,
    Forget,
    PutEgress,
    Register,
    Revive,
    Rewind,
    Rewound,
    Settle,
    Skip,
    Write,
)

logger = logging.getLogger(__name__)


def write_all(db: sqlite3.Connection, ledger: Ledger, writes: Iterable[Write], now_ns: int) -> list[object]:
    """Do the writes in order and return the result of each. The ledger is changed along with the tables."""
    return [_DOING[type(write)](db, ledger, write, now_ns) for write in writes]


def _accept(db: sqlite3.Connection, ledger: Ledger, write: Accept, now_ns: int) -> None:
    ledger.last = tables.append(db, write.records, ledger.last, now_ns)
    if write.baseline is not None:
        tables.put_baseline(db, write.account, write.baseline)


def _acknowledge(db: sqlite3.Connection, ledger: Ledger, write: Acknowledge, now_ns: int) -> bool:
    cursor = ledger.cursors.get(write.sink)
    if cursor is None or write.epoch not in {None, cursor.epoch}:
        return False  # it was moved since the batch was read: what it says is about another place
    # What was dropped meanwhile is counted as that, and not as dead on top.
    dead = [
        letter
        for letter in write.dead
        if letter.record.position > cursor.position and ledger.holds(letter.record.position)
    ]
    ledger.cursors[write.sink] = replace(cursor, position=max(cursor.position, write.position))
    if dead:
        letters.bury(db, write.sink, dead, now_ns)
        _count_letters(db, ledger)
    return True


def _register(db: sqlite3.Connection, ledger: Ledger, write: Register, now_ns: int) -> None:
    for sink in ledger.cursors.keys() - write.sinks.keys():
        if ledger.cursors[sink].absent_since_ns is None:
            ledger.cursors[sink] = replace(ledger.cursors[sink], absent_since_ns=now_ns)
    oldest = ledger.first - 1
    for sink, start in write.sinks.items():
        known = ledger.cursors.get(sink)
        if known is None:
            ledger.cursors[sink] = Cursor(oldest if start == "oldest" else ledger.last)
            continue
        if (behind := oldest - known.position) > 0:  # of a file of format 1, which did not count it
            ledger.drop(sink, behind, "absent", missed=behind)
            known = ledger.cursors[sink]
        if known.missed:
            logger.error(
                "records were deleted while a sink was not configured: it will not get them",
                extra={"sink": sink, "records": known.missed},
            )
        ledger.cursors[sink] = replace(
            known, position=max(known.position, oldest), absent_since_ns=None, missed=0
        )


def _put_egress(db: sqlite3.Connection, _ledger: Ledger, write: PutEgress, _now_ns: int) -> None:
    tables.put_egress(db, write.name, write.state)


def _rewind(db: sqlite3.Connection, ledger: Ledger, write: Rewind, _now_ns: int) -> Rewound | None:
    cursor = ledger.cursors.get(write.sink)
    if cursor is None:
        return None
    before = ledger.position(write.sink)
    after = max(write.position, ledger.first - 1)
    if after >= before:
        return Rewound(before, before, 0, 0)
    records = ledger.behind(after) - ledger.behind(before)
    # They wait again, so they are not dead any more; what a sink refuses once more comes back.
    revived = letters.delete_waiting(db, write.sink, ledger.first, after)
    ledger.cursors[write.sink] = replace(
        cursor, position=after, replayed=cursor.replayed + records - revived, epoch=cursor.epoch + 1
    )
    ledger.replayed[write.sink] += records - revived
    if revived:
        _count_letters(db, ledger)
    return Rewound(before, after, records, revived)


def _skip(_db: sqlite3.Connection, ledger: Ledger, write: Skip, _now_ns: int) -> int:
    if write.sink not in ledger.cursors:
        return 0
    waiting = ledger.backlog(write.sink)
    ledger.drop(write.sink, waiting, "skip")
    cursor = ledger.cursors[write.sink]
    ledger.cursors[write.sink] = replace(cursor, position=ledger.last, epoch=cursor.epoch + 1)
    return waiting


def _forget(_db: sqlite3.Connection, ledger: Ledger, write: Forget, _now_ns: int) -> int:
    if write.sink not in ledger.cursors:
        return 0
    waiting = ledger.backlog(write.sink)
    del ledger.cursors[write.sink]
    return waiting


def _revive(db: sqlite3.Connection, ledger: Ledger, write: Revive, _now_ns: int) -> int:
    count = letters.revive(db, write.sink, write.ids)
    _count_letters(db, ledger)
    return count


def _discard(db: sqlite3.Connection, ledger: Ledger, write: Discard, _now_ns: int) -> int:
    count = letters.delete(db, write.sink, write.ids)
    if count and write.sink in ledger.cursors:
        ledger.drop(write.sink, count, "dead_letter")
    _count_letters(db, ledger)
    return count


def _settle(db: sqlite3.Connection, ledger: Ledger, write: Settle, now_ns: int) -> None:
    letters.delete(db, write.sink, write.taken)
    letters.refuse_again(db, write.sink, write.refused, now_ns)
    _count_letters(db, ledger)


def _count_letters(db: sqlite3.Connection, ledger: Ledger) -> None:
    ledger.letters, ledger.again = letters.counts(db)


_DOING: dict[type[Write], Callable[[sqlite3.Connection, Ledger, Any, int], object]] = {
    Accept: _accept,
    Acknowledge: _acknowledge,
    Register: _register,
    PutEgress: _put_egress,
    Rewind: _rewind,
    Skip: _skip,
    Forget: _forget,
    Revive: _revive,
    Discard: _discard,
    Settle: _settle,
}
