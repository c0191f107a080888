"""The ``nats`` sink while the connection is cut, answers are lost, the server hangs, dies and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from poller.errors import SinkError, SinkUnavailable
from poller.model import Record
from poller.sinks import nats as sink_module
from poller.sinks.nats import NatsSink
from poller.sinks.nats_options import NatsOptions
from poller.testing.sink_contract import ids, make_records
from tests.services.nats_servers import (
    connected,
    ids_in,
    make_stream,
    nats_server,
    opened,
)
from tests.services.proxy import Proxy, proxying
from tests.services.servers import NATS, write_until_taken

pytestmark = pytest.mark.real_time

CLOSED_QUICKLY_S = 5.0


@pytest.fixture
async def stream(tmp_path: Path) -> AsyncIterator[str]:
    url, name = NATS.require(), f"poller-test-{tmp_path.name}"
    await make_stream(url, name)
    yield name
    async with connected(url) as client:
        await client.jetstream().delete_stream(name)


@pytest.fixture
def url() -> str:
    return NATS.require()


@pytest.fixture
async def proxy(url: str) -> AsyncIterator[Proxy]:
    address = urlsplit(url)
    async with proxying(address.hostname or "", address.port or 0) as proxy:
        yield proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "ANSWER_S", 0.3)


def interleaved(accounts: int, each: int) -> list[Record]:
    by_account = [make_records(each, account=f"a{n}", first=1000 * n) for n in range(1, accounts + 1)]
    return [record for together in zip(*by_account, strict=True) for record in together]


def of_account(found: list[str], batch: list[Record], account: str) -> list[str]:
    wanted = {record.id for record in batch if record.account == account}
    return [each for each in found if each in wanted]


async def test_connections_cut_while_batches_are_written_lose_nothing(
    url: str, stream: str, proxy: Proxy
) -> None:
    batch = interleaved(20, 50)
    async with opened(f"nats://127.0.0.1:{proxy.port}", stream) as sink:
        failures = 0
        for _ in range(5):
            writing = asyncio.create_task(write_until_taken(sink, batch, SinkUnavailable))
            before = len(await ids_in(url, stream))
            while not writing.done() and len(await ids_in(url, stream)) <= before:
                pass
            proxy.cut()
            failures += await writing
        assert failures > 0
    found = await ids_in(url, stream)
    # The stream drops what it knows: nothing is there twice, and every account is in its order.
    assert sorted(found) == sorted(ids(batch))
    for account in {record.account for record in batch}:
        assert of_account(found, batch, account) == ids([r for r in batch if r.account == account])


async def test_answers_that_were_swallowed_lead_to_the_same_ids_again(
    url: str, stream: str, proxy: Proxy, impatient: None
) -> None:
    batch = make_records(3)
    async with opened(f"nats://127.0.0.1:{proxy.port}", stream) as sink:
        proxy.passes_answers = False
        with pytest.raises(SinkUnavailable, match="no answer in time"):
            await sink.write(batch)
        assert await ids_in(url, stream) == ids(batch[:1])
        proxy.passes_answers = True
        await sink.write(batch)
    assert await ids_in(url, stream) == ids(batch)


async def test_a_server_that_hangs_delays_neither_failure_nor_close(
    url: str, stream: str, proxy: Proxy, impatient: None
) -> None:
    batch = make_records(2000)
    async with opened(f"nats://127.0.0.1:{proxy.port}", stream) as sink:
        proxy.stall()
        with pytest.raises(SinkUnavailable):
            await sink.write(batch)
        await asyncio.wait_for(sink.close(), CLOSED_QUICKLY_S)
        await asyncio.wait_for(sink.close(), CLOSED_QUICKLY_S)
        proxy.flow()
        await sink.write(batch)
    assert await ids_in(url, stream) == ids(batch)


async def test_a_connection_with_bytes_that_nobody_takes_is_given_up(
    stream: str, proxy: Proxy, impatient: None
) -> None:
    """More than all buffers on the way hold, so that the client waits for them to leave."""
    many = [make_records(1, account=f"{n}{'x' * 100_000}", first=n)[0] for n in range(1, 201)]
    async with opened(f"nats://127.0.0.1:{proxy.port}", stream) as sink:
        proxy.stall()
        with pytest.raises(SinkUnavailable):
            await sink.write(many)
        await asyncio.wait_for(sink.close(), CLOSED_QUICKLY_S)


async def test_a_write_that_was_cancelled_leaves_the_sink_usable(url: str, stream: str, proxy: Proxy) -> None:
    batch = make_records(5)
    async with opened(f"nats://127.0.0.1:{proxy.port}", stream) as sink:
        proxy.passes_answers = False
        writing = asyncio.create_task(sink.write(batch))
        while await ids_in(url, stream) != ids(batch[:1]):
            pass
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        proxy.passes_answers = True
        await sink.write(batch)
    assert await ids_in(url, stream) == ids(batch)


async def test_a_lost_connection_is_made_again_by_the_next_write(url: str, stream: str, proxy: Proxy) -> None:
    first, second = make_records(1), make_records(1, first=2)
    async with opened(f"nats://127.0.0.1:{proxy.port}", stream) as sink:
        await sink.write(first)
        proxy.is_up = False
        proxy.cut()
        for _ in range(3):
            with pytest.raises(SinkUnavailable):
                await sink.write(second)
        proxy.is_up = True
        await write_until_taken(sink, second, SinkUnavailable)
    assert await ids_in(url, stream) == ids(first + second)


async def test_nobody_at_the_address_is_told_with_the_address(stream: str, proxy: Proxy, url: str) -> None:
    proxy.is_up = False
    batch = make_records(1)
    sink = None
    with pytest.raises(SinkUnavailable, match=f"nats://127.0.0.1:{proxy.port}: "):
        async with opened(f"nats://127.0.0.1:{proxy.port}", stream) as sink:
            pass
    proxy.is_up = True
    async with opened(f"nats://127.0.0.1:{proxy.port}", stream) as sink:
        await sink.write(batch)
    assert await ids_in(url, stream) == ids(batch)


async def test_a_refused_connection_says_so(stream: str) -> None:
    with pytest.raises(SinkUnavailable, match=r"nats://127\.0\.0\.1:1: .*[Cc]onnect"):
        async with opened("nats://127.0.0.1:1", stream):
            pass


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    batches = [make_records(200, first=200 * number + 1) for number in range(8)]
    with nats_server(tmp_path / "server") as server:
        await make_stream(server.url, "s")
        async with opened(server.url, "s") as sink:
            failures = 0
            for number, batch in enumerate(batches):
                writing = asyncio.create_task(write_until_taken(sink, batch, SinkUnavailable))
                if number in {2, 5}:
                    while not writing.done() and not await ids_in(server.url, "s"):
                        pass
                    server.kill()
                    server.start()
                failures += await writing
            assert failures > 0
        found = await ids_in(server.url, "s")
    written = ids([record for batch in batches for record in batch])
    assert found == written


async def test_a_server_without_jetstream_is_waited_for(tmp_path: Path) -> None:
    batch = make_records(2)
    with nats_server(tmp_path / "server", jetstream=False) as server:
        async with opened(server.url, "s") as sink:
            with pytest.raises(SinkUnavailable, match="JetStream is not running"):
                await sink.write(batch)
            with pytest.raises(SinkUnavailable, match="JetStream is not running"):
                async with opened(server.url, "s", stream="s", create=True):
                    pass
            server.kill()
            server.config["jetstream"] = {"store_dir": str(tmp_path / "streams")}
            server.start()
            await make_stream(server.url, "s")
            await write_until_taken(sink, batch, SinkUnavailable)
        assert await ids_in(server.url, "s") == ids(batch)


async def test_another_server_of_the_list_is_used_when_one_is_gone(tmp_path: Path) -> None:
    batch = make_records(2)
    with nats_server(tmp_path / "server") as server:
        await make_stream(server.url, "s")
        for servers in ([server.url, "nats://127.0.0.1:1"], ["nats://127.0.0.1:1", server.url]):
            sink = NatsSink(NatsOptions.model_validate({"servers": servers, "subject": "s.{account}"}))
            await sink.open()
            await sink.write(batch)
            await sink.close()
        assert await ids_in(server.url, "s") == ids(batch)


async def test_what_somebody_else_answers_is_no_acknowledgement(url: str, tmp_path: Path) -> None:
    name = f"poller-test-{tmp_path.name}"
    async with connected(url) as client:

        async def answer(message: object) -> None:
            await client.publish(message.reply, b"thank you")  # type: ignore[attr-defined]

        await client.subscribe(f"{name}.>", cb=answer)
        await client.flush()
        async with opened(url, name) as sink:
            with pytest.raises(SinkError):
                await sink.write(make_records(1))
