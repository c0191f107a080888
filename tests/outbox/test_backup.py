"""What docs/operations.md says of backing an outbox up, restoring and moving it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from poller.metrics import Metrics
from poller.model import Balance, Baseline
from poller.outbox import Outbox
from poller.testing.sink_contract import make_records
from poller.testing.virtual_time import VirtualClock

ALL = {"max_records": 10_000, "max_bytes": 1 << 30}
HELD = Baseline("alice", 3, (Balance("BTC", Decimal("1.5")),))


async def opened(path: Path, clock: VirtualClock) -> Outbox:
    outbox = await Outbox.open(path, clock, metrics=Metrics())
    await outbox.register({"bus": "oldest"})
    return outbox


def copied(path: Path, to: Path) -> Path:
    """Copy what belongs to an outbox: the file and its log, if there is one."""
    to.mkdir(mode=0o700)
    for name in (path.name, f"{path.name}-wal"):
        if path.with_name(name).exists():
            shutil.copy(path.with_name(name), to / name)
    return to / path.name


async def test_nobody_copies_it_through_sqlite_beside_its_daemon(tmp_path: Path, clock: VirtualClock) -> None:
    outbox = await opened(tmp_path / "outbox.db", clock)
    with (
        closing(sqlite3.connect(tmp_path / "outbox.db", timeout=0)) as beside,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        beside.execute("SELECT count(*) FROM records")  # a backup would try again for ever
    await outbox.close()


async def test_a_copy_of_both_files_goes_on_where_it_stood(tmp_path: Path, clock: VirtualClock) -> None:
    outbox = await opened(tmp_path / "outbox.db", clock)
    records = make_records(3)
    await outbox.accept(HELD, records)
    await outbox.acknowledge("bus", 1)
    await outbox.put_egress("default", b"a pause")
    await outbox.close()
    moved = await opened(copied(tmp_path / "outbox.db", tmp_path / "elsewhere"), clock)
    assert [record.id for record in await moved.next_batch("bus", **ALL)] == [
        record.id for record in records[1:]
    ]
    assert await moved.baselines() == {"alice": HELD}
    assert await moved.egress() == {"default": b"a pause"}
    await moved.close()


async def test_a_snapshot_of_both_files_at_one_instant_is_a_backup(
    tmp_path: Path, clock: VirtualClock
) -> None:
    outbox = await opened(tmp_path / "outbox.db", clock)
    records = make_records(3)
    await outbox.accept(HELD, records)
    # Nothing is under way, so the instant is the same for both files.
    snapshot = copied(tmp_path / "outbox.db", tmp_path / "snapshot")
    assert snapshot.with_name("outbox.db-wal").stat().st_size > 0, "what was accepted is in the log"
    await outbox.close()
    restored = await opened(snapshot, clock)
    assert [record.id for record in await restored.next_batch("bus", **ALL)] == [
        record.id for record in records
    ]
    await restored.close()


async def test_a_restored_outbox_delivers_again_under_the_same_ids(
    tmp_path: Path, clock: VirtualClock
) -> None:
    outbox = await opened(tmp_path / "outbox.db", clock)
    records = make_records(2)
    await outbox.accept(HELD, records)
    await outbox.close()
    backup = copied(tmp_path / "outbox.db", tmp_path / "backup")
    outbox = await opened(tmp_path / "outbox.db", clock)
    await outbox.acknowledge("bus", 2)
    assert outbox.backlog("bus") == 0
    await outbox.close()
    restored = await opened(backup, clock)
    assert [record.id for record in await restored.next_batch("bus", **ALL)] == [
        record.id for record in records
    ]
    await restored.close()
