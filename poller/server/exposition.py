"""The metrics as text. To render many takes long, so it is done in a thread, once for all who ask meanwhile."""

from __future__ import annotations

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from poller.server.worker import Worker

# The library reads versions out of what clients accept: it trips over some and repeats others. It gets this.
_OPEN: Final = "application/openmetrics-text; version=1.0.0"


class Exposition:
    """Renders one registry."""

    def __init__(self, registry: CollectorRegistry, worker: Worker) -> None:
        self._registry = registry
        self._worker = worker
        self._under_way: dict[str, asyncio.Task[bytes]] = {}
        self._one_at_a_time = asyncio.Lock()
        self.renderings = 0

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that the client prefers, and its content type.

        A rendering that is under way in that format is shared; another format waits for its end.
        """
        encode, content_type = choose_encoder(_OPEN if _accepts_open(accept) else "")
        task = self._under_way.get(content_type)
        if task is None:

            async def render() -> bytes:
                try:
                    async with self._one_at_a_time:
                        self.renderings += 1
                        return await self._worker.run(encode, self._registry)
                finally:
                    del self._under_way[content_type]

            task = asyncio.create_task(render(), name="metrics")
            self._under_way[content_type] = task
        # Whoever asked may go away; the others still wait for it.
        return await asyncio.shield(task), content_type

    async def close(self, *, at_most_s: float) -> None:
        """Wait for what is under way, so long, and then leave it alone."""
        tasks = list(self._under_way.values())
        if tasks:
            await asyncio.wait(tasks, timeout=at_most_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _accepts_open(accept: str) -> bool:
    return any(part.partition(";")[0].strip() == _OPEN.partition(";")[0] for part in accept.split(","))
