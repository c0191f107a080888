"""Completion in real shells, with names out of a configuration, whatever state it is in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from poller.cli import main
from tests.commands.fleets import CONFIGURATION, write_configuration

pytestmark = pytest.mark.real_time

SHELLS = ("bash", "zsh", "fish")
BASH = shutil.which("bash")


def script(shell: str) -> str:
    result = CliRunner().invoke(main, ["completion", shell], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def completed(directory: Path, line: str, **environment: str) -> list[str]:
    """Return what bash completes at the end of a line, by the script that is printed."""
    words = line.split(" ")
    (directory / "completion.bash").write_text(script("bash"))
    (directory / "bin").mkdir(exist_ok=True)
    command = directory / "bin" / "poller"
    command.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "from poller.cli import main; main(prog_name=\'poller\')" "$@"\n'
    )
    command.chmod(0o755)
    body = (
        f"source completion.bash; COMP_WORDS=({' '.join(words)}"
        + (' ""' if words[-1] == "" else "")
        + f"); COMP_CWORD={len(words) - 1}; _poller_completion poller; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    result = subprocess.run(
        ["bash", "--norc", "-c", body],
        cwd=directory,
        env={**os.environ, "PATH": f"{directory / 'bin'}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("poller expl", ["explain"]),
        ("poller explain ", ["from-elsewhere", "sub-001", "sub-002", "sub-003", "treasury"]),
        ("poller explain sub-", ["sub-001", "sub-002", "sub-003"]),
        ("poller history tr", ["treasury"]),
        ("poller history treasury --sink ", ["history"]),
        ("poller outbox ls --sink h", ["history"]),
        ("poller outbox replay --sink ", ["history"]),
        ("poller sinks sq", ["sqlite", "sql"]),
        ("poller balances --by ", ["account", "asset"]),
        ("poller completion z", ["zsh"]),
    ],
)
def test_bash_completes(tmp_path: Path, line: str, expected: list[str]) -> None:
    config = write_configuration(tmp_path, "include: [more.yaml]\n" + CONFIGURATION)
    (tmp_path / "more.yaml").write_text("accounts: {from-elsewhere: {}}\n")
    assert config.name == "accounts.yaml"
    assert completed(tmp_path, line) == expected


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_the_configuration_that_is_named_is_read(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("accounts: {elsewhere: {}}\n")
    assert completed(tmp_path, "poller explain -c other.yaml ") == ["elsewhere"]
    assert completed(tmp_path, "poller explain ", POLLER_CONFIG=str(other)) == ["elsewhere"]


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.parametrize(
    "text", ["accounts: [", "accounts: {good: {}, 'two words': {}}\nsinks: 5\n", "\x00", None]
)
def test_a_broken_configuration_is_silent(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        write_configuration(tmp_path, text)
    names = ["good"] if text and "good" in text else []
    assert completed(tmp_path, "poller explain ") == names
    assert completed(tmp_path, "poller outbox ls --sink ") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_of_that_shell(shell: str, tmp_path: Path) -> None:
    printed = script(shell)
    assert f"_POLLER_COMPLETE={shell}_complete" in printed
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its syntax is not checked")
    (tmp_path / "script").write_text(printed)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, timeout=60)


def test_an_unknown_shell_is_a_mistake() -> None:
    result = CliRunner().invoke(main, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in result.stderr
