"""A plug-in in a thread and event loop of its own: one that blocks holds up nothing but itself.

Our own sinks share the daemon's loop. Of somebody else's code nobody knows whether it waits or
blocks, so it gets a loop where it may do either. Its calls still end here, in the daemon's loop, and
only when they have ended there: one call at a time is what sinks are promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, ClassVar

from poller.model import Record
from poller.sinks import Sink, SinkOptions

OURS = "poller."


def isolated(sink: Sink, name: str) -> Sink:
    """Return the sink, in a loop of its own if it is not one of ours."""
    return sink if type(sink).__module__.startswith(OURS) else Isolated(sink, name)


class Isolated:
    """Passes calls on to a sink in another thread.

    The thread is a daemon: a call that never ends does not keep the process from ending.
    """

    Options: ClassVar[type[SinkOptions]] = SinkOptions

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink = sink
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """As the sink's own."""
        await self._call(self._sink.open)

    async def write(self, batch: Sequence[Record]) -> None:
        """As the sink's own."""
        await self._call(lambda: self._sink.write(batch))

    async def close(self) -> None:
        """As the sink's own; then its thread ends."""
        try:
            await self._call(self._sink.close)
        finally:
            loop, self._loop = self._loop, None
            if loop is not None:
                loop.call_soon_threadsafe(loop.stop)

    async def _call(self, call: Callable[[], Awaitable[None]]) -> None:
        there, here = self._running(), asyncio.get_running_loop()
        outcome: asyncio.Future[BaseException | None] = here.create_future()
        tasks: list[asyncio.Task[BaseException | None]] = []

        def tell(error: BaseException | None) -> None:
            if not outcome.done():
                outcome.set_result(error)

        def ended(task: asyncio.Task[BaseException | None]) -> None:
            error = asyncio.CancelledError() if task.cancelled() else task.result()
            with suppress(RuntimeError):  # the daemon's loop has ended meanwhile
                here.call_soon_threadsafe(tell, error)

        def begin() -> None:
            task = there.create_task(_outcome(call), name=f"a call of plug-in {self._name}")
            tasks.append(task)
            task.add_done_callback(ended)

        there.call_soon_threadsafe(begin)
        try:
            error = await asyncio.shield(outcome)
        except asyncio.CancelledError:
            there.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
            await outcome
            raise
        if error is not None:
            raise error

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            Thread(target=_serve, args=(self._loop,), name=f"sink {self._name}", daemon=True).start()
        return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    finally:
        loop.close()


async def _outcome(call: Callable[[], Awaitable[Any]]) -> BaseException | None:
    """Return what a call raised: a SystemExit that got out would end the thread."""
    try:
        await call()
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  # it is raised again where the caller waits
        return error
    return None
