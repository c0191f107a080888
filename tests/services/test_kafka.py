"""The ``kafka`` sink against librdkafka's mock cluster: the contract, what a message looks like, errors.

The mock answers over the wire with any error that it is told to, so every row of the table is provoked
and none is made up.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from poller.errors import SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.model import Record
from poller.sinks.kafka import KafkaSink
from poller.sinks.kafka_options import KafkaOptions
from poller.testing.sink_contract import SinkContract, ids, make_records
from tests.services.kafka_cluster import INIT_PRODUCER_ID, PRODUCE, KafkaCluster, kafka_cluster

pytestmark = pytest.mark.real_time

SHORT_S = 0.6  # the time-out of requests where one has to pass


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    with kafka_cluster() as cluster:
        yield cluster


@pytest.fixture
def refusing() -> Iterator[KafkaCluster]:
    """A cluster of one test, to be told what to answer."""
    with kafka_cluster(brokers=1) as cluster:
        yield cluster


def sink_of(
    cluster: KafkaCluster, topic: str, *, request_timeout_s: float = 8.0, **options: Any
) -> KafkaSink:
    return KafkaSink(
        KafkaOptions(bootstrap=tuple(cluster.bootstrap), topic=topic, **options),
        request_timeout_s=request_timeout_s,
    )


def new_topic(cluster: KafkaCluster, partitions: int = 4) -> str:
    topic = f"test-{uuid.uuid4().hex[:12]}"
    cluster.create_topic(topic, partitions)
    return topic


def of_eight_accounts(each: int) -> list[Record]:
    return [
        record
        for number in range(8)
        for record in make_records(each, account=f"account-{number}", first=1 + number * each)
    ]


def header(message: Any, name: str) -> str:
    return str(dict(message.headers())[name].decode())


def ids_of(messages: list[Any]) -> list[str]:
    return [header(message, "id") for message in messages]


class TestKafkaSink(SinkContract):
    """One partition, so that there is one order of arrival."""

    @pytest.fixture(autouse=True)
    def topic(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._topic = new_topic(cluster, partitions=1)

    def make_sink(self, tmp_path: Path) -> KafkaSink:
        return sink_of(self._cluster, self._topic)

    async def written(self, tmp_path: Path) -> list[str]:
        return ids_of(await asyncio.to_thread(self._cluster.messages, self._topic))

    async def payloads(self, tmp_path: Path) -> list[bytes]:
        return [message.value() for message in await asyncio.to_thread(self._cluster.messages, self._topic)]


# What a message looks like. -------------------------------------------------------------------------


async def written(cluster: KafkaCluster, **options: Any) -> list[Any]:
    topic = new_topic(cluster)
    sink = sink_of(cluster, topic, **options)
    await sink.open()
    await sink.write(make_records(3))
    await sink.close()
    return await asyncio.to_thread(cluster.messages, topic)


async def test_a_message_says_what_it_is_without_being_parsed(cluster: KafkaCluster) -> None:
    first, *_ = make_records(3)
    message, *_ = await written(cluster)
    assert message.key() == b"treasury"
    assert {name: value.decode() for name, value in message.headers()} == {
        "id": first.id,
        "schema": "poller.snapshot/1",
        "account": "treasury",
        "sequence": "1",
        "content-type": "application/json",
    }
    observed = dt.datetime.fromisoformat(first.document["observed_at"])
    assert message.timestamp()[1] == round(observed.timestamp() * 1000)


async def test_binary_events_have_their_attributes_as_headers(cluster: KafkaCluster) -> None:
    first, *_ = make_records(3)
    message, *_ = await written(cluster, format="cloudevents-binary")
    assert message.value() == first.payload
    assert header(message, "ce_id") == first.id
    assert header(message, "ce_specversion") == "1.0"
    assert header(message, "ce_partitionkey") == "treasury"
    assert header(message, "content-type") == "application/json"


async def test_structured_events_say_so(cluster: KafkaCluster) -> None:
    first, *_ = make_records(3)
    message, *_ = await written(cluster, format="cloudevents")
    assert header(message, "content-type") == "application/cloudevents+json"
    assert orjson.loads(message.value())["data"] == first.document


async def test_compressed_messages_arrive(cluster: KafkaCluster) -> None:
    assert ids_of(await written(cluster, compression="gzip")) == ids(make_records(3))


async def test_an_account_keeps_to_one_partition(cluster: KafkaCluster) -> None:
    topic = new_topic(cluster, partitions=8)
    records = of_eight_accounts(5)
    sink = sink_of(cluster, topic)
    await sink.open()
    await sink.write(records)
    await sink.close()
    messages = await asyncio.to_thread(cluster.messages, topic)
    places = {(message.key(), message.partition()) for message in messages}
    assert len(places) == 8
    assert len({partition for _, partition in places}) > 1
    for key, _ in places:
        assert ids_of([m for m in messages if m.key() == key]) == [
            record.id for record in records if record.account.encode() == key
        ]


async def test_topics_are_named_by_fields(cluster: KafkaCluster) -> None:
    prefix = new_topic(cluster)
    sink = sink_of(cluster, f"{prefix}.{{account}}.{{kind}}")
    await sink.open()
    batch = [*make_records(1, account="one"), *make_records(1, account="two", first=2)]
    await sink.write(batch)
    await sink.close()
    for record in batch:
        found = await asyncio.to_thread(cluster.messages, f"{prefix}.{record.account}.snapshot")
        assert ids_of(found) == [record.id]


# Errors. --------------------------------------------------------------------------------------------


async def failure(cluster: KafkaCluster, *codes: int) -> tuple[SinkError, KafkaSink, str]:
    """Return what a write becomes when the broker answers produce requests with these errors."""
    topic = new_topic(cluster, partitions=1)
    sink = sink_of(cluster, topic, request_timeout_s=SHORT_S)
    await sink.open()
    cluster.refuse(PRODUCE, *codes)
    with pytest.raises(SinkError) as raised:
        await sink.write(make_records(3))
    return raised.value, sink, topic


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (2, "CorruptRecord"),
        (45, "OutOfOrderSequenceNumber"),
        (47, "newer producer"),
        (49, "InvalidProducerIdMapping"),
        (59, "UnknownProducerId"),
        (-1, "UnknownError"),
    ],
)
async def test_after_an_error_of_the_producer_a_new_one_goes_on(
    refusing: KafkaCluster, code: int, name: str
) -> None:
    error, sink, topic = await failure(refusing, code)
    assert isinstance(error, SinkUnavailable)
    assert name in str(error)
    await sink.write(make_records(3))
    await sink.close()
    assert ids_of(await asyncio.to_thread(refusing.messages, topic)) == ids(make_records(3))


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (17, "give 'topic' another name"),
        (29, "allow our user to Describe and Write the topic"),
        (31, "allow our user IdempotentWrite on the cluster"),
        (32, "raise the topic's message.timestamp.before.max.ms"),
        (35, "use brokers of version 0.11 or later"),
        (43, "message.format.version"),
        (44, "see the brokers' policy"),
    ],
)
async def test_what_somebody_has_to_repair_says_how(refusing: KafkaCluster, code: int, remedy: str) -> None:
    error, sink, topic = await failure(refusing, code)
    assert isinstance(error, SinkBroken)
    assert remedy in str(error)
    await sink.write(make_records(3))
    await sink.close()
    assert ids_of(await asyncio.to_thread(refusing.messages, topic)) == ids(make_records(3))


@pytest.mark.parametrize("code", [5, 6, 7, 19, 20, 56])
async def test_what_passes_is_retried_within_the_call(refusing: KafkaCluster, code: int) -> None:
    topic = new_topic(refusing, partitions=1)
    sink = sink_of(refusing, topic)
    await sink.open()
    refusing.refuse(PRODUCE, code)
    await sink.write(make_records(3))
    await sink.close()
    assert ids_of(await asyncio.to_thread(refusing.messages, topic)) == ids(make_records(3))


async def test_what_does_not_pass_in_time_is_named_and_not_sent_twice(refusing: KafkaCluster) -> None:
    error, sink, topic = await failure(refusing, *[19] * 1000)
    assert isinstance(error, SinkUnavailable)
    assert "not acknowledged within 0.9 s" in str(error)
    assert "NotEnoughReplicas" in str(error)
    refusing.stop_refusing(PRODUCE)
    await sink.write(make_records(4))
    await sink.close()
    assert ids_of(await asyncio.to_thread(refusing.messages, topic)) == ids(make_records(4))


async def test_a_cancelled_write_goes_on_with_the_next(refusing: KafkaCluster) -> None:
    topic = new_topic(refusing, partitions=1)
    sink = sink_of(refusing, topic)
    await sink.open()
    refusing.slow(1, 300)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await sink.write(make_records(3))
    await sink.write(make_records(3))
    await sink.close()
    assert ids_of(await asyncio.to_thread(refusing.messages, topic)) == ids(make_records(3))


async def test_a_record_above_our_limit_is_named_and_the_others_are_written(cluster: KafkaCluster) -> None:
    topic = new_topic(cluster, partitions=1)
    sink = sink_of(cluster, topic, max_message="2KiB")
    await sink.open()
    small, large, other = make_records(3)
    large = type(large)(large.id, large.kind, large.account, 2, large.reason, large.payload + b" " * 4000)
    with pytest.raises(SinkRejected) as raised:
        await sink.write([small, large, other])
    await sink.close()
    assert raised.value.rejected.keys() == {large.id}
    assert "more than 'max_message' = 2048" in raised.value.rejected[large.id]
    assert ids_of(await asyncio.to_thread(cluster.messages, topic)) == [small.id, other.id]


@pytest.mark.parametrize("code", [10, 18])
async def test_of_a_batch_above_the_brokers_limit_the_record_is_found(
    refusing: KafkaCluster, code: int
) -> None:
    """First the batch is refused, then, one by one, the second record."""
    topic = new_topic(refusing, partitions=1)
    sink = sink_of(refusing, topic)
    await sink.open()
    first, second, third = make_records(3)
    refusing.refuse(PRODUCE, code, 0, code)
    with pytest.raises(SinkRejected) as raised:
        await sink.write([first, second, third])
    assert raised.value.rejected.keys() == {second.id}
    assert ids_of(await asyncio.to_thread(refusing.messages, topic)) == [first.id, third.id]
    await sink.write(make_records(2, first=4))
    await sink.close()
    assert len(await asyncio.to_thread(refusing.messages, topic)) == 4


async def test_if_no_record_is_too_large_all_are_written(refusing: KafkaCluster) -> None:
    topic = new_topic(refusing, partitions=1)
    sink = sink_of(refusing, topic)
    await sink.open()
    refusing.refuse(PRODUCE, 10)
    await sink.write(make_records(3))
    await sink.close()
    assert ids_of(await asyncio.to_thread(refusing.messages, topic)) == ids(make_records(3))


async def test_what_was_stored_before_an_error_is_not_sent_again(refusing: KafkaCluster) -> None:
    """One partition of two is refused; the other's accounts are through."""
    topic = new_topic(refusing, partitions=2)
    sink = sink_of(refusing, topic)
    await sink.open()
    batch = of_eight_accounts(2)
    refusing.refuse(PRODUCE, 29)
    with pytest.raises(SinkBroken):
        await sink.write(batch)
    await sink.write(batch)
    await sink.close()
    messages = await asyncio.to_thread(refusing.messages, topic)
    assert sorted(ids_of(messages)) == sorted(ids(batch))


