"""Keep the history in a SQLite file: what everybody held, when, and what changed.

Tables (amounts are exact, as TEXT; SQLite's numbers would be doubles):

* ``snapshots``: one row a snapshot record. ``number`` counts up in the order of delivery; ``id`` is the
  record's and unique, so what is delivered twice is stored once.
* ``balances``: what the snapshot listed, one row an asset; what is not listed is zero.
* ``changes``: what differs from the account's snapshot before.
* ``statuses``: the account turned ok, stale, quarantined or removed.
* ``latest``: a view with the balances of each account's last snapshot.

``write`` returns when the batch is committed with ``synchronous=FULL``: it survives a power cut as far
as the disk keeps its word. What can still be lost is the file. Reading it while the daemon writes is
fine; writing to it from elsewhere is not.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import orjson
from pydantic import Field

from poller.errors import SinkBroken, SinkRejected, SinkUnavailable
from poller.model import Kind, Record
from poller.sinks import SinkOptions
from poller.sinks.threads import OwnThread

T = TypeVar("T")

VERSION = 1
BUSY_TIMEOUT_S = 5.0  # for another program that writes to the file, which it should not
APPLICATION_ID = 0x706F6C68  # "polh" in the file's header: a poller's history, and nobody else's database
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
        WHERE snapshots.number IN (SELECT max(number) FROM snapshots GROUP BY account)""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)

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
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode of the open one
        self._thread = OwnThread("sqlite sink")

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
            code = getattr(error, "sqlite_errorcode", None)
            text = f"{self._path}: {error}"
            is_passing = code is not None and code & 0xFF in _PASSING
            raise (SinkUnavailable(text) if is_passing else SinkBroken(text)) from error
        except OSError as error:
            raise SinkUnavailable(f"{self._path}: {error.strerror}") from error

    def _open(self) -> None:
        self._close()
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._path.exists():
            _refuse_orphan_log(self._path)
            self._path.touch(mode=0o600)
        # Transactions are begun by hand: the module's own way would commit before DDL.
        self._db = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
        self._file = _identity(self._path)
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION_ID:
            raise SinkBroken(f"{self._path}: is another program's database; name a file of its own")
        if version > VERSION:
            raise SinkBroken(
                f"{self._path}: version {version} was written by a newer poller; this one knows {VERSION}"
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if not tables:
            with self._transaction(self._db):
                for statement in SCHEMA:
                    self._db.execute(statement)

    def _close(self) -> None:
        if self._db is not None:
            # Of a file that was moved SQLite would leave the log behind, under the old name.
            with suppress(sqlite3.Error):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._db.close()
            self._db = None

    def _write(self, batch: Sequence[Record]) -> dict[str, str]:
        # A file that was moved or removed would go on taking records, where nobody looks for them.
        if self._db is None or _identity(self._path) != self._file:
            self._open()
        db = self._db
        assert db is not None  # noqa: S101  # opened above
        rejected = {}
        try:
            with self._transaction(db):
                for record in batch:
                    db.execute("SAVEPOINT record")
                    try:
                        _insert(db, record)
                    except _UNFIT as error:
                        db.execute("ROLLBACK TO record")
                        rejected[record.id] = f"not of the published shape: {error!r}"
                    db.execute("RELEASE record")
        except sqlite3.Error:
            self._close()  # the next write begins with a new connection
            raise
        return rejected

    @contextmanager
    def _transaction(self, db: sqlite3.Connection) -> Iterator[None]:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _refuse_orphan_log(path: Path) -> None:
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size > 0:
        # SQLite would delete it, to begin the new file.
        raise SinkBroken(
            f"{path}: is gone, but its log {log.name} holds records of it; put the two together again"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


# What goes into a column, checked: SQLite itself would take anything anywhere. ------------------


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _text_or_null(value: object) -> str | None:
    return None if value is None else _text(value)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a number")
    return value


def _json(value: object) -> str:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return orjson.dumps(value).decode()


Columns = Mapping[str, Callable[[object], str | int | float | None]]

SNAPSHOT: Columns = {
    "id": _text,
    "account": _text,
    "labels": _json,
    "sequence": _whole,
    "reason": _text,
    "observed_at": _text,
    "uncertainty_ms": _number,
    "total_btc": _text_or_null,
    "egress": _text,
    "latency_ms": _number,
}
BALANCE: Columns = {
    "asset": _text,
    "free": _text,
    "locked": _text,
    "freeze": _text,
    "withdrawing": _text,
    "ipoable": _text,
    "total": _text,
    "btc_valuation": _text_or_null,
}
CHANGE: Columns = {"asset": _text, "field": _text, "before": _text, "after": _text}
STATUS: Columns = {
    "id": _text,
    "account": _text,
    "labels": _json,
    "sequence": _whole,
    "state": _text,
    "reason": _text,
    "since": _text,
}

# What a record can do wrong; every other error is about the file.
_UNFIT = (
    *(KeyError, TypeError, ValueError, OverflowError),
    *(sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError),
)


def _insert(db: sqlite3.Connection, record: Record) -> None:
    document = record.document
    if document["id"] != record.id:
        raise ValueError(f"the payload has another id: {document['id']!r}")
    if record.kind is Kind.STATUS:
        _add(db, "statuses", STATUS, document)
        return
    number = _add(db, "snapshots", SNAPSHOT, document)
    if number is None:
        return  # the id is there already, and so is what hangs on it
    for table, columns in (("balances", BALANCE), ("changes", CHANGE)):
        places = ", ".join("?" * len(columns))
        db.executemany(
            f"INSERT INTO {table} (snapshot, {', '.join(columns)}) VALUES (?, {places})",  # constants
            [(number, *_values(row, columns)) for row in document[table]],
        )


def _add(db: sqlite3.Connection, table: str, columns: Columns, document: Mapping[str, object]) -> int | None:
    """Insert a record's own row; return its number, ``None`` if its id is there already."""
    places = ", ".join("?" * len(columns))
    cursor = db.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) ON CONFLICT (id) DO NOTHING",  # constants
        _values(document, columns),
    )
    return cursor.lastrowid if cursor.rowcount else None


def _values(document: Mapping[str, object], columns: Columns) -> tuple[str | int | float | None, ...]:
    return tuple(check(document[name]) for name, check in columns.items())


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
        for table, fields in (("balances", BALANCE), ("changes", CHANGE)):
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY snapshot"):
                records[row["snapshot"]][table].append({field: row[field] for field in fields})
    for record in records.values():
        del record["number"]
    return list(records.values())
