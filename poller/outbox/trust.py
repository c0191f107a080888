"""What an error of SQLite means for whoever relies on the outbox."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from poller.errors import OutboxFailed, OutboxFull
from poller.outbox import place, schema


@contextlib.contextmanager
def trusted(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and the system into the two that matter.

    Raises:
        OutboxFull: there is no room; what was to be written is not there, and later it may be.
        OutboxFailed: anything else. A failed sync above all: the kernel calls the pages clean then, so a
            second one would succeed and mean nothing.
    """
    try:
        yield
    except sqlite3.Error as error:
        if schema.is_damage(error):
            # Not now, with all this traffic: the next start looks at every page.
            with contextlib.suppress(OSError):
                schema.suspect_marker(path).touch(mode=0o600)
        if _is_short_of_room(path, error):
            raise OutboxFull(f"{path}: no room on the disk") from error
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        raise OutboxFailed(f"{path}: {error} ({name})") from error
    except OSError as error:
        raise OutboxFailed(f"{path}: {error.strerror}") from error


def _is_short_of_room(path: Path, error: sqlite3.Error) -> bool:
    if schema.primary_code(error) == sqlite3.SQLITE_FULL:
        return True
    # SQLite tells ENOSPC from other failures to write, but neither a quota nor a limit on file sizes: so
    # ask the file system the same question.
    is_write = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_WRITE
    return is_write and not place.has_room(path)
