"""The outbox's one connection, and everything that is done with it. Lives in one thread."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from poller.clock import NS_PER_S
from poller.errors import OutboxError, OutboxFailed, OutboxFull
from poller.locks import FileLock
from poller.model import Baseline, Record
from poller.outbox import deleting, letters, place, tables
from poller.outbox.codec import decode_baseline
from poller.outbox.ledger import Ledger
from poller.outbox.losses import Losses
from poller.outbox.opening import open_database, take_lock
from poller.outbox.trust import trusted
from poller.outbox.values import Accept, Committed, Standing, Tended, WhenFull, Write
from poller.outbox.writing import write_all

T = TypeVar("T")

logger = logging.getLogger(__name__)

ABSENT_CURSOR_KEPT_S = 7 * 86_400
DEAD_LETTERS_KEPT_S = 30 * 86_400
RESERVE_BYTES = 4 * 1024 * 1024

DROP_RECORDS = 100  # at a time, of those that are not delivered: hardly more than have to
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
        when_full: WhenFull,
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
        self._ledger = tables.ledger(db)
        self._ledger.letters, self._ledger.again = letters.counts(db)
        self._when_full = when_full
        self._conflation = deleting.Conflation()
        self._losses = Losses()
        self._is_full = not self._reserve.take()
        self._full_because = f"{path}: no room on the disk"
        self._gave_up_history = False

    @classmethod
    def open(cls, path: Path, now_ns: int, *, begin_anew: bool, **settings: Any) -> Store:
        """Lock, check and open the file.

        Args:
            begin_anew: make it if there is none, and put it aside if it cannot be read.
            settings: as the class takes them.

        Raises:
            OutboxLocked: another process has it.
            OutboxError: it must not lie there, is not ours, or is of a newer version.
        """
        if not begin_anew and not path.exists():
            raise OutboxError(f"{path}: there is no outbox; nothing was ever accepted, or it lies elsewhere")
        place.prepare_directory(path)
        lock = take_lock(path)
        try:
            db, set_aside = open_database(path, now_ns, begin_anew=begin_anew)
            return cls(db, path, lock, set_aside=set_aside, **settings)
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
            return Standing(self._ledger, self._used_bytes(), self._is_full)

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

    def _commit(self, writes: Sequence[Write], now_ns: int) -> Sequence[object]:
        incoming_bytes = sum(write.size_bytes for write in writes if isinstance(write, Accept))
        refusal = self._refuse(incoming_bytes, now_ns) if incoming_bytes else None
        if refusal is None:
            done = self._try(writes, now_ns)
            if not isinstance(done, OutboxFull):
                return done
            refusal = done
        others = [write for write in writes if not isinstance(write, Accept)]
        results = self._try(others, now_ns) if others else []
        left = itertools.repeat(results) if isinstance(results, OutboxFull) else iter(results)
        return [refusal if isinstance(write, Accept) else next(left) for write in writes]

    def _try(self, writes: Sequence[Write], now_ns: int) -> list[object] | OutboxFull:
        try:
            return self._do(writes, now_ns)
        except OutboxFull as error:
            self._turn_full(str(error))
            return error

    def _do(self, writes: Sequence[Write], now_ns: int) -> list[object]:
        if place.identity(self._path) != self._identity:
            # The system would let us go on writing, to a file that no restart will find.
            raise OutboxFailed(f"{self._path}: was moved or removed while in use")
        position = self._ledger.last + 1
        with self._transaction() as ledger:
            results = write_all(self._db, ledger, writes, now_ns)
        for write in writes:
            if isinstance(write, Accept):
                self._bytes_in_log += write.size_bytes
                self._conflation.accepted(write.records, position)
                position += len(write.records)
        return results

    # Room -----------------------------------------------------------------------------------------

    def _refuse(self, incoming_bytes: int, now_ns: int) -> OutboxFull | None:
        if self._is_full:
            return OutboxFull(self._full_because)
        try:
            while self._used_bytes() + incoming_bytes > self._max_bytes:
                # History gives way to what is new. An absent sink does not hold anything up here, or
                # removing one from the configuration could stop every poll for a week.
                if self._delete(self._acknowledged(configured_only=True), before_ns=None, policy="absent"):
                    self._say_that_history_goes()
                elif not self._drop(now_ns):
                    text = f"{self._path}: has grown to its limit of {self._max_bytes} bytes"
                    self._turn_full(text)
                    return OutboxFull(text)
        except OutboxFull as error:
            self._turn_full(str(error))
            return error
        return None

    def _drop(self, now_ns: int) -> bool:
        """Drop some records if the policy says so; return whether to look again if there is room now."""
        before = self._ledger.drops
        if self._when_full == "drop_oldest":
            if not self._delete(self._ledger.last, before_ns=None, policy="drop_oldest", limit=DROP_RECORDS):
                return False
        elif self._when_full == "conflate":
            with trusted(self._path):
                doomed = self._conflation.superseded(self._db)
            if doomed is None:
                return False
            if doomed:
                with self._transaction() as ledger:
                    deleting.delete_superseded(self._db, ledger, doomed)
        else:
            return False
        lost = Counter({sink: count for (sink, _), count in (self._ledger.drops - before).items()})
        self._losses.note(self._when_full, lost, now_ns)
        return True

    def _say_that_history_goes(self) -> None:
        if not self._gave_up_history:
            self._gave_up_history = True
            logger.warning(
                "the outbox is at its size limit: delivered records are deleted before their time",
                extra={"file": str(self._path), "max_bytes": self._max_bytes},
            )

    def _turn_full(self, why: str) -> None:
        if not self._is_full:
            logger.error("the outbox is full: polls pause until there is room", extra={"error": why})
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

    def baselines(self, accounts: Collection[str] | None = None) -> dict[str, Baseline]:
        """Return the baselines of these accounts, or of all that have one."""
        with trusted(self._path):
            rows = tables.baselines(self._db) if accounts is None else tables.baselines_of(self._db, accounts)
        found = {}
        for account, encoded in rows:
            try:
                found[account] = decode_baseline(account, encoded)
            except ValueError as error:
                # One account begins anew; refusing to start would stop all the others.
                logger.error("a baseline was lost", extra={"account": account, "error": str(error)})  # noqa: TRY400
        return found

    def egress(self) -> dict[str, bytes]:
        """Return the state of every egress address."""
        with trusted(self._path):
            return tables.egress(self._db)

    def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Let a function read the file; it must not write."""
        with trusted(self._path):
            return question(self._db)

    # House-keeping --------------------------------------------------------------------------------

    def tend(self, now_ns: int) -> Tended:
        """Do one small step of house-keeping.

        Raises:
            OutboxFailed: as from ``commit``.
        """
        more = False
        try:
            more = self._forget(now_ns)
            more = self._delete_history(now_ns) or more
            more = self._shrink() or more
            if self._commits_in_log:
                self._checkpoint()
        except OutboxFull as error:
            self._turn_full(str(error))
        if self._is_full:
            with trusted(self._path):
                self._look_for_room()
        self._losses.say(now_ns)
        return Tended(self.standing, more)

    def vacuum(self) -> bool:
        """Give some free pages back to the disk; return whether there are more.

        Raises:
            OutboxFull: there is not even the room that this takes for a moment.
        """
        more = self._shrink(spare_pages=0)
        if self._bytes_in_log >= CHECKPOINT_BYTES or not more:
            self._checkpoint(truncate=True)
        return more

    def size_bytes(self) -> int:
        """Return what the database and its log take on the disk."""
        files = (self._path, Path(f"{self._path}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

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
            for cursor in self._ledger.cursors.values()
            if cursor.absent_since_ns is None or not configured_only
        ]
        return min(relevant, default=self._ledger.last)

    def _delete_history(self, now_ns: int) -> bool:
        if self._is_full:
            return self._delete(self._acknowledged(configured_only=True), before_ns=None, policy="absent") > 0
        to = self._acknowledged(configured_only=False)
        before_ns = now_ns - self._retain_ns
        return self._delete(to, before_ns=before_ns, policy="absent") == deleting.STEP_RECORDS

    def _delete(
        self, to: int, *, before_ns: int | None, policy: str, limit: int = deleting.STEP_RECORDS
    ) -> int:
        """Delete some of the oldest records up to a position; return how many."""
        if to < self._ledger.first:
            return 0
        with self._transaction() as ledger:
            return deleting.delete_oldest(
                self._db, ledger, to=to, before_ns=before_ns, limit=limit, policy=policy
            )

    def _shrink(self, *, spare_pages: int = SPARE_PAGES) -> bool:
        with trusted(self._path):
            _, free = tables.pages(self._db)
        surplus = free - (0 if self._is_full else spare_pages)
        if surplus <= 0:
            return False
        step = min(surplus, STEP_PAGES)
        with trusted(self._path):
            # A script is stepped to its end; ``execute`` would free a single page.
            self._db.executescript(f"PRAGMA incremental_vacuum({step})")
        self._commits_in_log += 1
        self._bytes_in_log += step * int(self._page_bytes)
        return surplus > STEP_PAGES

    def _forget(self, now_ns: int) -> bool:
        """Forget what was kept for its time; return whether there may be more."""
        absent_ns = now_ns - ABSENT_CURSOR_KEPT_S * NS_PER_S
        gone = deleting.absent_since_before(self._ledger, absent_ns)
        if not gone and not self._ledger.letters:
            return False
        with self._transaction() as ledger:
            deleting.forget(ledger, gone)
            letters_ns = now_ns - DEAD_LETTERS_KEPT_S * NS_PER_S
            return deleting.delete_letters(self._db, ledger, letters_ns)

    def _checkpoint(self, *, truncate: bool = False) -> None:
        with trusted(self._path):
            # On a full disk the log gives its space back.
            how = "TRUNCATE" if self._is_full or truncate else "PASSIVE"
            self._db.execute(f"PRAGMA wal_checkpoint({how})").fetchall()
        self._commits_in_log = self._bytes_in_log = 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Ledger]:
        """Give a copy of the ledger to change along with the tables; it holds from the commit on."""
        ledger = self._ledger.copy()
        with trusted(self._path):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield ledger
                tables.put_cursors(self._db, self._ledger.cursors, ledger.cursors)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        self._commits_in_log += 1
        self._ledger = ledger
