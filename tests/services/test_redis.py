"""The redis sink against a real server: the contract, lost connections and answers, servers that hang."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from poller.delivery.calls import CANCEL_PATIENCE_S
from poller.errors import SinkUnavailable
from poller.secrets import Secret
from poller.sinks.redis import RedisOptions, RedisSink
from poller.testing.sink_contract import SinkContract, ids, make_records
from tests.services.proxy import Proxy, proxying
from tests.services.redis_servers import entries_in, ids_in, serving, until
from tests.services.servers import REDIS

pytestmark = pytest.mark.real_time


@pytest.fixture
def stream(tmp_path: Path) -> str:
    return f"poller-test:{tmp_path.name}:{os.getpid()}"


@pytest.fixture
async def client(stream: str) -> AsyncIterator[Redis]:
    """Look behind the sink, and remove what the test left."""
    async with Redis.from_url(REDIS.require(), decode_responses=True) as client:
        yield client
        left = [key async for key in client.scan_iter(f"*{stream}*")]
        if left:
            await client.delete(*left)


def behind(proxy: Proxy, stream: str, **options: Any) -> RedisSink:
    url = Secret(f"redis://127.0.0.1:{proxy.port}/0")
    return RedisSink(RedisOptions.model_validate({"url": url, "stream": stream, **options}))


class TestRedisSink(SinkContract):
    OPTIONS: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _on_the_server(self, client: Redis, stream: str) -> None:
        self.client, self.stream = client, stream

    def make_sink(self, tmp_path: Path) -> RedisSink:
        options = {"url": Secret(REDIS.require()), "stream": self.stream, **self.OPTIONS}
        return RedisSink(RedisOptions.model_validate(options))

    async def written(self, tmp_path: Path) -> list[str]:
        return await ids_in(self.client, self.stream)

    async def payloads(self, tmp_path: Path) -> list[bytes]:
        return [fields["record"].encode() for fields in await entries_in(self.client, self.stream)]


class TestRedisSinkThatDeduplicates(TestRedisSink):
    OPTIONS: ClassVar[dict[str, Any]] = {"deduplicate": "1h"}


@pytest.mark.parametrize("deduplicate", [None, "1h"])
async def test_a_lost_answer_loses_nothing(client: Redis, stream: str, deduplicate: str | None) -> None:
    """The transaction happened, nobody was told, and the batch comes again."""
    address = urlsplit(REDIS.require())
    records = make_records(6)
    async with proxying(address.hostname or "", address.port or 0) as proxy:
        sink = behind(proxy, stream, deduplicate=deduplicate)
        await sink.open()
        await sink.write(records[:2])
        proxy.passes_answers = False
        writing = asyncio.create_task(sink.write(records[2:4]))

        async def is_written() -> bool:
            return len(await ids_in(client, stream)) == 4

        await until(is_written)
        proxy.cut()
        with pytest.raises(SinkUnavailable):
            await writing
        proxy.passes_answers = True
        await sink.write(records[2:4])
        await sink.write(records[4:])
        await sink.close()
    found = await ids_in(client, stream)
    assert list(dict.fromkeys(found)) == ids(records)
    assert found == ids(records if deduplicate else [*records[:4], *records[2:]])


@pytest.mark.parametrize("deduplicate", [None, "1h"])
async def test_connections_cut_at_any_moment_lose_nothing_and_keep_the_order(
    client: Redis, stream: str, deduplicate: str | None
) -> None:
    address = urlsplit(REDIS.require())
    records = make_records(400)
    cuts = 0
    async with proxying(address.hostname or "", address.port or 0) as proxy:
        sink = behind(proxy, stream, deduplicate=deduplicate)
        for start in range(0, 400, 20):
            batch = records[start : start + 20]
            while True:
                writing = asyncio.create_task(sink.write(batch))
                for _ in range(start // 20 % 7 + 1 if cuts < 30 else 10_000):
                    await asyncio.sleep(0)
                    if writing.done():
                        break
                if not writing.done():
                    proxy.cut()
                    cuts += 1
                try:
                    await writing
                except SinkUnavailable:
                    continue
                break
        await sink.close()
    assert cuts > 10
    found = await ids_in(client, stream)
    assert list(dict.fromkeys(found)) == ids(records)
    # What came again, came again whole: after a step back every record follows the one before it.
    order = [ids(records).index(id_) for id_ in found]
    assert all(b == a + 1 or (b <= a and b % 20 == 0) for a, b in pairwise(order))
    if deduplicate:
        assert found == ids(records)


async def test_a_cancelled_write_leaves_the_sink_usable(client: Redis, stream: str) -> None:
    address = urlsplit(REDIS.require())
    records = make_records(5)
    async with proxying(address.hostname or "", address.port or 0) as proxy:
        sink = behind(proxy, stream)
        await sink.open()
        for _ in range(5):
            proxy.stall()
            writing = asyncio.create_task(sink.write(records))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not writing.done()
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            proxy.flow()
        await sink.write(records)
        await sink.close()
    assert (await ids_in(client, stream))[-5:] == ids(records)


async def test_a_refused_connection_passes_and_the_sink_reconnects_by_itself(
    client: Redis, stream: str
) -> None:
    address = urlsplit(REDIS.require())
    async with proxying(address.hostname or "", address.port or 0) as proxy:
        proxy.is_up = False
        sink = behind(proxy, stream)
        with pytest.raises(SinkUnavailable):
            await sink.open()
        assert proxy.accepted == 1  # the client tried nothing twice by itself
        with pytest.raises(SinkUnavailable):
            await sink.write(make_records(1))
        proxy.is_up = True
        await sink.write(make_records(1))
        assert await ids_in(client, stream) == ids(make_records(1))
        await sink.close()


async def test_nobody_listens(tmp_path: Path, stream: str) -> None:
    async with serving(tmp_path) as server:
        port = server.port
    sink = RedisSink(RedisOptions(url=Secret(f"redis://127.0.0.1:{port}")))
    with pytest.raises(SinkUnavailable, match=f"127.0.0.1:{port}: .*[Cc]onnect"):
        await sink.open()
    await sink.close()


async def test_a_server_that_hangs_is_left_in_time_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.sinks.redis.ANSWER_TIMEOUT_S", 0.5)
    records = make_records(2)
    async with serving(tmp_path) as server:
        sink = server.sink()
        await sink.open()
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(SinkUnavailable, match="Timeout"):
            await sink.write(records[:1])
        writing = asyncio.create_task(sink.write(records[:1]))
        await asyncio.sleep(0)
        writing.cancel()
        async with asyncio.timeout(CANCEL_PATIENCE_S):  # more than that the delivery loop does not wait
            await sink.close()
            await sink.close()
        server.process.send_signal(signal.SIGCONT)
        await sink.open()
        await sink.write(records)
        assert list(dict.fromkeys(await server.ids())) == ids(records)
        await sink.close()


async def test_what_a_hung_server_did_not_take_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every try would leave a socket and a batch in memory until the server comes back."""
    monkeypatch.setattr("poller.sinks.redis.ANSWER_TIMEOUT_S", 0.2)
    monkeypatch.setattr("poller.sinks.redis.DEAD_AFTER_MS", 500)
    records = make_records(20_000)  # more than the kernel buffers on both sides
    descriptors = Path("/proc/self/fd")
    async with serving(tmp_path) as server:
        sink = server.sink()
        await sink.open()
        await sink.write(records[:1])
        before = len(list(descriptors.iterdir()))
        for _ in range(3):
            if not sink._is_good:
                server.process.send_signal(signal.SIGCONT)
                await sink.open()
            server.process.send_signal(signal.SIGSTOP)
            with pytest.raises(SinkUnavailable):
                await sink.write(records)

        async def is_given_up() -> bool:
            return len(list(descriptors.iterdir())) <= before

        await until(is_given_up)
        await sink.close()


