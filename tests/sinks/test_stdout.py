"""Lines on standard output, over a real file descriptor."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from poller.errors import SinkBroken
from poller.sinks.stdout import StdoutOptions, StdoutSink
from poller.testing.sink_contract import SinkContract, ids, ids_of_lines, make_records

pytestmark = pytest.mark.real_time


def redirect(monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
    """Let the sink find a pipe or file of the test's own; pytest keeps the real ``sys.stdout`` for itself."""
    stdout = SimpleNamespace(fileno=lambda: fd)
    monkeypatch.setattr("poller.sinks.stdout.sys", SimpleNamespace(stdout=stdout))


class TestStdoutSink(SinkContract):
    @pytest.fixture(autouse=True)
    def _to_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        redirect(monkeypatch, fd)
        yield
        os.close(fd)

    def make_sink(self, tmp_path: Path) -> StdoutSink:
        return StdoutSink(StdoutOptions())

    def written(self, tmp_path: Path) -> list[str]:
        return ids_of_lines((tmp_path / "out").read_bytes())

    def payloads(self, tmp_path: Path) -> list[bytes]:
        return (tmp_path / "out").read_bytes().split(b"\n")[:-1]


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    redirect(monkeypatch, writing)
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            continue


def read_lines(fd: int, count: int) -> bytes:
    read = b""
    while read.count(b"\n") < count:
        read += os.read(fd, 65536)
    return read


async def test_a_reader_that_has_gone_breaks_the_sink(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    sink = StdoutSink(StdoutOptions())
    with pytest.raises(SinkBroken, match="its reader has gone"):
        await sink.write(make_records(1))
    await sink.close()


async def test_a_reader_that_does_not_read_delays_the_sink_and_not_the_loop(pipe: tuple[int, int]) -> None:
    records = make_records(50)
    sink = StdoutSink(StdoutOptions())
    writing = asyncio.create_task(sink.write(records))
    assert await asyncio.to_thread(os.read, pipe[0], 1) == b"{"  # it has begun: the pipe is full now
    for _ in range(1000):
        await asyncio.sleep(0)  # the loop turns
    assert not writing.done()
    rest = await asyncio.to_thread(read_lines, pipe[0], 50)
    await writing
    assert ids_of_lines(b"{" + rest) == ids(records)
    await sink.close()


async def test_a_non_blocking_pipe_is_waited_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    records = make_records(50)
    sink = StdoutSink(StdoutOptions())
    writing = asyncio.create_task(sink.write(records))
    lines = await asyncio.to_thread(read_lines, pipe[0], 50)
    await writing
    assert ids_of_lines(lines) == ids(records)
    await sink.close()


async def test_a_write_after_one_that_failed_within_a_line_begins_on_a_line_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    redirect(monkeypatch, fd)
    sink = StdoutSink(StdoutOptions())
    batch = make_records(2)

    def write_part_then_fail(handle: int, left: bytes) -> int:
        if path.stat().st_size:
            raise OSError(5, "Input/output error")
        return os.write(handle, left[:10])

    with monkeypatch.context() as failing:
        failing.setattr("poller.sinks.stdout._write_some", write_part_then_fail)
        with pytest.raises(Exception, match="Input/output error"):
            await sink.write(batch)
    await sink.write(batch)
    torn, *whole = path.read_bytes().splitlines()
    assert torn == batch[0].payload[:10]
    assert whole == [record.payload for record in batch]
    await sink.close()
    os.close(fd)
