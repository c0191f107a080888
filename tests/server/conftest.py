"""A running server around an overview that tests fill, and requests as raw bytes: nothing is made up for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from poller.clock import SystemClock
from poller.metrics import Metrics
from poller.secrets import Secret
from poller.server.serving import Server
from poller.server.settings import ServerSettings
from poller.testing.overview import InMemoryOverview, account_summary, balance_seen

TOKEN = "a-token-that-is-made-up-for-tests-0123456789"
DATA = "treasury"  # the name of an account: whoever has no right must not see it


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Client:
    """Speaks HTTP to one server, a connection per request."""

    server: Server

    @property
    def host(self) -> str:
        return str(self.server.address)

    async def get(self, target: str, **headers: str) -> Answer:
        return await self.ask("GET", target, headers=headers)

    async def ask(
        self,
        method: str,
        target: str,
        *,
        host: str | None = None,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host if host is None else host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in (headers or {}).items()]
        lines += [f"Content-Length: {len(body)}"] if body else []
        return await self.raw("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)

    async def raw(self, request: bytes) -> Answer:
        reader, writer = await self.connect()
        try:
            writer.write(request)
            return read_answer(await reader.read())
        finally:
            writer.close()
            await writer.wait_closed()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self.server.address
        return await asyncio.open_connection(address.host, address.port, limit=2**24)


def read_answer(whole: bytes) -> Answer:
    head, _, body = whole.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name] = value
    if headers.get("Transfer-Encoding") == "chunked":
        body = unchunked(body)
    return Answer(int(first.split(" ")[1]), headers, body)


def unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        parts.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return b"".join(parts)


@asynccontextmanager
async def serving(
    overview: InMemoryOverview,
    *,
    settings: ServerSettings | None = None,
    token: str | None = None,
    metrics: Metrics | None = None,
    **more: Any,
) -> AsyncIterator[Client]:
    settings = settings or ServerSettings(listen_port=0)
    secret = Secret(token) if token else None
    async with Server(
        overview, metrics or Metrics(), SystemClock(), settings, token=secret, **more
    ) as server:
        yield Client(server)


@pytest.fixture
def overview() -> InMemoryOverview:
    found = InMemoryOverview(
        [
            account_summary(DATA, labels={"desk": "mm", "region": "eu"}, total_btc="12.5"),
            account_summary("sub-001", state="stale", reason="no good answer", total_btc=None, good_at=None),
        ]
    )
    found.hold(DATA, [balance_seen("BTC", "12.5")])
    found.happen(DATA)
    return found


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Start servers that end with the test."""
    async with AsyncExitStack() as stack:

        async def start(overview: InMemoryOverview, **options: Any) -> Client:
            return await stack.enter_async_context(serving(overview, **options))

        yield start


async def until(condition: Callable[[], object]) -> None:
    """Wait for something in this loop to become true."""
    while not condition():  # noqa: ASYNC110  # what is waited for has no event
        await asyncio.sleep(0.001)
