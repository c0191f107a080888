"""Reading a history: exact values, beside its writer and without one, and files that are none."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.history import HistoryUnreadable, accounts_in, amount, read_history, thinned
from poller.model import Account, Balance, Reason, Record, Snapshot
from poller.overview import HistoryPoint
from poller.records import record_id, snapshot_record
from poller.sinks.sqlite import SqliteOptions, SqliteSink

pytestmark = pytest.mark.real_time

START_NS = 1_767_225_600_000_000_000  # 2026-01-01
LONG = Decimal("123456789012345678901234567890.000000000000000000000000000001")


def record(minute: int, account: str = "treasury", **held: tuple[Decimal, Decimal | None]) -> Record:
    balances = tuple(
        Balance(asset, amount, btc_valuation=value) for asset, (amount, value) in sorted(held.items())
    )
    return snapshot_record(
        Account(account, 60.0),
        Snapshot(account, balances, START_NS + minute * 60_000_000_000, 1.0, 2.0),
        id=record_id(minute, bytes(9) + bytes([len(account)])),
        sequence=minute + 1,
        reason=Reason.CHANGED,
        changes=[],
    )


RECORDS = [
    record(0, BTC=(Decimal("1.5"), Decimal("1.5"))),
    record(1, BTC=(Decimal(2), Decimal(2)), XYZ=(LONG, None)),
    record(2, XYZ=(Decimal(1), Decimal("0.25"))),
    record(1, "alice", BTC=(Decimal(7), Decimal(7))),
]


async def write(path: Path, records: list[Record]) -> SqliteSink:
    sink = SqliteSink(SqliteOptions(path=path))
    await sink.open()
    await sink.write(records)
    return sink


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "history.db"
    await (await write(path, RECORDS)).close()
    return path


def at(minute: int) -> str:
    return f"2026-01-01T00:{minute:02}:00.000000Z"


def test_one_asset_is_exact_and_zero_where_it_is_not_listed(path: Path) -> None:
    assert read_history(path, "treasury", "XYZ") == [
        HistoryPoint(at(0), "0", "0", 1),
        HistoryPoint(at(1), f"{LONG:f}", None, 2),
        HistoryPoint(at(2), "1", "0.25", 3),
    ]


def test_altogether_there_is_only_the_value(path: Path) -> None:
    assert read_history(path, "treasury") == [
        HistoryPoint(at(0), None, "1.5", 1),
        HistoryPoint(at(1), None, None, 2),
        HistoryPoint(at(2), None, "0.25", 3),
    ]


@pytest.mark.parametrize(
    ("since", "until", "minutes"),
    [
        (None, None, [0, 1, 2]),
        (at(1), None, [1, 2]),
        (None, at(1), [0, 1]),
        (at(1), at(1), [1]),
        (at(3), None, []),
    ],
)
@pytest.mark.parametrize("asset", [None, "BTC"])
def test_from_and_to_are_included(
    path: Path, since: str | None, until: str | None, minutes: list[int], asset: str | None
) -> None:
    assert [point.at for point in read_history(path, "treasury", asset, since, until)] == list(
        map(at, minutes)
    )


@pytest.mark.parametrize("asset", [None, "BTC"])
def test_of_too_many_the_newest_are_returned_oldest_first(path: Path, asset: str | None) -> None:
    assert [point.sequence for point in read_history(path, "treasury", asset, most=2)] == [2, 3]


def test_an_unknown_account_has_no_points(path: Path) -> None:
    assert read_history(path, "nobody") == []
    assert accounts_in(path) == ["alice", "treasury"]


async def test_it_is_read_beside_its_writer_and_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    sink = await write(path, RECORDS[:2])
    log = (tmp_path / "history.db-wal").read_bytes()
    assert log
    before = path.read_bytes()
    assert len(await asyncio.to_thread(read_history, path, "treasury")) == 2
    assert (path.read_bytes(), (tmp_path / "history.db-wal").read_bytes()) == (before, log)
    await sink.write(RECORDS[2:])
    assert len(await asyncio.to_thread(read_history, path, "treasury")) == 3
    await sink.close()


async def test_after_a_kill_what_is_in_the_log_is_read(tmp_path: Path) -> None:
    sink = await write(tmp_path / "history.db", RECORDS)
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("history.db", "history.db-wal"):
        (killed / name).write_bytes((tmp_path / name).read_bytes())
    await sink.close()
    before = {name: (killed / name).read_bytes() for name in ("history.db", "history.db-wal")}
    assert len(read_history(killed / "history.db", "treasury")) == 3
    # Neither moved into the database nor deleted: that is for the next writer to do.
    assert {name: (killed / name).read_bytes() for name in before} == before


# Somebody for whom the directory cannot be written: root is nobody for that.
SCRIPT = """
import os, sys
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
from pathlib import Path
from poller.history import HistoryUnreadable, read_history
try:
    print(len(read_history(Path(sys.argv[1]), "treasury")))