async def test_a_topic_that_does_not_exist_is_broken_at_open(refusing: KafkaCluster) -> None:
    refusing.refuse_topic("missing", 3)
    sink = sink_of(refusing, "missing", request_timeout_s=SHORT_S)
    with pytest.raises(SinkBroken, match=r"Topic missing not found.*; create the topic"):
        await sink.open()
    refusing.refuse_topic("missing", 0)
    await sink.open()
    await sink.close()


async def test_a_topic_that_does_not_exist_is_broken_at_write(refusing: KafkaCluster) -> None:
    refusing.refuse_topic("missing-treasury", 3)
    sink = sink_of(refusing, "missing-{account}", request_timeout_s=SHORT_S)
    await sink.open()
    with pytest.raises(SinkBroken, match=r"Topic missing-treasury not found.*; create the topic"):
        await sink.write(make_records(1))
    refusing.refuse_topic("missing-treasury", 0)
    await sink.write(make_records(1))
    await sink.close()


async def test_a_topic_that_is_not_ours_is_broken(refusing: KafkaCluster) -> None:
    refusing.refuse_topic("theirs", 29)
    sink = sink_of(refusing, "theirs", request_timeout_s=SHORT_S)
    with pytest.raises(SinkBroken, match="theirs; allow our user to Describe and Write the topic"):
        await sink.open()
    await sink.close()


async def test_without_the_right_to_number_messages_it_is_broken(refusing: KafkaCluster) -> None:
    refusing.refuse(INIT_PRODUCER_ID, 31)
    sink = sink_of(refusing, "any", request_timeout_s=SHORT_S)
    with pytest.raises(SinkBroken, match="IdempotentWrite"):
        await sink.open()
    await sink.close()
