"""The SQL of looking: what operators ask about single records. Reads only."""

from __future__ import annotations

import sqlite3

from poller.model import Record
from poller.outbox.letters import LETTER, each
from poller.outbox.tables import RECORD, record
from poller.outbox.values import DeadLetter

Summary = tuple[int, str, str, str, int, str, int]
"""Position, id, kind, account, sequence, reason, when it was accepted."""

Found = tuple[Record, int] | tuple[None, None]
"""A record, and when it was accepted in nanoseconds since the epoch."""


def summaries(db: sqlite3.Connection, after: int, limit: int) -> list[Summary]:
    """Return the first records behind a position, without what they hold."""
    return db.execute(
        "SELECT position, id, kind, account, sequence, reason, accepted_ns FROM records"
        " WHERE position > ? ORDER BY position LIMIT ?",
        (after, limit),
    ).fetchall()


def accepted_after(db: sqlite3.Connection, position: int) -> int | None:
    """Return when the first record behind a position was accepted; ``None`` if there is none."""
    row = db.execute(
        "SELECT accepted_ns FROM records WHERE position > ? ORDER BY position LIMIT 1", (position,)
    ).fetchone()
    return None if row is None else int(row[0])


def first_since(db: sqlite3.Connection, at_ns: int) -> int | None:
    """Return the position of the first record accepted at a time or after it; ``None`` if there is none.

    Found by halves: positions ascend as time does, unless somebody set the clock back.
    """
    low, high = db.execute("SELECT min(position), max(position) FROM records").fetchone()
    if low is None or (newest := accepted_after(db, high - 1)) is None or newest < at_ns:
        return None
    while low < high:
        middle = (low + high) // 2
        accepted_ns = accepted_after(db, middle - 1)
        if accepted_ns is not None and accepted_ns < at_ns:
            low = middle + 1
        else:
            high = middle
    (found,) = db.execute("SELECT min(position) FROM records WHERE position >= ?", (low,)).fetchone()
    return int(found)


def at(db: sqlite3.Connection, position: int) -> Found:
    """Return the record at a position."""
    return _one(db, "position = ?", (position,))


def with_id(db: sqlite3.Connection, id: str, after: int, to: int) -> Found:  # noqa: A002  # the column's name
    """Return the record with an id, if it stands behind ``after`` and not behind ``to``."""
    return _one(db, "position > ? AND position <= ? AND id = ?", (after, to, id))


def letters_of(db: sqlite3.Connection, named: str) -> list[tuple[str, DeadLetter]]:
    """Return the dead letters of a record, by its id or position, each with the sink that refused it."""
    column = "position" if named.isdecimal() else "id"
    rows = db.execute(
        f"SELECT {LETTER}, sink FROM dead_letters WHERE {column} = ? ORDER BY sink",  # noqa: S608  # constants
        (int(named) if named.isdecimal() else named,),
    ).fetchall()
    return [(row[-1], letter) for row, letter in zip(rows, each(rows), strict=True)]


def _one(db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> Found:
    row = db.execute(f"SELECT {RECORD}, accepted_ns FROM records WHERE {where}", values).fetchone()  # noqa: S608  # constants
    return (None, None) if row is None else (record(*row[:7]), int(row[7]))
