"""Group commit: writes that are asked for at the same time share one transaction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from poller.errors import OutboxError, OutboxFailed
from poller.outbox.values import Committed, Write

GROUP_WRITES = 1000  # in one transaction at most, so that the first does not wait for the last of many


class GroupCommit:
    """Gathers writes: one transaction runs at a time, and whoever comes meanwhile goes into the next.

    It runs on callbacks, not in a task of its own, so that cancelling every task (what ``asyncio.run``
    does at its end) cannot stop a commit half-way.
    """

    def __init__(self, commit: Callable[[Sequence[Write]], asyncio.Future[Committed]]) -> None:
        """``commit`` starts one transaction."""
        self._commit = commit
        self._waiting: deque[tuple[Write, asyncio.Future[Any]]] = deque()
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, write: Write) -> asyncio.Future[Any]:
        """Return a future that is done, with the write's result, when it is on the disk.

        To cancel it withdraws nothing: the write happens, wholly, only nobody is told.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((write, done))
        if not self._busy:
            self._busy = True
            self._idle.clear()
            loop.call_soon(self._next)  # not at once: others of this turn of the loop want to join
        return done

    async def idle(self) -> None:
        """Wait until nothing is waiting or under way."""
        await self._idle.wait()

    def _next(self) -> None:
        if not self._waiting:
            self._busy = False
            self._idle.set()
            return
        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), GROUP_WRITES))]
        commit = self._commit([write for write, _ in group])
        commit.add_done_callback(lambda finished: self._finish([done for _, done in group], finished))

    def _finish(self, waiters: Sequence[asyncio.Future[Any]], finished: asyncio.Future[Committed]) -> None:
        outcomes = _outcomes(finished, len(waiters))
        for done, outcome in zip(waiters, outcomes, strict=True):
            if done.done():
                continue  # cancelled: its task does not wait any more
            if isinstance(outcome, OutboxError):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)
        self._next()


def _outcomes(finished: asyncio.Future[Committed], count: int) -> Sequence[object]:
    if finished.cancelled():
        return [OutboxFailed("the commit was cancelled")] * count
    error = finished.exception()
    if error is None:
        return finished.result().outcomes
    if isinstance(error, OutboxError):
        return [error] * count
    failure = OutboxFailed(f"the commit broke: {error!r}")
    failure.__cause__ = error
    return [failure] * count
