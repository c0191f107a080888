"""The SQL of the outbox: what is read from its tables and written to them. No policy, no transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from poller.model import Kind, Record
from poller.outbox.values import Cursor, DeadLetter

_RECORD = "id, kind, account, sequence, reason, payload, position"


def positions(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the position of the oldest record kept, and of the newest ever accepted."""
    (last,) = db.execute(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'records'"
    ).fetchone()
    (first,) = db.execute("SELECT min(position) FROM records").fetchone()
    return (last + 1 if first is None else first), last


def append(db: sqlite3.Connection, records: Sequence[Record], after: int, now_ns: int) -> int:
    """Append records behind a position and return the new last one."""
    rows = (
        (position, r.id, r.kind.value, r.account, r.sequence, r.reason, now_ns, r.payload)
        for position, r in enumerate(records, after + 1)
    )
    db.executemany(
        "INSERT INTO records (position, id, kind, account, sequence, reason, accepted_ns, payload)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    return after + len(records)


def read(db: sqlite3.Connection, after: int, max_records: int, max_bytes: int) -> list[Record]:
    """Return the records that follow a position: one if there is one, and more up to the bounds."""
    batch: list[Record] = []
    size_bytes = 0
    # Row by row: what is beyond the bounds never reaches memory.
    for row in db.execute(
        f"SELECT {_RECORD} FROM records WHERE position > ? ORDER BY position LIMIT ?",  # noqa: S608  # constant
        (after, max_records),
    ):
        record = _record(*row)
        size_bytes += len(record.payload)
        if batch and size_bytes > max_bytes:
            break
        batch.append(record)
    return batch


def oldest(db: sqlite3.Connection, limit: int) -> list[tuple[int, int]]:
    """Return position and time of acceptance of the oldest records."""
    return db.execute(
        "SELECT position, accepted_ns FROM records ORDER BY position LIMIT ?", (limit,)
    ).fetchall()


def delete_to(db: sqlite3.Connection, position: int) -> None:
    """Delete the records up to a position, including it."""
    db.execute("DELETE FROM records WHERE position <= ?", (position,))


def put_baseline(db: sqlite3.Connection, account: str, baseline: bytes) -> None:
    """Replace an account's baseline."""
    db.execute(
        "INSERT INTO baselines VALUES (?, ?) ON CONFLICT (account) DO UPDATE SET baseline = excluded.baseline",
        (account, baseline),
    )


def baselines(db: sqlite3.Connection) -> list[tuple[str, bytes]]:
    """Return every account with its encoded baseline."""
    return db.execute("SELECT account, baseline FROM baselines").fetchall()


def cursors(db: sqlite3.Connection) -> dict[str, Cursor]:
    """Return every cursor by the name of its sink."""
    rows = db.execute("SELECT sink, position, absent_since_ns FROM cursors")
    return {sink: Cursor(position, absent_since_ns) for sink, position, absent_since_ns in rows}


def put_cursor(db: sqlite3.Connection, sink: str, cursor: Cursor) -> None:
    """Replace a sink's cursor."""
    db.execute(
        "INSERT INTO cursors VALUES (?, ?, ?) ON CONFLICT (sink)"
        " DO UPDATE SET position = excluded.position, absent_since_ns = excluded.absent_since_ns",
        (sink, cursor.position, cursor.absent_since_ns),
    )


def delete_cursors(db: sqlite3.Connection, sinks: Iterable[str]) -> None:
    """Forget sinks."""
    db.executemany("DELETE FROM cursors WHERE sink = ?", [(sink,) for sink in sinks])


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


def dead_letters(db: sqlite3.Connection, sink: str, limit: int) -> list[DeadLetter]:
    """Return the oldest records that a sink refused."""
    rows = db.execute(
        f"SELECT {_RECORD}, refused_because, at_ns FROM dead_letters"  # noqa: S608  # constant
        " WHERE sink = ? ORDER BY number LIMIT ?",
        (sink, limit),
    ).fetchall()
    return [DeadLetter(_record(*row[:7]), row[7], row[8]) for row in rows]


def count_dead_letters(db: sqlite3.Connection) -> int:
    """Return how many there are; read from an index, and there are few of them."""
    (number,) = db.execute("SELECT count(*) FROM dead_letters").fetchone()
    return int(number)


def delete_dead_letters_before(db: sqlite3.Connection, at_ns: int, limit: int) -> int:
    """Delete some of those put aside before a time and return how many."""
    return db.execute(
        "DELETE FROM dead_letters WHERE number IN"
        " (SELECT number FROM dead_letters WHERE at_ns < ? ORDER BY at_ns LIMIT ?)",
        (at_ns, limit),
    ).rowcount


def put_egress(db: sqlite3.Connection, name: str, state: bytes) -> None:
    """Replace the state of an egress address."""
    db.execute(
        "INSERT INTO egress VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET state = excluded.state",
        (name, state),
    )


def egress(db: sqlite3.Connection) -> dict[str, bytes]:
    """Return the state of every egress address."""
    return dict(db.execute("SELECT name, state FROM egress").fetchall())


def pages(db: sqlite3.Connection) -> tuple[int, int]:
    """Return how many pages the file has, and how many of them are free."""
    (total,) = db.execute("PRAGMA page_count").fetchone()
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    return total, free


def _record(
    id: str,  # noqa: A002  # the field's name in the record
    kind: str,
    account: str,
    sequence: int,
    reason: str,
    payload: bytes,
    position: int,
) -> Record:
    return Record(id, Kind(kind), account, sequence, reason, payload, position)
