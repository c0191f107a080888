"""The SQL of dead letters: records that a sink refused for good, and those it is to get again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from poller.outbox.tables import RECORD, record
from poller.outbox.values import DeadLetter

LETTER = f"{RECORD}, refused_because, at_ns, again"


def counts(db: sqlite3.Connection) -> tuple[dict[str, int], dict[str, int]]:
    """Count them by sink: all, and those that are to be delivered again. Read from indices; they are few."""
    return (
        dict(db.execute("SELECT sink, count(*) FROM dead_letters GROUP BY sink").fetchall()),
        dict(db.execute("SELECT sink, count(*) FROM dead_letters WHERE again GROUP BY sink").fetchall()),
    )


def bury(db: sqlite3.Connection, sink: str, letters: Sequence[DeadLetter], now_ns: int) -> None:
    """Put records aside that a sink refused; the same record twice counts once."""
    rows = [
        (
            sink,
            r.position,
            r.id,
            r.kind.value,
            r.account,
            r.sequence,
            r.reason,
            r.payload,
            letter.reason,
            now_ns,
        )
        for letter in letters
        for r in (letter.record,)
    ]
    db.executemany(
        "INSERT INTO dead_letters"
        " (sink, position, id, kind, account, sequence, reason, payload, refused_because, at_ns)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sink, id) DO NOTHING",
        rows,
    )


def oldest(db: sqlite3.Connection, sink: str, limit: int) -> list[DeadLetter]:
    """Return the dead letters of a sink that were put aside first."""
    rows = db.execute(
        f"SELECT {LETTER} FROM dead_letters WHERE sink = ? ORDER BY number LIMIT ?",  # noqa: S608  # constant
        (sink, limit),
    )
    return list(each(rows))


def again(
    db: sqlite3.Connection, sink: str, after: int, max_records: int, max_bytes: int
) -> list[DeadLetter]:
    """Return those to be delivered again that follow a position: one if there is one, more up to the bounds."""
    batch: list[DeadLetter] = []
    size_bytes = 0
    rows = db.execute(
        f"SELECT {LETTER} FROM dead_letters"  # noqa: S608  # constant
        " WHERE sink = ? AND again AND position > ? ORDER BY position LIMIT ?",
        (sink, after, max_records),
    )
    for letter in each(rows):
        size_bytes += len(letter.record.payload)
        if batch and size_bytes > max_bytes:
            break
        batch.append(letter)
    return batch


def revive(db: sqlite3.Connection, sink: str, ids: Sequence[str] | None) -> int:
    """Flag dead letters to be delivered again, all if none is named; return how many were not yet."""
    if ids is None:
        return db.execute("UPDATE dead_letters SET again = 1 WHERE sink = ? AND NOT again", (sink,)).rowcount
    return _each_id(
        db, "UPDATE dead_letters SET again = 1 WHERE sink = ? AND id = ? AND NOT again", sink, ids
    )


def delete(db: sqlite3.Connection, sink: str, ids: Iterable[str] | None) -> int:
    """Delete dead letters, all if none is named; return how many."""
    if ids is None:
        return db.execute("DELETE FROM dead_letters WHERE sink = ?", (sink,)).rowcount
    return _each_id(db, "DELETE FROM dead_letters WHERE sink = ? AND id = ?", sink, ids)


def delete_waiting(db: sqlite3.Connection, sink: str, first: int, after: int) -> int:
    """Delete those of records that are still kept, from ``first``, and behind a position; return how many."""
    return db.execute(
        "DELETE FROM dead_letters WHERE sink = ? AND position > ? AND position >= ?"
        " AND EXISTS (SELECT 1 FROM records WHERE records.position = dead_letters.position)",
        (sink, after, first),
    ).rowcount


def refuse_again(db: sqlite3.Connection, sink: str, letters: Iterable[DeadLetter], now_ns: int) -> None:
    """Keep dead letters that were refused once more, with the new reason and time."""
    db.executemany(
        "UPDATE dead_letters SET again = 0, refused_because = ?, at_ns = ? WHERE sink = ? AND id = ?",
        [(letter.reason, now_ns, sink, letter.record.id) for letter in letters],
    )


def delete_before(db: sqlite3.Connection, at_ns: int, limit: int) -> dict[str, int]:
    """Delete some of those put aside before a time and return how many, by sink."""
    found = db.execute(
        "SELECT number, sink FROM dead_letters WHERE at_ns < ? ORDER BY at_ns LIMIT ?", (at_ns, limit)
    ).fetchall()
    db.executemany("DELETE FROM dead_letters WHERE number = ?", [(number,) for number, _ in found])
    gone: dict[str, int] = {}
    for _, sink in found:
        gone[sink] = gone.get(sink, 0) + 1
    return gone


def _each_id(db: sqlite3.Connection, statement: str, sink: str, ids: Iterable[str]) -> int:
    return sum(db.execute(statement, (sink, id_)).rowcount for id_ in ids)


def each(rows: Iterable[tuple[Any, ...]]) -> Iterator[DeadLetter]:
    """Read rows that begin with the columns of ``LETTER``."""
    for row in rows:
        yield DeadLetter(record(*row[:7]), row[7], row[8], bool(row[9]))
