"""The servers that sinks are tested against: found by an environment variable, or at their default ports.

A test that needs one that is not there is skipped with what to start. In CI that would hide a hole, so
``POLLER_TEST_REQUIRE=redis,nats`` turns such a skip into a failure.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from poller.model import Record
from poller.sinks import Sink


@dataclass(frozen=True)
class Service:
    """One kind of server.

    Attributes:
        variable: of the environment, with another URL.
        url: where it is by default.
        start: what a person would do to have one.
    """

    name: str
    variable: str
    url: str
    start: str

    def find(self) -> str | None:
        """Return its URL if somebody listens there."""
        url = os.environ.get(self.variable, self.url)
        address = urlsplit(url)
        try:
            with socket.create_connection((address.hostname, address.port or 0), timeout=2):
                return url
        except OSError:
            return None

    def require(self) -> str:
        """Return its URL, or skip the test; or fail it, where the server has to be there."""
        url = self.find()
        if url is not None:
            return url
        where = os.environ.get(self.variable, self.url)
        reason = f"no {self.name} at {where}: {self.start}, or set {self.variable}"
        if self.name in os.environ.get("POLLER_TEST_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)


REDIS = Service("redis", "POLLER_TEST_REDIS", "redis://127.0.0.1:6379/0", "start redis-server")
NATS = Service("nats", "POLLER_TEST_NATS", "nats://127.0.0.1:4222", "start nats-server -js")
RABBITMQ = Service(
    "rabbitmq", "POLLER_TEST_AMQP", "amqp://guest:guest@127.0.0.1:5672/", "start rabbitmq-server"
)
POSTGRES = Service(
    "postgres", "POLLER_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test", "start PostgreSQL"
)
MOSQUITTO = Service("mosquitto", "POLLER_TEST_MQTT", "mqtt://127.0.0.1:1883", "start mosquitto")


def free_port() -> int:
    """Return a port of this machine that nobody listens at, for a server of a test's own."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def write_until_taken(sink: Sink, batch: Sequence[Record], *errors: type[Exception]) -> int:
    """Write as the delivery loop does, again and again; return how often it failed."""
    failures = 0
    while True:
        try:
            await sink.write(batch)
        except errors:
            failures += 1
            await asyncio.sleep(0.05)
        else:
            return failures
