"""Back ends: the places where secrets are kept, and how further ones are found.

Third parties add one by declaring an entry point in the group ``poller.secret_back_ends``; its name
is the scheme, what stands before the colon of a reference. Ours cannot be replaced: an installed
package must not be able to take over ``file:``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import ClassVar, Final, Protocol

GROUP: Final = "poller.secret_back_ends"
AT_ONCE_MOST: Final = 16  # reads of one back end at the same time, whatever it asks for

_HERE = "poller.secrets.back_ends"
_OURS: Final[Mapping[str, str]] = {
    "env": f"{_HERE}.environment:EnvironmentBackEnd",
    "file": f"{_HERE}.files:FileBackEnd",
    "credential": f"{_HERE}.credentials:CredentialBackEnd",
    "keyring": f"{_HERE}.keyrings:KeyringBackEnd",
    "vault": f"{_HERE}.vault:VaultBackEnd",
    "exec": f"{_HERE}.commands:CommandBackEnd",
}


class BackEnd(Protocol):
    """One place where secrets are kept. Subclass it, so that what is left out has its default.

    An object of it lives for one round of reading: made without arguments, asked for every secret of
    its scheme, closed. What it keeps in between, such as a connection, may not outlive ``close``.

    Attributes:
        form: how a reference to it is written, such as ``vault:PATH#FIELD``.
        wants: what stands after the colon, for messages, such as ``a path and a field``.
        at_once: reads that may run at the same time, each in a thread of its own. With 1 they come one
            after another, in the thread that asked: right for what never waits.
        takes_words: a list of words may be written instead of a text; they arrive as ``shlex.join`` joins them.
    """

    form: ClassVar[str]
    wants: ClassVar[str]
    at_once: ClassVar[int] = 1
    takes_words: ClassVar[bool] = False

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Tell whether a text can stand after the colon. No I/O, and it never raises."""
        ...

    def read(self, name: str, directory: Path) -> str:
        """Return the secret's text; one line break at its end is dropped by whoever asked.

        Blocks, so it has to give up by itself within seconds.

        Args:
            name: what stands after the colon; accepted.
            directory: what a relative path is relative to.

        Raises:
            SecretUnreadable: somebody has to repair something. The text shows nothing of any secret.
            SecretUnavailable: it may succeed later, without anybody's help.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Harmless when called twice."""
        return


@functools.cache
def installed() -> Mapping[str, EntryPoint]:
    """Return the entry point of every back end by its scheme: ours, then others'."""
    ours = {scheme: EntryPoint(scheme, value, GROUP) for scheme, value in _OURS.items()}
    others = {point.name: point for point in entry_points(group=GROUP)}
    return {**ours, **{scheme: point for scheme, point in sorted(others.items()) if scheme not in ours}}


@functools.cache
def load(scheme: str) -> type[BackEnd]:
    """Return the class of a back end, imported only now.

    Raises:
        LookupError: there is no such scheme.
        ImportError, AttributeError: it cannot be loaded.
    """
    back_end: type[BackEnd] = installed()[scheme].load()
    return back_end
