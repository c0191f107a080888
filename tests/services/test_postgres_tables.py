"""What stands in the postgres sink's tables, how they come to be, and that one batch is a few round trips."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from click.testing import CliRunner

from poller.cli import main
from poller.errors import SinkBroken
from poller.model import Account, Balance, Change, Kind, Reason, Record, Snapshot, State, plain
from poller.records import record_id, snapshot_record, status_record
from poller.testing.sink_contract import START_NS, ids, make_records
from tests.services.postgres_private import private_server
from tests.services.postgres_servers import Database, database
from tests.services.servers import POSTGRES

pytestmark = pytest.mark.real_time

LONG = Decimal("9" * 30 + "." + "123456789" * 3 + "001")  # 60 digits


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Database]:
    async with database(POSTGRES.require(), f"poller_test_{os.getpid()}_{tmp_path.name[-30:]}") as there:
        yield there


def snapshot(
    sequence: int, amount: str | Decimal, *, number: int = 0, at_s: int = 0, position: int = 0
) -> Record:
    """Return what the account ``treasury`` holds of BTC; ``at_s`` seconds after the start."""
    number = number or sequence
    record = snapshot_record(
        Account("treasury", 60.0),
        Snapshot(
            "treasury", (Balance("BTC", Decimal(amount)),), START_NS + (at_s or number) * 10**9, 1.0, 1.0
        ),
        id=record_id(START_NS // 10**6, number.to_bytes(10)),
        sequence=sequence,
        reason=Reason.CHANGED,
        changes=[],
    )
    return replace(record, position=position or number)


async def latest(there: Database) -> list[tuple[Any, ...]]:
    found = await there.fetch(
        "SELECT account, asset, free, sequence FROM THERE.latest ORDER BY account, asset"
    )
    return [tuple(row) for row in found]


async def test_every_amount_is_exact(there: Database) -> None:
    balance = Balance("BTC", LONG, LONG, LONG, LONG, LONG, LONG)
    record = snapshot_record(
        Account("treasury", 60.0, labels={"desk": "mm"}),
        Snapshot("treasury", (balance,), START_NS, 12.5, 25.0),
        id=record_id(START_NS // 10**6, bytes(10)),
        sequence=3,
        reason=Reason.FIRST,
        changes=[Change("BTC", "freeze", Decimal("1E-30"), LONG)],
    )
    sink = there.sink()
    await sink.write([replace(record, position=7)])
    await sink.close()
    amounts = (
        'free::text, locked::text, "freeze"::text, withdrawing::text, ipoable::text, btc_valuation::text'
    )
    [row] = await there.fetch(f"SELECT {amounts}, total::text, observed_at FROM THERE.balances")
    assert set(row[:6]) == {plain(LONG)}
    assert row["total"] == plain(balance.total) == record.document["balances"][0]["total"]
    [change] = await there.fetch("SELECT asset, field, before::text, after::text FROM THERE.changes")
    assert tuple(change) == ("BTC", "freeze", plain(Decimal("1E-30")), plain(LONG))
    [kept] = await there.fetch(
        "SELECT *, labels ->> 'desk' AS desk, total_btc::text AS total FROM THERE.snapshots"
    )
    assert (kept["account"], kept["sequence"], kept["position"], kept["reason"]) == (
        "treasury",
        3,
        7,
        "first",
    )
    assert (kept["uncertainty_ms"], kept["latency_ms"], kept["egress"]) == (12.5, 25.0, "default")
    assert kept["desk"] == "mm"
    assert kept["observed_at"] == row["observed_at"]
    assert round(kept["observed_at"].timestamp() * 10**9) == START_NS
    assert kept["total"] == record.document["total_btc"]


async def test_statuses_and_texts_with_nul(there: Database) -> None:
    status = status_record(
        Account("treasury", 60.0, labels={"a\0b": "c\0d"}),
        id=record_id(START_NS // 10**6, bytes(10)),
        sequence=0,
        state=State.STALE,
        reason="nul\0 and \\u0000",
        since_ns=START_NS,
    )
    sink = there.sink()
    await sink.write([status])
    await sink.close()
    [row] = await there.fetch("SELECT * FROM THERE.statuses")
    # PostgreSQL's texts can hold everything but NUL.
    assert row["reason"] == "nul\ufffd and \\u0000"
    assert orjson.loads(row["labels"]) == {"a\ufffdb": "c\ufffdd"}
    assert (row["state"], row["sequence"]) == ("stale", 0)


async def test_a_record_that_stands_twice_in_a_batch_is_there_once(there: Database) -> None:
    records = make_records(3)
    sink = there.sink()
    await sink.write([records[0], records[1], records[0], records[2], records[1]])
    assert await there.ids() == ids(records)
    assert (await there.fetch("SELECT count(*) FROM THERE.balances"))[0][0] == 6
    await sink.close()


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([[snapshot(1, "1"), snapshot(2, "2")]], ("2", 2)),
        ([[snapshot(1, "1")], [snapshot(2, "2")], [snapshot(1, "1")]], ("2", 2)),
        # One that was put aside comes late.
        ([[snapshot(1, "1"), snapshot(3, "3")], [snapshot(2, "2")]], ("3", 3)),
        ([[snapshot(3, "3"), snapshot(2, "2")]], ("3", 3)),
        # The clock went back: the order of the balances stays.
        ([[snapshot(1, "1", at_s=100)], [snapshot(2, "2", at_s=50)]], ("2", 2)),
        # A heartbeat has the sequence of the snapshot before.
        ([[snapshot(1, "1"), snapshot(1, "5", number=2)]], ("5", 1)),
        # The outbox was lost: sequences and positions begin anew, later.
        ([[snapshot(9, "9")], [snapshot(1, "1", number=10, position=1)]], ("1", 1)),
    ],
)
async def test_the_latest_is_the_last_by_sequence(
    there: Database, batches: Sequence[Sequence[Record]], expected: tuple[str, int]
) -> None:
    sink = there.sink()
    for batch in batches:
        await sink.write(batch)
    assert await latest(there) == [("treasury", "BTC", Decimal(expected[0]), expected[1])]
    await sink.close()


async def test_an_account_that_holds_nothing_any_more_is_not_listed(there: Database) -> None:
    sink = there.sink()
    await sink.write([snapshot(1, "1")])
    document = snapshot(2, "2").document
    emptied = orjson.dumps({**document, "balances": []})
    await sink.write([Record(document["id"], Kind.SNAPSHOT, "treasury", 2, "changed", emptied, 2)])
    assert await latest(there) == []
    await sink.close()


async def test_the_latest_is_found_without_reading_the_history(there: Database) -> None:
    sink = there.sink()
    records = [record for n in range(20) for record in make_records(500, account=f"a{n}", first=n * 500 + 1)]
    await sink.write(records)
    await sink.close()
    await there.execute("ANALYZE THERE.balances; ANALYZE THERE.accounts")
    for query in (
        "SELECT * FROM THERE.latest",
        "SELECT * FROM THERE.latest WHERE account = 'a7' AND asset = 'BTC'",
    ):
        plan = "\n".join(row[0] for row in await there.fetch(f"EXPLAIN {query}"))
        assert "Seq Scan on balances" not in plan, plan
    assert [row[2] for row in await latest(there) if row[1] == "BTC"] == [
        Decimal(500 * n + 500) for n in sorted(range(20), key=str)
    ]


async def test_a_batch_takes_as_many_statements_as_a_record(there: Database) -> None:
    sink = there.sink()
    counts = []
    for count in (1, 3000):
        await sink.open()
        queries: list[str] = []
        sink._connection.add_query_logger(lambda query, queries=queries: queries.append(query.query))
        await sink.write(make_records(count, first=count))
        counts.append(len(queries))
    assert counts == [3, 3]


async def test_daemons_that_start_together_and_write_at_once(there: Database) -> None:
    sinks = [there.sink() for _ in range(8)]
    await asyncio.gather(*(sink.open() for sink in sinks))
    parts = [make_records(40, account=f"a{n}", first=n * 100 + 1) for n in range(8)]
    seen: list[int] = []

    async def write(number: int) -> None:
        for start in range(0, 40, 4):
            await sinks[number].write(parts[number][start : start + 4])

    async def follow() -> None:
        """Read on from the last number, as an incremental reader does."""
        reader = await asyncpg.connect(there.url)
        while len(seen) < 320:
            query = f'SELECT number FROM "{there.schema}".snapshots WHERE number > $1 ORDER BY number'
            seen.extend(row["number"] for row in await reader.fetch(query, seen[-1] if seen else 0))
        await reader.close()

    await asyncio.gather(follow(), *(write(number) for number in range(8)))
    rows = await there.fetch("SELECT number FROM THERE.snapshots ORDER BY number")
    assert seen == [row["number"] for row in rows]
    assert len(await latest(there)) == 16
    for sink in sinks:
        await sink.close()


async def test_tables_are_upgraded_once_by_whoever_comes_first(
    there: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await there.make_tables()
    step = [f'ALTER TABLE "{there.schema}".snapshots ADD COLUMN note text']
    monkeypatch.setattr("poller.sinks.postgres.VERSION", 2)
    monkeypatch.setattr("poller.sinks.postgres.upgrades", lambda _: [step])
    with pytest.raises(SinkBroken, match="of version 1, and have to be of 2; set 'create: true' once"):
        await there.sink(create=False).open()
    sinks = [there.sink() for _ in range(4)]
    await asyncio.gather(*(sink.open() for sink in sinks))
    [row] = await there.fetch("SELECT version FROM THERE.schema_version")
    assert row["version"] == 2
    await there.fetch("SELECT note FROM THERE.snapshots")
    for sink in sinks:
        await sink.close()


async def test_tables_that_cannot_be_made_whole_are_not_made(there: Database) -> None:
    await there.execute("CREATE SCHEMA THERE; CREATE TABLE THERE.changes (other integer)")
    sink = there.sink()
    with pytest.raises(SinkBroken, match="42P07"):
        await sink.open()
    rows = await there.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", there.schema)
    assert [row["tablename"] for row in rows] == ["changes"]
    await sink.close()


def printed(*words: str) -> str:
    result = CliRunner().invoke(main, ["sinks", "sql", *words])
    assert result.exit_code == 0, result.output
    return result.output


async def written_to(there: Database) -> None:
    """Hold that a sink that makes nothing itself can write to the tables."""
    sink = there.sink(create=False)
    records = make_records(50)
    far = [snapshot(100 + n, "9", number=1000 + n, at_s=n * 40 * 86400) for n in range(-2, 40)]
    for _ in range(2):
        await sink.write([*records, *far])
    assert await there.ids() == ids([*records, *far])
    assert (await there.fetch("SELECT count(*) FROM THERE.balances"))[0][0] == 100 + len(far)
    assert [row[:2] for row in await latest(there)] == [("treasury", "BTC")]
    await sink.close()


@pytest.mark.parametrize("layout", ["plain", "monthly"])
async def test_what_is_printed_can_be_written_to(there: Database, layout: str) -> None:
    await there.admin.execute(printed("--schema", there.schema, "--layout", layout))
    await written_to(there)
    await there.make_tables()  # finds them as they have to be


@pytest.mark.parametrize("layout", ["plain", "monthly"])
async def test_the_newest_server_takes_it_too(layout: str) -> None:
    async with private_server() as server, database(server.url, "poller") as there:
        await there.admin.execute(printed("--layout", layout))
        await written_to(there)


async def test_the_tables_for_timescaledb_can_be_written_to(there: Database) -> None:
    """Whether TimescaleDB takes them is not tried here: the calls that turn them over to it are left out."""
    script = printed("--schema", there.schema, "--layout", "timescale")
    statements = [part for part in script.split(";\n\n") if "create_hypertable" not in part]
    assert len(statements) == len(script.split(";\n\n")) - 3
    await there.admin.execute(";\n".join(statements))
    await written_to(there)
