"""The ``kafka`` sink against librdkafka's mock cluster: the real protocol over real sockets.

The mock does not drop what an idempotent producer sends again, so nothing here asserts exactly once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiokafka import errors

from poller.errors import SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.model import Record
from poller.secrets import Secret
from poller.sinks.kafka import KafkaSink
from poller.sinks.kafka_errors import classified
from poller.sinks.kafka_options import KafkaOptions
from poller.testing.sink_contract import SinkContract, ids, make_records
from tests.services.kafka_cluster import INIT_PRODUCER_ID, PRODUCE, KafkaCluster, kafka_cluster
from tests.services.proxy import proxying

pytestmark = pytest.mark.real_time

IMPATIENT_S = 0.5


@pytest.fixture(scope="module")
def shared() -> Iterator[KafkaCluster]:
    with kafka_cluster() as cluster:
        yield cluster


@pytest.fixture
def topic(shared: KafkaCluster, tmp_path: Path) -> Iterator[str]:
    name = topic_for(tmp_path)
    shared.create_topic(name)
    yield name
    shared.stop_refusing(PRODUCE)
    shared.refuse_topic(name, 0)
    shared.delete_topic(name)


def topic_for(tmp_path: Path) -> str:
    return "poller-test-" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]


def make(
    cluster: KafkaCluster, topic: str, *, request_timeout_s: float = IMPATIENT_S, **options: Any
) -> KafkaSink:
    settings = {"bootstrap": cluster.bootstrap, "topic": topic, **options}
    return KafkaSink(KafkaOptions.model_validate(settings), request_timeout_s=request_timeout_s)


@asynccontextmanager
async def opened(
    cluster: KafkaCluster, topic: str, *, request_timeout_s: float = IMPATIENT_S, **options: Any
) -> AsyncIterator[KafkaSink]:
    sink = make(cluster, topic, request_timeout_s=request_timeout_s, **options)
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


async def read(cluster: KafkaCluster, topic: str) -> list[Any]:
    """Return a topic's messages as somebody else's consumer sees them."""
    return await asyncio.to_thread(cluster.messages, topic)


def ids_of(messages: list[Any]) -> list[str]:
    return [json.loads(message.value())["id"] for message in messages]


async def until_taken(sink: KafkaSink, batch: list[Record], tries: int = 60) -> list[SinkError]:
    """Write as the delivery loop does: again and again, until it is taken; return what went wrong before."""
    found: list[SinkError] = []
    for _ in range(tries):
        try:
            await sink.write(batch)
        except SinkError as error:
            found.append(error)
            await asyncio.sleep(0.05)
        else:
            return found
    raise AssertionError(f"never taken: {found[-1]}")


class TestKafkaSink(SinkContract):
    cluster: ClassVar[KafkaCluster]

    @pytest.fixture(autouse=True)
    def _use(self, shared: KafkaCluster, topic: str) -> None:
        type(self).cluster = shared

    def make_sink(self, tmp_path: Path) -> KafkaSink:
        return make(self.cluster, topic_for(tmp_path), request_timeout_s=5.0)

    async def written(self, tmp_path: Path) -> list[str]:
        return ids_of(await read(self.cluster, topic_for(tmp_path)))

    async def payloads(self, tmp_path: Path) -> list[bytes] | None:
        return None  # accounts lie in different partitions, whose order says nothing


# A message -----------------------------------------------------------------------------------------


async def test_a_message_has_the_accounts_key_and_names_its_record(shared: KafkaCluster, topic: str) -> None:
    [record] = make_records(1)
    async with opened(shared, topic) as sink:
        await sink.write([record])
    [found] = await read(shared, topic)
    assert (found.key(), found.value()) == (b"treasury", record.payload)
    assert dict(found.headers()) == {
        "id": record.id.encode(),
        "schema": b"poller.snapshot/1",
        "account": b"treasury",
        "sequence": b"1",
        "content-type": b"application/json",
    }
    assert found.timestamp()[1] == 1_767_225_601_000  # when it was observed


async def test_a_cloud_event_in_binary_mode_has_its_attributes_in_headers(
    shared: KafkaCluster, topic: str
) -> None:
    [record] = make_records(1)
    async with opened(shared, topic, format="cloudevents-binary") as sink:
        await sink.write([record])
    [found] = await read(shared, topic)
    headers = dict(found.headers())
    assert found.value() == record.payload
    assert (headers["ce_id"], headers["ce_specversion"]) == (record.id.encode(), b"1.0")
    assert (headers["ce_type"], headers["content-type"]) == (b"poller.snapshot/1", b"application/json")


async def test_a_cloud_event_in_structured_mode_is_the_value(shared: KafkaCluster, topic: str) -> None:
    [record] = make_records(1)
    async with opened(shared, topic, format="cloudevents") as sink:
        await sink.write([record])
    [found] = await read(shared, topic)
    event = json.loads(found.value())
    assert (event["id"], event["data"]["id"]) == (record.id, record.id)
    assert dict(found.headers())["content-type"] == b"application/cloudevents+json"


async def test_gzip_arrives_as_what_it_was(shared: KafkaCluster, topic: str) -> None:
    batch = make_records(50)
    async with opened(shared, topic, compression="gzip") as sink:
        await sink.write(batch)
    assert ids_of(await read(shared, topic)) == ids(batch)


async def test_an_account_keeps_to_one_partition_and_its_order(shared: KafkaCluster, topic: str) -> None:
    accounts = [make_records(30, account=f"a{number}", first=1000 * number) for number in range(1, 9)]
    batch = [record for together in zip(*accounts, strict=True) for record in together]
    async with opened(shared, topic) as sink:
        await sink.write(batch)
    messages = await read(shared, topic)
    assert len({message.partition() for message in messages}) > 1
    for records in accounts:
        mine = [message for message in messages if message.key() == records[0].account.encode()]
        assert len({message.partition() for message in mine}) == 1
        assert ids_of(mine) == ids(records)


async def test_a_topic_may_have_fields_of_the_record(shared: KafkaCluster, topic: str) -> None:
    name = f"{topic}-snapshot-mm"
    shared.create_topic(name)
    try:
        async with opened(shared, f"{topic}-{{kind}}-{{labels.desk}}") as sink:
            await sink.write(make_records(3))
        assert ids_of(await read(shared, name)) == ids(make_records(3))
    finally:
        shared.delete_topic(name)


# What is refused -----------------------------------------------------------------------------------


async def test_a_record_that_is_too_large_is_named_and_the_others_are_written(
    shared: KafkaCluster, topic: str
) -> None:
    batch = make_records(5)
    large = Record(
        batch[2].id, batch[2].kind, "treasury", 3, "changed", batch[2].payload[:-1] + b" " * 4096 + b"}", 3
    )
    batch[2] = large
    async with opened(shared, topic, max_message="2KiB") as sink:
        with pytest.raises(SinkRejected) as caught:
            await sink.write(batch)
    assert list(caught.value.rejected) == [large.id]
    assert "'max_message' = 2048" in caught.value.rejected[large.id]
    assert ids_of(await read(shared, topic)) == [record.id for record in batch if record is not large]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (29, "allow our user to Describe and Write the topic"),
        (17, "give 'topic' another name"),
        (3, "create the topic"),
    ],
)
async def test_what_is_wrong_with_a_topic_breaks_the_sink_with_a_remedy(
    shared: KafkaCluster, topic: str, code: int, said: str
) -> None:
    sink = make(shared, topic)
    shared.refuse_topic(topic, code)
    with pytest.raises(SinkBroken, match=said):
        await sink.open()
    shared.refuse_topic(topic, 0)
    await sink.open()
    await sink.write(make_records(2))
    await sink.close()
    assert ids_of(await read(shared, topic)) == ids(make_records(2))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (29, SinkBroken),  # topic authorization failed
        (31, SinkBroken),  # cluster authorization failed
        (44, SinkBroken),  # policy violation
        (87, SinkUnavailable),  # invalid record: nothing says which
    ],
)
async def test_what_a_broker_answers_to_a_batch_is_classified_and_later_taken(
    shared: KafkaCluster, topic: str, code: int, expected: type[SinkError]
) -> None:
    batch = make_records(3)
    async with opened(shared, topic) as sink:
        shared.refuse(PRODUCE, *[code] * 3)
        with pytest.raises(expected):
            await sink.write(batch)
        shared.stop_refusing(PRODUCE)
        await until_taken(sink, batch)
    assert list(dict.fromkeys(ids_of(await read(shared, topic)))) == ids(batch)


@pytest.mark.parametrize("code", [6, 7, 19, 20])  # not leader, time-out, not enough replicas (after append)
async def test_what_passes_by_itself_is_retried_until_it_does(
    shared: KafkaCluster, topic: str, code: int
) -> None:
    batch = make_records(3)
    async with opened(shared, topic, request_timeout_s=5.0) as sink:
        shared.refuse(PRODUCE, code, code)
        await until_taken(sink, batch)
    assert list(dict.fromkeys(ids_of(await read(shared, topic)))) == ids(batch)


async def test_a_producer_whose_count_has_a_hole_is_built_anew(shared: KafkaCluster, topic: str) -> None:
    batch = make_records(3)
    async with opened(shared, topic) as sink:
        shared.refuse(PRODUCE, 45)  # out of order sequence number
        with pytest.raises(SinkUnavailable):
            await sink.write(batch)
        await until_taken(sink, batch)
        await sink.write(make_records(2, first=4))
    assert list(dict.fromkeys(ids_of(await read(shared, topic)))) == ids(make_records(5))


async def test_without_the_right_to_be_idempotent_it_is_said(shared: KafkaCluster, topic: str) -> None:
    shared.refuse(INIT_PRODUCER_ID, *[31] * 50)
    try:
        sink = make(shared, topic)
        with pytest.raises(SinkBroken, match="allow our user IdempotentWrite on the cluster"):
            await until_broken(sink)
        await sink.close()
    finally:
        shared.stop_refusing(INIT_PRODUCER_ID)


async def until_broken(sink: KafkaSink) -> None:
    """Open and write as the delivery loop does, until somebody has to come."""
    for _ in range(10):
        try:
            await sink.open()
            await sink.write(make_records(1))
        except SinkUnavailable:
            continue
        return


# Brokers that are gone, hang, or speak something else ------------------------------------------------


async def test_nobody_there_is_unavailable_within_a_bound_and_taken_when_somebody_is(
    shared: KafkaCluster, topic: str
) -> None:
    async with proxying("127.0.0.1", 1) as proxy:
        proxy.is_up = False
        options = KafkaOptions(bootstrap=(f"127.0.0.1:{proxy.port}",))
        sink = KafkaSink(options, request_timeout_s=IMPATIENT_S)
        with pytest.raises(SinkUnavailable, match=f"127.0.0.1:{proxy.port}"):
            await sink.open()
        await sink.close()


async def test_brokers_that_hang_are_waited_for_and_nothing_is_lost(topic: str) -> None:
    with kafka_cluster() as cluster:
        cluster.create_topic("balances")
        async with opened(cluster, "balances") as sink:
            await sink.write(make_records(3))
            cluster.hang()
            batch = make_records(5, first=4)
            for _ in range(3):
                with pytest.raises(SinkUnavailable):
                    await sink.write(batch)
            cluster.resume()
            await until_taken(sink, batch)
        found = ids_of(await read(cluster, "balances"))
        assert list(dict.fromkeys(found)) == ids(make_records(8))


async def test_a_sink_closes_while_brokers_hang() -> None:
    with kafka_cluster() as cluster:
        cluster.create_topic("balances")
        sink = make(cluster, "balances")
        await sink.open()
        cluster.hang()
        writing = asyncio.create_task(sink.write(make_records(3)))
        await asyncio.wait([writing], timeout=0.1)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        async with asyncio.timeout(5):  # what the delivery loop grants
            await sink.close()
            await sink.close()
        cluster.resume()


async def test_brokers_that_go_down_one_after_the_other_lose_nothing() -> None:
    with kafka_cluster() as cluster:
        cluster.create_topic("balances")
        async with opened(cluster, "balances") as sink:
            for number in range(1, 4):
                cluster.down(number)
                writing = asyncio.create_task(until_taken(sink, make_records(10, first=10 * number)))
                await asyncio.wait([writing], timeout=0.5)
                cluster.up(number)
                await writing
        found = ids_of(await read(cluster, "balances"))
        wanted = [record.id for number in range(1, 4) for record in make_records(10, first=10 * number)]
        assert list(dict.fromkeys(found)) == wanted


class Heard(logging.Handler):
    """What reaches the process's log: pytest's own also hears loggers that pass nothing on."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.names.append(record.name)


