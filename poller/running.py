"""What runs in a daemon: a few tasks for each egress address, one for each sink; they come and go one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from poller.assembly import Parts


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

    def start_egress(self, name: str, keyless: Sequence[str] = ()) -> None:
        """Poll from an address, but not the accounts whose key cannot be had yet."""
        egress = self._parts.egress[name]
        egress.start(keyless)
        self._polling[name] = self._tasks.create_task(egress.dispatcher.run(), name=f"polls from {name}")
        watching = egress.watch_keys(self._parts.timekeeper.ready)
        self._watching[name] = self._tasks.create_task(watching, name=f"keys of {name}")

    async def stop_egress(self, name: str) -> None:
        """Poll from an address no more; when this returns what was under way has ended."""
        self._watching.pop(name).cancel()
        self._parts.egress[name].dispatcher.stop()
        await asyncio.wait([self._polling.pop(name)])

    def start_delivery(self, name: str) -> None:
        """Deliver to a sink."""
        delivery = self._parts.deliveries[name]
        self._delivering[name] = self._tasks.create_task(delivery.run(), name=f"delivery to {name}")

    async def stop_delivery(self, name: str) -> None:
        """Deliver to a sink no more; when this returns it is closed. What it has not acknowledged stays."""
        task = self._delivering.pop(name)
        task.cancel()
        await asyncio.wait([task])

    async def stop_polling(self) -> None:
        """Grant no further poll; when this returns those under way have ended."""
        for task in self._watching.values():
            task.cancel()
        for egress in self._parts.egress.values():
            egress.dispatcher.stop()
        if self._polling:
            await asyncio.wait(list(self._polling.values()))

    def cancel(self) -> None:
        """End everything that is left, at once."""
        for tasks in (self._watching, self._polling, self._delivering):
            for task in tasks.values():
                task.cancel()
