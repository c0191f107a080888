"""The page of the postgres sink, run as a reader would: configuration, queries, rights, months, consumer."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from click.testing import CliRunner

from poller.cli import main
from poller.errors import SinkBroken
from poller.testing.sink_contract import ids, make_records
from tests.services.pages import SINK_PAGES, blocks, running_page
from tests.services.postgres_servers import Database, database, role
from tests.services.servers import POSTGRES

pytestmark = pytest.mark.real_time

QUERIES, SINCE, OLD, MONTHS = range(4)


@pytest.fixture
def url() -> Iterator[str]:
    """A database of the test's own: the page says ``poller`` for the schema."""
    shared = POSTGRES.require()
    name = f"poller_test_page_{os.getpid()}"

    async def run(statement: str) -> None:
        admin = await asyncpg.connect(shared)
        await admin.execute(statement)
        await admin.close()

    asyncio.run(run(f"CREATE DATABASE {name}"))
    yield urlsplit(shared)._replace(path=f"/{name}").geturl()
    asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def there(url: str) -> AsyncIterator[Database]:
    async with database(url, "poller") as there:
        yield there


def statements(number: int) -> list[str]:
    return [part for part in blocks("postgres", "sql")[number].split(";") if part.strip()]


def test_the_configuration_the_queries_and_the_consumer(tmp_path: Path, url: str) -> None:
    with running_page("postgres", tmp_path, {"POSTGRES_URL": url}) as page:
        page.exchange.wait_until_all_polled()
        printed = [line.split() for line in page.consume().splitlines()]
        again = [line.split() for line in page.consume().splitlines()]
    accounts = {account for _, account, _ in printed}
    assert len(accounts) == 5
    read = [id_ for id_, _, _ in [*printed, *again]]
    assert len(set(read)) == len(read)
    for account in accounts:
        sequences = [int(number) for _, name, number in [*printed, *again] if name == account]
        assert sequences == list(range(1, len(sequences) + 1))

    async def ask() -> None:
        async with database(url, "poller") as there:
            assert (await there.ids())[: len(read)] == read
            account = min(accounts)
            latest, history, desks, states = [
                await there.fetch(query.replace("treasury", account)) for query in statements(QUERIES)
            ]
            [asked] = [query for query in statements(QUERIES) if "LEFT JOIN" in query]
            assert len(history) >= 1
            assert [row["sequence"] for row in history] == list(range(1, len(history) + 1)), asked
            assert {row["account"] for row in latest} <= accounts
            for row in latest:
                if row["account"] == account:
                    assert row["total"] == history[-1]["total"]
            assert desks
            assert {row["account"] for row in states} <= accounts
            [since] = statements(SINCE)
            changes = await there.fetch(since)
            assert [row["number"] for row in changes] == sorted(row["number"] for row in changes)
            assert len(changes) == (await there.fetch("SELECT count(*) FROM THERE.changes"))[0][0]
            before = await there.ids()
            for statement in statements(OLD):
                await there.execute(statement)
            assert await there.ids() == before

    asyncio.run(ask())


async def test_what_is_old_is_deleted_but_for_the_last_of_each_account(there: Database) -> None:
    sink = there.sink()
    records = make_records(5)
    await sink.write(records)
    [statement] = statements(OLD)
    await there.execute(statement.replace("- interval '1 year'", "+ interval '1 year'"))
    assert await there.ids() == ids(records[-1:])
    for table in ("balances", "changes"):
        rows = await there.fetch(f"SELECT DISTINCT snapshot FROM THERE.{table}")
        assert [row["snapshot"] for row in rows] == [5]


async def test_months_are_added_and_dropped(there: Database) -> None:
    printed = CliRunner().invoke(main, ["sinks", "sql", "--layout", "monthly"]).output
    await there.execute(printed)
    await there.execute("SELECT poller.add_month('2026-01-15')")
    sink = there.sink()
    records = make_records(5)  # of January 2026
    await sink.write(records)
    assert (await there.fetch("SELECT count(*) FROM poller.balances_2026_01"))[0][0] == 10
    for table in ("snapshots", "balances", "changes"):
        assert (await there.fetch(f"SELECT count(*) FROM poller.{table}_rest"))[0][0] == 0
    add, drop = statements(MONTHS)
    await there.execute(add)
    await there.execute(add)  # twice does no harm
    await there.execute(drop)
    assert await there.ids() == []
    assert await there.fetch("SELECT * FROM THERE.latest") == []
    # Without the months the rows go where no month is.
    await sink.write(records)
    assert await there.ids() == ids(records)
    assert (await there.fetch("SELECT count(*) FROM poller.balances_rest"))[0][0] == 10
    await there.execute("DROP TABLE poller.snapshots_rest")
    with pytest.raises(SinkBroken, match=r"no partition .*23514.*; make the partition"):
        await sink.write(records)


async def test_the_least_rights_are_those_that_the_page_grants(there: Database) -> None:
    page = (SINK_PAGES / "postgres.md").read_text()
    granted = re.findall(r"^GRANT .*;$", page, re.MULTILINE)
    assert len(granted) == 3
    await there.make_tables()
    async with role(there) as url:
        for line in granted:
            await there.execute(line.replace("TO poller", f"TO {urlsplit(url).username}"))
        for create in (True, False):
            await there.sink(url=url, create=create).write(make_records(4))
        assert await there.ids() == ids(make_records(4))