async def test_a_port_that_speaks_no_kafka_is_said_with_what_to_think_of() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    heard = Heard()
    logging.getLogger().addHandler(heard)
    try:
        for options in ({}, {"tls": True}):
            settings = KafkaOptions.model_validate({"bootstrap": [address], **options})
            sink = KafkaSink(settings, request_timeout_s=IMPATIENT_S)
            with pytest.raises(SinkError) as caught:
                await sink.open()
            assert address in str(caught.value)
            await sink.close()
    finally:
        logging.getLogger().removeHandler(heard)
        server.close()
    assert isinstance(caught.value, SinkBroken)
    assert "name a port that speaks TLS in 'bootstrap', or leave 'tls' out" in str(caught.value)
    assert not [name for name in heard.names if name.startswith("aiokafka")], "several lines a second"


async def test_a_password_appears_nowhere(shared: KafkaCluster, topic: str) -> None:
    canary = "canary-7f3a9c51d2"
    settings = {
        "bootstrap": shared.bootstrap,
        "topic": topic,
        "sasl": "PLAIN",
        "user": "desk",
        "password": Secret(canary),
    }
    sink = KafkaSink(KafkaOptions.model_validate(settings), request_timeout_s=IMPATIENT_S)
    with pytest.raises(SinkError) as caught:
        await sink.open()
    seen: BaseException | None = caught.value
    while seen is not None:
        assert canary not in f"{seen!r} {seen}"
        seen = seen.__cause__ or seen.__context__
    assert canary not in repr(sink.channel())
    await sink.close()


# The table, for what no broker here can be brought to say --------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.SaslAuthenticationFailed(), "check 'user' and 'password'"),
        (errors.UnsupportedSaslMechanismError(), "set 'sasl' to a mechanism that the brokers offer"),
        (errors.UnsupportedVersionError(), "use brokers of version 0.11 or later"),
        (errors.InvalidTimestampError(), "raise the topic's message.timestamp.before.max.ms"),
    ],
)
def test_what_somebody_has_to_repair_is_said(error: Exception, said: str) -> None:
    found = classified(error, "kafka-1:9092")
    assert isinstance(found, SinkBroken)
    assert str(found).startswith("kafka-1:9092: ")
    assert said in str(found)
