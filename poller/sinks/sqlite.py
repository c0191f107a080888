"""Keep the history in a SQLite file: what everybody held, when, and what changed.

Tables (amounts are exact, as TEXT; SQLite's numbers would be doubles):

* ``snapshots``: one row a snapshot record. ``number`` counts up in the order of delivery; ``id`` is the
  record's and unique, so what is delivered twice is stored once.
* ``balances``: what the snapshot listed, one row an asset; what is not listed is zero.
* ``changes``: what differs from the account's snapshot before.
* ``statuses``: the account turned ok, stale or quarantined.
* ``latest``: a view with the balances of each account's last snapshot.

``write`` returns when the batch is committed with ``synchronous=FULL``: it survives a power cut as far
as the disk keeps its word. What can still be lost is the file. Reading it while the daemon writes is
fine; writing to it from elsewhere is not.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import orjson
from pydantic import Field

from poller.errors import SinkBroken, SinkRejected, SinkUnavailable
from poller.model import Kind, Record
from poller.sinks import SinkOptions

T = TypeVar("T")

VERSION = 1
SCHEMA = (
    """CREATE TABLE snapshots (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        account TEXT NOT NULL,
        labels TEXT NOT NULL,       -- JSON object
        sequence INTEGER NOT NULL,
        reason TEXT NOT NULL,       -- first, changed, heartbeat, every
        observed_at TEXT NOT NULL,  -- RFC 3339, UTC, microseconds: sorts as time does
        uncertainty_ms REAL NOT NULL,
        total_btc TEXT,             -- NULL: unknown
        egress TEXT NOT NULL,
        latency_ms REAL NOT NULL
    )""",
    "CREATE INDEX snapshots_by_time ON snapshots (account, observed_at)",
    "CREATE INDEX snapshots_by_number ON snapshots (account, number)",
    """CREATE TABLE balances (
        snapshot INTEGER NOT NULL REFERENCES snapshots (number),
        asset TEXT NOT NULL,
        free TEXT NOT NULL,
        locked TEXT NOT NULL,
        freeze TEXT NOT NULL,
        withdrawing TEXT NOT NULL,
        ipoable TEXT NOT NULL,
        total TEXT NOT NULL,        -- free + locked + freeze + withdrawing
        btc_valuation TEXT,         -- NULL: unknown
        PRIMARY KEY (snapshot, asset)
    ) WITHOUT ROWID""",
    """CREATE TABLE changes (
        snapshot INTEGER NOT NULL REFERENCES snapshots (number),
        asset TEXT NOT NULL,
        field TEXT NOT NULL,
        before TEXT NOT NULL,
        after TEXT NOT NULL,
        PRIMARY KEY (snapshot, asset, field)
    ) WITHOUT ROWID""",
    "CREATE INDEX changes_by_asset ON changes (asset, snapshot)",
    """CREATE TABLE statuses (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        account TEXT NOT NULL,
        labels TEXT NOT NULL,
        sequence INTEGER NOT NULL,  -- of the last snapshot; 0 before the first
        state TEXT NOT NULL,        -- ok, stale, quarantined
        reason TEXT NOT NULL,
        since TEXT NOT NULL
    )""",
    """CREATE VIEW latest AS
        SELECT account, asset, free, locked, freeze, withdrawing, ipoable, total, btc_valuation,
               sequence, observed_at
        FROM balances
        JOIN snapshots ON snapshots.number = balances.snapshot
        WHERE snapshots.number = (SELECT max(number) FROM snapshots AS last WHERE last.account = snapshots.account)""",
    f"PRAGMA user_version = {VERSION}",
)
BALANCE_FIELDS = ("asset", "free", "locked", "freeze", "withdrawing", "ipoable", "total", "btc_valuation")
CHANGE_FIELDS = ("asset", "field", "before", "after")

# What passes by itself, or when somebody makes room: the same batch may be written later.
_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})


class SqliteOptions(SinkOptions):
    """Options of the ``sqlite`` sink."""

    path: Path = Field(description="The database file; it is made if it is missing.")


class SqliteSink:
    """Writes batches, each in one transaction, from a thread of its own."""

    Options: ClassVar[type[SinkOptions]] = SqliteOptions

    def __init__(self, options: SqliteOptions) -> None:
        self._path = options.path
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite sink")

    async def open(self) -> None:
        """Open the file, make the tables if they are missing.

        Raises:
            SinkUnavailable: it cannot be opened now.
            SinkBroken: it is something else, or of a newer version.
        """
        await self._run(self._open)

    async def write(self, batch: Sequence[Record]) -> None:
        """Commit the batch; records whose ids are there already are left as they are.

        Raises:
            SinkUnavailable: nothing was written.
            SinkRejected: some records do not have the published shape; the others were written.
            SinkBroken: the tables are not what they should be.
        """
        rejected = await self._run(self._write, batch)
        if rejected:
            raise SinkRejected(f"{self._path}: {len(rejected)} records refused", rejected=rejected)

    async def close(self) -> None:
        """Close the file."""
        await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            text = f"{self._path}: {error}"
            raise (SinkUnavailable(text) if code in _PASSING else SinkBroken(text)) from error
        except OSError as error:
            raise SinkUnavailable(f"{self._path}: {error.strerror}") from error

    def _open(self) -> None:
        self._close()
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._path.exists():
            self._path.touch(mode=0o600)
        # Transactions are begun by hand: the module's own way would commit before DDL.
        self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise SinkBroken(
                f"{self._path}: version {version} was written by a newer poller; this one reads {VERSION}"
            )
        if version == 0:
            with self._transaction() as execute:
                for statement in SCHEMA:
                    execute(statement)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _write(self, batch: Sequence[Record]) -> dict[str, str]:
        rejected = {}
        with self._transaction() as execute:
            for record in batch:
                execute("SAVEPOINT record")
                try:
                    _insert(execute, record)
                except _UNFIT as error:
                    execute("ROLLBACK TO record")
                    rejected[record.id] = f"not of the published shape: {error!r}"
                execute("RELEASE record")
        return rejected

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        if self._connection is None:
            raise SinkUnavailable(f"{self._path}: not open")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection.execute
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


Statement = tuple[str, tuple[Any, ...]]

# What a record can do wrong; everything else is about the file.
_UNFIT = (
    *(KeyError, TypeError, ValueError, OverflowError),
    *(sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError),
)


def _insert(execute: Callable[..., sqlite3.Cursor], record: Record) -> None:
    rows = _snapshot_rows if record.kind is Kind.SNAPSHOT else _status_rows
    for sql, values in rows(record.document):
        if execute(sql, values).rowcount == 0:
            return  # the id is there already, and so is what hangs on it


_NEWEST = "(SELECT max(number) FROM snapshots)"


def _snapshot_rows(document: Mapping[str, Any]) -> list[Statement]:
    labels = orjson.dumps(document["labels"]).decode()
    fields = ("sequence", "reason", "observed_at", "uncertainty_ms", "total_btc", "egress", "latency_ms")
    rows: list[Statement] = [
        (
            f"INSERT OR IGNORE INTO snapshots (id, account, labels, {', '.join(fields)}) VALUES (?,?,?,?,?,?,?,?,?,?)",
            (document["id"], document["account"], labels, *(document[field] for field in fields)),
        )
    ]
    rows += [
        (
            f"INSERT INTO balances VALUES ({_NEWEST},?,?,?,?,?,?,?,?)",
            tuple(row[field] for field in BALANCE_FIELDS),
        )
        for row in document["balances"]
    ]
    rows += [
        (f"INSERT INTO changes VALUES ({_NEWEST},?,?,?,?)", tuple(row[field] for field in CHANGE_FIELDS))
        for row in document["changes"]
    ]
    return rows


def _status_rows(document: Mapping[str, Any]) -> list[Statement]:
    fields = ("id", "account", "sequence", "state", "reason", "since")
    return [
        (
            f"INSERT OR IGNORE INTO statuses ({', '.join(fields)}, labels) VALUES (?,?,?,?,?,?,?)",
            (*(document[field] for field in fields), orjson.dumps(document["labels"]).decode()),
        )
    ]


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return every snapshot of a history, as records, in the order of their delivery."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        records = {
            row["number"]: {
                "schema": "poller.snapshot/1",
                **dict(row),
                "labels": orjson.loads(row["labels"]),
                "balances": [],
                "changes": [],
            }
            for row in connection.execute("SELECT * FROM snapshots ORDER BY number")
        }
        for table, fields in (("balances", BALANCE_FIELDS), ("changes", CHANGE_FIELDS)):
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY snapshot"):
                records[row["snapshot"]][table].append({field: row[field] for field in fields})
    for record in records.values():
        del record["number"]
    return list(records.values())
