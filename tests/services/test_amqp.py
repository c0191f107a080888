"""The amqp sink against a real RabbitMQ: what it promises, and what cut, silent and absent connections do."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from poller.errors import SinkBroken, SinkUnavailable
from poller.secrets import Secret
from poller.sinks import amqp
from poller.sinks.amqp import AmqpSink
from poller.sinks.amqp_options import AmqpOptions
from poller.testing.sink_contract import SinkContract, hostile_records, ids, make_records
from tests.services.proxy import Proxy, proxying
from tests.services.rabbitmq import Place
from tests.services.servers import RABBITMQ

pytestmark = pytest.mark.real_time


def sink_to(place: Place, port: int | None = None, **options: Any) -> AmqpSink:
    url = place.url if port is None else place.url.replace(f":{urlsplit(place.url).port}", f":{port}")
    return AmqpSink(AmqpOptions.model_validate({"url": Secret(url), "exchange": place.name, **options}))


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place(RABBITMQ.require())
    place.create()
    yield place
    place.remove()


@asynccontextmanager
async def through(place: Place) -> AsyncIterator[Proxy]:
    address = urlsplit(place.url)
    async with proxying(address.hostname or "", address.port or 0) as proxy:
        yield proxy


async def _more_than(place: Place, messages: int) -> None:
    while await asyncio.to_thread(place.count) <= messages:
        pass


class TestAmqpSink(SinkContract):
    @pytest.fixture(autouse=True)
    def _at(self, place: Place) -> None:
        self._place = place

    def make_sink(self, tmp_path: Path) -> AmqpSink:
        return sink_to(self._place)

    def written(self, tmp_path: Path) -> list[str]:
        return self._place.ids()

    def payloads(self, tmp_path: Path) -> list[bytes]:
        return [body for _, _, body in self._place.messages()]


# What a message is --------------------------------------------------------------------------------


async def test_a_message_carries_its_identity_where_consumers_look(place: Place) -> None:
    [record] = make_records(1)
    sink = sink_to(place, expiration="1h")
    await sink.write([record])
    await sink.close()
    [(method, properties, body)] = place.messages()
    assert (method.exchange, method.routing_key) == (place.name, "balances.treasury")
    assert body == record.payload
    assert properties.message_id == properties.headers["id"] == record.id
    assert properties.type == properties.headers["schema"] == "poller.snapshot/1"
    assert properties.headers["account"] == "treasury"
    assert properties.headers["sequence"] == "1"
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.expiration == "3600000"
    assert properties.timestamp == 1_767_225_601  # whole seconds, in this protocol
    assert properties.app_id == "poller"


async def test_an_event_in_binary_mode_has_its_attributes_in_headers(place: Place) -> None:
    batch = hostile_records()
    sink = sink_to(place, format="cloudevents-binary", persistent=False)
    await sink.write(batch)
    await sink.close()
    for record, (_, properties, body) in zip(batch, place.messages(), strict=True):
        assert body == record.payload
        assert properties.delivery_mode == 1
        assert properties.headers["cloudEvents_id"] == record.id
        assert properties.headers["cloudEvents_specversion"] == "1.0"
        assert properties.headers["cloudEvents_source"] == "/poller"
        assert properties.headers["cloudEvents_type"] == record.kind.schema


async def test_a_structured_event_holds_the_record(place: Place) -> None:
    [record] = make_records(1)
    sink = sink_to(place, format="cloudevents")
    await sink.write([record])
    await sink.close()
    [(_, properties, body)] = place.messages()
    assert properties.content_type == "application/cloudevents+json"
    assert orjson.loads(body)["data"] == record.document


async def test_the_default_exchange_takes_a_queue_for_a_routing_key(place: Place) -> None:
    batch = make_records(3)
    sink = sink_to(place, exchange="", routing_key=place.name)
    await sink.write(batch)
    await sink.close()
    assert place.ids() == ids(batch)


async def test_an_exchange_is_created_if_asked_for() -> None:
    place = Place(RABBITMQ.require())
    sink = sink_to(place, create=True)
    try:
        await sink.open()
        with place.administering() as channel:
            channel.exchange_declare(place.name, "topic", durable=True)  # the same, or it would be refused
        await sink.open()  # it is there already
    finally:
        await sink.close()
        with place.administering() as channel:
            channel.exchange_delete(place.name)


# Connections --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches_before", [0, 2])
async def test_a_connection_cut_within_a_batch_loses_nothing(place: Place, batches_before: int) -> None:
    records = make_records(2000)
    async with through(place) as proxy:
        sink = sink_to(place, proxy.port)
        for number in range(batches_before):
            await sink.write(records[number * 100 : number * 100 + 100])
        rest = records[batches_before * 100 :]
        proxy.passes_answers = batches_before == 0  # or the broker has it all and nobody was told
        if not sink._link:
            await sink.open()
        writing = asyncio.create_task(sink.write(rest))
        await _more_than(place, batches_before * 100)
        proxy.cut()
        proxy.passes_answers = True
        try:
            await writing
        except SinkUnavailable:
            await sink.write(rest)
        await sink.close()
    found = place.ids()
    assert list(dict.fromkeys(found)) == ids(records)  # all of them, and in their order


async def test_a_connection_cut_between_batches_is_replaced(place: Place) -> None:
    records = make_records(4)
    async with through(place) as proxy:
        sink = sink_to(place, proxy.port)
        await sink.write(records[:2])
        proxy.cut()
        assert sink._link is not None
        await sink._link.channel.closed()
        await sink.write(records[2:])
        assert proxy.accepted == 2
        await sink.close()
    assert place.ids() == ids(records)


async def test_a_broker_that_hangs_is_given_up_and_closed_quickly(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp, "CONFIRM_TIMEOUT_S", 0.2)
    monkeypatch.setattr(amqp, "CONNECT_TIMEOUT_S", 0.2)
    batch = make_records(3)
    async with through(place) as proxy:
        sink = sink_to(place, proxy.port)
        await sink.open()
        proxy.stall()
        with pytest.raises(SinkUnavailable, match=r"no confirm within 0\.2 s"):
            await sink.write(batch)
        with pytest.raises(SinkUnavailable, match=r"no answer within 0\.2 s"):
            await sink.write(batch)
        async with asyncio.timeout(4):
            await sink.close()
        monkeypatch.undo()
        proxy.flow()
        await sink.write(batch)
        await sink.close()
    found = place.ids()
    assert found[-3:] == ids(batch)
    assert set(found) == set(ids(batch))


async def test_an_open_connection_to_a_broker_that_hangs_is_closed_quickly(place: Place) -> None:
    async with through(place) as proxy:
        sink = sink_to(place, proxy.port)
        await sink.open()
        proxy.stall()
        writing = asyncio.create_task(sink.write(make_records(3000)))  # more than fits the buffers between
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await sink.close()
        async with asyncio.timeout(4):
            sink = sink_to(place, proxy.port)
            opening = asyncio.create_task(sink.open())
            await asyncio.sleep(0)
            await sink.close()
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening


async def test_a_cancelled_write_leaves_the_sink_usable(place: Place) -> None:
    records = make_records(600)
    async with through(place) as proxy:
        sink = sink_to(place, proxy.port)
        await sink.write(records[:100])
        proxy.passes_answers = False
        writing = asyncio.create_task(sink.write(records[100:]))
        await _more_than(place, 599)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        proxy.passes_answers = True
        await sink.write(records[100:])
        await sink.close()
    found = place.ids()
    assert list(dict.fromkeys(found)) == ids(records)


async def test_a_broker_that_is_down_is_found_again(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "poller")
    batch = make_records(3)
    async with through(place) as proxy:
        proxy.is_up = False
        sink = sink_to(place, proxy.port)
        for _ in range(3):
            with pytest.raises(SinkUnavailable):
                await sink.open()
        with pytest.raises(SinkUnavailable):
            await sink.write(batch)
        proxy.is_up = True
        await sink.open()
        await sink.write(batch)
        proxy.cut()
        await sink.close()
    assert place.ids() == ids(batch)
    gc.collect()  # a task that failed unseen is reported when it goes
    assert [entry.getMessage() for entry in caplog.records if not entry.name.startswith("poller")] == []


async def test_nobody_listens(place: Place) -> None:
    sink = sink_to(place, 1)
    with pytest.raises(SinkUnavailable, match="Connect call failed"):
        await sink.open()
    await sink.close()


# What the broker says -----------------------------------------------------------------------------


async def test_a_missing_exchange_is_named_with_a_remedy(place: Place) -> None:
    sink = sink_to(place, exchange="poller-test-nowhere")
    with pytest.raises(SinkBroken, match=r"no exchange 'poller-test-nowhere'.*create: true"):
        await sink.open()
    await sink.close()


async def test_an_exchange_of_another_type_is_not_replaced(place: Place) -> None:
    with place.administering() as channel:
        channel.exchange_delete(place.name)
        channel.exchange_declare(place.name, "fanout", durable=True)
    sink = sink_to(place, create=True)
    with pytest.raises(SinkBroken, match=r"inequivalent arg 'type'.*remove 'create'"):
        await sink.open()
    await sink.close()


@pytest.mark.parametrize("count", [1, 700])
async def test_an_exchange_removed_within_a_batch_breaks_the_sink_until_it_is_back(
    place: Place, count: int
) -> None:
    batch = make_records(count)
    sink = sink_to(place)
    await sink.open()
    with place.administering() as channel:
        channel.exchange_delete(place.name)
    with pytest.raises(SinkBroken, match="NOT_FOUND - no exchange"):
        await sink.write(batch)
    place.create()
    await sink.write(batch)
    await sink.close()
    assert place.ids() == ids(batch)


async def test_what_no_queue_takes_breaks_the_sink_and_no_record_is_put_aside(place: Place) -> None:
    batch = [*make_records(2), *make_records(2, account="unbound", first=3), *make_records(2, first=5)]
    with place.administering() as channel:
        channel.queue_unbind(place.name, place.name, "#")
        channel.queue_bind(place.name, place.name, "balances.treasury")
    sink = sink_to(place)
    for _ in range(2):  # others are not sent over and over again meanwhile
        with pytest.raises(
            SinkBroken, match=r"NO_ROUTE: nothing is bound.*'balances\.unbound'.*bind a queue"
        ):
            await sink.write(batch)
        assert place.ids() == ids([*batch[:2], *batch[4:]])
    with place.administering() as channel:
        channel.queue_bind(place.name, place.name, "#")
    await sink.write(batch)
    await sink.close()
    assert sorted(place.ids()) == sorted(ids(batch))


async def test_a_missing_queue_of_the_default_exchange_is_named(place: Place) -> None:
    sink = sink_to(place, exchange="", routing_key="poller-test-nowhere")
    with pytest.raises(SinkBroken, match="there is no queue 'poller-test-nowhere'"):
        await sink.write(make_records(1))
    await sink.close()


async def test_a_queue_that_never_has_room_for_a_batch_gets_it_in_parts() -> None:
    place = Place(RABBITMQ.require())
    place.create(**{"x-max-length": 3, "x-overflow": "reject-publish"})
    batch = make_records(10)
    taken: list[str] = []
    sink = sink_to(place)
    try:
        for _ in range(3):
            with pytest.raises(SinkUnavailable, match="nack"):
                await sink.write(batch)
            taken += place.ids(take=True)
        await sink.write(batch)
        taken += place.ids(take=True)
    finally:
        await sink.close()
        place.remove()
    assert taken == ids(batch)
