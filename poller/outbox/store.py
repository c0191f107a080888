"""The outbox's one connection, and everything that is done with it. Lives in one thread."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from poller.clock import NS_PER_S
from poller.errors import OutboxError, OutboxFailed, OutboxFull
from poller.locks import FileLock
from poller.model import Baseline, Record
from poller.outbox import place, tables
from poller.outbox.codec import decode_baseline
from poller.outbox.opening import open_database, take_lock
from poller.outbox.trust import trusted
from poller.outbox.values import (
    Accept,
    Acknowledge,
    Committed,
    Cursor,
    DeadLetter,
    PutEgress,
    Register,
    Standing,
    Start,
    Tended,
    Write,
)

logger = logging.getLogger(__name__)

ABSENT_CURSOR_KEPT_S = 7 * 86_400
DEAD_LETTERS_KEPT_S = 30 * 86_400
RESERVE_BYTES = 4 * 1024 * 1024

STEP_RECORDS = 500  # deleted in one transaction: milliseconds, so that no poll waits for it
STEP_PAGES = 512
SPARE_PAGES = 1024  # free pages left in the file: the next records need them anyway
CHECKPOINT_COMMITS = 200
CHECKPOINT_BYTES = 4 * 1024 * 1024


class Store:
    """The file. Every method blocks; all of them, ``open`` too, are called from one and the same thread.

    A write either happened wholly and is on the disk, or it did not happen.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        path: Path,
        lock: FileLock,
        *,
        retain_s: float,
        max_size_bytes: int,
        set_aside: Path | None,
    ) -> None:
        self._db = db
        self._path = path
        self._identity = place.identity(path)
        self._lock = lock
        self._retain_ns = round(retain_s * NS_PER_S)
        self._max_bytes = max_size_bytes
        self.set_aside = set_aside
        self._reserve = place.Reserve(Path(f"{path}.reserve"), RESERVE_BYTES)
        self._commits_in_log = self._bytes_in_log = 0
        (self._page_bytes,) = db.execute("PRAGMA page_size").fetchone()
        self._first, self._last = tables.positions(db)
        self._cursors = tables.cursors(db)
        self._dead_letters = tables.count_dead_letters(db)
        self._is_full = not self._reserve.take()
        self._full_because = f"{path}: no room on the disk"
        self._gave_up_history = False

    @classmethod
    def open(cls, path: Path, now_ns: int, *, retain_s: float, max_size_bytes: int) -> Store:
        """Lock, check and open the file; make it if there is none; put it aside if it cannot be read.

        Raises:
            OutboxLocked: another process has it.
            OutboxError: it must not lie there, is not ours, or is of a newer version.
        """
        place.prepare_directory(path)
        lock = take_lock(path)
        try:
            db, set_aside = open_database(path, now_ns)
            return cls(db, path, lock, retain_s=retain_s, max_size_bytes=max_size_bytes, set_aside=set_aside)
        except (sqlite3.Error, OSError) as error:
            lock.release()
            raise OutboxError(f"{path}: {error}") from error
        except BaseException:
            lock.release()
            raise

    @property
    def standing(self) -> Standing:
        """How things stand now."""
        with trusted(self._path):
            return Standing(
                first_position=self._first,
                last_position=self._last,
                cursors=dict(self._cursors),
                dead_letters=self._dead_letters,
                used_bytes=self._used_bytes(),
                is_full=self._is_full,
            )

    # Writing --------------------------------------------------------------------------------------

    def commit(self, writes: Sequence[Write], now_ns: int) -> Committed:
        """Do the writes in one transaction.

        When there is no room, whatever was to be accepted is refused and the rest is tried without it:
        that sinks move on is what makes room.

        Raises:
            OutboxFailed: a write may or may not be on the disk; nothing works any more.
        """
        outcomes = tuple(self._commit(writes, now_ns))
        is_log_long = self._commits_in_log >= CHECKPOINT_COMMITS or self._bytes_in_log >= CHECKPOINT_BYTES
        return Committed(self.standing, is_log_long, outcomes)

    def _commit(self, writes: Sequence[Write], now_ns: int) -> list[OutboxError | None]:
        incoming_bytes = sum(write.size_bytes for write in writes if isinstance(write, Accept))
        refusal: OutboxFull | None = None
        if incoming_bytes:
            refusal = self._refuse(incoming_bytes, now_ns)
        if refusal is None and (refusal := self._try(writes, now_ns)) is None:
            return [None] * len(writes)
        others = [write for write in writes if not isinstance(write, Accept)]
        refusal_of_others = self._try(others, now_ns) if others else None
        return [refusal if isinstance(write, Accept) else refusal_of_others for write in writes]

    def _try(self, writes: Sequence[Write], now_ns: int) -> OutboxFull | None:
        try:
            self._do(writes, now_ns)
        except OutboxFull as error:
            self._turn_full(str(error))
            return error
        return None

    def _do(self, writes: Sequence[Write], now_ns: int) -> None:
        if place.identity(self._path) != self._identity:
            # The system would let us go on writing, to a file that no restart will find.
            raise OutboxFailed(f"{self._path}: was moved or removed while in use")
        last, cursors = self._last, dict(self._cursors)
        with self._transaction():
            for write in writes:
                match write:
                    case Accept():
                        last = tables.append(self._db, write.records, last, now_ns)
                        if write.baseline is not None:
                            tables.put_baseline(self._db, write.account, write.baseline)
                        self._bytes_in_log += write.size_bytes
                    case Acknowledge():
                        cursors[write.sink] = self._move(cursors[write.sink], write, now_ns)
                    case Register():
                        cursors = self._register(write.sinks, cursors, now_ns)
                    case PutEgress():
                        tables.put_egress(self._db, write.name, write.state)
            dead_letters = tables.count_dead_letters(self._db) if _buries(writes) else self._dead_letters
        self._last, self._cursors, self._dead_letters = last, cursors, dead_letters

    def _move(self, cursor: Cursor, write: Acknowledge, now_ns: int) -> Cursor:
        moved = replace(cursor, position=max(cursor.position, write.position))
        tables.put_cursor(self._db, write.sink, moved)
        tables.bury(self._db, write.sink, write.dead, now_ns)
        return moved

    def _register(
        self, sinks: Mapping[str, Start], cursors: Mapping[str, Cursor], now_ns: int
    ) -> dict[str, Cursor]:
        registered = dict(cursors)
        for sink in cursors.keys() - sinks.keys():
            if cursors[sink].absent_since_ns is None:
                registered[sink] = replace(cursors[sink], absent_since_ns=now_ns)
        for sink, start in sinks.items():
            known = cursors.get(sink)
            oldest = self._first - 1
            if known is None:
                registered[sink] = Cursor(oldest if start == "oldest" else self._last)
                continue
            if (missed := oldest - known.position) > 0:
                logger.error(
                    "records were deleted while a sink was not configured: it will not get them",
                    extra={"sink": sink, "records": missed},
                )
            registered[sink] = Cursor(max(known.position, oldest))
        for sink, cursor in registered.items():
            tables.put_cursor(self._db, sink, cursor)
        return registered

    # Room -----------------------------------------------------------------------------------------

    def _refuse(self, incoming_bytes: int, now_ns: int) -> OutboxFull | None:
        if self._is_full:
            return OutboxFull(self._full_because)
        try:
            while self._used_bytes() + incoming_bytes > self._max_bytes:
                # History gives way to what is new. An absent sink does not hold anything up here, or
                # removing one from the configuration could stop every poll for a week.
                if not self._delete(self._acknowledged(configured_only=True), before_ns=None):
                    text = f"{self._path}: has grown to its limit of {self._max_bytes} bytes"
                    self._turn_full(text)
                    return OutboxFull(text)
                if not self._gave_up_history:
                    self._gave_up_history = True
                    logger.warning(
                        "the outbox is at its size limit: delivered records are deleted before their time",
                        extra={"file": str(self._path), "max_bytes": self._max_bytes},
                    )
        except OutboxFull as error:
            self._turn_full(str(error))
            return error
        return None

    def _turn_full(self, why: str) -> None:
        if not self._is_full:
            logger.error("the outbox is full: polls pause until there is room", extra={"reason": why})
        self._is_full, self._full_because = True, why
        self._reserve.release()

    def _look_for_room(self) -> None:
        below_bytes = self._max_bytes - self._max_bytes // 16  # not at the very edge, or it would flap
        if (
            self._used_bytes() <= below_bytes
            and place.has_room(self._path)
            and self._reserve.take(beyond_bytes=RESERVE_BYTES)
        ):
            self._is_full = False
            logger.warning("the outbox has room again")

    def _used_bytes(self) -> int:
        total, free = tables.pages(self._db)
        return (total - free) * int(self._page_bytes)

    # Reading --------------------------------------------------------------------------------------

    def read(self, after: int, max_records: int, max_bytes: int) -> list[Record]:
        """Return the records that follow a position: one if there is one, and more up to the bounds."""
        with trusted(self._path):
            return tables.read(self._db, after, max_records, max_bytes)

    def baselines(self) -> dict[str, Baseline]:
        """Return every account's baseline."""
        with trusted(self._path):
            rows = tables.baselines(self._db)
        found = {}
        for account, encoded in rows:
            try:
                found[account] = decode_baseline(account, encoded)
            except ValueError as error:
                # One account begins anew; refusing to start would stop all the others.
                logger.error("a baseline was lost", extra={"account": account, "damage": str(error)})  # noqa: TRY400
        return found

    def egress(self) -> dict[str, bytes]:
        """Return the state of every egress address."""
        with trusted(self._path):
            return tables.egress(self._db)

    def dead_letters(self, sink: str, limit: int) -> list[DeadLetter]:
        """Return the oldest records that a sink refused."""
        with trusted(self._path):
            return tables.dead_letters(self._db, sink, limit)

    # House-keeping --------------------------------------------------------------------------------

    def tend(self, now_ns: int) -> Tended:
        """Do one small step of house-keeping.

        Raises:
            OutboxFailed: as from ``commit``.
        """
        more = False
        try:
            self._drop_absent_cursors(now_ns)
            more = self._drop_dead_letters(now_ns)
            more = self._delete_history(now_ns) or more
            more = self._shrink() or more
            if self._commits_in_log:
                self._checkpoint()
        except OutboxFull as error:
            self._turn_full(str(error))
        if self._is_full:
            with trusted(self._path):
                self._look_for_room()
        return Tended(self.standing, more)

    def close(self) -> None:
        """Work the log into the file, let go of it, then of the lock."""
        try:
            # To fail here loses nothing: the log stays, and the next start reads it.
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._db.close()
        finally:
            self._lock.release()

    def _acknowledged(self, *, configured_only: bool) -> int:
        """Position up to which every sink has everything."""
        relevant = [
            cursor.position
            for cursor in self._cursors.values()
            if cursor.absent_since_ns is None or not configured_only
        ]
        return min(relevant, default=self._last)

    def _delete_history(self, now_ns: int) -> bool:
        if self._is_full:
            return self._delete(self._acknowledged(configured_only=True), before_ns=None)
        to = self._acknowledged(configured_only=False)
        return self._delete(to, before_ns=now_ns - self._retain_ns)

    def _delete(self, to: int, *, before_ns: int | None) -> bool:
        """Delete some of the oldest records up to a position; return whether there may be more."""
        if to < self._first:
            return False
        with self._transaction():
            doomed = [
                position
                for position, _ in takewhile(
                    lambda row: row[0] <= to and (before_ns is None or row[1] < before_ns),
                    tables.oldest(self._db, STEP_RECORDS),
                )
            ]
            if doomed:
                tables.delete_to(self._db, doomed[-1])
        if doomed:
            self._first = doomed[-1] + 1
        return len(doomed) == STEP_RECORDS or (before_ns is None and bool(doomed))

    def _shrink(self) -> bool:
        with trusted(self._path):
            _, free = tables.pages(self._db)
        surplus = free - (0 if self._is_full else SPARE_PAGES)
        if surplus <= 0:
            return False
        with trusted(self._path):
            # A script is stepped to its end; ``execute`` would free a single page.
            self._db.executescript(f"PRAGMA incremental_vacuum({min(surplus, STEP_PAGES)})")
        self._commits_in_log += 1
        return surplus > STEP_PAGES

    def _drop_absent_cursors(self, now_ns: int) -> None:
        before_ns = now_ns - ABSENT_CURSOR_KEPT_S * NS_PER_S
        gone = [
            sink
            for sink, cursor in self._cursors.items()
            if cursor.absent_since_ns is not None and cursor.absent_since_ns <= before_ns
        ]
        if not gone:
            return
        with self._transaction():
            tables.delete_cursors(self._db, gone)
        for sink in gone:
            undelivered = max(0, self._last - self._cursors.pop(sink).position)
            logger.warning(
                "a sink was not configured for a week: its place in the outbox is forgotten",
                extra={"sink": sink, "undelivered": undelivered},
            )

    def _drop_dead_letters(self, now_ns: int) -> bool:
        if not self._dead_letters:
            return False
        with self._transaction():
            dropped = tables.delete_dead_letters_before(
                self._db, now_ns - DEAD_LETTERS_KEPT_S * NS_PER_S, STEP_RECORDS
            )
        self._dead_letters -= dropped
        return dropped == STEP_RECORDS

    def _checkpoint(self) -> None:
        with trusted(self._path):
            how = "TRUNCATE" if self._is_full else "PASSIVE"  # on a full disk the log gives its space back
            self._db.execute(f"PRAGMA wal_checkpoint({how})").fetchall()
        self._commits_in_log = self._bytes_in_log = 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with trusted(self._path):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._commits_in_log += 1


def _buries(writes: Sequence[Write]) -> bool:
    return any(isinstance(write, Acknowledge) and write.dead for write in writes)