except HistoryUnreadable as error:
    print(error)
"""


def read_by_a_stranger(path: Path) -> str:
    for parent in path.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o005:
            parent.chmod(0o755)
    path.parent.chmod(0o555)
    for file in path.parent.iterdir():
        file.chmod(0o444)
    # Everything is imported before the rights are given up.
    script = SCRIPT.replace("import os, sys\n", "import os, sys\nimport poller.history\n")
    try:
        result = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        path.parent.chmod(0o755)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_closed_file_is_read_where_nothing_may_be_written(path: Path) -> None:
    assert read_by_a_stranger(path) == "3"
    assert sorted(file.name for file in path.parent.iterdir()) == ["history.db"]


async def test_a_log_that_cannot_be_read_is_said_with_a_remedy(tmp_path: Path) -> None:
    sink = await write(tmp_path / "history.db", RECORDS)
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("history.db", "history.db-wal"):
        (killed / name).write_bytes((tmp_path / name).read_bytes())
    await sink.close()
    said = read_by_a_stranger(killed / "history.db")
    assert said.endswith("its log history.db-wal cannot be read with it; run this as the user of the daemon")


async def test_it_is_read_beside_its_writer_where_nothing_may_be_written(tmp_path: Path) -> None:
    path = tmp_path / "data" / "history.db"
    sink = await write(path, RECORDS)
    assert (tmp_path / "data" / "history.db-wal").stat().st_size > 0
    assert await asyncio.to_thread(read_by_a_stranger, path) == "3"
    await sink.close()


def test_what_is_no_history_is_said(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with pytest.raises(HistoryUnreadable, match="there is no history yet"):
        read_history(path, "treasury")
    assert not path.exists()
    path.write_text("this is no database, but long enough to look like a file with a header " * 20)
    with pytest.raises(HistoryUnreadable, match=r"is no history of this poller|file is not a database"):
        read_history(path, "treasury")
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (a)")
        db.commit()
    with pytest.raises(HistoryUnreadable, match="is no history of this poller"):
        read_history(path, "treasury")


def test_a_history_of_a_newer_version_is_said(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryUnreadable, match="version 99 was written by a newer poller"):
        read_history(path, "treasury")


points = st.lists(st.one_of(st.none(), st.integers(-5, 5))).map(
    lambda totals: [
        HistoryPoint(f"{second}", None, None if total is None else str(total), second)
        for second, total in enumerate(totals)
    ]
)


@given(points=points, most=st.integers(4, 40))
def test_thinned_points_keep_both_extremes_the_ends_and_the_order(
    points: list[HistoryPoint], most: int
) -> None:
    kept = thinned(points, most)
    assert len(kept) <= most
    assert kept == [point for point in points if point in kept]
    if points:
        assert kept[0] == points[0]
        assert kept[-1] == points[-1]
    known = [total for point in points if (total := amount(point)) is not None]
    shown = [total for point in kept if (total := amount(point)) is not None]
    if known:
        assert (min(shown), max(shown)) == (min(known), max(known))
