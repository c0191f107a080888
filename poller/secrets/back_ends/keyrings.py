"""The back end ``keyring:SERVICE/USER``: the keyring of the desktop or the system, through the library ``keyring``."""

from __future__ import annotations

import queue
import shlex
import threading
from pathlib import Path
from typing import ClassVar, Final

from poller.secrets.back_ends import BackEnd
from poller.secrets.errors import SecretUnavailable, SecretUnreadable

TIME_LIMIT_S: Final = 10.0


class KeyringBackEnd(BackEnd):
    """Reads passwords, one after another: few keyrings are made for more."""

    form: ClassVar[str] = "keyring:SERVICE/USER"
    wants: ClassVar[str] = "a service and, after the last slash, a user"

    def __init__(self) -> None:
        self._silent: SecretUnavailable | None = None

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Tell whether there is a service and a user."""
        service, slash, user = name.rpartition("/")
        return bool(service and slash and user) and name.isprintable() and name == name.strip()

    def read(self, name: str, directory: Path) -> str:
        """Return the password.

        A keyring that waits for somebody to unlock it cannot be called off: its thread is left behind,
        and nothing more is asked of it in this round.
        """
        if self._silent is not None:
            raise self._silent
        service, _, user = name.rpartition("/")
        answers: queue.SimpleQueue[str | SecretUnreadable | None] = queue.SimpleQueue()
        threading.Thread(
            target=lambda: answers.put(_ask(service, user)), name="secrets of keyring", daemon=True
        ).start()
        try:
            answer = answers.get(timeout=TIME_LIMIT_S)
        except queue.Empty:
            self._silent = SecretUnavailable(
                f"the keyring did not answer within {TIME_LIMIT_S:g} s", "is it locked? unlock it"
            )
            raise self._silent from None
        if isinstance(answer, SecretUnreadable):
            raise answer
        if answer is None:
            raise SecretUnreadable(
                f"the keyring has no password of {user!r} for {service!r}",
                f"run: keyring set {shlex.quote(service)} {shlex.quote(user)}",
            )
        return answer


def _ask(service: str, user: str) -> str | SecretUnreadable | None:
    try:
        import keyring
        from keyring.errors import NoKeyringError
    except ModuleNotFoundError as error:
        return SecretUnreadable(
            f"keyring: needs the package {error.name!r}, which is not installed",
            "run: pip install 'poller[keyring]'",
        )
    try:
        return keyring.get_password(service, user)
    except NoKeyringError:
        return SecretUnreadable("this machine has no keyring", "keep the secret elsewhere")
    except Exception as error:  # noqa: BLE001  # each kind of keyring has its own; the text may hold anything
        return SecretUnavailable(
            f"the keyring cannot be read now: {type(error).__name__}", "is it locked? unlock it"
        )
