"""Read what the ``sqlite`` sink wrote: how much an account held, and when.

Only reads, beside a daemon too: the file is opened read-only and never checkpointed. SQLite needs the
shared-memory file beside it (``-shm``) even for that; where it is missing and cannot be made, the
file is read as it lies, provided that no log holds what is newer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

from poller.errors import PollerError
from poller.overview import HistoryPoint
from poller.sinks.sqlite import APPLICATION_ID, VERSION

MOST_POINTS = 100_000
BUSY_TIMEOUT_S = 5.0

_ALTOGETHER = """
    SELECT observed_at, NULL, total_btc, sequence FROM snapshots
    WHERE account = ? AND observed_at >= ? AND observed_at <= ?
    ORDER BY observed_at DESC, number DESC LIMIT ?
"""
# What a snapshot does not list is zero, and zero is worth nothing.
_OF_ONE_ASSET = """
    SELECT observed_at, coalesce(total, '0'),
           CASE WHEN total IS NULL THEN '0' ELSE btc_valuation END, sequence
    FROM (
        SELECT number, observed_at, sequence FROM snapshots
        WHERE account = ? AND observed_at >= ? AND observed_at <= ?
        ORDER BY observed_at DESC, number DESC LIMIT ?
    )
    LEFT JOIN balances ON snapshot = number AND asset = ?
    ORDER BY observed_at DESC, number DESC
"""
_FIRST, _LAST = "", "9"  # before and after every RFC 3339 text


class HistoryUnreadable(PollerError):
    """A history cannot be read; the text says why and what to do."""


def read_history(
    path: Path,
    account: str,
    asset: str | None = None,
    since: str | None = None,
    until: str | None = None,
    *,
    most: int = MOST_POINTS,
) -> list[HistoryPoint]:
    """Return what an account held, oldest first; of the newest ``most`` snapshots if there are more.

    Blocks. An account that the file does not know has no points.

    Args:
        path: of the database.
        asset: what to look at; ``None`` is everything together, of which only the value in BTC is known.
        since, until: the first and the last instant, as RFC 3339 in UTC with microseconds.

    Raises:
        HistoryUnreadable: there is no file, or it is not a history, or it cannot be opened.
    """
    values: list[object] = [account, since or _FIRST, until or _LAST, most]
    with _opened(path) as db:
        rows = (
            db.execute(_ALTOGETHER, values) if asset is None else db.execute(_OF_ONE_ASSET, [*values, asset])
        ).fetchall()
    return [HistoryPoint(*row) for row in reversed(rows)]


def accounts_in(path: Path) -> list[str]:
    """Return the names of all accounts that a history knows.

    Raises:
        HistoryUnreadable: as from ``read_history``.
    """
    # Leaps from name to name along the index, where DISTINCT would walk through all snapshots.
    found: list[str] = []
    with _opened(path) as db:
        while True:
            after = found[-1] if found else ""
            (name,) = db.execute("SELECT min(account) FROM snapshots WHERE account > ?", (after,)).fetchone()
            if name is None:
                return found
            found.append(name)


def thinned(points: Sequence[HistoryPoint], most: int) -> list[HistoryPoint]:
    """Return at most so many points that a drawing looks the same: of each stretch the first, lowest and highest.

    The last point is always there. Pure.
    """
    if len(points) <= most:
        return list(points)
    stretches = max(1, (most - 1) // 3)
    kept: set[int] = {len(points) - 1}
    for number in range(stretches):
        first, end = (len(points) * edge // stretches for edge in (number, number + 1))
        stretch = range(first, end)
        known = [index for index in stretch if amount(points[index]) is not None]
        kept.add(first)
        if known:
            kept.add(min(known, key=lambda index: amount(points[index]) or Decimal(0)))
            kept.add(max(known, key=lambda index: amount(points[index]) or Decimal(0)))
    return [points[index] for index in sorted(kept)][-most:]


def amount(point: HistoryPoint) -> Decimal | None:
    """Return what a drawing of a point shows: the amount of the asset, or else the value in BTC."""
    shown = point.total if point.total is not None else point.total_btc
    return None if shown is None else Decimal(shown)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        raise HistoryUnreadable(f"{path}: there is no history yet; the sink makes it with its first record")
    try:
        with closing(_connected(path)) as db:
            _check(db, path)
            db.execute("BEGIN")  # one view of the file, whatever is written meanwhile
            yield db
    except sqlite3.Error as error:
        raise HistoryUnreadable(f"{path}: cannot be read: {error}") from error


def _connected(path: Path) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode=ro"
    db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S)
    try:
        db.execute("PRAGMA schema_version").fetchone()  # to connect opens nothing yet
    except sqlite3.OperationalError as error:
        db.close()
        if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
            raise
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size > 0:
            raise HistoryUnreadable(
                f"{path}: its log {log.name} cannot be read with it; run this as the user of the daemon"
            ) from error
        # Nobody has it open, or there would be a log: what lies there is all there is.
        return sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    try:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise HistoryUnreadable(f"{path}: is no history of this poller: {error}") from error
    if application != APPLICATION_ID:
        raise HistoryUnreadable(f"{path}: is no history of this poller")
    if version > VERSION:
        raise HistoryUnreadable(
            f"{path}: version {version} was written by a newer poller; this one knows {VERSION}"
        )
