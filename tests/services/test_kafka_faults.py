"""The ``kafka`` sink while brokers hang, die, hang up or swallow their answers."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError

from poller.errors import SinkUnavailable
from poller.model import Record
from poller.sinks.kafka import GIVEN_UP, KafkaSink
from poller.sinks.kafka_client import END_S
from poller.sinks.kafka_options import KafkaOptions
from poller.testing.sink_contract import ids, make_records
from tests.services.kafka_cluster import KafkaCluster, kafka_cluster
from tests.services.proxy import Proxy, proxying

pytestmark = pytest.mark.real_time

SHORT_S = 0.5
TOPIC = "balances"
ACCOUNTS = 6
EACH = 40
QUICK_S = END_S + 1


def batches() -> list[list[Record]]:
    """Records of several accounts, interleaved, in batches."""
    records = [
        record
        for nth in range(EACH)
        for number in range(ACCOUNTS)
        for record in make_records(1, account=f"account-{number}", first=1 + number * EACH + nth)
    ]
    return [records[start : start + 30] for start in range(0, len(records), 30)]


def assert_nothing_is_missing(messages: Sequence[Any]) -> None:
    """Per account: every id, and never one before those it follows; steps back are allowed."""
    found: dict[str, list[str]] = defaultdict(list)
    for message in messages:
        found[message.key().decode()].append(dict(message.headers())["id"].decode())
    for number in range(ACCOUNTS):
        expected = ids(make_records(EACH, first=1 + number * EACH))
        seen = 0
        for one in found[f"account-{number}"]:
            place = expected.index(one)
            assert place <= seen, f"{one} came before its predecessor"
            seen = max(seen, place + 1)
        assert seen == EACH


async def deliver(sink: KafkaSink, batch: Sequence[Record]) -> int:
    """Write until it works, as delivery does; return the failures before."""
    failures = 0
    while True:
        try:
            await sink.write(batch)
        except SinkUnavailable:
            failures += 1
            await asyncio.sleep(0.05)
        else:
            return failures


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


async def nothing_is_left() -> None:
    """Wait until no other task is there."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if others:
        _, pending = await asyncio.wait(others, timeout=QUICK_S)
        assert not pending


def sink_at(*bootstrap: str, request_timeout_s: float = SHORT_S) -> KafkaSink:
    return KafkaSink(KafkaOptions(bootstrap=bootstrap, topic=TOPIC), request_timeout_s=request_timeout_s)


@pytest.fixture
def cluster() -> Iterator[KafkaCluster]:
    with kafka_cluster() as cluster:
        cluster.create_topic(TOPIC)
        yield cluster


@pytest.fixture
async def proxied() -> AsyncIterator[tuple[KafkaCluster, Proxy]]:
    """One broker that tells its clients to come through a proxy."""
    with kafka_cluster(brokers=1) as cluster:
        cluster.create_topic(TOPIC)
        port = port_of(cluster)
        async with proxying("127.0.0.1", port) as proxy:
            cluster.advertise(1, proxy.port)
            yield cluster, proxy


def port_of(cluster: KafkaCluster) -> int:
    return int(cluster.bootstrap[0].rpartition(":")[2])


async def messages_behind(cluster: KafkaCluster) -> list[Any]:
    cluster.advertise(1, port_of(cluster))
    return await asyncio.to_thread(cluster.messages, TOPIC)


async def test_nobody_there_is_transient_and_passes(cluster: KafkaCluster) -> None:
    for broker in (1, 2, 3):
        cluster.down(broker)
    sink = sink_at(*cluster.bootstrap)
    with pytest.raises(SinkUnavailable, match="Connect call failed"):
        await sink.open()
    for broker in (1, 2, 3):
        cluster.up(broker)
    await sink.open()
    await sink.write(make_records(3))
    await sink.close()
    assert len(await asyncio.to_thread(cluster.messages, TOPIC)) == 3


