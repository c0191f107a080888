"""The back end ``file:PATH``: a file that nobody but its owner can read."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

from poller.secrets.back_ends import BackEnd
from poller.secrets.errors import SecretUnreadable

MAX_BYTES: Final = 64 * 1024


class FileBackEnd(BackEnd):
    """Reads files that are kept safely."""

    form: ClassVar[str] = "file:PATH"
    wants: ClassVar[str] = "the path of a file"

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Tell whether it can be a path."""
        return bool(name) and name == name.strip() and name.isprintable()

    def read(self, name: str, directory: Path) -> str:
        """Return what is in the file."""
        # Not by way of a path object: thousands of accounts have two of these each, and wait for it at every start.
        return read_file(os.path.join(directory, name), refuse_unsafe)  # noqa: PTH118


def read_file(path: str, refuse: Callable[[os.stat_result, str], None], *, if_missing: str = "") -> str:
    """Return what is in a file.

    Args:
        path: the file.
        refuse: raises if the open file is not kept safely; given its status and its path.
        if_missing: what to do if there is no such file.

    Raises:
        SecretUnreadable: it is not there, not text, too big, or not kept safely.
    """
    try:
        # Without O_NONBLOCK to open a named pipe would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise SecretUnreadable(f"there is no file {quoted(path)}", if_missing) from None
    except (OSError, ValueError) as error:
        raise SecretUnreadable(f"file {quoted(path)} cannot be read: {_reason(error)}") from None
    try:
        # The open file is judged, not the path: nobody can swap it in between, and of a symbolic
        # link it is the target.
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise SecretUnreadable(f"{quoted(path)} is not a regular file")
        refuse(status, path)
        content = os.read(handle, MAX_BYTES + 1)
    except OSError as error:
        raise SecretUnreadable(f"file {quoted(path)} cannot be read: {_reason(error)}") from None
    finally:
        os.close(handle)
    if len(content) > MAX_BYTES:
        raise SecretUnreadable(f"file {quoted(path)} has more than {MAX_BYTES} bytes: that is no secret")
    if content.startswith(b"\xef\xbb\xbf"):
        raise SecretUnreadable(f"file {quoted(path)} begins with a byte order mark", "save it without one")
    try:
        return content.decode()
    except UnicodeDecodeError:
        # The codec's own text would quote the bytes.
        raise SecretUnreadable(f"file {quoted(path)} is not UTF-8 text") from None


def refuse_unsafe(status: os.stat_result, path: str) -> None:
    """Raise ``SecretUnreadable`` unless only we (or root) can read the file."""
    ours = os.geteuid()
    if status.st_uid not in {ours, 0}:
        raise SecretUnreadable(
            f"file {quoted(path)} belongs to another user (uid {status.st_uid})",
            f"run: chown {ours} {quoted(path)}",
        )
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        # Root's file with nothing for others would be closed to us as well.
        take = "" if status.st_uid == ours else f"chown {ours} {quoted(path)} && "
        raise SecretUnreadable(
            f"file {quoted(path)} is open to others (mode {mode:04o})", f"run: {take}chmod 600 {quoted(path)}"
        )


def quoted(path: str) -> str:
    """Return a path as a shell takes it, for messages."""
    return shlex.quote(path)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or "") if isinstance(error, OSError) else "not a path"
