"""Append records to a file, one JSON object a line; rotated by size and time, older files compressed.

``write`` returns when the lines are synced to the disk. A crash between the sync and the
acknowledgement lets the same lines come again, with the same ids. A torn last line, from a crash
within a write, is cut off when the file is opened: it was never acknowledged and comes again.

A closed file is named after the moment it was closed, ``records-20260101T000000.000000Z.jsonl``, and
then compressed to ``….jsonl.gz``; so names sort as their contents do. If something else moves or
removes the file, a new one is begun. Only one sink writes to a file; the file is locked.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from poller.clock import NS_PER_S, Clock, SystemClock, rfc3339
from poller.errors import SinkBroken, SinkUnavailable
from poller.model import Record
from poller.sinks import SinkOptions
from poller.sinks.packing import pack, sync_directory
from poller.sinks.threads import OwnThread
from poller.units import Duration, Size

T = TypeVar("T")

logger = logging.getLogger(__name__)

TAIL_BYTES = 1 << 16  # how much at a time is searched for the last whole line

# What does not pass by itself: somebody named the wrong place, or has to change rights.
_BROKEN = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EROFS}
)


class JsonlOptions(SinkOptions):
    """Options of the ``jsonl`` sink."""

    path: Path = Field(description="The file; it is made if it is missing.")
    rotate_size: Size | None = Field(None, description="Begin a new file from this size on, such as 100MiB.")
    rotate_every: Duration | None = Field(
        None, gt=0, description="Begin a new file after this time, such as 24h; at the multiples of it, UTC."
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
        self._thread = OwnThread("jsonl sink")
        # Compressing a large file takes longer than a write may.
        self._packer = OwnThread("jsonl gzip")
        self._handle: int | None = None
        self._period = 0
        self._torn_at: int | None = None  # size to cut the file back to: a write failed, and undoing it, too

    async def open(self) -> None:
        """Open the file, cut off a torn last line, compress what a crash left uncompressed.

        Raises:
            SinkUnavailable: it cannot be opened now.
            SinkBroken: what is at its place is not for us to write to.
        """
        await self._run(self._open)

    async def write(self, batch: Sequence[Record]) -> None:
        """Append the batch and sync it.

        Raises:
            SinkUnavailable: nothing of the batch is in the file, or it will be taken back.
            SinkBroken: as from ``open``; the file may have been moved.
        """
        lines = b"".join(record.payload + b"\n" for record in batch)
        await self._run(self._write, lines, self._clock.utc_ns())

    async def close(self) -> None:
        """Close the file. What is being compressed is finished, at the latest after the next start."""
        await self._run(self._close)
        self._thread.shutdown(wait=False)
        self._packer.shutdown(wait=False)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except OSError as error:
            text = f"{self._path}: {error.strerror}"
            raise (SinkBroken(text) if error.errno in _BROKEN else SinkUnavailable(text)) from error

    def _open(self) -> None:
        self._close()
        if not self._path.parent.is_dir():
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            sync_directory(self._path.parent.parent)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not hang us
        handle = os.open(self._path, flags, stat.S_IRUSR | stat.S_IWUSR)
        try:
            self._take(handle)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        self._torn_at = None
        self._period = self._period_of(os.fstat(handle).st_mtime_ns)
        if self._compress:
            self._compress_closed()

    def _take(self, handle: int) -> None:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SinkBroken(f"{self._path}: is not a regular file")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SinkBroken(f"{self._path}: another sink or process writes to it") from error
        sync_directory(self._path.parent)
        end = _end_of_last_line(self._path, handle)
        if (torn_bytes := os.fstat(handle).st_size - end) > 0:
            logger.warning(
                "a half-written line was cut off; its record comes again",
                extra={"file": str(self._path), "bytes": torn_bytes},
            )
            os.ftruncate(handle, end)
            os.fsync(handle)

    def _compress_closed(self) -> None:
        # By our own full pattern: another sink's "records-all.jsonl" is no closed file of ours.
        ours = re.compile(
            rf"{re.escape(self._path.stem)}-\d{{8}}T\d{{6}}\.\d{{6}}Z{re.escape(self._path.suffix)}"
        )
        for name in sorted(entry.name for entry in self._path.parent.iterdir()):
            if ours.fullmatch(name):
                self._packer.submit(pack, self._path.with_name(name))

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _write(self, lines: bytes, now_ns: int) -> None:
        if self._handle is None or self._was_moved(self._handle):
            self._open()
        elif self._torn_at is not None:
            os.ftruncate(self._handle, self._torn_at)
            self._torn_at = None
        if self._is_time_to_rotate(len(lines), now_ns):
            self._rotate(now_ns)
        handle = self._handle
        assert handle is not None  # noqa: S101  # opened above
        before_bytes = os.fstat(handle).st_size
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        except OSError:
            # Half a batch would be followed by the whole of it: take back what was written, now or,
            # if that fails as well, before the next write.
            self._torn_at = before_bytes
            os.ftruncate(handle, before_bytes)
            self._torn_at = None
            raise
        self._period = self._period_of(now_ns)

    def _was_moved(self, handle: int) -> bool:
        ours = os.fstat(handle)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def _is_time_to_rotate(self, more_bytes: int, now_ns: int) -> bool:
        assert self._handle is not None  # noqa: S101  # asked only when open
        size_bytes = os.fstat(self._handle).st_size
        if size_bytes == 0:
            return False
        if self._rotate_bytes is not None and size_bytes + more_bytes > self._rotate_bytes:
            return True
        return self._period_of(now_ns) != self._period

    def _period_of(self, utc_ns: int) -> int:
        return 0 if self._rotate_s is None else utc_ns // round(self._rotate_s * NS_PER_S)

    def _rotate(self, at_ns: int) -> None:
        while (closed := self._closed_name(at_ns)).exists() or closed.with_name(f"{closed.name}.gz").exists():
            at_ns += 1000  # several within a microsecond, or a clock that was set back
        self._path.rename(closed)
        self._open()

    def _closed_name(self, at_ns: int) -> Path:
        stamp = rfc3339(at_ns).replace("-", "").replace(":", "")
        return self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")


def _end_of_last_line(path: Path, handle: int) -> int:
    """Return the size of the file without a torn last line.

    Raises:
        SinkBroken: what follows the last line break was never ours: cutting it off could destroy
            somebody's file.
    """
    size = end = os.fstat(handle).st_size
    while end > 0:
        begin = max(0, end - TAIL_BYTES)
        if (place := os.pread(handle, end - begin, begin).rfind(b"\n")) >= 0:
            end = begin + place + 1
            break
        end = begin
    # The start of one of our lines, or what a file system shows of blocks it had no time to write.
    if end < size and os.pread(handle, 1, end) not in {b"{", b"\0"}:
        raise SinkBroken(f"{path}: does not hold JSON lines; name a file of its own for this sink")
    return end
