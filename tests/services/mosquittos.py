"""Mosquitto brokers of a test's own, for what a shared one must not be put through; and a subscriber."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import pytest

from poller.sinks.mqtt import MqttSink
from poller.sinks.mqtt_options import MqttOptions
from poller.sinks.templates import Template
from tests.end_to_end.processes import wait_for
from tests.services.servers import free_port

END = b"the end"


@dataclass
class Mosquitto:
    """A ``mosquitto`` process on a port of its own."""

    directory: Path
    lines: list[str]
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, at the port where it was if it was killed; return when it listens."""
        binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if binary is None:
            pytest.skip("no mosquitto on this machine")
        self.port = self.port or free_port()
        file = self.directory / "mosquitto.conf"
        # As root it would become another user, who may not read the test's files.
        file.write_text("\n".join([f"listener {self.port} 127.0.0.1", "user root", *self.lines, ""]))
        with (self.directory / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([binary, "-c", str(file)], stdout=log, stderr=log)
        wait_for(self._listens)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "mosquitto.log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


@contextmanager
def mosquitto(directory: Path, *lines: str) -> Iterator[Mosquitto]:
    """Run a broker with lines of its configuration file."""
    directory.mkdir(exist_ok=True)
    broker = Mosquitto(directory, list(lines))
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def password_file(directory: Path, **users: str) -> str:
    """Return a line for a broker's configuration that lets these users in."""
    file = directory / "passwords"
    file.touch()
    for user, password in users.items():
        subprocess.run(["mosquitto_passwd", "-b", file, user, password], check=True, capture_output=True)
    return f"password_file {file}"


class Subscriber:
    """Keeps what it is sent. Its session begins before the records do."""

    def __init__(self, client: aiomqtt.Client, name: str) -> None:
        self._client = client
        self._name = name
        self._received: list[aiomqtt.Message] = []

    async def messages(self) -> list[aiomqtt.Message]:
        """Return everything that was acknowledged to publishers up to now."""
        # What the broker took before it comes before it.
        await self._client.publish(f"{self._name}/end", END, qos=1)
        async for message in self._client.messages:
            if message.payload == END:
                break
            self._received.append(message)
        return list(self._received)

    async def ids(self) -> list[str]:
        return [properties_of(message)["id"] for message in await self.messages()]


def everything_of(message: aiomqtt.Message) -> dict[str, Any]:
    """Return a message's properties."""
    assert message.properties is not None
    found: dict[str, Any] = message.properties.json()  # type: ignore[no-untyped-call]
    return found


def properties_of(message: aiomqtt.Message) -> dict[str, str]:
    """Return a message's user properties."""
    return dict(everything_of(message)["UserProperty"])


@asynccontextmanager
async def subscribed(url: str, name: str, **options: Any) -> AsyncIterator[Subscriber]:
    address = urlsplit(url)
    async with aiomqtt.Client(
        address.hostname or "", address.port or 1883, protocol=aiomqtt.ProtocolVersion.V5, **options
    ) as client:
        await client.subscribe(f"{name}/#", qos=1)
        yield Subscriber(client, name)


def sink_at(url: str, name: str, **options: Any) -> MqttSink:
    address = urlsplit(url)
    return MqttSink(
        MqttOptions(
            host=address.hostname or "", port=address.port, topic=Template(f"{name}/{{account}}"), **options
        )
    )


@asynccontextmanager
async def opened(url: str, name: str, **options: Any) -> AsyncIterator[MqttSink]:
    """Open a sink that publishes under a topic; close it, whatever happens."""
    sink = sink_at(url, name, **options)
    try:
        await sink.open()
        yield sink
    finally:
        await asyncio.wait_for(sink.close(), 5)
