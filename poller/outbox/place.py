"""The place an outbox lies in: its directory, the rights on it, the kind of file system, files put aside."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
from pathlib import Path

from poller.clock import rfc3339
from poller.errors import OutboxError

logger = logging.getLogger(__name__)

MOUNTS = Path("/proc/self/mountinfo")
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PROBE_BYTES = 64 * 1024

# Locks, or the order of writes and syncs, are not what SQLite needs there.
UNSAFE = re.compile(r"nfs\d*|cifs|smb\d*|smbfs|afs|fuse(blk|\..*)?")
VOLATILE = frozenset({"tmpfs", "ramfs"})
_ESCAPE = re.compile(r"\\([0-7]{3})")


def prepare_directory(path: Path) -> None:
    """Make the directory of an outbox (0700) if it is not there, and refuse one that cannot be trusted.

    Raises:
        OutboxError: the outbox must not lie there; the text says why and what to do.
    """
    try:
        _make_directory(path.parent)
    except OSError as error:
        raise OutboxError(f"{path.parent}: {error.strerror}") from error
    refuse_unsafe_file_system(path)


def prepare_file(path: Path) -> None:
    """Make the file (0600) if it is not there, and refuse one that is not what it should be.

    Raises:
        OutboxError: it is a link, not a regular file, or somebody else's.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OutboxError(f"{path}: is a symbolic link; name the file itself") from error
        raise OutboxError(f"{path}: {error.strerror}") from error
    try:
        _check_owned_file(path, fd)
    finally:
        os.close(fd)
    sync_directory(path.parent)


def refuse_unsafe_file_system(path: Path) -> None:
    """Refuse network and FUSE file systems, warn of volatile ones.

    Raises:
        OutboxError: the outbox must not lie there.
    """
    try:
        mounts = MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return  # not Linux: nothing to go by
    kind = file_system(path.parent.resolve(), mounts)
    if UNSAFE.fullmatch(kind):
        raise OutboxError(
            f"{path}: lies on a {kind} file system, which does not keep what SQLite relies on; "
            "move the outbox to a local disk"
        )
    if kind in VOLATILE:
        logger.warning(
            "the outbox lies in memory and will not survive a reboot",
            extra={"file": str(path), "file_system": kind},
        )


def file_system(directory: Path, mounts: str) -> str:
    """Return the type of the file system that holds an absolute directory; empty if it cannot be told.

    Args:
        mounts: text in the format of ``/proc/self/mountinfo``.
    """
    kind, depth = "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        # A later mount on the same point hides the earlier one, hence <=.
        if directory.is_relative_to(point) and depth <= len(point.parts):
            kind, depth = after.split(" ", 1)[0], len(point.parts)
    return kind


def set_aside(path: Path, now_ns: int) -> Path:
    """Rename an unreadable outbox, with its write-ahead log, and return its new name. Nothing is deleted."""
    stamp = re.sub(r"[-:]", "", rfc3339(now_ns)[:19]) + "Z"
    aside = path.with_name(f"{path.name}.unreadable-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.unreadable-{stamp}-{number}")
    # The log keeps its ending, so that whoever opens the renamed file finds it. A crash between the
    # two renames leaves a log without its file, and that is put aside by the next start.
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{aside}{ending}")
    sync_directory(path.parent)
    return aside


def identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of what lies at a path; ``None`` if nothing does."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def has_room(path: Path) -> bool:
    """Whether the database or its log can grow; asked by trying, with a file of the same length."""
    log = Path(f"{path}-wal")
    length_bytes = max((file.stat().st_size for file in (path, log) if file.exists()), default=0)
    probe = path.with_name(f"{path.name}.probe")
    try:
        _allocate(probe, length_bytes, _PROBE_BYTES)
    except OSError as error:
        return error.errno not in NO_ROOM  # if it fails for another reason, room is not what is missing
    finally:
        probe.unlink(missing_ok=True)
    return True


class Reserve:
    """A file that holds disk space for bad times.

    While it is there, nothing was ever short. On a full disk it is released, so that cursors can still
    be written and records be deleted; that it can be taken again is the proof that there is room.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes

    def take(self, *, beyond_bytes: int = 0) -> bool:
        """Make sure that the space is held; return whether it is.

        Args:
            beyond_bytes: take it only if there is so much more. What was released and is taken again proves
                nothing about the disk.
        """
        try:
            _allocate(self._path, 0, self._size_bytes + beyond_bytes)
            os.truncate(self._path, self._size_bytes)
        except OSError as error:
            self.release()
            if error.errno in NO_ROOM:
                return False
            raise
        return True

    def release(self) -> None:
        """Give the space back."""
        self._path.unlink(missing_ok=True)


def _allocate(path: Path, offset_bytes: int, size_bytes: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, offset_bytes, size_bytes)
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_directory(directory: Path) -> None:
    if directory.is_dir():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory.parent)


def _check_owned_file(path: Path, fd: int) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise OutboxError(f"{path}: is not a regular file")
    if found.st_uid != os.geteuid():
        raise OutboxError(f"{path}: belongs to user {found.st_uid}; run the poller as that user, or chown it")
    if found.st_mode & 0o077:
        logger.warning("the outbox was open to others; its mode is 0600 now", extra={"file": str(path)})
        os.fchmod(fd, 0o600)
