"""The postgres sink when answers are lost, connections cut, servers hang, stop, or wait for a replica."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from poller.delivery.calls import CANCEL_PATIENCE_S
from poller.errors import SinkUnavailable
from poller.sinks.postgres import PostgresSink
from poller.testing.sink_contract import ids, make_records
from tests.services.postgres_private import pgbouncer, private_server
from tests.services.postgres_servers import Database, database, role, until
from tests.services.proxy import Proxy, proxying
from tests.services.servers import POSTGRES, free_port, write_until_taken

pytestmark = pytest.mark.real_time


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Database]:
    async with database(POSTGRES.require(), f"poller_test_{os.getpid()}_{tmp_path.name[-30:]}") as there:
        yield there


@pytest.fixture
async def proxy(there: Database) -> AsyncIterator[Proxy]:
    address = urlsplit(there.url)
    async with proxying(address.hostname or "", address.port or 0) as proxy:
        yield proxy


def behind(proxy: Proxy, there: Database, **options: Any) -> PostgresSink:
    address = urlsplit(there.url)
    # Without TLS, so that connections pass the proxy as they are.
    url = f"postgresql://{address.username}@127.0.0.1:{proxy.port}{address.path}?sslmode=disable"
    return there.sink(url=url, **options)


async def test_a_commit_whose_answer_is_lost_is_repeated_without_harm(there: Database, proxy: Proxy) -> None:
    records = make_records(6)
    sink = behind(proxy, there)
    await sink.open()
    await sink.write(records[:2])
    commit = sink._commit

    async def commit_unheard() -> None:
        proxy.passes_answers = False
        await commit()

    sink._commit = commit_unheard  # type: ignore[method-assign]
    writing = asyncio.create_task(sink.write(records[2:4]))

    async def is_committed() -> bool:
        return len(await there.ids()) == 4

    await until(is_committed)
    assert not writing.done()
    proxy.cut()
    with pytest.raises(SinkUnavailable):
        await writing
    proxy.passes_answers = True
    sink._commit = commit  # type: ignore[method-assign]
    await sink.write(records[2:4])
    await sink.write(records[4:])
    assert await there.ids() == ids(records)
    for table, rows in (("balances", 12), ("changes", 6)):
        assert [tuple(row) for row in await there.fetch(f"SELECT count(*) FROM THERE.{table}")] == [(rows,)]
    await sink.close()


async def test_connections_cut_at_any_moment_lose_nothing_and_keep_the_order(
    there: Database, proxy: Proxy
) -> None:
    records = make_records(400)
    cuts = 0
    sink = behind(proxy, there)
    for start in range(0, 400, 20):
        batch = records[start : start + 20]
        for attempt in range(100):
            writing = asyncio.create_task(sink.write(batch))
            for _ in range((start // 20 * 7 + attempt * 11) % 60 + 1 if attempt < 3 else 100_000):
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
    assert await there.ids() == ids(records)


async def test_sessions_that_an_operator_ends_are_renewed(there: Database) -> None:
    records = make_records(3)
    sink = there.sink(url=f"{there.url}?application_name={there.schema}")
    for number in range(3):
        # The client may not have heard of the end yet.
        await write_until_taken(sink, records[number : number + 1], SinkUnavailable)
        [pid] = await there.sessions(there.schema)
        await there.fetch("SELECT pg_terminate_backend($1)", pid)

        async def is_gone(pid: int = pid) -> bool:
            return pid not in await there.sessions(there.schema)

        await until(is_gone)
    await write_until_taken(sink, records[2:], SinkUnavailable)
    assert await there.ids() == ids(records)
    await sink.close()

    async def none_left() -> bool:
        return not await there.sessions(there.schema)

    await until(none_left)


async def test_a_cancelled_write_leaves_the_sink_usable(there: Database, proxy: Proxy) -> None:
    records = make_records(5)
    sink = behind(proxy, there)
    await sink.open()
    for _ in range(3):
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
    assert await there.ids() == ids(records)
    await sink.close()


async def test_a_server_that_hangs_is_left_in_time_and_found_again(
    there: Database, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.sinks.postgres.CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr("poller.sinks.postgres.ANSWER_TIMEOUT_S", 0.2)
    records = make_records(2)
    sink = behind(proxy, there, statement_timeout="100ms")
    await sink.open()
    proxy.stall()
    with pytest.raises(SinkUnavailable, match=r"no answer within 0\.5 s"):
        await sink.write(records)
    with pytest.raises(SinkUnavailable, match="no answer in time"):
        await sink.write(records)
    async with asyncio.timeout(CANCEL_PATIENCE_S):  # more than that the delivery loop does not wait
        await sink.close()
        await sink.close()
    proxy.flow()
    monkeypatch.undo()
    sink = behind(proxy, there)
    await sink.open()
    proxy.stall()
    async with asyncio.timeout(CANCEL_PATIENCE_S):
        await sink.close()  # while the server says nothing
    proxy.flow()
    await sink.write(records)
    assert await there.ids() == ids(records)
    await sink.close()


async def test_a_refused_connection_passes_and_the_sink_reconnects_by_itself(
    there: Database, proxy: Proxy
) -> None:
    proxy.is_up = False
    sink = behind(proxy, there)
    with pytest.raises(SinkUnavailable):
        await sink.open()
    assert proxy.accepted == 1  # the client tried nothing twice by itself
    with pytest.raises(SinkUnavailable):
        await sink.write(make_records(1))
    proxy.is_up = True
    await sink.write(make_records(1))
    assert await there.ids() == ids(make_records(1))
    await sink.close()


async def test_nobody_listens(there: Database) -> None:
    port = free_port()
    sink = there.sink(url=f"postgresql://postgres@127.0.0.1:{port}/test")
    with pytest.raises(SinkUnavailable, match=f"127.0.0.1:{port}/test: .*Connect call failed"):
        await sink.open()
    await sink.close()


async def test_a_replica_that_does_not_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes a request to cancel as the end of the wait, and calls the batch committed."""
    monkeypatch.setattr("poller.sinks.postgres.ANSWER_TIMEOUT_S", 0.2)
    monkeypatch.setattr("poller.sinks.postgres.CONNECT_TIMEOUT_S", 1.0)
    records = make_records(4)
    async with private_server() as server, database(server.url, "poller") as there:
        sink = there.sink(statement_timeout="300ms")
        await sink.write(records[:2])
        await server.reload("synchronous_standby_names = 'nobody'")

        async def is_told() -> bool:
            [row] = await there.fetch("SHOW synchronous_standby_names")
            return bool(row[0] == "nobody")

        await until(is_told)
        with pytest.raises(SinkUnavailable, match="no answer within"):
            await sink.write(records)
        assert await there.ids() == ids(records[:2])
        # The first still waits, and the next waits for its lock.
        with pytest.raises(SinkUnavailable, match="57014"):
            await sink.write(records)
        writing = asyncio.create_task(sink.write(records))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await there.ids() == ids(records[:2])
        await server.reload("synchronous_standby_names = ''")

        async def is_committed() -> bool:
            return len(await there.ids()) == 4

        await until(is_committed)
        await sink.write(records)
        assert await there.ids() == ids(records)
        await sink.close()


