"""The metrics as text. To render many takes long, so it is done in a thread, once for all who ask meanwhile."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


class Exposition:
    """Renders one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._under_way: dict[str, asyncio.Task[bytes]] = {}
        self._one_at_a_time = asyncio.Lock()
        self.renderings = 0

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that the client prefers, and its content type.

        A rendering that is under way in that format is shared; another format waits for its end.
        """
        encode, content_type = choose_encoder(accept)
        task = self._under_way.get(content_type)
        if task is None:

            async def render() -> bytes:
                try:
                    async with self._one_at_a_time:
                        self.renderings += 1
                        return await asyncio.to_thread(encode, self._registry)
                finally:
                    del self._under_way[content_type]

            task = asyncio.create_task(render(), name="metrics")
            self._under_way[content_type] = task
        # Whoever asked may go away; the others still wait for it.
        return await asyncio.shield(task), content_type

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
