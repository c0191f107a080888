"""Parquet files by date on a real disk: whole or absent, once each, exact for those who read them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poller.errors import SinkBroken, SinkRejected, SinkUnavailable
from poller.model import Account, Balance, Change, Reason, Record, Snapshot
from poller.records import record_id, snapshot_record
from poller.sinks import defaults
from poller.sinks.archive import ArchiveOptions, ArchiveSink
from poller.testing.sink_contract import START_NS, SinkContract, hostile_records, ids, make_records
from tests.strategies import holdings

DAY_NS = 86_400 * 10**9


def sink_at(path: Path) -> ArchiveSink:
    return ArchiveSink(ArchiveOptions(path=path))


def query(path: Path, text: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        found: list[tuple[Any, ...]] = database.execute(
            text.replace("ARCHIVE", f"read_parquet('{path}/**/*.parquet', union_by_name = true)")
        ).fetchall()
        return found


def archived(path: Path) -> list[str]:
    if not files(path):
        return []
    return [name for (name,) in query(path, "SELECT id FROM ARCHIVE ORDER BY position")]


def files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.parquet"))


class TestArchiveSink(SinkContract):
    def make_sink(self, tmp_path: Path) -> ArchiveSink:
        return sink_at(tmp_path / "archive")

    def written(self, tmp_path: Path) -> list[str]:
        return archived(tmp_path / "archive")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "archive"


def held(balances: tuple[Balance, ...], number: int = 1, *, day: int = 0) -> Record:
    changes = [Change(b.asset, "free", Decimal(0), b.free) for b in balances if b.free]
    record = snapshot_record(
        Account("treasury", 60.0, labels={"desk": "mm"}),
        Snapshot("treasury", balances, START_NS + day * DAY_NS + number * 1000, 12.5, 25.0),
        id=record_id(START_NS // 10**6, number.to_bytes(10)),
        sequence=number,
        reason=Reason.CHANGED,
        changes=changes,
    )
    return replace(record, position=number)


def test_a_kind_of_larger_files_declares_it() -> None:
    assert defaults(ArchiveSink) == {"batch": 20_000, "batch_bytes": "64MiB", "linger": "1m"}


# What readers find --------------------------------------------------------------------------------


async def test_a_record_is_a_row_with_all_that_is_in_it(path: Path) -> None:
    batch = hostile_records()
    sink = sink_at(path)
    await sink.write(batch)
    await sink.close()
    assert {f.parent.relative_to(path).as_posix() for f in files(path)} == {
        "snapshots/date=2026-01-01",
        "statuses/date=2026-01-01",
    }
    found = {row["id"]: row for file in files(path) for row in pq.ParquetFile(file).read().to_pylist()}
    for record in batch:
        row, document = found[record.id], record.document
        assert row.pop("position") == record.position
        assert dict(row.pop("labels")) == document.pop("labels")
        instant = "since" if "since" in row else "observed_at"
        assert row.pop(instant).isoformat(timespec="microseconds").replace("+00:00", "Z") == document.pop(
            instant
        )
        del document["schema"]
        assert row == document


async def test_a_file_says_of_what_version_it_is(path: Path) -> None:
    sink = sink_at(path)
    await sink.write(make_records(1))
    await sink.close()
    [file] = files(path)
    marks = pq.ParquetFile(file).schema_arrow.metadata
    assert marks[b"poller.archive"] == b"1"
    assert marks[b"poller.schema"] == b"poller.snapshot/1"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(holding=holdings, other=st.integers(0, 10**60 - 1))
async def test_every_amount_is_exact_for_both_readers(
    tmp_path_factory: pytest.TempPathFactory, holding: tuple[Balance, ...], other: int
) -> None:
    """Also with 30 digits on either side of the point."""
    balances = (*(b for b in holding if b.asset != "LONG"), Balance("LONG", Decimal(other).scaleb(-30)))
    record = held(balances)
    path = tmp_path_factory.mktemp("archive")
    sink = sink_at(path)
    await sink.write([record])
    await sink.close()
    expected = [tuple(row.values()) for row in record.document["balances"]]
    assert query(path, "SELECT b.* FROM (SELECT unnest(balances) AS b FROM ARCHIVE) ") == expected
    [read] = pd.read_parquet(path / "snapshots")["balances"]
    assert [tuple(row.values()) for row in read] == expected


async def test_an_account_that_holds_nothing_has_a_row(path: Path) -> None:
    sink = sink_at(path)
    await sink.write([held(())])
    await sink.close()
    assert query(path, "SELECT account, len(balances) FROM ARCHIVE") == [("treasury", 0)]


async def test_a_batch_over_midnight_is_in_two_folders(path: Path) -> None:
    batch = [held((), number, day=number // 3) for number in range(1, 6)]
    sink = sink_at(path)
    await sink.write(batch)
    await sink.close()
    assert [file.relative_to(path / "snapshots").as_posix() for file in files(path)] == [
        f"date=2026-01-01/{1:020d}-{2:020d}-000000000001.parquet",
        f"date=2026-01-02/{3:020d}-{5:020d}-000000000003.parquet",
    ]
    assert query(path, "SELECT date, count(*) FROM ARCHIVE GROUP BY ALL ORDER BY ALL") == [
        (date(2026, 1, 1), 2),
        (date(2026, 1, 2), 3),
    ]


# What comes again ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "again", [(1, 10), (1, 4), (1, 15), (5, 8), (5, 15), (10, 11)], ids=lambda span: f"{span[0]}-{span[1]}"
)
async def test_what_comes_again_in_other_batches_is_there_once(path: Path, again: tuple[int, int]) -> None:
    records = make_records(20)
    sink = sink_at(path)
    await sink.write(records[:10])
    await sink.close()
    sink = sink_at(path)  # it crashed before the acknowledgement
    begin, end = again
    await sink.write(records[begin - 1 : end])
    await sink.write(records[end:])
    await sink.close()
    assert archived(path) == ids(records)


async def test_a_new_outbox_that_counts_from_one_replaces_nothing(path: Path) -> None:
    old, new = make_records(5), [replace(r, position=r.position - 5) for r in make_records(5, first=6)]
    sink = sink_at(path)
    await sink.write(old)
    await sink.write(new)
    await sink.close()
    assert sorted(archived(path)) == sorted(ids([*old, *new]))
    assert len(files(path)) == 2


# Failing disks, and what others put there ---------------------------------------------------------


def _short_then_full(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    real = os.write

    def write(handle: int, data: bytes) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(handle, data[: min(room, 700)])
        room -= written
        return written

    monkeypatch.setattr("os.write", write)


@pytest.mark.parametrize("room", [0, 1, 3000])
async def test_on_a_full_disk_no_file_is_left(path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    records = make_records(4)
    sink = sink_at(path)
    await sink.write(records[:2])
    with monkeypatch.context() as full:
        _short_then_full(full, room)
        with pytest.raises(SinkUnavailable, match="No space left"):
            await sink.write(records[2:])
    assert archived(path) == ids(records[:2])
    assert [entry.name for entry in path.rglob(".*")] == []
    await sink.write(records[2:])
    await sink.close()
    assert archived(path) == ids(records)


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.rename"])
@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EIO, SinkUnavailable), (errno.EROFS, SinkBroken), (errno.EACCES, SinkBroken)]
)
async def test_an_error_at_any_step_is_classified(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int, kind: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    sink = sink_at(path)
    await sink.open()
    with monkeypatch.context() as failing:
        failing.setattr(step, fail)
        with pytest.raises(kind, match=os.strerror(code)):
            await sink.write(make_records(2))
    await sink.write(make_records(2))
    await sink.close()
    assert archived(path) == ids(make_records(2))


@pytest.mark.real_time
@pytest.mark.parametrize("step", ["fsync", "rename"])
async def test_a_crash_before_the_file_has_its_name_leaves_nothing(path: Path, step: str) -> None:
    program = (
        "import asyncio, os, pathlib, signal, sys\n"
        "from poller.sinks.archive import ArchiveOptions, ArchiveSink\n"
        "from poller.testing.sink_contract import make_records\n"
        "die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "async def main():\n"
        "    sink = ArchiveSink(ArchiveOptions(path=pathlib.Path(sys.argv[1])))\n"
        "    await sink.write(make_records(2))\n"
        "    setattr(*{'fsync': (os, 'fsync', die), 'rename': (pathlib.Path, 'rename', die)}[sys.argv[2]])\n"
        "    await sink.write(make_records(4))\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path), step], check=False)
    assert done.returncode == -9
    [half] = path.rglob(".*.part")
    foreign = half.with_name(".mine.part")
    foreign.write_text("not yours")
    assert archived(path) == ids(make_records(2))
    sink = sink_at(path)
    await sink.open()
    assert list(path.rglob(".*")) == [foreign]
    await sink.write(make_records(4))
    await sink.close()
    assert archived(path) == ids(make_records(4))


async def test_files_and_folders_are_for_the_owner_only(path: Path) -> None:
    sink = sink_at(path)
    await sink.write(make_records(1))
    await sink.close()
    for entry in [path.parent, path, *path.rglob("*")]:
        assert entry.stat().st_mode & 0o777 == (0o700 if entry.is_dir() else 0o600), entry


@pytest.mark.parametrize("place", [".", "snapshots", "snapshots/date=2026-01-01"])
@pytest.mark.parametrize(
    "make", [lambda path: path.write_text("mine"), os.mkfifo, lambda path: path.symlink_to(path)]
)
async def test_what_is_no_directory_breaks_the_sink(
    path: Path, place: str, make: Callable[[Path], None]
) -> None:
    there = path / place
    there.parent.mkdir(parents=True, exist_ok=True)
    make(there)
    sink = sink_at(path)
    with pytest.raises(SinkBroken, match=r"File exists|Not a directory|symbolic links"):
        await sink.write(make_records(1))
    await sink.close()


async def test_a_foreign_file_under_a_name_of_ours_is_named(path: Path) -> None:
    sink = sink_at(path)
    await sink.write(make_records(2))
    [file] = files(path)
    file.write_bytes(b"something else")
    with pytest.raises(SinkBroken, match=rf"{file.name}: is not a file of an archive"):
        await sink.write(make_records(3))
    await sink.close()
    assert file.read_bytes() == b"something else"


async def test_a_second_sink_on_the_same_directory_is_refused(path: Path) -> None:
    first, second = sink_at(path), sink_at(path)
    await first.open()
    with pytest.raises(SinkBroken, match="another sink or process writes to it"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


async def test_a_directory_that_was_moved_is_begun_anew(path: Path) -> None:
    records = make_records(4)
    sink = sink_at(path)
    await sink.write(records[:2])
    path.rename(moved := path.with_name("moved"))
    await sink.write(records[2:])
    await sink.close()
    assert (archived(moved), archived(path)) == (ids(records[:2]), ids(records[2:]))


@pytest.mark.parametrize(
    "change",
    [
        {"id": "another"},
        {"account": None, "sequence": "one"},
        {"observed_at": "today"},
        {"balances": [{"asset": "BTC"}]},
        {"changes": [{"asset": "BTC", "field": "free", "before": 1.5, "after": "2"}]},
        {"labels": "none"},
    ],
)
async def test_a_record_of_another_shape_is_refused_and_the_others_are_written(
    path: Path, change: dict[str, Any]
) -> None:
    batch = make_records(3)
    wrong = replace(batch[1], payload=orjson.dumps({**batch[1].document, **change}))
    sink = sink_at(path)
    with pytest.raises(SinkRejected) as caught:
        await sink.write([batch[0], wrong, batch[2]])
    await sink.close()
    assert caught.value.rejected.keys() == {wrong.id}
    assert archived(path) == ids([batch[0], batch[2]])
