"""Redis or Valkey servers of a test's own, for what the shared one must not be put through.

``POLLER_TEST_REDIS_SERVER`` names another binary than ``redis-server``, such as a newer one or Valkey's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from poller.secrets import Secret
from poller.sinks.redis import RedisOptions, RedisSink
from tests.services.servers import free_port

BINARY = os.environ.get("POLLER_TEST_REDIS_SERVER", "redis-server")


@dataclass
class Server:
    """A running server; ``client`` talks to it past the sink."""

    port: int
    process: asyncio.subprocess.Process
    client: Redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def sink(self, **options: Any) -> RedisSink:
        return RedisSink(RedisOptions(url=Secret(options.pop("url", self.url)), **options))

    async def command(self, *words: str | int) -> Any:
        return await cast("Any", self.client).execute_command(*words)

    async def has(self, command: str) -> bool:
        try:
            await self.command(command)
        except RedisError as error:
            return "unknown command" not in str(error)
        return True

    async def ids(self, stream: str = "balances") -> list[str]:
        return await ids_in(self.client, stream)


async def entries_in(client: Redis, stream: str) -> list[dict[str, str]]:
    """Return the fields of a stream's entries, in their order."""
    found = cast("list[tuple[str, dict[str, str]]]", await client.xrange(stream))
    return [fields for _, fields in found]


async def ids_in(client: Redis, stream: str) -> list[str]:
    return [fields["id"] for fields in await entries_in(client, stream)]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something at the server: it tells nobody."""
    while not await condition():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(
    directory: Path, *options: str, port: int = 0, wait: bool = True, password: str | None = None
) -> AsyncIterator[Server]:
    """Run a server that keeps its files in a directory.

    Args:
        options: as on its command line.
        port: a free one by default.
        wait: until it answers.
        password: of the user ``default``, for our own client.
    """
    if shutil.which(BINARY) is None:
        pytest.skip(f"no {BINARY}: install redis-server, or set POLLER_TEST_REDIS_SERVER")
    port = port or free_port()
    directory.mkdir(exist_ok=True)
    with (directory / "server.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(BINARY, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""),
            *options,
            stdout=log,
            stderr=log,
        )
    client = Redis(port=port, decode_responses=True, password=password)
    try:
        if wait:

            async def is_up() -> bool:
                said = (directory / "server.log").read_text()
                if "Failed finding TLS support" in said:
                    pytest.skip(f"{BINARY} was built without TLS")
                assert process.returncode is None, said
                return await _answers(client)

            await until(is_up)
        yield Server(port, process, client)
    finally:
        await client.aclose()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answers(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except RedisError:
        return False
