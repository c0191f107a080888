"""What the tests of all back ends share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from poller.secrets import SecretUnavailable, SecretUnreadable, parse_reference
from tests.secrets.vault_stand_in import TOKEN, VaultStandIn, vault_stand_in


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test makes a secret is none to the next."""
    monkeypatch.setattr("poller.secrets.redaction._pieces", set())
    monkeypatch.setattr("poller.secrets.redaction._words", set())


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultStandIn]:
    """A Vault that the environment points to."""
    for name in ("VAULT_NAMESPACE", "VAULT_CACERT", "VAULT_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    with vault_stand_in() as stand_in:
        monkeypatch.setenv("VAULT_ADDR", stand_in.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        yield stand_in


def read(text: str, directory: Path) -> str:
    return parse_reference(text).read(directory).reveal()


def refusal(text: str, directory: Path) -> tuple[type[SecretUnreadable], str, str]:
    """Read what cannot be read; return the kind of error, its message and its remedy."""
    with pytest.raises(SecretUnreadable) as caught:
        parse_reference(text).read(directory)
    return caught.type, str(caught.value), caught.value.remedy


WRONG, NOT_NOW = SecretUnreadable, SecretUnavailable
