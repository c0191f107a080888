"""Files that the first format's code wrote: one closed, one as ``kill -9`` leaves it. They are opened as any other.

Both hold six records of "alice". "file" has four of them, and refused the second; "history" has all;
"removed" has none, and is not configured any more.
"""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from poller.metrics import Metrics
from poller.model import Baseline
from poller.outbox import Outbox, schema
from poller.outbox.values import Discard, Revive, Rewind, Rewound, Skip
from poller.testing.sink_contract import make_records
from poller.testing.virtual_time import START_UTC_S, VirtualClock

FILES = Path(__file__).parent / "files"
ALL = {"max_records": 100, "max_bytes": 1 << 30}


@pytest.fixture(params=["format-1", "format-1-killed"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for ending in ("", "-wal"):
        packed = FILES / f"{request.param}.db{ending}.gz"
        if packed.exists():
            (tmp_path / f"outbox.db{ending}").write_bytes(gzip.decompress(packed.read_bytes()))
    (tmp_path / "outbox.db").chmod(0o600)
    return tmp_path / "outbox.db"


async def opened(path: Path) -> Outbox:
    return await Outbox.open(path, VirtualClock(), metrics=Metrics(), begin_anew=False)


async def test_everything_is_there(path: Path) -> None:
    outbox = await opened(path)
    records = make_records(6, account="alice")
    assert await outbox.baselines() == {"alice": Baseline("alice", sequence=6)}
    assert await outbox.egress() == {"default": b"state"}
    assert [record.id for record in await outbox.next_batch("file", **ALL)] == [
        record.id for record in records[4:]
    ]
    assert {sink: outbox.backlog(sink) for sink in outbox.ledger.cursors} == {
        "file": 2,
        "history": 0,
        "removed": 6,
    }
    [letter] = await outbox.dead_letters("file")
    assert (letter.record.id, letter.record.payload) == (records[1].id, records[1].payload)
    assert (letter.reason, letter.again) == ("too large", False)
    assert outbox.ledger.cursors["removed"].absent_since_ns == START_UTC_S * 10**9
    assert outbox.set_aside is None
    await outbox.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


async def test_what_the_new_format_is_for_works_and_stays(path: Path) -> None:
    outbox = await opened(path)
    assert await outbox.write(Revive("file", None)) == 1
    assert await outbox.write(Rewind("history", 3)) == Rewound(before=6, after=3, records=3, letters=0)
    assert await outbox.write(Skip("removed")) == 6
    await outbox.close()
    outbox = await opened(path)
    assert outbox.again("file") == 1
    cursors = outbox.ledger.cursors
    assert (cursors["history"].position, cursors["history"].replayed) == (3, 3)
    assert cursors["removed"].dropped == 6
    assert await outbox.write(Discard("file", None)) == 1
    await outbox.close()
