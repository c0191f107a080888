"""How an outbox gets a database, whatever is found in its place."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from poller.errors import OutboxError, OutboxLocked
from poller.locks import FileLock, Held
from poller.outbox import place, schema

logger = logging.getLogger(__name__)


def take_lock(path: Path) -> FileLock:
    """Keep every other process away from the outbox.

    Raises:
        OutboxLocked: another process has it.
        OutboxError: the lock file cannot be opened.
    """
    file = Path(f"{path}.lock")
    try:
        return FileLock(file)
    except Held as held:
        raise OutboxLocked(f"{file}: {held}; stop that poller first", pid=held.pid) from held
    except OSError as error:
        raise OutboxError(f"{file}: {error.strerror}") from error


def open_database(path: Path, now_ns: int, *, begin_anew: bool) -> tuple[sqlite3.Connection, Path | None]:
    """Open the file, or make a new one; what cannot be read is put aside first, and where is returned.

    The caller holds the lock: nobody else does this at the same time.

    Args:
        begin_anew: put it aside; or else it is an error. That is for a daemon to do: it knows what follows.

    Raises:
        OutboxError: the file must not be used, and was not touched.
    """
    suspect = schema.suspect_marker(path)
    set_aside = None
    try:
        db = _open(path, check_fully=suspect.exists())
    except schema.Unreadable as damage:
        if not begin_anew:
            raise OutboxError(
                f"{path}: is unreadable ({damage}); the next start of the daemon puts it aside"
            ) from damage
        set_aside = place.set_aside(path, now_ns)
        logger.error(  # noqa: TRY400  # the damage is all there is to say
            "the outbox was unreadable: it was put aside and a new one begun; what sinks did not have yet"
            " is in it",
            extra={"file": str(path), "set_aside": str(set_aside), "error": str(damage)},
        )
        db = _open(path, check_fully=False)
    suspect.unlink(missing_ok=True)
    return db, set_aside


def _open(path: Path, *, check_fully: bool) -> sqlite3.Connection:
    if not path.exists() and Path(f"{path}-wal").exists():
        # SQLite would replay it into a new file that it does not belong to.
        raise schema.Unreadable("a write-ahead log without its database")
    place.prepare_file(path)
    return schema.connect(path, check_fully=check_fully)
