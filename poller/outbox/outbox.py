"""The outbox as the rest of the poller sees it: awaitable, safe to cancel, never blocking the loop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from poller.clock import Clock
from poller.errors import OutboxError, OutboxFailed
from poller.metrics import Metrics
from poller.model import Baseline, Record
from poller.outbox.codec import encode_baseline
from poller.outbox.commits import GroupCommit
from poller.outbox.store import Store
from poller.outbox.values import (
    Accept,
    Acknowledge,
    Committed,
    DeadLetter,
    OutboxStats,
    PutEgress,
    Register,
    Standing,
    Start,
    Tended,
    Write,
)

TEND_EVERY_S = 30.0
TEND_EVERY_WHEN_FULL_S = 5.0  # how long polls wait, at most, after room has come back
ROW_BYTES = 200  # what a record takes beyond its payload, about

_OTHER_PROCESS = "the outbox belongs to the process that opened it"

T = TypeVar("T")
TendedT = TypeVar("TendedT", bound=Tended)

logger = logging.getLogger(__name__)


class Outbox:
    """Records on their way to the sinks, and the baselines they were compared with. Make it with ``open``.

    Not safe to use from several threads or event loops, nor from a forked child.
    """

    def __init__(
        self,
        store: Store,
        standing: Standing,
        thread: ThreadPoolExecutor,
        clock: Clock,
        metrics: Metrics,
        *,
        max_size_bytes: int,
    ) -> None:
        self._store = store
        self._thread = thread
        self._clock = clock
        self._metrics = metrics
        self._max_bytes = max_size_bytes
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._standing = standing
        self._commits = GroupCommit(self._start_commit)
        self._commit_count = 0
        self._failure: OutboxFailed | None = None
        self._is_closing = False
        self._arrival = asyncio.Event()  # set, and replaced, when there is more to read
        self._room = asyncio.Event()
        self._tending: asyncio.Future[Tended] | None = None
        self._next_tending: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] | None = None
        self._note(standing)
        self._tend_later(TEND_EVERY_WHEN_FULL_S if standing.is_full else TEND_EVERY_S)

    @classmethod
    async def open(
        cls,
        path: Path,
        clock: Clock,
        *,
        metrics: Metrics,
        retain_s: float = 86_400.0,
        max_size_bytes: int = 1 << 30,
    ) -> Outbox:
        """Open the outbox at a path, or make a new one.

        Args:
            retain_s: records that every sink has are kept this many seconds, so that they can be replayed,
                unless their room is needed.
            max_size_bytes: what the records may take on the disk; the write-ahead log (64 MiB after a
                burst) and the reserve (4 MiB) come on top.

        Raises:
            OutboxLocked: another process has it.
            OutboxError: it must not lie there, is not an outbox, or is one of a newer version.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox")
        now_ns = clock.utc_ns()

        def open_store() -> tuple[Store, Standing]:
            store = Store.open(path, now_ns, retain_s=retain_s, max_size_bytes=max_size_bytes)
            return store, store.standing

        opening = asyncio.get_running_loop().run_in_executor(thread, open_store)
        try:
            store, standing = await asyncio.shield(opening)
        except BaseException:
            opening.add_done_callback(lambda finished: _abandon(finished, thread))
            raise
        return cls(store, standing, thread, clock, metrics, max_size_bytes=max_size_bytes)

    # What the polls use ---------------------------------------------------------------------------

    async def baselines(self) -> dict[str, Baseline]:
        """Return the last accepted baseline of every account."""
        return await self._run(self._store.baselines)

    async def accept(self, baseline: Baseline | None, records: Sequence[Record]) -> None:
        """Take responsibility for records: to return is to promise that every registered sink gets them.

        Records and baseline are one transaction. If the call is cancelled they may or may not have been
        accepted, but never in part.

        Raises:
            OutboxFull: there is no room; nothing was accepted. Wait with ``wait_for_room``.
            OutboxFailed: it is unknown what was accepted; the process must stop.
            ValueError: a record or the baseline cannot be stored.
        """
        self._check()
        if baseline is None and not records:
            return
        for record in records:
            _check_storable(record)  # here, so that it fails alone and not the group it would share
        encoded = None if baseline is None else encode_baseline(baseline)
        size_bytes = sum(len(record.payload) + ROW_BYTES for record in records) + len(encoded or b"")
        account = "" if baseline is None else baseline.account
        await self._commits.submit(Accept(tuple(records), account, encoded, size_bytes))

    @property
    def is_full(self) -> bool:
        """Whether nothing is accepted at the moment."""
        return self._standing.is_full

    async def wait_for_room(self) -> None:
        """Wait until records are accepted again; returns at once if they are.

        Raises:
            OutboxFailed: they never will be.
        """
        self._check()
        await self._room.wait()
        self._check()

    # What deliveries use --------------------------------------------------------------------------

    async def register(self, sinks: Mapping[str, Start]) -> None:
        """Say which sinks are configured, and where a new one begins.

        A sink that is not named any more keeps its place for seven days.
        """
        self._check()
        await self._commits.submit(Register(dict(sinks)))

    async def next_batch(self, sink: str, *, max_records: int, max_bytes: int) -> list[Record]:
        """Wait for records that the sink has not acknowledged, and return the first of them, in order.

        Args:
            max_bytes: of their payloads together; a single record may be larger.
        """
        while True:
            self._check()
            cursor = self.cursor(sink)
            if cursor < self._standing.last_position:
                return await self._run(partial(self._store.read, cursor, max_records, max_bytes))
            await self._arrival.wait()

    async def gathered(self, sink: str, records: int) -> None:
        """Wait until so many records wait for the sink."""
        while self.backlog(sink) < records:
            self._check()
            await self._arrival.wait()

    async def acknowledge(self, sink: str, position: int, dead: Sequence[DeadLetter] = ()) -> None:
        """Note that a sink has everything up to a position, apart from dead letters, which are put aside.

        A position behind the cursor does not move it back.

        Raises:
            OutboxFull: there is not even room for that; ask again.
            OutboxFailed: as from ``accept``.
            ValueError: nothing was ever accepted at that position.
        """
        self._check()
        self.cursor(sink)
        if position > self._standing.last_position:
            raise ValueError(f"position {position} is beyond the last one, {self._standing.last_position}")
        await self._commits.submit(Acknowledge(sink, position, tuple(dead)))

    def cursor(self, sink: str) -> int:
        """Return the position up to which a sink has everything.

        Raises:
            LookupError: the sink was never registered.
        """
        found = self._standing.cursors.get(sink)
        if found is None:
            raise LookupError(f"sink {sink!r} is not registered")
        # What was deleted while a sink was absent is not waiting for it any more.
        return max(found.position, self._standing.first_position - 1)

    def backlog(self, sink: str) -> int:
        """Return how many records a sink has not acknowledged."""
        return self._standing.last_position - self.cursor(sink)

    async def dead_letters(self, sink: str, *, limit: int = 1000) -> list[DeadLetter]:
        """Return the oldest records that a sink refused for good. They are kept for 30 days."""
        return await self._run(partial(self._store.dead_letters, sink, limit))

    # What budgets use -----------------------------------------------------------------------------

    async def put_egress(self, name: str, state: bytes) -> None:
        """Keep the state of an egress address; on the disk when this returns."""
        self._check()
        await self._commits.submit(PutEgress(name, state))

    async def egress(self) -> dict[str, bytes]:
        """Return what was kept of every egress address."""
        return await self._run(self._store.egress)

    # About itself ---------------------------------------------------------------------------------

    @property
    def last_position(self) -> int:
        """Position of the newest record ever accepted; 0 before the first."""
        return self._standing.last_position

    @property
    def set_aside(self) -> Path | None:
        """Where an unreadable predecessor was put when this outbox was opened."""
        return self._store.set_aside

    def stats(self) -> OutboxStats:
        """Return how the outbox stands."""
        standing = self._standing
        present = [sink for sink, cursor in standing.cursors.items() if cursor.absent_since_ns is None]
        return OutboxStats(
            first_position=standing.first_position,
            last_position=standing.last_position,
            backlogs={sink: self.backlog(sink) for sink in present},
            dead_letters=standing.dead_letters,
            used_bytes=standing.used_bytes,
            max_bytes=self._max_bytes,
            is_full=standing.is_full,
            commits=self._commit_count,
            set_aside=self.set_aside,
        )

    async def close(self) -> None:
        """Finish what is under way, then let go of the file. Harmless when called twice."""
        if self._pid != os.getpid():
            raise OutboxError(_OTHER_PROCESS)
        if self._closed is None:
            self._is_closing = True
            self._wake_all()
            if self._next_tending is not None:
                self._next_tending.cancel()
            await self._commits.idle()
            # Behind whatever the thread still does; also if nobody waits for it any more.
            self._closed = self._loop.run_in_executor(self._thread, self._store.close)
            self._closed.add_done_callback(lambda _: self._thread.shutdown(wait=False))
        await asyncio.shield(self._closed)

    # The thread -----------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise OutboxError(_OTHER_PROCESS)
        if self._failure is not None:
            raise OutboxFailed(str(self._failure)) from self._failure
        if self._is_closing:
            raise OutboxError("the outbox is closed")

    async def _run(self, job: Callable[[], T]) -> T:
        self._check()
        try:
            return await self._loop.run_in_executor(self._thread, job)
        except OutboxFailed as error:
            self._fail(error)
            raise

    def _start_commit(self, writes: Sequence[Write]) -> asyncio.Future[Committed]:
        if self._failure is not None:
            refused: asyncio.Future[Committed] = self._loop.create_future()
            refused.set_exception(OutboxFailed(str(self._failure)))
            return refused
        now_ns = self._clock.utc_ns()
        commit = self._loop.run_in_executor(self._thread, self._store.commit, writes, now_ns)
        # Before anybody who waits for it is told: whoever is told finds everything up to date.
        commit.add_done_callback(lambda finished: self._finish_commit(writes, finished))
        return commit

    def _finish_commit(self, writes: Sequence[Write], finished: asyncio.Future[Committed]) -> None:
        committed = self._noted(finished)
        if committed is None:
            return
        self._commit_count += 1
        self._metrics.commits.inc()
        for write, refusal in zip(writes, committed.outcomes, strict=True):
            if refusal is None and isinstance(write, Accept):
                for kind, number in Counter(record.kind.value for record in write.records).items():
                    self._metrics.records_accepted.labels(kind).inc(number)
        if committed.more:
            self._tend()

    def _tend_later(self, delay_s: float) -> None:
        self._next_tending = self._loop.call_later(delay_s, self._tend)

    def _tend(self) -> None:
        if self._is_closing or self._failure is not None or self._tending is not None:
            return
        if self._next_tending is not None:
            self._next_tending.cancel()
        self._tending = self._loop.run_in_executor(self._thread, self._store.tend, self._clock.utc_ns())
        self._tending.add_done_callback(self._finish_tending)

    def _finish_tending(self, finished: asyncio.Future[Tended]) -> None:
        self._tending = None
        tended = self._noted(finished)
        if tended is None or self._is_closing:
            return
        if tended.more:
            self._tend()  # behind the commits that have been asked for meanwhile
        else:
            self._tend_later(TEND_EVERY_WHEN_FULL_S if self.is_full else TEND_EVERY_S)

    def _noted(self, finished: asyncio.Future[TendedT]) -> TendedT | None:
        if finished.cancelled():
            return None
        error = finished.exception()
        if error is not None:
            self._fail(error)
            return None
        report = finished.result()
        self._note(report.standing)
        return report

    def _note(self, standing: Standing) -> None:
        before, self._standing = self._standing, standing
        for sink, cursor in standing.cursors.items():
            if cursor.absent_since_ns is None:
                self._metrics.backlog.labels(sink).set(self.backlog(sink))
        if standing.last_position > before.last_position:
            self._wake_readers()
        if not standing.is_full:
            self._room.set()
            return
        self._room.clear()
        if not before.is_full and self._next_tending is not None:
            self._next_tending.cancel()
            self._tend_later(TEND_EVERY_WHEN_FULL_S)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error if isinstance(error, OutboxFailed) else OutboxFailed(f"{error!r}")
            logger.critical("the outbox has failed", extra={"error": str(self._failure)})
        self._wake_all()

    def _wake_readers(self) -> None:
        arrival, self._arrival = self._arrival, asyncio.Event()
        arrival.set()

    def _wake_all(self) -> None:
        self._wake_readers()
        self._room.set()


def _abandon(opening: asyncio.Future[tuple[Store, Standing]], thread: ThreadPoolExecutor) -> None:
    """Close what was opened for nobody: the opening was cancelled, or failed."""
    if not opening.cancelled() and opening.exception() is None:
        store, _ = opening.result()
        closing = opening.get_loop().run_in_executor(thread, store.close)
        closing.add_done_callback(lambda closed: closed.cancelled() or closed.exception())  # nobody waits
    thread.shutdown(wait=False)


def _check_storable(record: Record) -> None:
    for text in (record.id, record.account, record.reason):
        text.encode()  # UnicodeEncodeError is a ValueError
    if not 0 <= record.sequence < 1 << 63:
        raise ValueError(f"sequence {record.sequence} of record {record.id} cannot be stored")