@pytest.mark.parametrize(
    ("default", "used"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")]
)
async def test_a_commit_is_synced_to_the_servers_disk_at_least(
    there: Database, default: str, used: str
) -> None:
    async with role(there, f"SET synchronous_commit = {default}", "SUPERUSER") as url:
        sink = there.sink(url=url)
        await sink.open()
        assert await sink._connection.fetchval("SHOW synchronous_commit") == default
        await sink._begin()
        assert await sink._connection.fetchval("SHOW synchronous_commit") == used
        await sink.close()


async def test_a_daemon_that_fell_silent_holds_the_others_up_for_a_while_only(
    there: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.sinks.postgres.IDLE_TIMEOUT_S", 0.3)
    records = make_records(3)
    silent, other = there.sink(), there.sink()
    await silent.open()
    await silent._begin()  # and then nothing, as of a process that was stopped, or behind a cut cable
    await other.write(records[:2])
    assert await there.ids() == ids(records[:2])
    await write_until_taken(silent, records, SinkUnavailable)
    assert await there.ids() == ids(records)


async def test_pgbouncer_that_gives_every_transaction_another_session() -> None:
    records = make_records(60)
    async with (
        private_server() as server,
        database(server.url, "poller") as there,
        pgbouncer(server.port) as port,
    ):
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        sinks = [there.sink(url=url) for _ in range(5)]
        await asyncio.gather(*(sink.open() for sink in sinks))
        for start in range(0, 60, 4):
            await asyncio.gather(*(sink.write(records[start : start + 4]) for sink in sinks))
        assert await there.ids() == ids(records)
        held = await there.fetch("SELECT * FROM pg_locks WHERE locktype = 'advisory'")
        assert held == []
        plain = await asyncpg.connect(url, statement_cache_size=0)
        # Nothing of what the sinks set is left in the sessions.
        assert await plain.fetchval("SHOW statement_timeout") == "0"
        await plain.close()
        for sink in sinks:
            await sink.close()
