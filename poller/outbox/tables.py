"""The SQL of the outbox: what is read from its tables and written to them. No policy, no transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from poller.model import Kind, Record
from poller.outbox.gaps import Gaps
from poller.outbox.ledger import Ledger
from poller.outbox.values import Cursor

RECORD = "id, kind, account, sequence, reason, payload, position"


def ledger(db: sqlite3.Connection) -> Ledger:
    """Return what the file holds; nothing of it is read record by record."""
    first, last = _positions(db)
    gaps = Gaps(db.execute("SELECT first, last FROM gaps ORDER BY first").fetchall())
    return Ledger(first, last, cursors(db), gaps)


def _positions(db: sqlite3.Connection) -> tuple[int, int]:
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
        f"SELECT {RECORD} FROM records WHERE position > ? ORDER BY position LIMIT ?",  # noqa: S608  # constant
        (after, max_records),
    ):
        found = record(*row)
        size_bytes += len(found.payload)
        if batch and size_bytes > max_bytes:
            break
        batch.append(found)
    return batch


def oldest(db: sqlite3.Connection, limit: int) -> list[tuple[int, int]]:
    """Return position and time of acceptance of the oldest records."""
    return db.execute(
        "SELECT position, accepted_ns FROM records ORDER BY position LIMIT ?", (limit,)
    ).fetchall()


def delete_to(db: sqlite3.Connection, position: int) -> None:
    """Delete the records up to a position, including it."""
    db.execute("DELETE FROM records WHERE position <= ?", (position,))


def delete(db: sqlite3.Connection, positions: Iterable[int]) -> None:
    """Delete the records at some positions."""
    db.executemany("DELETE FROM records WHERE position = ?", [(position,) for position in positions])


def subjects(db: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, str, str, str]]:
    """Return position, account, kind and reason of the records that follow a position."""
    return db.execute(
        "SELECT position, account, kind, reason FROM records WHERE position > ? ORDER BY position LIMIT ?",
        (after, limit),
    ).fetchall()


def replace_gaps(db: sqlite3.Connection, before: Gaps, after: Gaps) -> None:
    """Store holes in the place of those that are stored; only what differs is written."""
    if before is after:
        return
    old, new = set(before.ranges), set(after.ranges)
    db.executemany("DELETE FROM gaps WHERE first = ?", [(first,) for first, _ in old - new])
    db.executemany("INSERT INTO gaps VALUES (?, ?)", new - old)


def put_baseline(db: sqlite3.Connection, account: str, baseline: bytes) -> None:
    """Replace an account's baseline."""
    db.execute(
        "INSERT INTO baselines VALUES (?, ?) ON CONFLICT (account) DO UPDATE SET baseline = excluded.baseline",
        (account, baseline),
    )


def baselines(db: sqlite3.Connection) -> list[tuple[str, bytes]]:
    """Return every account with its encoded baseline."""
    return db.execute("SELECT account, baseline FROM baselines").fetchall()


def baselines_of(db: sqlite3.Connection, accounts: Iterable[str]) -> list[tuple[str, bytes]]:
    """Return those of these accounts that have a baseline, with it, encoded."""
    question = "SELECT account, baseline FROM baselines WHERE account = ?"
    return [row for account in accounts for row in db.execute(question, (account,))]


def cursors(db: sqlite3.Connection) -> dict[str, Cursor]:
    """Return every cursor by the name of its sink."""
    rows = db.execute("SELECT sink, position, absent_since_ns, dropped, replayed, missed FROM cursors")
    return {sink: Cursor(*row) for sink, *row in rows}


def put_cursors(db: sqlite3.Connection, before: Mapping[str, Cursor], after: Mapping[str, Cursor]) -> None:
    """Store cursors in the place of those that are stored; only what differs is written."""
    db.executemany("DELETE FROM cursors WHERE sink = ?", [(sink,) for sink in before.keys() - after.keys()])
    db.executemany(
        "INSERT INTO cursors (sink, position, absent_since_ns, dropped, replayed, missed)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (sink) DO UPDATE SET"
        " position = excluded.position, absent_since_ns = excluded.absent_since_ns,"
        " dropped = excluded.dropped, replayed = excluded.replayed, missed = excluded.missed",
        [
            (sink, c.position, c.absent_since_ns, c.dropped, c.replayed, c.missed)
            for sink, c in after.items()
            if c != before.get(sink)
        ],
    )


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


def record(
    id: str,  # noqa: A002  # the field's name in the record
    kind: str,
    account: str,
    sequence: int,
    reason: str,
    payload: bytes,
    position: int,
) -> Record:
    """Make a record of a row: its columns are those of ``RECORD``."""
    return Record(id, Kind(kind), account, sequence, reason, payload, position)