async def test_order_and_streams_of_many_accounts(client: Redis, stream: str) -> None:
    sink = RedisSink(
        RedisOptions.model_validate(
            {
                "url": Secret(REDIS.require()),
                "stream": stream + ":{account}:{labels.desk}",
                "deduplicate": "1h",
            }
        )
    )
    a, b = make_records(10, account="a"), make_records(10, account="b", first=101)
    await sink.write([record for pair in zip(a, b, strict=True) for record in pair])
    assert await ids_in(client, f"{stream}:a:mm") == ids(a)
    assert await ids_in(client, f"{stream}:b:mm") == ids(b)
    await sink.close()


async def test_fields_of_an_entry_in_each_format(client: Redis, stream: str) -> None:
    [record] = make_records(1)
    for format_ in ("json", "cloudevents", "cloudevents-binary"):
        sink = RedisSink(
            RedisOptions.model_validate(
                {"url": Secret(REDIS.require()), "stream": f"{stream}:{format_}", "format": format_}
            )
        )
        await sink.write([record])
        await sink.close()
    [plain] = await entries_in(client, f"{stream}:json")
    assert plain == {
        "id": record.id,
        "schema": "poller.snapshot/1",
        "account": "treasury",
        "sequence": "1",
        "record": record.payload.decode(),
    }
    [structured] = await entries_in(client, f"{stream}:cloudevents")
    assert structured.keys() == plain.keys()
    assert structured["record"].startswith('{"specversion":"1.0","id":"' + record.id)
    [binary] = await entries_in(client, f"{stream}:cloudevents-binary")
    assert binary["record"] == plain["record"]
    assert binary["specversion"] == "1.0"
    assert binary["id"] == record.id
    assert binary["type"] == "poller.snapshot/1"
    assert binary["datacontenttype"] == "application/json"


async def test_old_entries_are_trimmed(client: Redis, stream: str) -> None:
    options = {"url": Secret(REDIS.require()), "stream": stream, "max_length": 1000}
    sink = RedisSink(RedisOptions.model_validate(options))
    records = make_records(3000)
    await sink.write(records)
    found = await ids_in(client, stream)
    assert 1000 <= len(found) < 2000
    assert found == ids(records)[-len(found) :]
    await sink.close()
