"""The ``mqtt`` sink while the connection is cut, answers are lost, the broker hangs, dies and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from poller.errors import SinkUnavailable
from poller.sinks import mqtt as sink_module
from poller.sinks import mqtt_connection
from poller.testing.sink_contract import ids, make_records
from tests.services.mosquittos import mosquitto, opened, subscribed
from tests.services.proxy import Proxy, proxying
from tests.services.servers import MOSQUITTO, write_until_taken

pytestmark = pytest.mark.real_time

CLOSED_QUICKLY_S = 4.0


@pytest.fixture
def url() -> str:
    return MOSQUITTO.require()


@pytest.fixture
def name(tmp_path: Path) -> str:
    return f"poller-test/{tmp_path.name}"


@pytest.fixture
async def proxy(url: str) -> AsyncIterator[Proxy]:
    address = urlsplit(url)
    async with proxying(address.hostname or "", address.port or 0) as proxy:
        yield proxy


def through(proxy: Proxy) -> str:
    return f"mqtt://127.0.0.1:{proxy.port}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "WRITE_S", 0.5)
    monkeypatch.setattr(mqtt_connection, "CONNECT_S", 0.5)


async def test_connections_cut_while_batches_are_written_lose_nothing(
    url: str, name: str, proxy: Proxy
) -> None:
    by_account = [make_records(40, account=f"a{n}", first=1000 * n) for n in range(1, 6)]
    batch = [record for together in zip(*by_account, strict=True) for record in together]
    async with subscribed(url, name) as reader, opened(through(proxy), name) as sink:
        failures = 0
        for _ in range(3):
            before = len(await reader.ids())
            writing = asyncio.create_task(write_until_taken(sink, batch, SinkUnavailable))
            while not writing.done() and len(await reader.ids()) <= before:
                pass
            proxy.cut()
            failures += await writing
        found = await reader.ids()
    assert failures > 0
    for records in by_account:
        wanted = ids(records)
        seen: set[str] = set()
        for each in (each for each in found if each in wanted):
            # A step back is a repetition; a step forward skips nothing.
            assert each in seen or each == wanted[len(seen)]
            seen.add(each)
        assert len(seen) == len(wanted)


async def test_answers_that_were_swallowed_lead_to_the_same_ids_again(
    url: str, name: str, proxy: Proxy, impatient: None
) -> None:
    batch = make_records(3)
    async with subscribed(url, name) as reader, opened(through(proxy), name) as sink:
        proxy.passes_answers = False
        with pytest.raises(SinkUnavailable, match="no answer in time"):
            await sink.write(batch)
        proxy.passes_answers = True
        await sink.write(batch)
        assert await reader.ids() == [batch[0].id, *ids(batch)]


async def test_a_broker_that_hangs_delays_neither_failure_nor_close(
    url: str, name: str, proxy: Proxy, impatient: None
) -> None:
    batch = make_records(20)
    async with subscribed(url, name) as reader, opened(through(proxy), name) as sink:
        proxy.stall()
        for _ in range(2):  # the second one cannot even connect
            with pytest.raises(SinkUnavailable):
                await sink.write(batch)
        await asyncio.wait_for(sink.close(), CLOSED_QUICKLY_S)
        await asyncio.wait_for(sink.close(), CLOSED_QUICKLY_S)
        proxy.flow()
        await write_until_taken(sink, batch, SinkUnavailable)
        assert list(dict.fromkeys(await reader.ids())) == ids(batch)


async def test_a_write_that_was_cancelled_leaves_the_sink_usable(url: str, name: str, proxy: Proxy) -> None:
    batch = make_records(5)
    async with subscribed(url, name) as reader, opened(through(proxy), name) as sink:
        proxy.passes_answers = False
        writing = asyncio.create_task(sink.write(batch))
        while await reader.ids() != ids(batch[:1]):
            pass
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        proxy.passes_answers = True
        await sink.write(batch)
        assert list(dict.fromkeys(await reader.ids())) == ids(batch)


async def test_an_open_that_was_cancelled_leaves_no_connection(
    name: str, proxy: Proxy, impatient: None
) -> None:
    proxy.stall()
    batch = make_records(1)
    async with opened(MOSQUITTO.require(), name):
        pass
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), opened(through(proxy), name):
            pass
    proxy.flow()
    async with opened(through(proxy), name) as sink:
        await sink.write(batch)


async def test_a_broker_that_is_away_is_named_and_found_again(url: str, name: str, proxy: Proxy) -> None:
    batch = make_records(2)
    with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:1: Connection refused"):
        async with opened("mqtt://127.0.0.1:1", name):
            pass
    async with subscribed(url, name) as reader, opened(through(proxy), name) as sink:
        proxy.is_up = False
        proxy.cut()
        for _ in range(2):
            with pytest.raises(SinkUnavailable, match=f"127.0.0.1:{proxy.port}|connection was lost"):
                await sink.write(batch)
        proxy.is_up = True
        await write_until_taken(sink, batch, SinkUnavailable)
        assert await reader.ids() == ids(batch)


async def test_what_a_broker_with_persistence_took_reaches_a_session_that_was_away(tmp_path: Path) -> None:
    """The broker keeps it on disk when it is stopped in order; a kill may lose the last minutes."""
    batch = make_records(50)
    kept = ("allow_anonymous true", "persistence true", f"persistence_location {tmp_path}/broker/")
    session = {"identifier": "reader", "clean_start": False}
    with mosquitto(tmp_path / "broker", *kept) as broker:
        async with subscribed(broker.url, "s", **session, properties=_lasting()):
            pass
        async with opened(broker.url, "s") as sink:
            await sink.write(batch[:25])
            assert broker.process is not None
            broker.process.terminate()
            broker.process.wait()
            broker.start()
            await write_until_taken(sink, batch[25:], SinkUnavailable)
        async with subscribed(broker.url, "s", **session, properties=_lasting()) as reader:
            assert await reader.ids() == ids(batch)


def _lasting() -> object:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600
    return properties
