"""What ``docs/sinks/kafka.md`` shows, with a daemon, the mock cluster and the consumer of the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.services.kafka_cluster import kafka_cluster
from tests.services.pages import running_page

pytestmark = pytest.mark.real_time


def test_the_consumer_prints_what_the_daemon_delivered(tmp_path: Path) -> None:
    with kafka_cluster(brokers=1) as cluster:
        cluster.create_topic("balances")
        with running_page("kafka", tmp_path, {}, replace={"127.0.0.1:9092": cluster.bootstrap[0]}) as page:
            page.exchange.wait_until_all_polled()
            printed = [line.split() for line in page.consume().splitlines()]
        stored = {json.loads(message.value())["id"] for message in cluster.messages("balances")}
    assert len(printed) == 5
    assert {found for found, _, _ in printed} <= stored
    assert {account for _, account, _ in printed} <= set(page.exchange.accounts)
