"""A TCP proxy between a sink and its server that can cut, stall and refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK_BYTES = 1 << 16


class Proxy:
    """Passes bytes on between its own ``port`` and a server.

    Attributes:
        is_up: false closes every new connection at once.
        passes_answers: false swallows what the server says: a write happened and nobody was told.
        accepted: connections taken since the start.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server_address = (host, port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.is_up = True
        self.passes_answers = True
        self.accepted = 0

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Hold every byte back, in both directions, until ``flow``."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass bytes on again."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if not self.is_up:
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_connection(*self._server_address)
        self._writers |= {writer, up_writer}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, up_writer, is_answer=False))
                tasks.create_task(self._pass(up_reader, writer, is_answer=True))
        except* OSError:
            pass
        finally:
            self._writers -= {writer, up_writer}
            writer.transport.abort()
            up_writer.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._flowing.wait()
            if is_answer and not self.passes_answers:
                continue
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # one side has closed: so does the other


@asynccontextmanager
async def proxying(host: str, port: int) -> AsyncIterator[Proxy]:
    """Run a proxy before a server."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.flow()
        proxy.cut()
