"""The ``mqtt`` sink against a real broker: what arrives, and what the broker refuses."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from poller.errors import BatchRejected, SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.secrets import Secret
from poller.sinks.mqtt import MqttSink
from poller.testing.sink_contract import SinkContract, ids, make_records
from tests.services.mosquittos import (
    Subscriber,
    everything_of,
    mosquitto,
    opened,
    password_file,
    properties_of,
    sink_at,
    subscribed,
)
from tests.services.servers import MOSQUITTO
from tests.services.tls_files import tls_files

pytestmark = pytest.mark.real_time

CANARY = "canary-0123456789-abcdef"


@pytest.fixture
def url() -> str:
    return MOSQUITTO.require()


@pytest.fixture
def name(tmp_path: Path) -> str:
    return f"poller-test/{tmp_path.name}"


class TestMqttSink(SinkContract):
    @pytest.fixture(autouse=True)
    async def subscriber(self, url: str, name: str) -> AsyncIterator[None]:
        async with subscribed(url, name) as self.reader:
            yield

    reader: Subscriber

    def make_sink(self, tmp_path: Path) -> MqttSink:
        return sink_at(MOSQUITTO.require(), f"poller-test/{tmp_path.name}")

    async def written(self, tmp_path: Path) -> list[str]:
        return await self.reader.ids()

    async def payloads(self, tmp_path: Path) -> list[bytes]:
        return [bytes(message.payload) for message in await self.reader.messages()]


async def test_a_message_names_its_record(url: str, name: str) -> None:
    [record] = make_records(1)
    async with subscribed(url, name) as reader, opened(url, name, expiry="1h") as sink:
        await sink.write([record])
        [found] = await reader.messages()
    assert str(found.topic) == f"{name}/treasury"
    assert (found.payload, found.qos, found.retain) == (record.payload, 1, False)
    assert properties_of(found) == {
        "id": record.id,
        "schema": "poller.snapshot/1",
        "account": "treasury",
        "sequence": "1",
    }
    said = everything_of(found)
    assert said["ContentType"] == "application/json"
    assert said["PayloadFormatIndicator"] == 1
    assert 3590 <= said["MessageExpiryInterval"] <= 3600


async def test_a_cloud_event_in_binary_mode_has_its_attributes_as_user_properties(
    url: str, name: str
) -> None:
    [record] = make_records(1)
    async with subscribed(url, name) as reader, opened(url, name, format="cloudevents-binary") as sink:
        await sink.write([record])
        [found] = await reader.messages()
    properties = properties_of(found)
    assert found.payload == record.payload
    assert (properties["id"], properties["specversion"], properties["type"]) == (
        record.id,
        "1.0",
        "poller.snapshot/1",
    )
    said = everything_of(found)
    assert said["ContentType"] == "application/json"


async def test_a_cloud_event_in_structured_mode_is_the_body(url: str, name: str) -> None:
    [record] = make_records(1)
    async with subscribed(url, name) as reader, opened(url, name, format="cloudevents") as sink:
        await sink.write([record])
        [found] = await reader.messages()
    said = everything_of(found)
    assert said["ContentType"] == "application/cloudevents+json"
    assert orjson.loads(bytes(found.payload))["data"] == record.document


async def test_without_a_subscriber_the_broker_takes_a_record_and_nobody_has_it(url: str, name: str) -> None:
    first, second = make_records(2)
    async with opened(url, name) as sink:
        await sink.write([first])
        async with subscribed(url, name) as reader:
            await sink.write([second])
            assert await reader.ids() == [second.id]


async def test_a_retained_record_is_there_for_whoever_comes_later(tmp_path: Path) -> None:
    batch = make_records(2)
    with mosquitto(tmp_path / "broker", "allow_anonymous true") as broker:
        async with opened(broker.url, "s", retain=True) as sink:
            await sink.write(batch)
        async with subscribed(broker.url, "s") as reader:
            assert await reader.ids() == [batch[-1].id]


async def test_a_broker_that_retains_nothing_is_told_apart(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker", "allow_anonymous true", "retain_available false") as broker:
        async with opened(broker.url, "s"):
            pass
        with pytest.raises(SinkBroken, match="remove retain"):
            async with opened(broker.url, "s", retain=True):
                pass


async def test_a_topic_that_is_not_allowed_is_no_success(tmp_path: Path) -> None:
    """The broker acknowledges such a message all the same; only the reason code says that it is gone."""
    (tmp_path / "acl").write_text("topic write other/#\ntopic read #\n")
    with mosquitto(tmp_path / "broker", "allow_anonymous true", f"acl_file {tmp_path / 'acl'}") as broker:
        async with opened(broker.url, "s") as sink:
            with pytest.raises(SinkBroken, match="s/treasury: Not authorized; allow this user"):
                await sink.write(make_records(2))
        async with opened(broker.url, "other") as sink:
            await sink.write(make_records(2))


async def test_a_record_too_large_is_refused_and_the_others_are_written(tmp_path: Path) -> None:
    small = make_records(3)
    [large] = make_records(1, account="x" * 2000, first=9)
    with mosquitto(tmp_path / "broker", "allow_anonymous true", "max_packet_size 2000") as broker:
        async with subscribed(broker.url, "s") as reader, opened(broker.url, "s") as sink:
            with pytest.raises(SinkRejected) as refused:
                await sink.write([small[0], large, *small[1:]])
            assert await reader.ids() == ids(small)
    assert refused.value.rejected.keys() == {large.id}
    assert "the broker takes 2000" in refused.value.rejected[large.id]


async def test_a_record_over_a_limit_that_the_broker_keeps_to_itself_has_to_be_searched_for(
    tmp_path: Path,
) -> None:
    """Mosquitto refuses it with a code that an acknowledgement cannot have, and the client hangs up."""
    small = make_records(2)
    [large] = make_records(1, account="x" * 2000, first=9)
    with mosquitto(tmp_path / "broker", "allow_anonymous true", "message_size_limit 2000") as broker:
        async with subscribed(broker.url, "s") as reader, opened(broker.url, "s") as sink:
            with pytest.raises(BatchRejected, match="over the broker's size limit"):
                await sink.write([small[0], large])
            with pytest.raises(BatchRejected):
                await sink.write([large])
            await sink.write(small)
            assert list(dict.fromkeys(await reader.ids())) == ids(small)


async def test_no_more_is_in_flight_than_the_broker_allows(tmp_path: Path) -> None:
    batch = [make_records(1, account=f"a{number}", first=number)[0] for number in range(1, 301)]
    with mosquitto(tmp_path / "broker", "allow_anonymous true", "max_inflight_messages 3") as broker:
        async with subscribed(broker.url, "s") as reader, opened(broker.url, "s") as sink:
            await sink.write(batch)
            assert sorted(await reader.ids()) == sorted(ids(batch))


async def test_two_clients_with_one_id_take_turns_and_without_an_id_they_do_not_meet(tmp_path: Path) -> None:
    batch = make_records(1)
    with mosquitto(tmp_path / "broker", "allow_anonymous true") as broker:
        async with (
            opened(broker.url, "s", client_id="one") as first,
            opened(broker.url, "s", client_id="one") as second,
        ):
            await second.write(batch)
            await first.write(batch)  # it had noticed, and connected again
        async with opened(broker.url, "s") as first, opened(broker.url, "s") as second:
            for sink in (first, second, first, second):
                await sink.write(batch)


async def failure(sink: MqttSink) -> tuple[type[SinkError], str]:
    """Return what an attempt fails with and says, after a look for secrets in all of it."""
    with pytest.raises(SinkError) as failed:
        await sink.open()
    await sink.close()
    error = failed.value
    assert CANARY not in "".join(traceback.format_exception(error))
    assert CANARY not in repr(error) + repr(error.__cause__) + repr(error.__context__) + repr(sink._options)
    return type(error), str(error)


async def test_a_wrong_or_missing_login_is_a_mistake_of_the_set_up(tmp_path: Path) -> None:
    allowed = password_file(tmp_path, poller=CANARY)
    with mosquitto(tmp_path / "broker", "allow_anonymous false", allowed) as broker:
        async with opened(broker.url, "s", user="poller", password=Secret(CANARY)) as sink:
            await sink.write(make_records(1))
        for options in ({"user": "poller", "password": Secret(CANARY + "x")}, {"user": "nobody"}, {}):
            kind, said = await failure(sink_at(broker.url, "s", **options))
            assert kind is SinkBroken
            assert said.startswith(f"127.0.0.1:{broker.port}: Not authorized; ")


async def test_over_tls(tmp_path: Path) -> None:
    files = tls_files(tmp_path / "tls")
    lines = (
        f"certfile {files.pair}",
        f"keyfile {files.pair}",
        f"cafile {files.ca}",
        "allow_anonymous true",
    )
    with mosquitto(tmp_path / "broker", *lines) as broker:
        async with opened(broker.url, "s", ca=files.ca) as sink:
            await sink.write(make_records(3))
        kind, said = await failure(sink_at(broker.url, "s", tls=True))
        assert kind is SinkBroken
        assert "self-signed certificate in certificate chain; repair the certificates" in said
        kind, said = await failure(sink_at(broker.url.replace("127.0.0.1", "localhost"), "s", ca=files.ca))
        assert kind is SinkBroken
        assert "Hostname mismatch" in said
    lines_mutual: tuple[Any, ...] = (*lines, "require_certificate true")
    with mosquitto(tmp_path / "mutual", *lines_mutual) as broker:
        async with opened(broker.url, "s", ca=files.ca, certificate=files.pair) as sink:
            await sink.write(make_records(3))
        await failure(sink_at(broker.url, "s", ca=files.ca))


async def test_a_broker_without_tls_gets_no_password(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker", "allow_anonymous true") as broker:
        sink = sink_at(broker.url, "s", tls=True, user="poller", password=Secret(CANARY))
        kind, _ = await failure(sink)
        assert kind is SinkUnavailable
