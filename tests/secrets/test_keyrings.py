"""``keyring:SERVICE/USER`` with the real library and a keyring of the test's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from poller.secrets import parse_reference

pytest.importorskip("keyring")
pytestmark = pytest.mark.real_time

# In a process of its own: the library keeps the keyring in use for the whole process.
PROGRAM = """
import sys, threading
from pathlib import Path
import keyring
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked
from poller.secrets import parse_reference, read_all
from poller.secrets.back_ends import keyrings

asked = []

class OurKeyring(KeyringBackend):
    priority = 1
    set_password = delete_password = None

    def get_password(self, service, user):
        asked.append((service, user))
        if service == "locked":
            raise KeyringLocked("the-password-is-in-here")
        if service == "hanging":
            threading.Event().wait()
        if service == "broken":
            raise RuntimeError("the-password-is-in-here")
        return {("binance", "treasury"): "the-secret", ("https://h/x", "u"): "of-an-url"}.get((service, user))

keyring.set_keyring(OurKeyring())
keyrings.TIME_LIMIT_S = 0.3
for found in read_all((parse_reference(text), Path("/")) for text in sys.argv[1:]).values():
    shown = found.reveal() if hasattr(found, "reveal") else f"{type(found).__name__}: {found}; {found.remedy}"
    print(shown)
print(len(asked), "asked")
"""


def told(*references: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *references],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return result.stdout.splitlines()


def test_a_password_is_read_by_service_and_user() -> None:
    assert told("keyring:binance/treasury", "keyring:https://h/x/u") == ["the-secret", "of-an-url", "2 asked"]


def test_what_is_not_there_is_said_with_the_command_that_puts_it_there() -> None:
    assert told("keyring:my desk/b") == [
        "SecretUnreadable: the keyring has no password of 'b' for 'my desk'; run: keyring set 'my desk' b",
        "1 asked",
    ]


def test_a_keyring_that_is_locked_or_broken_is_waited_for_and_its_words_are_not_repeated() -> None:
    assert told("keyring:locked/a", "keyring:broken/a") == [
        "SecretUnavailable: the keyring cannot be read now: KeyringLocked; is it locked? unlock it",
        "SecretUnavailable: the keyring cannot be read now: RuntimeError; is it locked? unlock it",
        "2 asked",
    ]


def test_a_keyring_that_does_not_answer_is_asked_once() -> None:
    silent = "SecretUnavailable: the keyring did not answer within 0.3 s; is it locked? unlock it"
    assert told("keyring:hanging/a", "keyring:hanging/b") == [silent, silent, "1 asked"]


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("import sys; sys.modules['keyring'] = None; ",
         "keyring: needs the package 'keyring', which is not installed; run: pip install 'poller[keyring]'"),
        ("import keyring, keyring.backends.fail as f; keyring.set_keyring(f.Keyring()); ",
         "this machine has no keyring; keep the secret elsewhere"),
    ],
)  # fmt: skip
def test_without_the_library_or_a_keyring_it_is_said_what_to_do(before: str, said: str) -> None:
    program = (
        "from pathlib import Path; from poller.secrets import parse_reference, SecretUnreadable\n"
        "try: parse_reference('keyring:a/b').read(Path('/'))\n"
        "except SecretUnreadable as error: print(f'{error}; {error.remedy}')"
    )
    result = subprocess.run(
        [sys.executable, "-c", before + program], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == f"{said}\n"


@pytest.mark.parametrize("name", ["", "a", "/a", "a/", "a/b\n", " a/b"])
def test_what_is_no_service_and_user_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"^keyring: is not followed by a service and, after the last slash, a user"
    ):
        parse_reference(f"keyring:{name}")
