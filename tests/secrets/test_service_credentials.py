"""``credential:NAME``: files as systemd and orchestrators lay them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poller.secrets import parse_reference
from tests.secrets.conftest import WRONG, read, refusal


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "credentials"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory


def keep(path: Path, mode: int) -> Path:
    path.write_text("the-secret\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600])
def test_a_credential_is_read(mode: int, credentials: Path) -> None:
    keep(credentials / "treasury.key", mode)
    assert read("credential:treasury.key", Path("/nowhere")) == "the-secret"


def test_links_inside_the_directory_are_followed(credentials: Path) -> None:
    # So Kubernetes swaps all files of a secret at once.
    (credentials / "..2026_01_01").mkdir()
    keep(credentials / "..2026_01_01" / "key", 0o440)
    (credentials / "..data").symlink_to("..2026_01_01")
    (credentials / "key").symlink_to("..data/key")
    assert read("credential:key", Path("/nowhere")) == "the-secret"


@pytest.mark.parametrize("mode", [0o444, 0o420, 0o460, 0o401, 0o402])
def test_a_credential_that_others_can_open_is_refused(mode: int, credentials: Path) -> None:
    path = keep(credentials / "key", mode)
    assert refusal("credential:key", Path("/nowhere")) == (
        WRONG,
        f"credential {path} is open to others (mode {mode:04o})",
        "make it 0400 or 0440",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another")
def test_a_credential_of_another_user_is_refused(credentials: Path) -> None:
    path = keep(credentials / "key", 0o400)
    os.chown(path, 4242, -1)
    assert refusal("credential:key", Path("/nowhere")) == (
        WRONG,
        f"credential {path} belongs to another user (uid 4242)",
        "let systemd set CREDENTIALS_DIRECTORY",
    )


def test_what_is_missing_is_said_with_the_line_for_the_unit(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remedy = "add to the unit's [Service] section: LoadCredential=treasury.key:/path/to/file"
    assert refusal("credential:treasury.key", Path("/nowhere")) == (
        WRONG,
        f"there is no file {credentials}/treasury.key",
        remedy,
    )
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert refusal("credential:treasury.key", Path("/nowhere")) == (
        WRONG,
        "CREDENTIALS_DIRECTORY is not set: systemd gave this process no credentials",
        remedy,
    )
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "credentials")
    assert (
        refusal("credential:treasury.key", Path("/nowhere"))[1] == "CREDENTIALS_DIRECTORY is no absolute path"
    )


@pytest.mark.parametrize("name", ["a", "a.b", "a b", "...", "..a", "a..", "~", "x" * 255])
def test_names_that_systemd_takes_are_taken(name: str) -> None:
    assert parse_reference(f"credential:{name}").name == name if len(name) < 40 else True


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", "a:b", "a\n", "ä", "a\x7f", "x " * 128])
def test_names_that_lead_elsewhere_or_that_systemd_refuses_are_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"^credential: is not followed by the name of a credential of the service"
    ):
        parse_reference(f"credential:{name}")
