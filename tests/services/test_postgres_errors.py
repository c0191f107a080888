"""What a real PostgreSQL server's errors mean for a batch: each is provoked."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
import pytest

from poller.errors import BatchRejected, SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.model import Kind, Record
from poller.sinks.postgres import PostgresSink
from poller.sinks.postgres_tables import quoted
from poller.testing.sink_contract import ids, make_records
from tests.services.postgres_private import private_server
from tests.services.postgres_servers import CANARY, Database, database, role, until
from tests.services.servers import POSTGRES

pytestmark = pytest.mark.real_time


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Database]:
    async with database(POSTGRES.require(), f"poller_test_{os.getpid()}_{tmp_path.name[-30:]}") as there:
        yield there


def everything_said(error: BaseException | None) -> str:
    """Return the texts of an error and of all that it came from."""
    said = ""
    while error is not None:
        said += f"{error} {error!r} {error.args}"
        error = error.__cause__ or error.__context__
    return said


async def refused(sink: PostgresSink, kind: type[SinkError], words: str, *, first: int = 1) -> None:
    """Hold that a write fails in a way, and the next one too."""
    for _ in range(2):
        with pytest.raises(kind, match=words) as failed:
            await sink.write(make_records(2, first=first))
        assert type(failed.value) is kind
        assert CANARY not in everything_said(failed.value)


async def test_users_passwords_and_databases_that_are_not_there() -> None:
    hba = "host all app 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n"
    async with private_server(hba=hba) as server, database(server.url, "poller") as there:
        await there.execute(
            f"CREATE ROLE app LOGIN PASSWORD '{CANARY}'; GRANT CREATE ON DATABASE postgres TO app"
        )
        place = f"127.0.0.1:{server.port}"
        for url, words in (
            (f"postgresql://app:{CANARY}wrong@{place}/postgres", "28P01.*correct user and password"),
            (f"postgresql://nobody:{CANARY}@{place}/postgres", "28000.*pg_hba.conf"),
            (f"postgresql://app:{CANARY}@{place}/gone", "3D000.*create the database"),
        ):
            sink = there.sink(url=url)
            with pytest.raises(SinkBroken, match=words) as failed:
                await sink.open()
            assert CANARY not in everything_said(failed.value)
            assert CANARY not in repr(sink._options) + repr(sink._address()) + repr(sink.channel())
            await sink.close()
        sink = there.sink(url=f"postgresql://app:{CANARY}@{place}/postgres")
        await sink.write(make_records(2))
        assert await there.ids() == ids(make_records(2))
        await sink.close()


async def test_a_role_without_rights(there: Database) -> None:
    async with role(there) as url:
        sink = there.sink(url=url)
        await refused(sink, SinkBroken, "42501.*grant the rights")
        await there.make_tables()
        await refused(sink, SinkBroken, "42501.*grant the rights")
        name = urlsplit(url).username
        await there.execute(f"GRANT USAGE ON SCHEMA THERE TO {name}")
        await refused(sink, SinkBroken, "42501.*grant the rights")
        await sink.close()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("CONNECTION LIMIT 0", "53300"),
        ("SET default_transaction_read_only = on", "25006"),
    ],
)
async def test_what_a_role_meets_now_and_then(there: Database, setting: str, words: str) -> None:
    async with role(there, setting) as url:
        name = urlsplit(url).username
        await there.execute(f"GRANT CREATE ON DATABASE test TO {name}")
        sink = there.sink(url=url)
        await refused(sink, SinkUnavailable, words)
        await there.execute(f"ALTER ROLE {name} CONNECTION LIMIT -1; ALTER ROLE {name} RESET ALL")
        await sink.write(make_records(2))
        assert await there.ids() == ids(make_records(2))
        await sink.close()


async def test_a_table_that_is_locked(there: Database) -> None:
    async with role(there, "SUPERUSER", "SET lock_timeout = '100ms'") as url:
        sink, impatient = there.sink(statement_timeout="200ms"), there.sink(url=url)
        await sink.open()
        await impatient.open()
        async with there.admin.transaction():
            await there.execute("LOCK TABLE THERE.balances")
            await refused(sink, SinkUnavailable, "57014")
        other = await asyncpg.connect(there.url)
        async with other.transaction():
            await other.execute(f"LOCK TABLE {quoted(there.schema)}.balances")
            await refused(impatient, SinkUnavailable, "55P03")
        await other.close()
        await sink.write(make_records(2))
        assert await there.ids() == ids(make_records(2))
        await sink.close()
        await impatient.close()


async def test_a_deadlock(there: Database) -> None:
    """With somebody who writes to the tables besides, which nobody should."""
    sink = there.sink()
    await sink.write(make_records(2))
    pid = sink._connection.get_server_pid()
    async with there.admin.transaction():
        await there.execute("SET LOCAL deadlock_timeout = '1min'; UPDATE THERE.accounts SET labels = '{}'")
        writing = asyncio.create_task(sink.write(make_records(4)))

        async def is_waiting() -> bool:
            [row] = await there.fetch("SELECT pg_blocking_pids($1)", pid)
            return bool(row[0])

        await until(is_waiting)
        name = f"poller {there.schema}"
        await there.fetch("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", name)
        with pytest.raises(SinkUnavailable, match=r"deadlock detected.*40P01"):
            await writing
    await sink.write(make_records(4))
    assert await there.ids() == ids(make_records(4))
    await sink.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("40001", SinkUnavailable),  # serialization failure
        ("53100", SinkUnavailable),  # disk full
        ("57P01", SinkUnavailable),  # admin shutdown
        ("55P03", SinkUnavailable),  # lock time-out
        ("58030", SinkUnavailable),  # I/O error
        ("XX000", SinkUnavailable),
        ("QQ123", SinkUnavailable),  # nobody knows it
        ("22003", BatchRejected),  # out of range
        ("23505", BatchRejected),
        ("P0001", BatchRejected),  # a trigger's own RAISE
        ("42883", SinkBroken),  # no such function
    ],
)
async def test_what_a_trigger_raises(there: Database, code: str, kind: type[SinkError]) -> None:
    """Stands for what cannot be had otherwise."""
    sink = there.sink()
    await sink.open()
    await there.execute(
        f"CREATE FUNCTION THERE.complain() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '{code}';"
        " END $$; CREATE TRIGGER complain BEFORE INSERT ON THERE.balances EXECUTE FUNCTION THERE.complain()"
    )
    await refused(sink, kind, code)
    assert await there.ids() == []
    await there.execute("DROP TRIGGER complain ON THERE.balances")
    await sink.write(make_records(2))
    assert await there.ids() == ids(make_records(2))
    await sink.close()


async def test_a_constraint_of_somebody_else_refuses_the_batch(there: Database) -> None:
    sink = there.sink()
    await sink.open()
    await there.execute("ALTER TABLE THERE.snapshots ADD CONSTRAINT early CHECK (sequence < 2)")
    await refused(sink, BatchRejected, "early.*23514")
    await sink.write(make_records(1))
    assert await there.ids() == ids(make_records(1))
    await sink.close()


async def test_records_of_another_shape_are_named_and_the_others_written(there: Database) -> None:
    first, second = make_records(2)
    document = first.document
    wrong: dict[str, Any] = {
        "0" * 8 + "-0000-0000-0000-" + "0" * 12: {**document, "balances": None},
        "1" * 8 + "-0000-0000-0000-" + "0" * 12: {**document, "sequence": 1 << 63},
        "2" * 8 + "-0000-0000-0000-" + "0" * 12: {
            **document,
            "balances": [{**document["balances"][0], "free": "NaN"}],
        },
        "3" * 8 + "-0000-0000-0000-" + "0" * 12: {**document, "balances": document["balances"][:1] * 2},
        "4" * 8 + "-0000-0000-0000-" + "0" * 12: {**document, "observed_at": "yesterday"},
    }
    bad = [
        Record(id_, Kind.SNAPSHOT, "treasury", 1, "changed", orjson.dumps({**text, "id": id_}))
        for id_, text in wrong.items()
    ]
    sink = there.sink()
    with pytest.raises(SinkRejected) as failed:
        await sink.write([first, *bad, second])
    assert failed.value.rejected.keys() == wrong.keys()
    assert all("not of the published shape" in reason for reason in failed.value.rejected.values())
    assert await there.ids() == ids([first, second])
    await sink.close()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("ALTER TABLE THERE.snapshots DROP COLUMN egress", "42703.*compare them"),
        (
            "ALTER TABLE THERE.balances DROP CONSTRAINT balances_snapshot_fkey; DROP TABLE THERE.accounts CASCADE",
            "42P01",
        ),
        (
            "UPDATE THERE.schema_version SET version = 99",
            "of version 99, made by a newer poller; this one knows 1",
        ),
        ("DROP TABLE THERE.schema_version", "42P07.*name a schema of its own"),
    ],
)
async def test_tables_that_are_not_what_they_should_be(there: Database, damage: str, words: str) -> None:
    await there.make_tables()
    await there.execute(damage)
    sink = there.sink()
    await refused(sink, SinkBroken, words)
    await sink.close()


async def test_no_tables_and_none_to_be_made(there: Database) -> None:
    sink = there.sink(create=False)
    await refused(sink, SinkBroken, "there are no tables in schema .*'poller sinks sql' prints")
    await there.execute("CREATE SCHEMA THERE")
    await refused(sink, SinkBroken, "there are no tables in schema")
    await there.make_tables()
    await sink.write(make_records(2))
    assert await there.ids() == ids(make_records(2))
    await sink.close()


async def test_a_server_that_stops_and_starts() -> None:
    async with private_server() as server, database(server.url, "poller") as there:
        sink = there.sink()
        await sink.write(make_records(1))
        server.process.send_signal(signal.SIGTERM)  # it waits for its sessions, and takes no new ones

        async def is_stopping() -> bool:
            return "smart shutdown" in (server.directory / "log").read_text()

        await until(is_stopping)
        late = there.sink()

        async def is_turned_away() -> bool:
            try:
                await late.open()
            except SinkUnavailable as error:
                return "57P03" in str(error)
            return False

        await until(is_turned_away)
        server.process.send_signal(signal.SIGINT)
        await server.process.wait()
        with pytest.raises(SinkUnavailable):
            await sink.write(make_records(2))
        for each in (sink, late):
            await each.close()
        there.admin.terminate()  # there is nothing left to remove
