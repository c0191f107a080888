"""The back end that docs/secrets.md shows: held to the contract, and installed as a package of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from docs.ini_back_end import IniBackEnd
from poller.secrets.back_ends import BackEnd
from poller.testing.secret_back_end_contract import SecretBackEndContract
from tests.end_to_end.processes import run

ROOT = Path(__file__).parents[2]


class TestIniBackEnd(SecretBackEndContract):
    back_end: ClassVar[type[BackEnd]] = IniBackEnd
    missing = "secrets.ini#a.none"

    def keep(self, text: str, tmp_path: Path) -> str:
        path = tmp_path / "secrets.ini"
        path.touch(mode=0o600)
        path.write_text(f"[a]\nkey = {text}\n")
        return "secrets.ini#a.key"


def install(directory: Path, *lines: str) -> dict[str, str]:
    """Lay out what pip would for a package with these entry points; return the environment that finds it."""
    site = directory / "site"
    (site / "ini_back_end-1.0.dist-info").mkdir(parents=True)
    (site / "ini_back_end-1.0.dist-info" / "METADATA").write_text("Name: ini-back-end\nVersion: 1.0\n")
    text = "\n".join(["[poller.secret_back_ends]", *lines, ""])
    (site / "ini_back_end-1.0.dist-info" / "entry_points.txt").write_text(text)
    (site / "ini_back_end.py").write_text((ROOT / "docs/ini_back_end.py").read_text())
    return {**os.environ, "PYTHONPATH": str(site)}


def configure(directory: Path, api_key: str) -> str:
    path = directory / "secrets.ini"
    path.touch(mode=0o600)
    path.write_text("[treasury]\nkey = the-api-key-of-ini\nsecret = the-secret-of-ini\n")
    (directory / "accounts.yaml").write_text(
        f"accounts: {{treasury: {{api_key: '{api_key}', secret: 'ini:secrets.ini#treasury.secret'}}}}\n"
    )
    return str(directory / "accounts.yaml")


@pytest.mark.real_time
def test_once_it_is_installed_its_references_are_read(tmp_path: Path) -> None:
    environment = install(tmp_path, "ini = ini_back_end:IniBackEnd")
    path = configure(tmp_path, "ini:secrets.ini#treasury.key")
    checked = run("check", "-c", path, env=environment)
    assert (checked.returncode, checked.stderr) == (0, "")
    path = configure(tmp_path, "ini:secrets.ini#treasury.none")
    checked = run("check", "-c", path, env=environment)
    assert checked.returncode == 2
    assert checked.stderr.splitlines()[0] == (
        f"error: {path}:1: accounts.treasury.api_key: there is no treasury.none in secrets.ini;"
        " add none = ... below [treasury]"
    )
    checked = run("check", "-c", configure(tmp_path, "ini:secrets.ini"), env=environment)
    assert (
        "ini: is not followed by a path, '#', a section, '.' and a key; write ini:PATH#SECTION.KEY"
        in checked.stderr
    )
    checked = run("check", "-c", configure(tmp_path, "nothing"), env=environment)
    assert "vault:PATH#FIELD, exec:COMMAND or ini:..., and keep the secret there" in checked.stderr


@pytest.mark.real_time
def test_one_that_cannot_be_loaded_or_that_breaks_its_promise_is_named(tmp_path: Path) -> None:
    environment = install(tmp_path, "ini = ini_back_end:NoSuchClass", "file = ini_back_end:IniBackEnd")
    checked = run("check", "-c", configure(tmp_path, "ini:a#b.c"), env=environment)
    assert checked.returncode == 2
    assert "the back end of ini: cannot be loaded: " in checked.stderr
    assert "Traceback" not in checked.stderr

    (tmp_path / "site" / "ini_back_end.py").write_text(
        "from poller.secrets.back_ends import BackEnd\n"
        "class NoSuchClass(BackEnd):\n"
        "    form, wants = 'ini:X', 'x'\n"
        "    accepts = classmethod(lambda cls, name: True)\n"
        "    def read(self, name, directory):\n"
        "        if 'secret' in name: return 5\n"
        "        raise RuntimeError('the-secret-itself')\n"
    )
    checked = run("check", "-c", configure(tmp_path, "ini:a"), env=environment)
    assert checked.returncode == 2
    assert [line.partition("treasury.")[2] for line in checked.stderr.splitlines()[:2]] == [
        "api_key: ini:a: its back end raised RuntimeError; tell the author of ini_back_end",
        "secret: ini:secrets.ini#treasury.secret: its back end returned no text; tell the author of ini_back_end",
    ]


@pytest.mark.real_time
def test_ours_cannot_be_taken_over(tmp_path: Path) -> None:
    environment = install(tmp_path, "file = ini_back_end:IniBackEnd", "ini = ini_back_end:IniBackEnd")
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text("a-key-of-a-file")
    checked = run("check", "-c", configure(tmp_path, "file:key"), env=environment)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_it_needs_nothing_but_the_standard_library() -> None:
    text = (ROOT / "docs/ini_back_end.py").read_text()
    imported = {
        line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import", "from"))
    }
    assert imported - {"poller", "__future__"} <= sys.stdlib_module_names
