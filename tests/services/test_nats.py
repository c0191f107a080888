"""The ``nats`` sink against a real server: what arrives, in which order, and what the server refuses."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from nats.js.api import DiscardPolicy
from nats.js.errors import NotFoundError

from poller.errors import SinkBroken, SinkRejected, SinkUnavailable
from poller.model import Account, State
from poller.records import status_record
from poller.sinks.nats import NatsSink
from poller.sinks.nats_options import NatsOptions
from poller.sinks.templates import Template
from poller.testing.sink_contract import SinkContract, ids, make_records
from tests.services.nats_servers import (
    connected,
    ids_in,
    make_stream,
    messages,
    nats_server,
    opened,
)
from tests.services.servers import NATS, write_until_taken

pytestmark = pytest.mark.real_time


def name_for(tmp_path: Path) -> str:
    return "poller-test-" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]


@pytest.fixture
async def stream(tmp_path: Path) -> AsyncIterator[str]:
    """The name of a stream that is removed afterwards, whoever made it."""
    url = NATS.require()
    name = name_for(tmp_path)
    yield name
    async with connected(url) as client:
        with contextlib.suppress(NotFoundError):
            await client.jetstream().delete_stream(name)


@pytest.fixture
def url() -> str:
    return NATS.require()


@pytest.mark.usefixtures("stream")
class TestNatsSink(SinkContract):
    def make_sink(self, tmp_path: Path) -> NatsSink:
        name = name_for(tmp_path)
        return NatsSink(
            NatsOptions.model_validate(
                {
                    "servers": [NATS.require()],
                    "subject": f"{name}.{{account}}",
                    "stream": name,
                    "create": True,
                }
            )
        )

    async def written(self, tmp_path: Path) -> list[str]:
        return await ids_in(NATS.require(), name_for(tmp_path))

    async def payloads(self, tmp_path: Path) -> list[bytes]:
        return [message.data for message in await messages(NATS.require(), name_for(tmp_path))]


async def test_a_message_names_its_record(url: str, stream: str) -> None:
    [record] = make_records(1)
    async with opened(url, stream, stream=stream, create=True) as sink:
        await sink.write([record])
    [found] = await messages(url, stream)
    assert found.subject == f"{stream}.treasury"
    assert found.data == record.payload
    assert found.headers == {
        "Nats-Msg-Id": record.id,
        "Nats-Expected-Stream": stream,
        "Content-Type": "application/json",
        "id": record.id,
        "schema": "poller.snapshot/1",
        "account": "treasury",
        "sequence": "1",
    }


async def test_a_cloud_event_in_binary_mode_has_its_attributes_in_headers(url: str, stream: str) -> None:
    [record] = make_records(1)
    async with opened(url, stream, stream=stream, create=True, format="cloudevents-binary") as sink:
        await sink.write([record])
    [found] = await messages(url, stream)
    headers = found.headers or {}
    assert found.data == record.payload
    assert (headers["ce-id"], headers["ce-specversion"]) == (record.id, "1.0")
    assert (headers["ce-type"], headers["ce-source"]) == ("poller.snapshot/1", "/poller")
    assert headers["Content-Type"] == headers["ce-datacontenttype"] == "application/json"


async def test_a_cloud_event_in_structured_mode_is_the_body(url: str, stream: str) -> None:
    [record] = make_records(1)
    async with opened(url, stream, stream=stream, create=True, format="cloudevents") as sink:
        await sink.write([record])
    [found] = await messages(url, stream)
    assert (found.headers or {})["Content-Type"] == "application/cloudevents+json"
    assert orjson.loads(found.data)["data"] == record.document


async def test_a_repetition_within_the_window_is_a_success_and_leaves_no_trace(url: str, stream: str) -> None:
    batch = make_records(3)
    async with opened(url, stream, stream=stream, create=True) as sink:
        await sink.write(batch)
        await sink.write(batch)
    assert await ids_in(url, stream) == ids(batch)


async def test_the_stream_is_made_with_the_limits_that_were_asked_for(url: str, stream: str) -> None:
    limits = {"max_age": "1h", "max_size": "10MiB", "duplicate_window": "5m"}
    async with opened(url, stream, stream=stream, create=True, **limits), connected(url) as client:
        config = (await client.jetstream().stream_info(stream)).config
    assert config.subjects == [f"{stream}.*"]
    assert (config.storage, config.discard) == ("file", DiscardPolicy.OLD)
    assert (config.max_age, config.max_bytes, config.duplicate_window) == (3600, 10 << 20, 300)


async def test_a_stream_that_is_there_is_left_as_it_is(url: str, stream: str) -> None:
    await make_stream(url, stream, max_msgs=5)
    async with opened(url, stream, stream=stream, create=True), connected(url) as client:
        assert (await client.jetstream().stream_info(stream)).config.max_msgs == 5


async def test_without_a_stream_the_records_wait_for_one(url: str, stream: str) -> None:
    batch = make_records(2)
    async with opened(url, stream) as sink:
        with pytest.raises(SinkUnavailable, match=f"no stream takes '{stream}.treasury'"):
            await sink.write(batch)
        await make_stream(url, stream)
        await sink.write(batch)
    assert await ids_in(url, stream) == ids(batch)


async def test_a_stream_that_was_removed_is_made_again(url: str, stream: str) -> None:
    batch = make_records(2)
    async with opened(url, stream, stream=stream, create=True) as sink:
        async with connected(url) as client:
            await client.jetstream().delete_stream(stream)
        assert await write_until_taken(sink, batch, SinkUnavailable) == 1
    assert await ids_in(url, stream) == ids(batch)


async def test_another_stream_than_the_one_named_is_a_mistake_of_the_set_up(url: str, stream: str) -> None:
    await make_stream(url, stream)
    async with opened(url, stream, stream="another") as sink:
        with pytest.raises(SinkBroken, match="expected stream does not match; name the stream"):
            await sink.write(make_records(1))
    assert await ids_in(url, stream) == []


async def test_a_stream_whose_subjects_are_taken_cannot_be_made(url: str, stream: str) -> None:
    await make_stream(url, stream)
    with pytest.raises(SinkBroken, match="subjects overlap"):
        async with opened(url, stream, stream=f"{stream}-2", create=True):
            pass


async def test_more_replicas_than_servers_cannot_be_had(url: str, stream: str) -> None:
    with pytest.raises(SinkBroken, match="cannot be made: replicas > 1 not supported"):
        async with opened(url, stream, stream=stream, create=True, replicas=3):
            pass


async def test_a_full_stream_takes_the_records_when_there_is_room(url: str, stream: str) -> None:
    await make_stream(url, stream, max_msgs=2, discard=DiscardPolicy.NEW)
    first, second = make_records(2), make_records(3, first=3)
    async with opened(url, stream) as sink:
        await sink.write(first)
        with pytest.raises(SinkUnavailable, match="maximum messages exceeded"):
            await sink.write(second)
        async with connected(url) as client:
            await client.jetstream().purge_stream(stream)
            with pytest.raises(SinkUnavailable, match="maximum messages exceeded"):
                await sink.write(second)
            # Two of the three are there: in their order, and none behind a hole.
            assert await ids_in(url, stream) == ids(second[:2])
            await client.jetstream().purge_stream(stream)
        await sink.write(second)
    assert await ids_in(url, stream) == ids(second[2:])


async def test_a_failure_within_a_batch_puts_nothing_in_the_wrong_order(url: str, stream: str) -> None:
    """What came after the failed record would stay before it: the stream drops it when it comes again."""
    first, last = make_records(2)
    between = status_record(
        Account("treasury", 60.0),
        id="019b76da-a800-7000-8000-ffffffffffff",
        sequence=1,
        state=State.STALE,
        reason="no answer",
        since_ns=1,
    )
    sink = NatsSink(NatsOptions(servers=[url], subject=Template(f"{stream}.{{kind}}")))
    async with connected(url) as client:
        jetstream = client.jetstream()
        await jetstream.add_stream(name=stream, subjects=[f"{stream}.snapshot"])
        await sink.open()
        with pytest.raises(SinkUnavailable, match=f"no stream takes '{stream}.status'"):
            await sink.write([first, between, last])
        assert await ids_in(url, stream) == [first.id]
        await jetstream.update_stream(name=stream, subjects=[f"{stream}.>"])
        await sink.write([first, between, last])
    await sink.close()
    assert await ids_in(url, stream) == [first.id, between.id, last.id]


async def test_a_record_too_large_for_the_stream_is_refused_and_the_others_are_written(
    url: str, stream: str
) -> None:
    await make_stream(url, stream, max_msg_size=1500)
    batch = make_records(3)
    large = make_records(1, account="x" * 600, first=50)
    async with opened(url, stream) as sink:
        with pytest.raises(SinkRejected) as refused:
            await sink.write([*batch[:1], *large, *batch[1:]])
    assert refused.value.rejected == {large[0].id: "message size exceeds maximum allowed"}
    assert await ids_in(url, stream) == ids(batch)


@pytest.mark.parametrize("over_bytes", [1, 100, 100_000])
async def test_a_record_too_large_for_the_server_is_refused_before_the_server_hangs_up(
    tmp_path: Path, url: str, stream: str, over_bytes: int
) -> None:
    """The limit counts headers; a client that forgets them is disconnected at every attempt."""
    [record] = make_records(1)
    async with opened(url, stream, stream=stream, create=True) as sink:
        await sink.write([record])
    [sent] = await messages(url, stream)
    lines = [f"{name}: {value}\r\n" for name, value in (sent.headers or {}).items()]
    size_bytes = len("".join(["NATS/1.0\r\n", *lines, "\r\n"])) + len(sent.data)
    with nats_server(tmp_path / "server", max_payload=size_bytes) as server:
        await make_stream(server.url, stream)
        [large] = make_records(1, account="treasury" + "x" * over_bytes, first=2)
        async with opened(server.url, stream, stream=stream) as sink:
            with pytest.raises(SinkRejected) as refused:
                await sink.write([large, record])
        assert refused.value.rejected.keys() == {large.id}
        assert f"the server takes {size_bytes}" in refused.value.rejected[large.id]
        assert await ids_in(server.url, stream) == [record.id]