async def test_while_nobody_is_there_the_client_is_quiet(
    cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(logging.getLogger(), "handlers", [_Lines(lines)])
    sink = sink_at(*cluster.bootstrap)
    await sink.open()
    for broker in (1, 2, 3):
        cluster.down(broker)
    with pytest.raises(SinkUnavailable, match="Connect call failed"):
        await sink.write(make_records(3))
    await sink.close()
    assert lines == []


async def test_another_client_of_the_process_is_still_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    with pytest.raises(SinkUnavailable):
        await sink_at("127.0.0.1:1").open()
    monkeypatch.setattr(logging.getLogger(), "handlers", [_Lines(lines)])
    with pytest.raises(KafkaConnectionError):
        await AIOKafkaClient(bootstrap_servers="127.0.0.1:1").bootstrap()
    assert len(lines) == 1


async def test_brokers_that_hang_for_a_while_delay(cluster: KafkaCluster) -> None:
    """Longer than requests wait: the client connects anew and sends the same again."""
    sink = sink_at(*cluster.bootstrap)
    await sink.open()
    first, *rest = batches()
    await sink.write(first)
    cluster.hang()
    writing = asyncio.create_task(deliver(sink, rest[0]))
    await asyncio.sleep(4 * SHORT_S)  # what is tested is that time passes
    assert not writing.done()
    cluster.resume()
    assert await writing > 0
    for batch in rest[1:]:
        await deliver(sink, batch)
    await sink.close()
    assert_nothing_is_missing(await asyncio.to_thread(cluster.messages, TOPIC))


async def test_a_producer_that_gets_nowhere_is_built_anew(cluster: KafkaCluster) -> None:
    sink = sink_at(*cluster.bootstrap)
    await sink.open()
    cluster.hang()
    [batch, *rest] = batches()
    for _ in range(GIVEN_UP + 1):
        with pytest.raises(SinkUnavailable):
            await sink.write(batch)
    cluster.resume()
    for one in (batch, *rest):
        await deliver(sink, one)
    await sink.close()
    messages = await asyncio.to_thread(cluster.messages, TOPIC)
    assert {dict(message.headers())["id"].decode() for message in messages} == {
        record.id for one in (batch, *rest) for record in one
    }


async def test_close_is_quick_while_brokers_hang_and_leaves_nothing_behind(cluster: KafkaCluster) -> None:
    sink = sink_at(*cluster.bootstrap, request_timeout_s=60)
    await sink.open()
    await sink.write(make_records(3))
    cluster.hang()
    writing = asyncio.create_task(sink.write(make_records(500, first=4)))
    await asyncio.sleep(0.1)
    writing.cancel()
    await asyncio.wait([writing])
    async with asyncio.timeout(QUICK_S):
        await sink.close()
        await sink.close()
    await nothing_is_left()
    cluster.resume()


async def test_open_is_bounded_while_brokers_hang_and_may_be_cancelled(cluster: KafkaCluster) -> None:
    cluster.hang()
    sink = sink_at(*cluster.bootstrap)
    with pytest.raises(SinkUnavailable):
        await sink.open()
    patient = sink_at(*cluster.bootstrap, request_timeout_s=60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await patient.open()
    async with asyncio.timeout(QUICK_S):
        await patient.close()
    await nothing_is_left()
    cluster.resume()
    await patient.open()
    await patient.write(make_records(1))
    await patient.close()


async def test_one_broker_less_is_a_delay(cluster: KafkaCluster) -> None:
    """The mock does not move its partitions: they are there again with their broker."""
    sink = sink_at(*cluster.bootstrap)
    await sink.open()
    first, *rest = batches()
    await sink.write(first)
    cluster.down(2)
    writing = asyncio.create_task(deliver(sink, rest[0]))
    await asyncio.sleep(SHORT_S)
    cluster.up(2)
    await writing
    for batch in rest[1:]:
        await deliver(sink, batch)
    await sink.close()
    assert_nothing_is_missing(await asyncio.to_thread(cluster.messages, TOPIC))


async def test_connections_that_are_cut_at_any_moment_lose_nothing(
    proxied: tuple[KafkaCluster, Proxy],
) -> None:
    cluster, proxy = proxied
    dice = random.Random(1)
    sink = sink_at(f"127.0.0.1:{proxy.port}")
    await sink.open()

    async def cut() -> None:
        while True:
            await asyncio.sleep(dice.uniform(0.0, 0.01))
            proxy.cut()

    cutting = asyncio.create_task(cut())
    for number, batch in enumerate(batches()):
        if number == 6:
            cutting.cancel()
        async with asyncio.timeout(20):
            await deliver(sink, batch)
    await sink.close()
    assert_nothing_is_missing(await messages_behind(cluster))


async def test_answers_that_are_swallowed_let_the_same_come_again(
    proxied: tuple[KafkaCluster, Proxy],
) -> None:
    cluster, proxy = proxied
    sink = sink_at(f"127.0.0.1:{proxy.port}")
    await sink.open()
    first, second, *rest = batches()
    await sink.write(first)
    proxy.passes_answers = False
    with pytest.raises(SinkUnavailable, match="not acknowledged within"):
        await sink.write(second)
    proxy.passes_answers = True
    proxy.cut()
    for batch in (second, *rest):
        await deliver(sink, batch)
    await sink.close()
    assert_nothing_is_missing(await messages_behind(cluster))


async def test_a_proxy_that_holds_everything_back_does_not_hold_up_the_end(
    proxied: tuple[KafkaCluster, Proxy],
) -> None:
    """More is under way than sockets' buffers take, so the connection cannot be closed in order."""
    _, proxy = proxied
    sink = sink_at(f"127.0.0.1:{proxy.port}", request_timeout_s=60)
    await sink.open()
    proxy.stall()
    large = [
        Record(r.id, r.kind, r.account, r.sequence, r.reason, r.payload + b" " * 500_000)
        for r in make_records(40)
    ]
    writing = asyncio.create_task(sink.write(large))
    await asyncio.sleep(0.3)
    writing.cancel()
    await asyncio.wait([writing])
    async with asyncio.timeout(QUICK_S):
        await sink.close()


async def test_a_cluster_that_was_killed_and_is_another_takes_the_batch(
    proxied: tuple[KafkaCluster, Proxy],
) -> None:
    """At the same address, without the topic, without what it knew of the producer."""
    cluster, proxy = proxied
    sink = sink_at(f"127.0.0.1:{proxy.port}")
    await sink.open()
    first, second, *rest = batches()
    await sink.write(first)
    assert len(await messages_behind(cluster)) == len(first)
    cluster.close()
    with kafka_cluster(brokers=1) as another:
        writing = asyncio.create_task(deliver(sink, second))
        another.advertise(1, proxy.port)
        proxy._server_address = ("127.0.0.1", port_of(another))
        await writing
        for batch in rest:
            await deliver(sink, batch)
        await sink.close()
        messages = await messages_behind(another)
    assert {dict(message.headers())["id"].decode() for message in messages} == {
        record.id for batch in (second, *rest) for record in batch
    }
