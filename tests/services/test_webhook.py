"""The webhook sink against a receiver that verifies: what is sent, in which order, and what comes again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from poller.clock import SystemClock
from poller.errors import SinkBroken, SinkRejected, SinkUnavailable
from poller.model import Record
from poller.secrets import Secret
from poller.sinks.webhook import WebhookSink
from poller.testing.sink_contract import SinkContract, hostile_records, ids, make_records
from tests.services.receiver import Received, Receiver, fleet, make_sink, never, posting, receiving

pytestmark = pytest.mark.real_time


class TestWebhookSink(SinkContract):
    receiver: Receiver

    @pytest.fixture(autouse=True)
    async def _receive(self) -> AsyncIterator[None]:
        async with receiving() as receiver:
            self.receiver = receiver
            yield

    def make_sink(self, tmp_path: Path) -> WebhookSink:
        return make_sink(self.receiver.url)

    def written(self, tmp_path: Path) -> list[str]:
        return self.receiver.ids

    def payloads(self, tmp_path: Path) -> list[bytes]:
        # Of several accounts: their order among each other is nobody's promise.
        found = {received.id: received.body for received in self.receiver.taken}
        return [found[id_] for id_ in ids(hostile_records())]


def by_account(receiver: Receiver) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for received in receiver.taken:
        found.setdefault(json.loads(received.body)["account"], []).append(received.id)
    return found


def expected(records: list[Record]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in records:
        found.setdefault(record.account, []).append(record.id)
    return found


# What is sent


async def test_the_headers_are_these_and_no_others() -> None:
    [record] = make_records(1)
    async with receiving() as receiver, posting(receiver.url) as sink:
        await sink.write([record])
    [received] = receiver.taken
    assert set(received.headers) == {
        *("host", "accept", "accept-encoding", "user-agent", "content-type", "content-length"),
        *("webhook-id", "webhook-timestamp", "webhook-signature"),
    }
    assert received.headers["webhook-id"] == record.id
    assert received.headers["content-type"] == "application/json"
    assert received.headers["accept-encoding"] == "identity"
    assert received.headers["user-agent"].startswith("poller/")


async def test_a_rotation_signs_with_both_and_a_credential_is_a_header() -> None:
    other = Secret("whsec_" + "A" * 43 + "=")
    async with receiving() as receiver:
        mixed = {"secret": other, "previous_secret": make_sink(receiver.url)._options.secret}
        further = {"credential": Secret("Bearer abc"), "credential_header": "X-Api-Key"}
        async with posting(receiver.url, **mixed, **further) as sink:
            await sink.write(make_records(1))
    [received] = receiver.taken  # verified with the previous one
    assert len(received.headers["webhook-signature"].split(" ")) == 2
    assert received.headers["x-api-key"] == "Bearer abc"


async def test_a_cloudevent_is_the_body_or_headers() -> None:
    [record] = make_records(1)
    async with receiving() as receiver:
        async with posting(receiver.url, format="cloudevents") as sink:
            await sink.write([record])
        async with posting(receiver.url, format="cloudevents-binary", source="/a%20b") as sink:
            await sink.write([record])
    structured, binary = receiver.taken
    assert structured.headers["content-type"] == "application/cloudevents+json"
    event = json.loads(structured.body)
    assert (event["id"], event["data"]) == (record.id, json.loads(record.payload))
    assert binary.body == record.payload
    assert binary.headers["content-type"] == "application/json"
    found = {name: value for name, value in binary.headers.items() if name.startswith("ce-")}
    assert found.pop("ce-time").startswith("20")
    assert found == {
        "ce-specversion": "1.0",
        "ce-id": record.id,
        "ce-source": "/a%2520b",  # as the binding wants it
        "ce-type": "poller.snapshot/1",
        "ce-subject": "treasury",
        "ce-sequence": "1",
        "ce-partitionkey": "treasury",
    }


# Order and concurrency


async def test_accounts_go_side_by_side_and_each_in_order() -> None:
    records = fleet(accounts=20, each=5)
    full = asyncio.Event()

    async def reply(_: Received) -> int:
        if receiver.under_way == 8:
            full.set()
        await full.wait()
        return 204

    async with receiving(reply) as receiver, posting(receiver.url) as sink:
        await sink.write(records)
    assert receiver.most_together == 8
    assert by_account(receiver) == expected(records)


async def test_records_of_one_account_are_never_under_way_together() -> None:
    async with receiving() as receiver, posting(receiver.url) as sink:
        await sink.write(make_records(50))
    assert receiver.most_together == 1


# Batches that fail in part


async def test_of_a_batch_that_failed_only_the_rest_comes_again() -> None:
    records = fleet(accounts=6, each=3)
    unlucky = {records[4].id, records[12].id}

    def reply(received: Received) -> int:
        if received.id in unlucky:
            unlucky.discard(received.id)
            return 503
        return 204

    async with receiving(reply) as receiver, posting(receiver.url) as sink:
        with pytest.raises(SinkUnavailable, match="answered 503"):
            await sink.write(records)
        while unlucky:
            with pytest.raises(SinkUnavailable):
                await sink.write(records)
        await sink.write(records)
    assert by_account(receiver) == expected(records)
    assert len(receiver.attempts) == len(records) + 2


async def test_the_truth_is_kept_when_some_are_refused_and_one_fails() -> None:
    records = fleet(accounts=3, each=3)
    refused, unlucky = records[0], {records[4].id}

    def reply(received: Received) -> int:
        if received.id == refused.id:
            return 422
        if received.id in unlucky:
            unlucky.discard(received.id)
            return 500
        return 204

    async with receiving(reply) as receiver, posting(receiver.url) as sink:
        with pytest.raises(SinkUnavailable):  # nothing may count as written, or refused
            await sink.write(records)
        with pytest.raises(SinkRejected) as caught:
            await sink.write(records)
        assert set(caught.value.rejected) == {refused.id}
        assert "answered 422" in caught.value.rejected[refused.id]
    without = [record for record in records if record is not refused]
    assert by_account(receiver) == expected(without)
    assert [received.id for received in receiver.attempts].count(refused.id) == 1


async def test_what_stood_behind_a_refusal_comes_again_behind_it() -> None:
    """If delivery does not believe the refusals, the batch comes again: with a gap the order would be lost."""
    records = fleet(accounts=2, each=3)
    picky = True

    def reply(received: Received) -> int:
        return 400 if picky and received.id == records[0].id else 204

    async with receiving(reply) as receiver, posting(receiver.url) as sink:
        with pytest.raises(SinkRejected):
            await sink.write(records)
        picky = False
        await sink.write(records)
    first, second = expected(records).values()
    assert by_account(receiver)["account-0"] == [*first[1:], *first]
    assert by_account(receiver)["account-1"] == second


async def test_a_receiver_that_is_down_is_left_after_a_few_attempts() -> None:
    async with receiving(lambda _: 500) as receiver, posting(receiver.url, concurrency=2) as sink:
        with pytest.raises(SinkUnavailable):
            await sink.write(fleet(accounts=50, each=1))
    assert len(receiver.attempts) <= 4


async def test_a_receiver_that_asks_for_patience_gets_it_at_once() -> None:
    records = fleet(accounts=50, each=1)
    async with receiving(lambda _: 429) as receiver, posting(receiver.url, concurrency=1) as sink:
        with pytest.raises(SinkUnavailable):
            await sink.write(records)
    assert len(receiver.attempts) == 1


async def test_a_cancelled_write_leaves_the_sink_usable_and_what_was_delivered_delivered() -> None:
    records = make_records(3)
    hangs = asyncio.Event()

    def reply(received: Received) -> asyncio.Future[int] | int:
        if received.id == records[1].id and not hangs.is_set():
            hangs.set()
            return never()
        return 204

    async with receiving(reply) as receiver, posting(receiver.url) as sink:
        writing = asyncio.create_task(sink.write(records))
        await hangs.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await sink.write(records)
    assert receiver.ids == ids(records)


async def test_a_success_after_the_time_out_comes_again_under_the_same_id() -> None:
    records = make_records(1)
    slow = asyncio.Event()

    async def reply(_: Received) -> int:
        if len(receiver.attempts) == 1:
            await slow.wait()
        return 204

    async with receiving(reply) as receiver, posting(receiver.url, timeout="200ms") as sink:
        with pytest.raises(SinkUnavailable, match=r"no answer within 0\.2 s"):
            await sink.write(records)
        slow.set()
        await sink.write(records)
        assert [each.id for each in receiver.attempts] == ids(records) * 2
        assert len({each.body for each in receiver.attempts}) == 1


# 410


class _Later(SystemClock):
    later_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.later_s


async def test_a_receiver_that_is_gone_is_asked_once_an_hour() -> None:
    records = fleet(accounts=30, each=1)
    clock = _Later()
    status = 410
    async with receiving(lambda _: status) as receiver:
        async with posting(receiver.url, clock=clock, concurrency=1) as sink:
            for _ in range(5):
                with pytest.raises(SinkBroken, match="410; it wants no more of this"):
                    await sink.write(records)
            assert len(receiver.attempts) == 1
            clock.later_s += 3601
            for _ in range(5):
                with pytest.raises(SinkBroken, match="410"):
                    await sink.write(records)
            assert len(receiver.attempts) == 2
            clock.later_s += 3601
            status = 503
            with pytest.raises(SinkUnavailable):
                await sink.write(records)
            assert len(receiver.attempts) == 3
            status = 204
            await sink.write(records)
        assert by_account(receiver) == expected(records)
        async with posting(receiver.url, clock=clock) as restarted:
            await restarted.write(records)
