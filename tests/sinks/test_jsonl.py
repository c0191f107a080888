"""JSON lines on a real disk: whole lines only, rotated, packed, found again."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poller.errors import SinkBroken, SinkUnavailable
from poller.sinks import packing
from poller.sinks.jsonl import JsonlOptions, JsonlSink
from poller.testing.sink_contract import SinkContract, ids, ids_of_lines, make_records
from poller.testing.virtual_time import VirtualClock


def sink_at(path: Path, clock: VirtualClock | None = None, **options: Any) -> JsonlSink:
    return JsonlSink(JsonlOptions.model_validate({"path": path, **options}), clock)


class TestJsonlSink(SinkContract):
    def make_sink(self, tmp_path: Path) -> JsonlSink:
        return sink_at(tmp_path / "out.jsonl")

    def written(self, tmp_path: Path) -> list[str]:
        return ids_of_lines((tmp_path / "out.jsonl").read_bytes())

    def payloads(self, tmp_path: Path) -> list[bytes]:
        return (tmp_path / "out.jsonl").read_bytes().split(b"\n")[:-1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "out.jsonl"


async def test_the_file_and_its_directory_are_for_the_owner_only(path: Path) -> None:
    sink = sink_at(path)
    await sink.open()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    await sink.close()


@pytest.mark.parametrize("kept", [0, 1, 3])
@pytest.mark.parametrize("torn", [b"{", b'{"schema":"poller.snap', b"\0" * 5000, b"{" + b"x" * 200_000])
async def test_a_torn_last_line_is_cut_off_at_the_next_start(path: Path, kept: int, torn: bytes) -> None:
    records = make_records(4)
    path.parent.mkdir()
    path.write_bytes(b"".join(record.payload + b"\n" for record in records[:kept]) + torn)
    sink = sink_at(path)
    await sink.open()
    await sink.write(records[kept:])
    assert path.read_bytes() == b"".join(record.payload + b"\n" for record in records)
    await sink.close()


@pytest.mark.parametrize("foreign", [b"my only copy", b"name,amount\nalice,1", b"\x89PNG\r\n\x1a\n..."])
async def test_a_file_that_was_never_ours_is_left_alone(path: Path, foreign: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(foreign)
    sink = sink_at(path)
    with pytest.raises(SinkBroken, match="does not hold JSON lines; name a file of its own"):
        await sink.open()
    await sink.close()
    assert path.read_bytes() == foreign


async def test_a_second_sink_on_the_same_file_is_refused(path: Path) -> None:
    first, second = sink_at(path), sink_at(path)
    await first.open()
    with pytest.raises(SinkBroken, match="another sink or process writes to it"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
    ],
)
async def test_what_is_no_file_breaks_the_sink(
    path: Path, make: Callable[[Path], None], message: str
) -> None:
    path.parent.mkdir()
    make(path)
    sink = sink_at(path)
    with pytest.raises(SinkBroken, match=message):
        await sink.open()
    await sink.close()


@pytest.mark.parametrize(
    "gone", [lambda path: path.rename(path.with_suffix(".1")), lambda path: path.unlink()]
)
async def test_a_file_that_was_moved_or_removed_is_begun_anew(
    path: Path, gone: Callable[[Path], None]
) -> None:
    records = make_records(4)
    sink = sink_at(path)
    await sink.open()
    await sink.write(records[:2])
    gone(path)
    await sink.write(records[2:])
    assert ids_of_lines(path.read_bytes()) == ids(records[2:])
    if (moved := path.with_suffix(".1")).exists():
        assert ids_of_lines(moved.read_bytes()) == ids(records[:2])
    await sink.close()


async def test_a_file_that_was_cut_short_by_somebody_goes_on_from_there(path: Path) -> None:
    """What logrotate's ``copytruncate`` does."""
    records = make_records(4)
    sink = sink_at(path)
    await sink.open()
    await sink.write(records[:2])
    os.truncate(path, 0)
    await sink.write(records[2:])
    assert ids_of_lines(path.read_bytes()) == ids(records[2:])
    await sink.close()


# Failing disks ------------------------------------------------------------------------------------


