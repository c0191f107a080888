"""Disks that are full for real: a small file system, a limit on file sizes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from poller.errors import OutboxFull
from poller.metrics import Metrics
from poller.model import Baseline, Record
from poller.outbox import DeadLetter, Outbox
from poller.testing.sink_contract import make_records
from poller.testing.virtual_time import VirtualClock

ALL = {"max_records": 10_000, "max_bytes": 1 << 30}


def record(number: int) -> Record:
    return replace(make_records(1, first=number)[0], payload=b"x" * 4000)


async def fill(outbox: Outbox) -> int:
    """Accept until the disk is full for good; return how many records were accepted.

    The first time it is full the write-ahead log is emptied and gives its space back: that is used up, too.
    """
    while not outbox.is_full:
        try:
            while True:
                number = outbox.last_position + 1
                await outbox.accept(Baseline("alice", sequence=number), [record(number)])
        except OutboxFull as error:
            assert str(error).endswith("no room on the disk")  # noqa: PT017  # whichever of the many it is
        await asyncio.sleep(60)
    return outbox.last_position


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


async def test_a_full_disk_stops_acceptance_only_and_passes_by_itself(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = small_disk / "outbox.db"
    outbox = await Outbox.open(path, VirtualClock(), metrics=Metrics())
    await outbox.register({"sink": "oldest"})
    accepted = await fill(outbox)
    assert accepted > 500
    # Nothing was half-accepted.
    assert outbox.is_full
    assert outbox.last_position == accepted
    assert (await outbox.baselines())["alice"].sequence == accepted
    # Pauses, cursors and dead letters are still kept, in the room that was held for them.
    await outbox.put_egress("default", b"banned")
    first = (await outbox.next_batch("sink", **ALL))[0]
    await outbox.acknowledge("sink", 1, [DeadLetter(first, "no")])
    # It stays full while nothing changes.
    await asyncio.sleep(600)
    assert outbox.is_full
    # Sinks move on: room comes back without anybody's help.
    await outbox.acknowledge("sink", accepted - 100)
    await outbox.wait_for_room()
    await outbox.accept(Baseline("alice", sequence=accepted + 1), [record(accepted + 1)])
    assert outbox.backlog("sink") == 101
    await outbox.close()
    again = await Outbox.open(path, VirtualClock(), metrics=Metrics())
    assert again.set_aside is None
    assert (again.last_position, again.cursor("sink")) == (accepted + 1, accepted - 100)
    assert await again.egress() == {"default": b"banned"}
    await again.close()
    said = [r.message for r in caplog.records if r.name == "poller.outbox.store"]
    assert said[-2:] == ["the outbox is full: polls pause until there is room", "the outbox has room again"]
    assert len(said) <= 6


async def test_room_that_somebody_else_frees_is_found(small_disk: Path) -> None:
    outbox = await Outbox.open(small_disk / "outbox.db", VirtualClock(), metrics=Metrics())
    await outbox.register({"sink": "oldest"})
    (small_disk / "somebody's").write_bytes(b"x" * 9_000_000)
    accepted = await fill(outbox)
    (small_disk / "somebody's").unlink()
    await asyncio.wait_for(outbox.wait_for_room(), 6)
    await outbox.accept(None, [record(accepted + 1)])
    assert outbox.backlog("sink") == accepted + 1
    await outbox.close()


async def test_an_outbox_opens_on_a_disk_that_is_full(small_disk: Path) -> None:
    path = small_disk / "outbox.db"
    outbox = await Outbox.open(path, VirtualClock(), metrics=Metrics())
    await outbox.register({"sink": "oldest"})
    await outbox.accept(None, [record(number) for number in range(1, 101)])
    await outbox.close()
    path.with_name("outbox.db.reserve").unlink()
    room = os.statvfs(small_disk)
    (small_disk / "somebody's").write_bytes(b"x" * (room.f_bavail * room.f_frsize - 1_000_000))
    outbox = await Outbox.open(path, VirtualClock(), metrics=Metrics())
    assert outbox.is_full
    await outbox.register({"sink": "oldest"})
    assert len(await outbox.next_batch("sink", **ALL)) == 100
    await outbox.acknowledge("sink", 100)
    with pytest.raises(OutboxFull, match="no room on the disk"):
        await outbox.accept(None, [record(101)])
    (small_disk / "somebody's").unlink()
    await outbox.wait_for_room()
    await outbox.accept(None, [record(101)])
    await outbox.close()


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from poller.clock import SystemClock
from poller.errors import OutboxFull
from poller.metrics import Metrics
from poller.outbox import Outbox
from poller.testing.sink_contract import make_records

async def main(path):
    outbox = await Outbox.open(path, SystemClock(), metrics=Metrics())
    await outbox.register({"sink": "oldest"})
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, resource.RLIM_INFINITY))
    accepted = 0
    try:
        while True:
            await outbox.accept(None, make_records(20, first=accepted + 1))
            accepted += 20
    except OutboxFull as error:
        print(error)
    print(accepted, outbox.last_position, outbox.is_full)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await outbox.wait_for_room()
    await outbox.accept(None, make_records(1, first=accepted + 1))
    print(outbox.last_position - accepted)
    await outbox.close()

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.real_time
async def test_a_limit_on_file_sizes_is_no_room_too(tmp_path: Path) -> None:
    """SQLite calls it an I/O error, as it does a quota; the file system says what it really is."""
    path = tmp_path / "outbox.db"
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    message, counts, after = ended.stdout.splitlines()
    accepted, last_position, is_full = counts.split()
    assert message == f"{path}: no room on the disk"
    assert int(accepted) > 1000
    assert (last_position, is_full, after) == (accepted, "True", "1")
