"""The lock that keeps a second process away from an outbox, and names the first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path

from poller.errors import OutboxError, OutboxLocked

_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """An exclusive lock on a file, held until ``release`` or the end of the process.

    The kernel drops it with the process, also after ``kill -9``; so a lock file that is merely there
    means nothing, and it is never removed: removing it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock, at once or not at all.

        Raises:
            OutboxLocked: another process has it.
            OutboxError: the lock file cannot be opened.
        """
        try:
            self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise OutboxError(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = _read_pid(self._fd)
            self.release()
            holder = "another process" if pid is None else f"process {pid}"
            raise OutboxLocked(f"{path}: held by {holder}; stop that poller first", pid=pid) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        _held.add(self)

    def release(self) -> None:
        """Give the lock back. Harmless when called twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _read_pid(fd: int) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(os.pread(fd, 32, 0))
    return None


def _forget_in_child() -> None:
    # A forked child shares the lock: it would keep it alive after our end.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)
