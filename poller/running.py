"""What runs in a daemon: a few tasks for each egress address, one for each sink; they come and go one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from poller.discovery import DiscoveryWatch
from poller.exchange.transport import Transport
from poller.parts import Parts

PATIENCE_S: Final = 5.0  # for a sink that is to go, to end the batch it is at


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

    def start_egress(self, name: str, keyless: Collection[str] = ()) -> None:
        """Poll from an address, but not the accounts whose key cannot be had yet."""
        if self._is_over:
            return
        egress = self._parts.egress[name]
        egress.start(keyless)
        self._polling[name] = self._tasks.create_task(egress.dispatcher.run(), name=f"polls from {name}")
        watching = egress.watch_keys(self._parts.timekeeper.ready)
        self._watching[name] = self._tasks.create_task(watching, name=f"keys of {name}")

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
                discovering = self._when_ready(watch)
                self._discovering.append(self._tasks.create_task(discovering, name=f"sub-accounts of {name}"))

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
        if name in self._delivering:
            task = self._delivering.pop(name)
            self._parts.deliveries[name].end()
            await asyncio.wait([task], timeout=PATIENCE_S)
            task.cancel()  # it is stuck: what it was about to write comes again
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
