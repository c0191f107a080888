"""Calls of a sink, which is foreign code: whatever it does, a call ends in time, well or as a ``SinkError``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from poller.errors import OutboxFull, SinkBroken, SinkError, SinkUnavailable
from poller.secrets import redact

CANCEL_PATIENCE_S = 5.0  # for a call that was cancelled to end
SHOWN_CHARACTERS = 500


class TimedOut(SinkUnavailable):
    """A call did not end in time."""


class Raised(SinkUnavailable):
    """Foreign code raised what the protocol does not know; its cause says what."""


class Calls:
    """The calls of one sink, one at a time."""

    def __init__(self, sink: str) -> None:
        self._sink = sink
        self._abandoned: asyncio.Task[None] | None = None  # a call that would not end

    async def make(self, call: Callable[[], Awaitable[None]], timeout_s: float) -> None:
        """Call foreign code.

        Raises:
            SinkError: its own, ``TimedOut`` or ``Raised``.
        """
        if self._abandoned is not None:
            # One call at a time is promised to sinks, also to one that would not end its last one.
            await asyncio.wait([self._abandoned], timeout=timeout_s)
            if not self._abandoned.done():
                raise TimedOut("an earlier call has still not ended")
            self._abandoned = None
        task = asyncio.create_task(_contained(call), name=f"a call of sink {self._sink}")
        try:
            await asyncio.wait([task], timeout=timeout_s)
        finally:
            is_in_time = task.done()
            if not is_in_time:
                await self._end(task)
        # What comes after a cancellation is not believed: code that swallows one returns as if all were well.
        if not is_in_time:
            raise TimedOut(f"no answer within {timeout_s:g} s")
        task.result()

    async def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        task.add_done_callback(_look_at)
        self._abandoned = task
        await asyncio.wait([task], timeout=CANCEL_PATIENCE_S)
        if task.done():
            self._abandoned = None


def kind(error: SinkError | OutboxFull) -> str:
    """A fixed word for the metric: plug-ins may have error classes of their own."""
    for error_class, word in (
        (OutboxFull, "outbox_full"),
        (SinkBroken, "broken"),
        (TimedOut, "timeout"),
        (Raised, "raised"),
    ):
        if isinstance(error, error_class):
            return word
    return "unavailable"


def text(said: object) -> str:
    """What foreign code said, without secrets and not too long; it may even fail to say it."""
    try:
        shown = str(said)
    except Exception:  # noqa: BLE001  # whatever it is, it is not worth losing the loop
        shown = f"<{type(said).__name__} that cannot be shown>"
    return redact(shown)[:SHOWN_CHARACTERS]


async def _contained(call: Callable[[], Awaitable[None]]) -> None:
    """Await foreign code, and turn whatever it raises into a ``SinkError``."""
    try:
        await call()
    except (SinkError, KeyboardInterrupt):
        raise
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise  # we asked for it
        raise Raised("the sink cancelled itself") from error
    except BaseException as error:
        # SystemExit too: a sink does not decide when the daemon ends.
        raise Raised(f"the sink raised {type(error).__name__}: {text(error)}") from error


def _look_at(task: asyncio.Task[None]) -> None:
    """Take note of how an abandoned call ended, or asyncio would report it as lost."""
    if not task.cancelled():
        task.exception()


async def first_of(*events: Coroutine[Any, Any, object], timeout_s: float | None = None) -> None:
    """Wait for the first of several things to happen, or for the time to pass; the others are cancelled.

    Raises:
        Exception: what the one that happened raised.
    """
    waiting = [asyncio.create_task(event) for event in events]
    try:
        done, _ = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    for task in done:
        task.result()
