"""Append records to a file, one JSON object a line; rotated by size and time, older files compressed.

``write`` returns when the lines are synced to the disk. A crash between the sync and the
acknowledgement lets the same lines come again, with the same ids. A torn last line, from a crash
within a write, is cut off when the file is opened: it was never acknowledged and comes again.

A closed file is named after the moment it was closed, ``records-20260101T000000Z.jsonl``, and then
compressed to ``….jsonl.gz``. If something else moves or removes the file, a new one is begun.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from poller.clock import NS_PER_S, Clock, SystemClock, rfc3339
from poller.errors import SinkBroken, SinkUnavailable
from poller.model import Record
from poller.sinks import SinkOptions
from poller.units import Duration, Size

T = TypeVar("T")

logger = logging.getLogger(__name__)

TAIL_BYTES = 1 << 16  # how much at a time is searched for the last whole line


class JsonlOptions(SinkOptions):
    """Options of the ``jsonl`` sink."""

    path: Path = Field(description="The file; it is made if it is missing.")
    rotate_size: Size | None = Field(None, description="Begin a new file from this size on, such as 100MiB.")
    rotate_every: Duration | None = Field(
        None, description="Begin a new file after this time, such as 24h; at the multiples of it, UTC."
    )
    compress: bool = Field(True, description="Compress closed files with gzip.")  # noqa: FBT003  # a field's default


class JsonlSink:
    """Appends from a thread of its own."""

    Options: ClassVar[type[SinkOptions]] = JsonlOptions

    def __init__(self, options: JsonlOptions, clock: Clock | None = None) -> None:
        self._path = options.path
        self._rotate_bytes = options.rotate_size
        self._rotate_s = options.rotate_every
        self._compress = options.compress
        self._clock = clock or SystemClock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jsonl sink")
        # Compressing a large file takes longer than a write may.
        self._packer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jsonl gzip")
        self._handle: int | None = None
        self._size_bytes = 0
        self._period = 0

    async def open(self) -> None:
        """Open the file, cut off a torn last line, compress what a crash left uncompressed.

        Raises:
            SinkUnavailable: it cannot be opened now.
            SinkBroken: there is something at its place that is no file.
        """
        await self._run(self._open)

    async def write(self, batch: Sequence[Record]) -> None:
        """Append the batch and sync it.

        Raises:
            SinkUnavailable: nothing of the batch is in the file.
        """
        await self._run(self._write, b"".join(record.payload + b"\n" for record in batch))

    async def close(self) -> None:
        """Close the file. What is being compressed is finished, at the latest after the next start."""
        await self._run(self._close)
        self._thread.shutdown(wait=False)
        self._packer.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except IsADirectoryError as error:
            raise SinkBroken(f"{self._path}: is a directory") from error
        except OSError as error:
            raise SinkUnavailable(f"{self._path}: {error.strerror}") from error

    def _open(self) -> None:
        self._close()
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._path.exists() and not self._path.is_file():
            raise SinkBroken(f"{self._path}: is no file")
        is_new = not self._path.exists()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._handle = os.open(self._path, flags, stat.S_IRUSR | stat.S_IWUSR)
        if is_new:
            _sync_directory(self._path.parent)
        self._size_bytes = _cut_torn_line(self._handle)
        self._period = self._period_of(os.fstat(self._handle).st_mtime_ns)
        for closed in self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}"):
            self._pack(closed)

    def _pack(self, closed: Path) -> None:
        if self._compress:
            self._packer.submit(_compress, closed)

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _write(self, lines: bytes) -> None:
        if self._handle is None or self._was_moved():
            self._open()
        if self._is_time_to_rotate(len(lines)):
            self._rotate()
        handle = self._handle
        assert handle is not None  # noqa: S101  # opened above
        try:
            left = lines
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        except OSError:
            # Half a batch would be followed by the whole of it: take back what was written.
            os.ftruncate(handle, self._size_bytes)
            raise
        self._size_bytes += len(lines)
        self._period = self._period_of(self._clock.utc_ns())

    def _was_moved(self) -> bool:
        assert self._handle is not None  # noqa: S101  # asked only when open
        ours = os.fstat(self._handle)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def _is_time_to_rotate(self, more_bytes: int) -> bool:
        if self._size_bytes == 0:
            return False
        if self._rotate_bytes is not None and self._size_bytes + more_bytes > self._rotate_bytes:
            return True
        return self._period_of(self._clock.utc_ns()) != self._period

    def _period_of(self, utc_ns: int) -> int:
        return 0 if self._rotate_s is None else int(utc_ns / NS_PER_S // self._rotate_s)

    def _rotate(self) -> None:
        stamp = rfc3339(self._clock.utc_ns())[:19].replace("-", "").replace(":", "") + "Z"
        closed = self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")
        number = 1
        while closed.exists() or closed.with_name(closed.name + ".gz").exists():
            number += 1
            closed = self._path.with_name(f"{self._path.stem}-{stamp}-{number}{self._path.suffix}")
        self._close()
        self._path.rename(closed)
        self._open()
        self._pack(closed)


def _cut_torn_line(handle: int) -> int:
    """Cut off what follows the last line break, and return the size that is left."""
    size = end = os.fstat(handle).st_size
    while end > 0:
        begin = max(0, end - TAIL_BYTES)
        if (place := os.pread(handle, end - begin, begin).rfind(b"\n")) >= 0:
            end = begin + place + 1
            break
        end = begin
    if end < size:
        os.ftruncate(handle, end)
        os.fsync(handle)
    return end


def _compress(closed: Path) -> None:
    """Replace the file by its compressed form; at every moment one of the two is whole."""
    target, half = closed.with_name(closed.name + ".gz"), closed.with_name(closed.name + ".gz.part")
    try:
        with closed.open("rb") as source, half.open("wb") as packed:
            half.chmod(stat.S_IRUSR | stat.S_IWUSR)
            with gzip.GzipFile(filename=closed.name, fileobj=packed, mode="wb", mtime=0) as stream:
                shutil.copyfileobj(source, stream)
            packed.flush()
            os.fsync(packed.fileno())
        half.rename(target)
        closed.unlink()
        _sync_directory(closed.parent)
    except FileNotFoundError:
        return  # it was compressed already, or somebody took it away
    except OSError as error:
        half.unlink(missing_ok=True)
        logger.warning("a closed file stays uncompressed", extra={"path": str(closed), "error": str(error)})


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
