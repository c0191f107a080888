"""The ``kafka`` sink's log-in and encryption: what reaches the wire, and what an operator is told."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from poller.errors import SinkBroken, SinkError, SinkUnavailable
from poller.secrets import Secret
from poller.sinks.kafka import KafkaSink
from poller.sinks.kafka_options import KafkaOptions
from poller.testing.sink_contract import ids, make_records
from tests.exchange.certificates import Authority
from tests.services.kafka_cluster import kafka_cluster
from tests.services.proxy import Proxy
from tests.services.sasl_broker import REASON, sasl_broker

pytestmark = pytest.mark.real_time

CANARY = "canary-4f1c09aa7e-password"
SHORT_S = 1.0


def sink_at(port: int, **options: Any) -> KafkaSink:
    return KafkaSink(
        KafkaOptions(bootstrap=(f"127.0.0.1:{port}",), topic="balances", **options), request_timeout_s=SHORT_S
    )


async def refusal(sink: KafkaSink) -> SinkError:
    with pytest.raises(SinkError) as raised:
        await sink.open()
    await sink.close()
    return raised.value


def login(mechanism: str) -> dict[str, Any]:
    return {"sasl": mechanism, "user": "poller", "password": Secret(CANARY)}


async def test_a_refused_log_in_is_broken_in_the_brokers_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with sasl_broker("PLAIN") as broker:
        error = await refusal(sink_at(broker.port, **login("PLAIN")))
        assert broker.tokens == [f"poller\0poller\0{CANARY}".encode()]
    assert isinstance(error, SinkBroken)
    assert REASON in str(error)
    assert "check 'user' and 'password'" in str(error)
    assert CANARY not in "".join(traceback.format_exception(error)) + repr(error) + caplog.text


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_scram_does_not_send_the_password(mechanism: str) -> None:
    async with sasl_broker("PLAIN", mechanism) as broker:
        error = await refusal(sink_at(broker.port, **login(mechanism)))
        [token] = broker.tokens
    assert token.startswith(b"n,,n=poller,r=")
    assert CANARY.encode() not in token
    assert isinstance(error, SinkBroken)


async def test_a_mechanism_that_is_not_offered_is_broken() -> None:
    async with sasl_broker("SCRAM-SHA-512") as broker:
        error = await refusal(sink_at(broker.port, **login("PLAIN")))
        assert broker.tokens == []
    assert isinstance(error, SinkBroken)
    assert "SCRAM-SHA-512" in str(error)
    assert "set 'sasl' to a mechanism that the brokers offer" in str(error)


async def test_logging_in_happens_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ca = tmp_path / "ca.pem"
    ca.write_text(authority._pem)
    async with sasl_broker("PLAIN", tls=authority.serving()) as broker:
        error = await refusal(sink_at(broker.port, tls=True, ca=ca, **login("PLAIN")))
        assert len(broker.tokens) == 1
    assert isinstance(error, SinkBroken)


async def test_an_authority_that_is_not_trusted_is_broken_before_anything_is_said(tmp_path: Path) -> None:
    async with sasl_broker("PLAIN", tls=Authority(tmp_path).serving()) as broker:
        error = await refusal(sink_at(broker.port, tls=True, **login("PLAIN")))
        assert broker.tokens == []
    assert isinstance(error, SinkBroken)
    assert "certificate verify failed" in str(error)
    assert "name the authority of the brokers' certificates as 'ca'" in str(error)


async def test_a_missing_file_is_broken(tmp_path: Path) -> None:
    error = await refusal(sink_at(1, tls=True, ca=tmp_path / "missing.pem"))
    assert isinstance(error, SinkBroken)
    assert "missing.pem: there is no such file" in str(error)


@asynccontextmanager
async def tls_before(port: int, authority: Authority) -> AsyncIterator[int]:
    """Speak TLS before a server that does not."""
    proxy = Proxy("127.0.0.1", port)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0, ssl=authority.serving())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        proxy.cut()


async def test_records_pass_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ca = tmp_path / "ca.pem"
    ca.write_text(authority._pem)
    with kafka_cluster(brokers=1) as cluster:
        plain = cluster.bootstrap[0]
        async with tls_before(int(plain.rpartition(":")[2]), authority) as port:
            cluster.advertise(1, port)
            sink = sink_at(port, tls=True, ca=ca)
            await sink.open()
            await sink.write(make_records(3))
            await sink.close()
        cluster.advertise(1, int(plain.rpartition(":")[2]))
        messages = await asyncio.to_thread(cluster.messages, "balances")
    assert [dict(message.headers())["id"].decode() for message in messages] == ids(make_records(3))


async def test_tls_where_none_is_spoken_is_understood() -> None:
    """A broker hangs up: its first bytes would be a request of 369 MB."""
    with kafka_cluster(brokers=1) as cluster:
        port = int(cluster.bootstrap[0].rpartition(":")[2])
        error = await refusal(sink_at(port, tls=True))
    assert isinstance(error, SinkUnavailable)
    assert str(error).endswith("does that port speak TLS?")


async def test_a_server_of_another_kind_is_understood() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        encrypted, plain = await refusal(sink_at(port, tls=True)), await refusal(sink_at(port))
    assert isinstance(encrypted, SinkBroken)
    assert "name a port that speaks TLS in 'bootstrap', or leave 'tls' out" in str(encrypted)
    assert isinstance(plain, SinkUnavailable)
    assert "does that port want TLS or SASL?" in str(plain)


async def test_sasl_where_none_is_spoken_is_broken() -> None:
    with kafka_cluster(brokers=1) as cluster:
        error = await refusal(sink_at(int(cluster.bootstrap[0].rpartition(":")[2]), **login("PLAIN")))
    assert isinstance(error, SinkBroken)
    assert "leave 'sasl' out" in str(error)
