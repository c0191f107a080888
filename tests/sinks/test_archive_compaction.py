"""A day that is over becomes one file, and nothing of it is ever missing."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from poller.model import Record
from poller.sinks.archive import ArchiveOptions, ArchiveSink
from poller.testing.sink_contract import ids
from tests.sinks.test_archive import archived, files, held

RECORDS = [held((), number, day=(number - 1) // 6) for number in range(1, 14)]  # 6, 6, and 1 a day


async def write(path: Path, *batches: Sequence[Record], compact: bool = True) -> None:
    """Write, and wait for what was begun after the last batch."""
    sink = ArchiveSink(ArchiveOptions(path=path, compact=compact))
    await sink.open()
    for batch in batches:
        await sink.write(batch)
    await sink.close()  # after it, in the same thread


def in_twos(records: Sequence[Record]) -> list[Sequence[Record]]:
    return [records[start : start + 2] for start in range(0, len(records), 2)]


def counts(path: Path) -> dict[str, int]:
    days = sorted({file.parent for file in files(path)})
    return {day.name.removeprefix("date="): len(list(day.glob("*.parquet"))) for day in days}


async def test_a_day_that_is_over_becomes_one_file(tmp_path: Path) -> None:
    await write(tmp_path, *in_twos(RECORDS[:12]))
    assert counts(tmp_path) == {"2026-01-01": 1, "2026-01-02": 3}
    await write(tmp_path, RECORDS[12:])
    assert counts(tmp_path) == {"2026-01-01": 1, "2026-01-02": 1, "2026-01-03": 1}
    assert archived(tmp_path) == ids(RECORDS)
    for file in files(tmp_path):
        assert file.stat().st_mode & 0o777 == 0o600
        assert pq.ParquetFile(file).schema_arrow.metadata[b"poller.archive"] == b"1"


async def test_it_is_left_to_who_asks_for_it(tmp_path: Path) -> None:
    await write(tmp_path, *in_twos(RECORDS), compact=False)
    assert counts(tmp_path) == {"2026-01-01": 3, "2026-01-02": 3, "2026-01-03": 1}


async def test_what_comes_again_is_found_in_the_merged_file(tmp_path: Path) -> None:
    await write(tmp_path, *in_twos(RECORDS))
    await write(tmp_path, RECORDS[3:])
    assert archived(tmp_path) == ids(RECORDS)


async def test_what_comes_late_is_merged_the_next_time(tmp_path: Path) -> None:
    late = RECORDS[2:4]
    await write(tmp_path, RECORDS[:2], RECORDS[4:6], RECORDS[6:], late)
    await write(tmp_path, RECORDS[12:])
    assert counts(tmp_path)["2026-01-01"] == 1
    assert archived(tmp_path) == ids(RECORDS)


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.rename", "pathlib.Path.unlink"])
async def test_an_error_on_the_way_loses_nothing_and_is_made_good_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    await write(tmp_path, *in_twos(RECORDS[:12]), compact=False)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    sink = ArchiveSink(ArchiveOptions(path=tmp_path))
    await sink.open()
    with monkeypatch.context() as failing:
        failing.setattr(step, fail)
        await sink._run(sink._compact_before, "2026-01-02")
    await sink.close()
    assert [entry.message for entry in caplog.records] == ["a day of the archive stays in many files"]
    assert set(archived(tmp_path)) == set(ids(RECORDS[:12]))
    await write(tmp_path, RECORDS[12:])
    assert counts(tmp_path) == {"2026-01-01": 1, "2026-01-02": 1, "2026-01-03": 1}
    assert archived(tmp_path) == ids(RECORDS)
    assert list(tmp_path.rglob(".*")) == []
