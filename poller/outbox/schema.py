"""The tables of the outbox, and how its file is opened, recognised, or found unreadable."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from poller.errors import OutboxError, OutboxLocked

APPLICATION_ID = 0x706F6C6C  # "poll" in the file's header: tells our file from anybody else's database
QUICK_CHECK_BELOW_BYTES = 64 * 1024 * 1024  # such a check takes 0.1 s; of a gigabyte it would take seconds

WAL_LIMIT_BYTES = 64 * 1024 * 1024  # what the log may keep of the disk after a burst


_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_FORMAT_1 = (
    # AUTOINCREMENT: a position is never given twice, also after every record was deleted.
    """CREATE TABLE records (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        account TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        reason TEXT NOT NULL,
        accepted_ns INTEGER NOT NULL,
        payload BLOB NOT NULL
    )""",
    "CREATE TABLE baselines (account TEXT PRIMARY KEY, baseline BLOB NOT NULL)",
    "CREATE TABLE cursors (sink TEXT PRIMARY KEY, position INTEGER NOT NULL, absent_since_ns INTEGER)",
    """CREATE TABLE dead_letters (
        number INTEGER PRIMARY KEY,
        sink TEXT NOT NULL,
        position INTEGER NOT NULL,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        account TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        reason TEXT NOT NULL,
        payload BLOB NOT NULL,
        refused_because TEXT NOT NULL,
        at_ns INTEGER NOT NULL
    )""",
    "CREATE UNIQUE INDEX dead_letters_by_record ON dead_letters (sink, id)",
    "CREATE INDEX dead_letters_by_age ON dead_letters (at_ns)",
    "CREATE TABLE egress (name TEXT PRIMARY KEY, state BLOB NOT NULL)",
    f"PRAGMA application_id = {APPLICATION_ID}",
)
# Holes between records; what was dropped is counted; dead letters can be delivered again.
_FORMAT_2 = (
    "ALTER TABLE cursors ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE cursors ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE cursors ADD COLUMN missed INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE dead_letters ADD COLUMN again INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX dead_letters_again ON dead_letters (sink, position) WHERE again",
    "CREATE TABLE gaps (first INTEGER PRIMARY KEY, last INTEGER NOT NULL)",
)
# A new file goes through all of them, so that it cannot differ from an old one.
_FORMATS = (_FORMAT_1, _FORMAT_2)
VERSION = len(_FORMATS)
# What a file of each format must have.
_TABLES = (
    frozenset({"records", "baselines", "cursors", "dead_letters", "egress"}),
    frozenset({"records", "baselines", "cursors", "dead_letters", "egress", "gaps"}),
)


class Unreadable(Exception):
    """The file is damaged: put it aside."""


def suspect_marker(path: Path) -> Path:
    """Return the file whose presence asks for a full check at the next start."""
    return Path(f"{path}.suspect")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is not, or no longer, what it was."""
    return primary_code(error) in _DAMAGED


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's result code without its details; -1 for errors of the module's own."""
    code = getattr(error, "sqlite_errorcode", None)  # errors of the module's own have none
    return -1 if code is None else int(code) & 0xFF


def connect(path: Path, *, check_fully: bool) -> sqlite3.Connection:
    """Open the file, or make the tables if it is empty.

    Args:
        check_fully: read every page first, however long it takes.

    Raises:
        Unreadable: the file is damaged.
        OutboxLocked: another program has it open.
        OutboxError: it is somebody else's, or of a newer version; it was not touched.
    """
    _refuse_foreign(path)
    connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    try:
        _open_as_ours(connection, path, check_fully=check_fully)
    except sqlite3.Error as error:
        # A handle of a damaged file may fail to close as well; it is the first error that tells.
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        if is_damage(error):
            raise Unreadable(str(error)) from error
        if primary_code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise OutboxLocked(f"{path}: another program has it open; close it first", pid=None) from error
        raise OutboxError(f"{path}: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_foreign(path: Path) -> None:
    # Read from the raw header: opening a database, even only to look, may replay its log.
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes == 0:
        return
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise Unreadable("file is not a database")
    version, application = int.from_bytes(header[60:64]), int.from_bytes(header[68:72])
    _judge(path, version, application)


def _judge(path: Path, version: int, application: int) -> None:
    # Both are 0 in a file whose tables are still in the log only.
    if application not in {0, APPLICATION_ID}:
        raise OutboxError(f"{path}: is another program's database; name a file of its own for the outbox")
    if version > VERSION:
        raise OutboxError(
            f"{path}: was written by a newer poller (format {version}, this one knows {VERSION}); "
            "run that version, or name another file"
        )


def _open_as_ours(connection: sqlite3.Connection, path: Path, *, check_fully: bool) -> None:
    # Before the first access: then no shared memory is needed, and no other program gets in.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    _judge(path, version, application)
    if names and application != APPLICATION_ID:
        raise OutboxError(f"{path}: is another program's database; name a file of its own for the outbox")
    if not names:
        # Before the first table, and never again: it would write, also to a file that is damaged.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _configure(connection, path)
    if not names:
        _raise_format(connection, 0)
        return
    if missing := _TABLES[max(version, 1) - 1] - names:
        raise Unreadable(f"tables are missing: {', '.join(sorted(missing))}")
    if check_fully or path.stat().st_size <= QUICK_CHECK_BELOW_BYTES:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Unreadable(verdict)
    _raise_format(connection, version)


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise OutboxError(f"{path}: the file system offers no write-ahead log (SQLite chose {mode!r})")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS: a sync that reaches the disk
    # The store checkpoints by itself: an automatic one would swallow its own errors.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    connection.execute("PRAGMA temp_store = MEMORY")


def _raise_format(connection: sqlite3.Connection, version: int) -> None:
    """Bring the tables from a format to the newest, wholly or not at all."""
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    for statements in _FORMATS[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
    # Into the file itself, so that the header tells what it is from now on.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
