"""What ``docs/sinks/kafka.md`` shows, run: its configuration, then its consumer."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.end_to_end.processes import wait_for
from tests.services.kafka_cluster import PATIENCE_S, KafkaCluster, kafka_cluster
from tests.services.pages import running_page

pytestmark = pytest.mark.real_time


def test_the_page_works_as_shown(tmp_path: Path) -> None:
    with kafka_cluster(brokers=2) as cluster:
        replace = dict(zip(("kafka-1:9092", "kafka-2:9092"), cluster.bootstrap, strict=True))
        with running_page("kafka", tmp_path, {}, replace=replace) as page:
            wait_for(lambda: len(accounts_of(cluster)) == 5)
            repeat_the_first(cluster)
            lines = [line.split() for line in page.consume().splitlines()]
            assert committed(cluster) == len(lines) + 1, "the repetition was read, and left out"
            assert {account for _, account, _, _ in lines} == set(page.exchange.accounts)
    assert len({line[0] for line in lines}) == len(lines)
    for account in {account for _, account, _, _ in lines}:
        sequences = [int(sequence) for _, named, sequence, _ in lines if named == account]
        assert sequences == list(range(1, len(sequences) + 1))


def accounts_of(cluster: KafkaCluster) -> set[bytes]:
    return {message.key() for message in cluster.messages("balances")}


def repeat_the_first(cluster: KafkaCluster) -> None:
    first, *_ = cluster.messages("balances")
    producer = Producer({"bootstrap.servers": ",".join(cluster.bootstrap)})
    producer.produce(
        "balances", first.value(), first.key(), partition=first.partition(), headers=first.headers()
    )
    assert producer.flush(PATIENCE_S) == 0


def committed(cluster: KafkaCluster) -> int:
    """Count what the page's consumer will not be given again."""
    consumer = Consumer({"bootstrap.servers": ",".join(cluster.bootstrap), "group.id": "desk"})
    found = consumer.committed([TopicPartition("balances", number) for number in range(4)], PATIENCE_S)
    consumer.close()
    return sum(max(place.offset, 0) for place in found)