class _Disk:
    """Lets ``os.write`` put down some bytes and then fail, and ``os.ftruncate`` fail as often as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, writes: int, failing_truncates: int = 0) -> None:
        self._real_write, self._real_truncate = os.write, os.ftruncate
        self._room, self._failing_truncates = writes, failing_truncates
        monkeypatch.setattr("os.write", self._write)
        monkeypatch.setattr("os.ftruncate", self._truncate)

    def _write(self, fd: int, data: bytes) -> int:
        part = data[: min(self._room, 7)]  # short writes, too
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room -= len(part)
        return self._real_write(fd, part)

    def _truncate(self, fd: int, length: int) -> None:
        if self._failing_truncates:
            self._failing_truncates -= 1
            raise OSError(errno.EIO, "Input/output error")
        self._real_truncate(fd, length)


@pytest.mark.parametrize("room", [0, 1, 10, 1000])
@pytest.mark.parametrize("failing_truncates", [0, 1])
async def test_of_a_batch_that_does_not_fit_nothing_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch, room: int, failing_truncates: int
) -> None:
    records = make_records(6)
    sink = sink_at(path)
    await sink.open()
    await sink.write(records[:2])
    with monkeypatch.context() as full:
        _Disk(full, writes=room, failing_truncates=failing_truncates)
        with pytest.raises(SinkUnavailable):
            await sink.write(records[2:])
    await sink.write(records[2:])
    assert path.read_bytes() == b"".join(record.payload + b"\n" for record in records)
    await sink.close()


async def test_short_writes_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = make_records(3)
    sink = sink_at(path)
    await sink.open()
    with monkeypatch.context() as slow:
        _Disk(slow, writes=1_000_000)
        await sink.write(records)
    assert path.read_bytes() == b"".join(record.payload + b"\n" for record in records)
    await sink.close()


@pytest.mark.real_time
async def test_a_real_limit_of_the_system_is_survived(path: Path) -> None:
    """The kernel itself writes a part and refuses the rest (EFBIG)."""
    records = make_records(5)
    limit = len(records[0].payload) * 3
    program = (
        "import asyncio, resource, sys\n"
        "from pathlib import Path\n"
        "from poller.errors import SinkUnavailable\n"
        "from poller.sinks.jsonl import JsonlOptions, JsonlSink\n"
        "from poller.testing.sink_contract import make_records\n"
        "async def main(path, limit):\n"
        "    sink = JsonlSink(JsonlOptions(path=Path(path)))\n"
        "    await sink.open()\n"
        "    await sink.write(make_records(1))\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))\n"
        "    try:\n"
        "        await sink.write(make_records(5)[1:])\n"
        "    except SinkUnavailable as error:\n"
        "        print(error)\n"
        "    await sink.close()\n"
        "asyncio.run(main(sys.argv[1], int(sys.argv[2])))\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(path), str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout == f"{path}: File too large\n"
    assert ids_of_lines(path.read_bytes()) == ids(records[:1])


# Rotation -----------------------------------------------------------------------------------------


def closed_files(path: Path) -> list[Path]:
    return sorted(entry for entry in path.parent.iterdir() if entry.name.startswith(f"{path.stem}-2"))


async def test_a_file_is_closed_before_it_would_outgrow_its_size(path: Path, clock: VirtualClock) -> None:
    records = make_records(6)
    size = 2 * len(records[0].payload) + 10
    sink = sink_at(path, clock, rotate_size=f"{size}B", compress=False)
    await sink.open()
    for record in records:
        await sink.write([record])
    assert [ids_of_lines(file.read_bytes()) for file in closed_files(path)] == [
        ids(records[:2]),
        ids(records[2:4]),
    ]
    assert ids_of_lines(path.read_bytes()) == ids(records[4:])
    await sink.close()


async def test_closed_files_are_named_after_the_moment_and_sort_as_their_contents(
    path: Path, clock: VirtualClock
) -> None:
    sink = sink_at(path, clock, rotate_size="1B", compress=False)
    await sink.open()
    for record in make_records(3):
        await sink.write([record])
    await asyncio.sleep(61)
    await sink.write(make_records(1, first=4))
    assert [file.name for file in closed_files(path)] == [
        "out-20260101T000000.000000Z.jsonl",
        "out-20260101T000000.000001Z.jsonl",
        "out-20260101T000101.000000Z.jsonl",
    ]
    await sink.close()


async def test_a_file_is_closed_at_the_multiples_of_its_time(path: Path, clock: VirtualClock) -> None:
    records = make_records(4)
    sink = sink_at(path, clock, rotate_every="1h", compress=False)
    await sink.open()
    await asyncio.sleep(3000)
    await sink.write(records[:1])
    await asyncio.sleep(599)
    await sink.write(records[1:2])  # 00:59:59
    await asyncio.sleep(1)
    await sink.write(records[2:])  # 01:00:00
    assert [(file.name, ids_of_lines(file.read_bytes())) for file in closed_files(path)] == [
        ("out-20260101T010000.000000Z.jsonl", ids(records[:2]))
    ]
    assert ids_of_lines(path.read_bytes()) == ids(records[2:])
    await sink.close()


async def test_a_file_of_yesterday_is_closed_after_a_restart(path: Path, clock: VirtualClock) -> None:
    records = make_records(2)
    sink = sink_at(path, clock, rotate_every="24h", compress=False)
    await sink.open()
    await sink.write(records[:1])
    await sink.close()
    os.utime(path, ns=(clock.utc_ns() - 1, clock.utc_ns() - 1))  # the last moment of 2025
    again = sink_at(path, clock, rotate_every="24h", compress=False)
    await again.open()
    await again.write(records[1:])
    assert [ids_of_lines(file.read_bytes()) for file in closed_files(path)] == [ids(records[:1])]
    assert ids_of_lines(path.read_bytes()) == ids(records[1:])
    await again.close()


async def packed(sink: JsonlSink) -> None:
    """Wait until what was given to the packing thread is done."""
    await asyncio.get_running_loop().run_in_executor(sink._packer, lambda: None)


async def test_closed_files_are_compressed(path: Path, clock: VirtualClock) -> None:
    records = make_records(3)
    sink = sink_at(path, clock, rotate_size="1B")
    await sink.open()
    for record in records:
        await sink.write([record])
    await packed(sink)
    closed = closed_files(path)
    assert [file.name for file in closed] == [
        "out-20260101T000000.000000Z.jsonl.gz",
        "out-20260101T000000.000001Z.jsonl.gz",
    ]
    assert [ids_of_lines(gzip.decompress(file.read_bytes())) for file in closed] == [
        ids(records[:1]),
        ids(records[1:2]),
    ]
    assert [file.stat().st_mode & 0o777 for file in closed] == [0o600, 0o600]
    await sink.close()


async def test_what_a_crash_left_half_compressed_is_finished_at_the_next_start(path: Path) -> None:
    path.parent.mkdir()
    closed = path.with_name("out-20260101T000000.000000Z.jsonl")
    closed.write_bytes(b'{"id":"a"}\n')
    closed.with_name(f"{closed.name}.gz.part").write_bytes(b"half")
    sink = sink_at(path)
    await sink.open()
    await packed(sink)
    assert [file.name for file in closed_files(path)] == [f"{closed.name}.gz"]
    assert gzip.decompress(closed_files(path)[0].read_bytes()) == b'{"id":"a"}\n'
    await sink.close()


async def test_files_of_other_sinks_are_never_compressed(path: Path) -> None:
    path.parent.mkdir()
    others = [path.with_name(name) for name in ("out-every.jsonl", "out-2026.jsonl", "other.jsonl")]
    for other in others:
        other.write_bytes(b'{"id":"a"}\n')
    sink = sink_at(path)
    await sink.open()
    await packed(sink)
    assert [other.read_bytes() for other in others] == [b'{"id":"a"}\n'] * 3
    await sink.close()


def test_the_same_file_packs_to_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"line\n" * 1000)
        packing.pack(tmp_path / name)
        made.append((tmp_path / f"{name}.gz").read_bytes())
    assert made[0] == made[1]
    assert gzip.decompress(made[0]) == b"line\n" * 1000


def test_a_file_that_cannot_be_packed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed = tmp_path / "closed.jsonl"
    closed.write_bytes(b"line\n" * 10)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    packing.pack(closed)
    assert [entry.name for entry in tmp_path.iterdir()] == ["closed.jsonl"]
    assert closed.read_bytes() == b"line\n" * 10
    assert [record.message for record in caplog.records] == ["a closed file stays uncompressed"]
