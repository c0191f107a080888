"""What runs in a daemon: a few tasks for each egress address, one for each sink; they come and go one by one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from poller.discovery import DiscoveryWatch
from poller.errors import OutboxFailed
from poller.exchange.transport import Transport
from poller.parts import Parts

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 5.0  # for a sink that is to go, to end the batch it is at
ANEW_AFTER_S: Final = 10.0  # what failed for a reason of our own begins again

T = TypeVar("T")


async def persistently(run: Callable[[], Awaitable[object]], name: str) -> None:
    """Run what polls and deliveries can do without: a bug in it is logged, and it begins anew after a while.

    Raises:
        OutboxFailed: the process must stop; also in an ``ExceptionGroup``.
    """
    while True:
        try:
            await run()
        except Exception as error:
            if isinstance(error, OutboxFailed) or (
                isinstance(error, ExceptionGroup) and error.subgroup(OutboxFailed) is not None
            ):
                raise
            logger.exception(
                "something beside polls and sinks failed for a reason of our own; it begins anew",
                extra={"task": name},
            )
        else:
            return
        await asyncio.sleep(ANEW_AFTER_S)


class Running:
    """Starts and ends the tasks of a daemon's parts.

    Args:
        tasks: the group they belong to; what fails for good ends all of them.
        parts: what they belong to.
    """

    def __init__(self, tasks: asyncio.TaskGroup, parts: Parts) -> None:
        self._tasks = tasks
        self._parts = parts
        self._polling: dict[str, asyncio.Task[None]] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._delivering: dict[str, asyncio.Task[None]] = {}
        self._discovering: list[asyncio.Task[None]] = []
        self._is_over = False
        self._retiring: set[asyncio.Task[None]] = set()

    def begin(self, job: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task of the daemon; if it fails, the daemon ends."""
        return self._tasks.create_task(job, name=name)

    def start_egress(self, name: str, keyless: Collection[str] = ()) -> None:
        """Poll from an address, but not the accounts whose key cannot be had yet."""
        if self._is_over:
            return
        egress = self._parts.egress[name]
        egress.start(keyless)
        self._polling[name] = self._tasks.create_task(egress.dispatcher.run(), name=f"polls from {name}")
        watching = partial(egress.watch_keys, self._parts.timekeeper.ready)
        self._watching[name] = self.begin(persistently(watching, "keys"), f"keys of {name}")

    async def stop_egress(self, name: str) -> None:
        """Poll from an address no more; when this returns what was under way has ended."""
        if name in self._polling:
            self._watching.pop(name).cancel()
            self._parts.egress[name].dispatcher.stop()
            await asyncio.wait([self._polling.pop(name)])

    def start_discoveries(self) -> None:
        """Ask master accounts for their sub-accounts, and end whoever did so before."""
        for task in self._discovering:
            task.cancel()
        self._discovering = []
        for name, watch in self._parts.discoveries.items():
            if not self._is_over:
                discovering = persistently(partial(self._when_ready, watch), "sub-accounts")
                self._discovering.append(self.begin(discovering, f"sub-accounts of {name}"))

    async def _when_ready(self, watch: DiscoveryWatch) -> None:
        await self._parts.timekeeper.ready()  # requests have to be stamped
        await watch.run()

    def start_delivery(self, name: str) -> None:
        """Deliver to a sink."""
        if self._is_over:
            return
        delivery = self._parts.deliveries[name]
        self._delivering[name] = self._tasks.create_task(delivery.run(), name=f"delivery to {name}")

    async def stop_delivery(self, name: str) -> None:
        """Deliver to a sink no more; when this returns it is closed. What it has not acknowledged stays."""
        task = self._delivering.pop(name, None)
        if task is not None:
            self._parts.deliveries[name].end()
            try:
                await asyncio.wait([task], timeout=PATIENCE_S)
            finally:
                task.cancel()  # it is stuck, or the daemon stops: what it was about to write comes again
            await asyncio.wait([task])

    async def stop_polling(self) -> None:
        """Grant no further poll; when this returns those under way have ended. Nothing starts after it."""
        self._is_over = True
        for task in (*self._watching.values(), *self._discovering):
            task.cancel()
        for egress in self._parts.egress.values():
            egress.dispatcher.stop()
        if self._polling:
            await asyncio.wait(list(self._polling.values()))

    def retire(self, transports: Sequence[Transport], after_s: float) -> None:
        """Close what is not sent through any more, once what was under way has had its time."""
        if not transports:
            return
        task = self._tasks.create_task(_close(transports, after_s), name="closing of old transports")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def cancel(self) -> None:
        """End everything that is left, at once."""
        for tasks in (self._watching, self._polling, self._delivering):
            for task in tasks.values():
                task.cancel()
        for task in self._retiring:
            task.cancel()


async def _close(transports: Sequence[Transport], after_s: float) -> None:
    try:
        await asyncio.sleep(after_s)
    finally:
        await asyncio.gather(*(transport.close() for transport in transports))
