"""Locks between processes: on files, dropped by the kernel with their holder, also after ``kill -9``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path

LOCKS = Path("/proc/locks")

_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class Held(Exception):
    """Somebody else has the lock. ``pid`` is that process, ``None`` if it cannot be told."""

    def __init__(self, pid: int | None) -> None:
        super().__init__("held by another process" if pid is None else f"held by process {pid}")
        self.pid = pid


class FileLock:
    """A lock on a file, held until ``release`` or the end of the process.

    A lock file that is merely there means nothing. It is not removed, for that would let two processes
    lock two files of one name; unless ``passing`` says so, and then with the care that this needs.

    Args:
        path: the file; it is made if it is missing, for its owner only.
        shared: others may have it too, if they share it as well.
        passing: remove the file with the last holder. All who lock it have to say so.

    Raises:
        Held: another process has it.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, *, shared: bool = False, passing: bool = False) -> None:
        self._path = path
        self._passing = passing
        self._fd: int | None = _locked(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        _held.add(self)

    def release(self) -> None:
        """Give the lock back. Harmless when called twice."""
        if self._passing and self._fd is not None:
            with contextlib.suppress(OSError):
                # Alone with it: whoever waits for this very file will find that it has no name any more.
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._path.unlink()
        self.forget()

    def forget(self) -> None:
        """Close the file and leave it where it is; the lock stays with whoever inherited it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def holder(path: Path) -> int | None:
    """Return the process that has the lock on a file, without a try to get it, which would disturb others.

    ``None``: nobody has it, or the system does not say (only Linux does).
    """
    try:
        found = path.stat()
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return None
    named = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == named and fields[4].isdecimal():
            return int(fields[4])
    return None


def _locked(path: Path, kind: int) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            if _is_named(fd, path):
                return fd
        except BlockingIOError:
            pid = _read_pid(fd)
            os.close(fd)
            raise Held(pid) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its last holder removed it after we had opened it: there may be another one


def _is_named(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _read_pid(fd: int) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(os.pread(fd, 32, 0))
    return None


def _forget_in_child() -> None:
    # A forked child shares the lock: it would keep it alive after our end.
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_in_child)
