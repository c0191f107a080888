"""Our own back ends keep the contract that others are held to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from poller.secrets.back_ends import BackEnd, load
from poller.testing.secret_back_end_contract import SecretBackEndContract
from tests.secrets.vault_stand_in import VaultStandIn

pytestmark = pytest.mark.real_time


def private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


class TestEnvironment(SecretBackEndContract):
    back_end: ClassVar[type[BackEnd]] = load("env")
    missing = "POLLER_TEST_MISSING"

    @pytest.fixture(autouse=True)
    def _clean(self) -> Iterator[None]:
        yield
        os.environ.pop("POLLER_TEST_KEPT", None)

    def keep(self, text: str, tmp_path: Path) -> str:
        os.environ["POLLER_TEST_KEPT"] = text
        return "POLLER_TEST_KEPT"


class TestFiles(SecretBackEndContract):
    back_end: ClassVar[type[BackEnd]] = load("file")
    missing = "none"

    def keep(self, text: str, tmp_path: Path) -> str:
        private(tmp_path / "kept", text)
        return "kept"


class TestCredentials(SecretBackEndContract):
    back_end: ClassVar[type[BackEnd]] = load("credential")
    missing = "none"

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    def keep(self, text: str, tmp_path: Path) -> str:
        private(tmp_path / "kept", text)
        return "kept"


class TestCommands(SecretBackEndContract):
    back_end: ClassVar[type[BackEnd]] = load("exec")
    missing = "cat none"

    def keep(self, text: str, tmp_path: Path) -> str:
        private(tmp_path / "kept", text)
        return "cat kept"


class TestVault(SecretBackEndContract):
    back_end: ClassVar[type[BackEnd]] = load("vault")
    missing = "secret/kept#none"

    @pytest.fixture(autouse=True)
    def _running(self, vault: VaultStandIn) -> None:
        self.vault = vault

    def keep(self, text: str, tmp_path: Path) -> str:
        self.vault.secrets["kept"] = {"key": text}
        return "secret/kept#key"
