"""Keep records as Parquet files by date, for DuckDB, pandas and whatever else reads them.

::

    archive/snapshots/date=2026-01-01/00000000000000000101-00000000000000000150-0242ac120002.parquet
    archive/statuses/date=2026-01-01/...

A file is named after the positions of its first and last record in the outbox and the end of the first
one's id. ``archive_tables`` says what the columns are.

``write`` returns when the files of a batch, one for each kind and date in it, are whole, synced to the
disk and have their names. A reader never sees half a file. A batch that comes again after a crash is
compared by ids with the files whose positions it overlaps: what is there already is not written twice.
What can still be lost is the disk; what can still be there twice are records that were accepted by
one outbox, and are delivered anew from a copy of it whose positions are others. With ``compact`` a reader
sees a day's rows twice for the moment in which its files become one.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from poller.errors import SinkBroken, SinkRejected, SinkUnavailable
from poller.model import Kind, Record
from poller.sinks import SinkOptions
from poller.sinks.archive_compaction import NAME, compact
from poller.sinks.archive_tables import INSTANTS, UNFIT, Row, parquet, row, table
from poller.sinks.packing import sync_directory
from poller.sinks.threads import OwnThread

T = TypeVar("T")

FOLDERS: Mapping[Kind, str] = {Kind.SNAPSHOT: "snapshots", Kind.STATUS: "statuses"}
_HALF = re.compile(rf"\.{NAME.pattern}\.part")  # hidden, and no name that readers look for

UNFIT_TEXT = "not of the published shape"

# What does not pass by itself: somebody named the wrong place, or has to change rights.
_BROKEN = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    }
)


class ArchiveOptions(SinkOptions):
    """Options of the ``archive`` sink."""

    path: Path = Field(description="The directory; it is made if it is missing.")
    compact: bool = Field(False, description="Merge the files of each day that is over into one.")  # noqa: FBT003  # a field's default


class ArchiveSink:
    """Writes each batch into files of its own, from a thread of its own."""

    Options: ClassVar[type[SinkOptions]] = ArchiveOptions
    # A file a minute, and not one a second: readers open each of them.
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"batch": 20_000, "batch_bytes": "64MiB", "linger": "1m"}

    def __init__(self, options: ArchiveOptions) -> None:
        self._path = options.path
        self._compact = options.compact
        self._newest = ""  # date of a record that was written
        self._thread = OwnThread("archive sink")
        self._handle: int | None = None  # of the directory: locked

    async def open(self) -> None:
        """Make the directory, lock it, remove what a crash left half-written.

        Raises:
            SinkUnavailable: it cannot be opened now.
            SinkBroken: what is at its place is not for us to write to.
        """
        await self._run(self._open)
        self._newest = ""

    async def write(self, batch: Sequence[Record]) -> None:
        """Write the batch; records that are there already are left as they are.

        Raises:
            SinkUnavailable: some of it was not written.
            SinkRejected: some records do not have the published shape; the others were written.
            SinkBroken: as from ``open``, or a file that has a name of ours is not ours.
        """
        rejected = await self._run(self._write, batch)
        newest = max(
            (record.document[INSTANTS[record.kind]][:10] for record in batch if record.id not in rejected),
            default="",
        )
        if self._compact and newest > self._newest:
            # In the thread of the writes, so that the two never meet: one that has to wait too long
            # comes again.
            self._newest = newest
            self._thread.submit(self._compact_before, newest)
        if rejected:
            raise SinkRejected(f"{self._path}: {len(rejected)} records refused", rejected=rejected)

    async def close(self) -> None:
        """Unlock the directory."""
        await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except OSError as error:
            text = f"{error.filename or self._path}: {error.strerror or error}"
            raise (SinkBroken(text) if error.errno in _BROKEN else SinkUnavailable(text)) from error

    def _open(self) -> None:
        self._close()
        for folder in FOLDERS.values():
            _make_directory(self._path / folder)
        handle = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise SinkBroken(f"{self._path}: another sink or process writes to it") from error
        self._handle = handle
        for folder in FOLDERS.values():
            for half in (self._path / folder).glob("date=*/.*.part"):
                if _HALF.fullmatch(half.name):
                    half.unlink()

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _write(self, batch: Sequence[Record]) -> dict[str, str]:
        if self._handle is None or self._was_moved(self._handle):
            self._open()
        rejected: dict[str, str] = {}
        groups: dict[tuple[Kind, str], list[Row]] = {}
        for record in batch:
            try:
                found = row(record)
            except UNFIT as error:
                rejected[record.id] = f"{UNFIT_TEXT}: {error!r}"
            else:
                date = found[INSTANTS[record.kind]].date().isoformat()
                groups.setdefault((record.kind, date), []).append(found)
        for (kind, date), rows in groups.items():
            if fit := _fitting(kind, rows, rejected):
                self._add(self._path / FOLDERS[kind] / f"date={date}", kind, fit)
        return rejected

    def _compact_before(self, date: str) -> None:
        for folder in FOLDERS.values():
            for directory in sorted((self._path / folder).glob("date=????-??-??")):
                if directory.name.removeprefix("date=") < date:
                    compact(directory, _half)

    def _was_moved(self, handle: int) -> bool:
        ours = os.fstat(handle)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def _add(self, directory: Path, kind: Kind, rows: Sequence[Row]) -> None:
        """Write a file with those rows that no other file of the directory has."""
        _make_directory(directory)
        there = set(_ids_between(directory, rows[0]["position"], rows[-1]["position"]))
        if new := [found for found in rows if found["id"] not in there]:
            first, last = new[0]["position"], new[-1]["position"]
            name = f"{first:020d}-{last:020d}-{new[0]['id'][-12:]}.parquet"
            _write_file(directory / name, parquet(table(kind, new)))
        # Also for what was there: before a crash, its name may not have got to the disk.
        for level in (directory, directory.parent, self._path):
            sync_directory(level)


def _fitting(kind: Kind, rows: Sequence[Row], rejected: dict[str, str]) -> list[Row]:
    """Return the rows that fit into a table, and note the others."""
    fit = []
    try:
        table(kind, rows)
    except UNFIT:
        for found in rows:
            try:
                table(kind, [found])
            except UNFIT as error:
                rejected[found["id"]] = f"{UNFIT_TEXT}: {error!r}"
            else:
                fit.append(found)
        return fit
    return list(rows)


def _make_directory(directory: Path) -> None:
    if directory.is_dir():
        return
    for level in [*reversed(directory.parents), directory]:
        if not level.is_dir():
            level.mkdir(mode=0o700)  # parents with the same rights, which mkdir's own way would not give
            sync_directory(level.parent)


def _ids_between(directory: Path, first: int, last: int) -> Iterator[str]:
    """Return the ids in files with a position from ``first`` to ``last``."""
    for path in directory.iterdir():
        match = NAME.fullmatch(path.name)
        if match and int(match[1]) <= last and int(match[2]) >= first:
            try:
                with path.open("rb") as file:
                    yield from pq.ParquetFile(file).read(columns=["id"])["id"].to_pylist()
            except (pa.ArrowException, KeyError) as error:
                raise SinkBroken(f"{path}: is not a file of an archive; take it away") from error


def _half(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _write_file(path: Path, contents: bytes) -> None:
    """Write a file so that under its name it is whole at every moment."""
    half = _half(path)
    handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            left = memoryview(contents)
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        half.rename(path)
    except BaseException:
        with suppress(OSError):
            half.unlink()
        raise
