"""The back end ``env:NAME``: a variable of the process's environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar

from poller.secrets.back_ends import BackEnd
from poller.secrets.errors import SecretUnreadable

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class EnvironmentBackEnd(BackEnd):
    """Reads variables."""

    form: ClassVar[str] = "env:NAME"
    wants: ClassVar[str] = "the name of an environment variable"

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Tell whether a variable can have the name."""
        return _NAME.fullmatch(name) is not None

    def read(self, name: str, directory: Path) -> str:
        """Return the variable's value."""
        text = os.environ.get(name)
        if text is None:
            raise SecretUnreadable(f"environment variable {name} is not set")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise SecretUnreadable(f"environment variable {name} is not UTF-8 text") from None
        return text
