"""The history database: exact, once each, readable by anybody while it is written."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.errors import SinkBroken, SinkRejected, SinkUnavailable
from poller.model import Account, Kind, Reason, Record, Snapshot, State
from poller.records import record_id, snapshot_record, status_record
from poller.sinks.sqlite import SqliteOptions, SqliteSink, _insert, read_history
from poller.testing.sink_contract import SinkContract, hostile_records, ids, make_records
from tests.strategies import holdings


def query(path: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Ask as any other program would: over a connection of its own."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()


class TestSqliteSink(SinkContract):
    def make_sink(self, tmp_path: Path) -> SqliteSink:
        return SqliteSink(SqliteOptions(path=tmp_path / "history.db"))

    def written(self, tmp_path: Path) -> list[str]:
        path = tmp_path / "history.db"
        snapshots = query(path, "SELECT id FROM snapshots ORDER BY number")
        return [row[0] for row in snapshots + query(path, "SELECT id FROM statuses ORDER BY number")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.db"


async def opened(path: Path) -> SqliteSink:
    sink = SqliteSink(SqliteOptions(path=path))
    await sink.open()
    return sink


async def test_the_file_is_for_the_owner_only(path: Path) -> None:
    sink = await opened(path)
    await sink.write(make_records(1))
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes["history.db"] == modes["history.db-wal"] == 0o600
    await sink.close()


async def test_what_is_read_back_is_what_was_written(path: Path) -> None:
    snapshots = [
        *make_records(3),
        *(r for r in hostile_records() if r.kind is Kind.SNAPSHOT and r.position > 3),
    ]
    sink = await opened(path)
    await sink.write(snapshots)
    await sink.close()
    assert read_history(path) == [record.document for record in snapshots]


@given(before=holdings, after=holdings)
def test_every_digit_survives(before: Any, after: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("history") / "history.db"
    records = [
        snapshot_record(
            Account("alice", 60.0),
            Snapshot("alice", balances, 0, 1.0, 1.0),
            id=record_id(0, number.to_bytes(10)),
            sequence=number,
            reason=Reason.CHANGED,
            changes=[],
        )
        for number, balances in enumerate((before, after), 1)
    ]

    async def write() -> None:
        sink = await opened(path)
        await sink.write(records)
        await sink.close()

    asyncio.run(write())
    assert read_history(path) == [record.document for record in records]


async def test_statuses_have_a_table_of_their_own(path: Path) -> None:
    status = status_record(
        Account("alice", 60.0, labels={"desk": "mm"}),
        id="an-id",
        sequence=7,
        state=State.QUARANTINED,
        reason="its key is refused",
        since_ns=0,
    )
    sink = await opened(path)
    await sink.write([status])
    await sink.close()
    assert query(path, "SELECT id, account, labels, sequence, state, reason, since FROM statuses") == [
        (
            "an-id",
            "alice",
            '{"desk":"mm"}',
            7,
            "quarantined",
            "its key is refused",
            "1970-01-01T00:00:00.000000Z",
        )
    ]


async def test_the_latest_view_shows_each_accounts_last_snapshot(path: Path) -> None:
    alice, bob = make_records(3, account="alice"), make_records(1, account="bob", first=9)
    sink = await opened(path)
    await sink.write([*alice[:2], *bob, alice[2]])
    await sink.write(alice[:1])  # a redelivery is not news
    await sink.close()
    rows = query(path, "SELECT account, asset, total, sequence FROM latest ORDER BY account, asset")
    assert rows == [
        ("alice", "BTC", "3", 3),
        ("alice", "ETH", "0.000000000000000001", 3),
        ("bob", "BTC", "9", 9),
        ("bob", "ETH", "0.000000000000000001", 9),
    ]


def test_the_latest_view_does_not_read_the_whole_history(path: Path) -> None:
    async def make() -> None:
        sink = await opened(path)
        await sink.close()

    asyncio.run(make())
    plan = [row[3] for row in query(path, "EXPLAIN QUERY PLAN SELECT * FROM latest")]
    assert not [step for step in plan if step.startswith("SCAN balances")], plan


async def test_a_batch_is_one_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = await opened(path)
    await sink.write(make_records(1))

    def full(db: sqlite3.Connection, record: Record) -> None:
        if record.sequence == 4:
            db.execute("PRAGMA max_page_count = 1")  # as if the disk were full from here on
            db.execute("CREATE TABLE more AS SELECT randomblob(1000000)")
        _insert(db, record)

    with monkeypatch.context() as failing:
        failing.setattr("poller.sinks.sqlite._insert", full)
        with pytest.raises(SinkUnavailable, match="full"):
            await sink.write(make_records(4, first=2))
    assert query(path, "SELECT count(*) FROM snapshots") == [(1,)]
    await sink.write(make_records(4, first=2))
    assert query(path, "SELECT count(*) FROM snapshots") == [(5,)]
    await sink.close()


def changed(record: Record, **fields: object) -> Record:
    return replace(record, payload=orjson.dumps({**record.document, **fields}))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: replace(r, payload=b"{"),
        lambda r: replace(r, payload=b"[]"),
        lambda r: replace(r, payload=b"null"),
        lambda r: replace(r, id="another"),
        lambda r: changed(r, observed_at=None),
        lambda r: changed(r, sequence="7"),
        lambda r: changed(r, sequence=True),
        lambda r: changed(r, sequence=2**63),
        lambda r: changed(r, labels=[]),
        lambda r: changed(r, uncertainty_ms="1"),
        lambda r: changed(r, balances=None),
        lambda r: changed(r, balances=[{**r.document["balances"][0], "free": 0.1}]),
        lambda r: changed(r, balances=[r.document["balances"][0]] * 2),
        lambda r: changed(r, changes=[{"asset": "BTC"}]),
        lambda r: replace(r, kind=Kind.STATUS),
    ],
)
async def test_a_malformed_record_is_refused_alone(path: Path, spoil: Any) -> None:
    good = make_records(5)
    bad = spoil(good[2])
    sink = await opened(path)
    with pytest.raises(SinkRejected) as refused:
        await sink.write([*good[:2], bad, *good[3:]])
    assert list(refused.value.rejected) == [bad.id]
    assert refused.value.rejected[bad.id].startswith("not of the published shape: ")
    assert [record["id"] for record in read_history(path)] == ids([*good[:2], *good[3:]])
    assert query(path, "SELECT count(*) FROM balances") == [(8,)]
    assert query(path, "SELECT count(*) FROM statuses") == [(0,)]
    await sink.close()


async def test_a_file_that_was_moved_is_begun_anew(path: Path) -> None:
    records = make_records(4)
    sink = await opened(path)
    await sink.write(records[:2])
    moved = path.rename(path.with_name("moved.db"))
    await sink.write(records[2:])
    await sink.close()
    assert [record["id"] for record in read_history(path)] == ids(records[2:])
    assert [record["id"] for record in read_history(moved)] == ids(records[:2])


async def test_the_log_of_a_file_that_was_moved_after_a_crash_is_not_lost(path: Path) -> None:
    records = make_records(2)
    crashed = await opened(path)
    await crashed.write(records)
    left = path.with_name("copy.db")
    left.write_bytes(path.read_bytes())
    log = path.with_name("history.db-wal").read_bytes()
    await crashed.close()
    path.unlink()
    path.with_name("history.db-wal").write_bytes(log)
    sink = SqliteSink(SqliteOptions(path=path))
    with pytest.raises(SinkBroken, match=r"its log history\.db-wal holds records of it"):
        await sink.open()
    left.rename(path)
    await sink.open()
    await sink.close()
    assert [record["id"] for record in read_history(path)] == ids(records)


async def test_another_programs_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE snapshots (mine)")
        theirs.commit()
    before = path.read_bytes()
    sink = SqliteSink(SqliteOptions(path=path))
    with pytest.raises(SinkBroken, match="is another program's database"):
        await sink.open()
    await sink.close()
    assert path.read_bytes() == before


async def test_a_newer_history_is_refused(path: Path) -> None:
    await (await opened(path)).close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 2")
    sink = SqliteSink(SqliteOptions(path=path))
    with pytest.raises(SinkBroken, match="version 2 was written by a newer poller; this one knows 1"):
        await sink.open()
    await sink.close()


async def test_what_is_no_database_breaks_the_sink(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    sink = SqliteSink(SqliteOptions(path=path))
    with pytest.raises(SinkBroken, match="not a database"):
        await sink.open()
    await sink.close()


async def test_a_database_that_somebody_else_locks_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.sinks.sqlite.BUSY_TIMEOUT_S", 0.01)
    sink = await opened(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as theirs:
        theirs.execute("BEGIN IMMEDIATE")
        with pytest.raises(SinkUnavailable, match="locked"):
            await sink.write(make_records(1))
        theirs.execute("ROLLBACK")
    await sink.write(make_records(1))
    assert query(path, "SELECT count(*) FROM snapshots") == [(1,)]
    await sink.close()


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_sqlite_keeps_a_text_in_a_text_column(amount: Decimal) -> None:
    """The claim that amounts rest on: no number is made of what is bound as text."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (amount TEXT NOT NULL)")
        connection.execute("INSERT INTO t VALUES (?)", (format(amount, "f"),))
        assert connection.execute("SELECT amount, typeof(amount) FROM t").fetchone() == (
            format(amount, "f"),
            "text",
        )
