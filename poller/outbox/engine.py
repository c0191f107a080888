"""What makes an outbox go: one thread with the file, one commit at a time, house-keeping, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from poller.clock import Clock
from poller.errors import OutboxError, OutboxFailed
from poller.metrics import Metrics
from poller.outbox.commits import GroupCommit
from poller.outbox.ledger import Ledger
from poller.outbox.store import Store
from poller.outbox.tending import Tending
from poller.outbox.values import Accept, Committed, Standing, Tended, Write

_OTHER_PROCESS = "the outbox belongs to the process that opened it"

T = TypeVar("T")
TendedT = TypeVar("TendedT", bound=Tended)

logger = logging.getLogger(__name__)


class Engine:
    """Runs a store in its thread, and knows how it stands after each job.

    Attributes:
        store: the file; to be used in its thread only.
        standing: after the last job.
        commits: transactions since it was opened.
    """

    def __init__(
        self, store: Store, standing: Standing, thread: ThreadPoolExecutor, clock: Clock, metrics: Metrics
    ) -> None:
        self.store = store
        self.standing = standing
        self.commits = 0
        self._thread = thread
        self._clock = clock
        self._metrics = metrics
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._group = GroupCommit(self._start_commit)
        self._failure: OutboxFailed | None = None
        self._is_closing = False
        self._arrival = asyncio.Event()  # set, and replaced, when there is more to read
        self._room = asyncio.Event()
        self._tending = Tending(self._start_tending, self._noted)
        self._closed: asyncio.Future[None] | None = None
        self._note(standing)
        self._tending.later(is_full=standing.is_full)

    @classmethod
    async def open(cls, opening: Callable[[], Store], clock: Clock, metrics: Metrics) -> Engine:
        """Open a store in a thread of its own. Whoever cancels this leaves nothing open.

        Raises:
            OutboxError: as the opening raises it.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox")

        def open_store() -> tuple[Store, Standing]:
            store = opening()
            return store, store.standing

        opened = asyncio.get_running_loop().run_in_executor(thread, open_store)
        try:
            store, standing = await asyncio.shield(opened)
        except BaseException:
            opened.add_done_callback(lambda finished: _abandon(finished, thread))
            raise
        return cls(store, standing, thread, clock, metrics)

    @property
    def ledger(self) -> Ledger:
        """Positions, cursors and counts as they are on the disk. Not to be changed."""
        return self.standing.ledger

    def check(self) -> None:
        """Say why nothing works, if nothing does.

        Raises:
            OutboxFailed: it failed.
            OutboxError: it is closed, or another process's.
        """
        if self._pid != os.getpid():
            raise OutboxError(_OTHER_PROCESS)
        if self._failure is not None:
            raise OutboxFailed(str(self._failure)) from self._failure
        if self._is_closing:
            raise OutboxError("the outbox is closed")

    async def run(self, job: Callable[[], T]) -> T:
        """Do a job in the thread."""
        self.check()
        try:
            return await self._loop.run_in_executor(self._thread, job)
        except OutboxFailed as error:
            self._fail(error)
            raise

    async def write(self, write: Write) -> Any:
        """Do a write and return its result; on the disk when this returns."""
        self.check()
        return await self._group.submit(write)

    async def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Let a function read the file in the thread."""
        return await self.run(partial(self.store.query, question))

    async def arrival(self) -> None:
        """Wait until there is more to read than there was, or nothing works any more."""
        await self._arrival.wait()

    async def room(self) -> None:
        """Wait until records are accepted."""
        self.check()
        await self._room.wait()
        self.check()

    async def close(self) -> None:
        """Finish what is under way, then let go of the file. Harmless when called twice."""
        if self._pid != os.getpid():
            raise OutboxError(_OTHER_PROCESS)
        if self._closed is None:
            self._is_closing = True
            self._wake_all()
            self._tending.stop()
            await self._group.idle()
            # Behind whatever the thread still does; also if nobody waits for it any more.
            self._closed = self._loop.run_in_executor(self._thread, self.store.close)
            self._closed.add_done_callback(lambda _: self._thread.shutdown(wait=False))
        await asyncio.shield(self._closed)

    def _start_commit(self, writes: Sequence[Write]) -> asyncio.Future[Committed]:
        if self._failure is not None:
            refused: asyncio.Future[Committed] = self._loop.create_future()
            refused.set_exception(OutboxFailed(str(self._failure)))
            return refused
        now_ns = self._clock.utc_ns()
        commit = self._loop.run_in_executor(self._thread, self.store.commit, writes, now_ns)
        # Before anybody who waits for it is told: whoever is told finds everything up to date.
        commit.add_done_callback(lambda finished: self._finish_commit(writes, finished))
        return commit

    def _finish_commit(self, writes: Sequence[Write], finished: asyncio.Future[Committed]) -> None:
        committed = self._noted(finished)
        if committed is None:
            return
        self.commits += 1
        self._metrics.commits.inc()
        for write, refusal in zip(writes, committed.outcomes, strict=True):
            if refusal is None and isinstance(write, Accept):
                for kind, number in Counter(record.kind.value for record in write.records).items():
                    self._metrics.records_accepted.labels(kind).inc(number)
        if committed.more:
            self._tending.now()

    def _start_tending(self) -> asyncio.Future[Tended]:
        return self._loop.run_in_executor(self._thread, self.store.tend, self._clock.utc_ns())

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
        before, self.standing = self.standing, standing
        old, new = before.ledger, standing.ledger
        for (sink, policy), count in (new.drops - old.drops).items():
            self._metrics.records_dropped.labels(sink, policy).inc(count)
        for sink, count in (new.replayed - old.replayed).items():
            self._metrics.records_replayed.labels(sink).inc(count)
        if new.has_more_than(old):
            self._wake_readers()
        if not standing.is_full:
            self._room.set()
            return
        self._room.clear()
        if not before.is_full:
            self._tending.later(is_full=True)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error if isinstance(error, OutboxFailed) else OutboxFailed(f"{error!r}")
            self._tending.stop()
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
