"""RabbitMQ for tests: a place of one's own on the shared server, and a node that may be mistreated."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.exchange.certificates import Authority
from tests.services.servers import free_port

DEBIAN_PROGRAMS = Path("/usr/lib/rabbitmq/bin")  # those on the path there change the user
PATIENCE_S = 60.0
LARGEST_BYTES = 100_000  # of a message, on the node of one's own


@dataclass
class Place:
    """An exchange with one queue that gets everything, both to be removed at the end."""

    url: str
    name: str = field(default_factory=lambda: f"poller-test-{uuid.uuid4().hex}")

    def create(self, **arguments: Any) -> None:
        """Make the exchange and the queue, bound for every routing key."""
        with self.administering() as channel:
            channel.exchange_declare(self.name, "topic", durable=True)
            channel.queue_declare(self.name, durable=True, arguments=arguments)
            channel.queue_bind(self.name, self.name, "#")

    def remove(self) -> None:
        with self.administering() as channel:
            channel.queue_delete(self.name)
            channel.exchange_delete(self.name)

    @contextmanager
    def administering(self) -> Iterator[Any]:
        """Give a channel of a connection of its own."""
        with closing(pika.BlockingConnection(pika.URLParameters(self.url))) as connection:
            yield connection.channel()

    def messages(self, *, take: bool = False) -> list[tuple[Any, Any, bytes]]:
        """Return what is in the queue, in its order: delivery, properties, body. It stays there, unless taken."""
        with self.administering() as channel:
            count = channel.queue_declare(self.name, passive=True).method.message_count
            found: list[tuple[Any, Any, bytes]] = []
            for method, properties, body in channel.consume(self.name, inactivity_timeout=PATIENCE_S):
                assert method is not None, f"{len(found)} of {count} messages came"
                found.append((method, properties, body))
                if len(found) == count:
                    break
            if take and found:
                channel.basic_ack(found[-1][0].delivery_tag, multiple=True)
            return found

    def ids(self, *, take: bool = False) -> list[str]:
        return (
            [properties.message_id for _, properties, _ in self.messages(take=take)] if self.count() else []
        )

    def count(self) -> int:
        with self.administering() as channel:
            count: int = channel.queue_declare(self.name, passive=True).method.message_count
            return count


@dataclass(frozen=True)
class Node:
    """A RabbitMQ of one's own.

    Attributes:
        url: of its default virtual host, for its administrator.
        ca: file of the authority of its certificate.
        tls_port: where it speaks TLS.
    """

    url: str
    port: int
    tls_port: int
    ca: Path
    programs: Path
    environment: dict[str, str]

    def ctl(self, *command: str) -> str:
        """Run ``rabbitmqctl``."""
        done = subprocess.run(
            [self.programs / "rabbitmqctl", "-q", *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _programs() -> Path:
    if (DEBIAN_PROGRAMS / "rabbitmq-server").exists():
        return DEBIAN_PROGRAMS
    found = shutil.which("rabbitmq-server")
    if found is not None:
        return Path(found).parent
    if "rabbitmq" in os.environ.get("POLLER_TEST_REQUIRE", "").split(","):
        pytest.fail("no rabbitmq-server to start: install it")
    pytest.skip("no rabbitmq-server to start: install it")


@contextmanager
def rabbitmq_node(directory: Path) -> Iterator[Node]:
    """Run a node with TLS and a small limit of a message's size, all of it in one directory."""
    programs = _programs()
    port, tls_port, distribution, names = (free_port() for _ in range(4))
    authority = Authority(directory)
    authority.serving()
    [pem] = directory.glob("*.pem")
    ca = directory / "ca.pem"
    ca.write_text(authority._pem)
    (directory / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\n"
        f"listeners.ssl.1 = 127.0.0.1:{tls_port}\n"
        f"ssl_options.cacertfile = {ca}\nssl_options.certfile = {pem}\nssl_options.keyfile = {pem}\n"
        f"max_message_size = {LARGEST_BYTES}\n"
        "log.console = false\n"
    )
    (directory / "enabled_plugins").write_text("[].\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),  # of the cookie
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"poller-test-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
    }
    with (directory / "output").open("wb") as output:
        server = subprocess.Popen(
            [programs / "rabbitmq-server"],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        node = Node(f"amqp://guest:guest@127.0.0.1:{port}/", port, tls_port, ca, programs, environment)
        _await_listener(server, tls_port, directory / "output")
        node.ctl("await_startup")
        yield node
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # the script and what it started
        server.wait()
        _end_name_server(environment)


def _end_name_server(environment: dict[str, str]) -> None:
    """End the daemon that Erlang began besides; it refuses until it has noticed that its node is gone."""
    deadline_s = time.monotonic() + PATIENCE_S
    said = ""
    while not said.startswith("Killed") and "Cannot connect" not in said:
        assert time.monotonic() < deadline_s, said
        done = subprocess.run(
            ["epmd", "-kill"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        said = done.stdout + done.stderr


def _await_listener(server: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert server.poll() is None, output.read_text()
        assert time.monotonic() < deadline_s, output.read_text()
        time.sleep(0.1)
