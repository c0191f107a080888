"""The back end ``credential:NAME``: a file in ``$CREDENTIALS_DIRECTORY``, where systemd puts a service's credentials."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import ClassVar, Final

from poller.secrets.back_ends import BackEnd
from poller.secrets.back_ends.files import quoted, read_file
from poller.secrets.errors import SecretUnreadable

VARIABLE: Final = "CREDENTIALS_DIRECTORY"
# What systemd takes: a file's name of printable ASCII without a colon.
_NAME = re.compile(r"(?!\.{1,2}\Z)[ -.0-9;-~]{1,255}")


class CredentialBackEnd(BackEnd):
    """Reads credentials."""

    form: ClassVar[str] = "credential:NAME"
    wants: ClassVar[str] = "the name of a credential of the service"

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Tell whether a credential can have the name. It cannot lead out of the directory."""
        return _NAME.fullmatch(name) is not None and name == name.strip()

    def read(self, name: str, directory: Path) -> str:
        """Return what is in the credential's file."""
        remedy = f"add to the unit's [Service] section: LoadCredential={name}:/path/to/file"
        place = os.environ.get(VARIABLE, "")
        if not place:
            raise SecretUnreadable(f"{VARIABLE} is not set: systemd gave this process no credentials", remedy)
        if not Path(place).is_absolute():
            raise SecretUnreadable(f"{VARIABLE} is no absolute path", "let systemd set it")
        return read_file(str(Path(place) / name), _refuse_unsafe, if_missing=remedy)


def _refuse_unsafe(status: os.stat_result, path: str) -> None:
    """Raise unless the file is ours or root's, nobody else's to write, and not everybody's to read.

    The group may read it: the mode shows an access list so, by which systemd lets the service's user in,
    and an orchestrator gives root's file to the group of the process.
    """
    if status.st_uid not in {os.geteuid(), 0}:
        raise SecretUnreadable(
            f"credential {quoted(path)} belongs to another user (uid {status.st_uid})",
            f"let systemd set {VARIABLE}",
        )
    if status.st_mode & 0o027:
        mode = stat.S_IMODE(status.st_mode)
        raise SecretUnreadable(
            f"credential {quoted(path)} is open to others (mode {mode:04o})", "make it 0400 or 0440"
        )
