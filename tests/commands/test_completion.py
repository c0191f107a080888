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
from poller.commands.names import account_names, sink_names
from poller.config import load
from tests.commands.fleets import CONFIGURATION, write_configuration

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).parents[2]
SUBS = ["sub-001", "sub-002", "sub-003"]
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


def test_names_are_those_that_the_configuration_has(tmp_path: Path) -> None:
    config = write_configuration(tmp_path, "include: [more.yaml, 'missing/*']\n" + CONFIGURATION)
    (tmp_path / "more.yaml").write_text(
        "defaults: {labels: {deep: {accounts: {no: {}}}}}\naccounts:\n  one: {}\n  two: [a, b]\n  three:\n"
        "  four: {secret: env:X, nested: {five: 5}}\n"
    )
    (tmp_path / "more.yaml").chmod(0o600)
    assert account_names(config) == sorted(["four", "one", "three", "two", *SUBS, "treasury"])
    assert sink_names(config) == ["history"]
    assert sink_names(tmp_path / "accounts.example.yaml") == []


def test_names_of_the_example_are_those_that_are_loaded(tmp_path: Path) -> None:
    example = ROOT / "accounts.example.yaml"
    (tmp_path / "accounts.yaml").write_text(example.read_text())
    (tmp_path / "fleet.d").mkdir()
    (tmp_path / "fleet.d" / "a.yaml").write_text("accounts: {z: {api_key: env:A, secret: env:B}}\n")
    config = load(tmp_path / "accounts.yaml")
    assert account_names(tmp_path / "accounts.yaml") == sorted(config.accounts)
    assert sink_names(tmp_path / "accounts.yaml") == list(config.sinks)


def test_to_complete_imports_little() -> None:
    code = (
        "import sys; from pathlib import Path; import poller.cli; from poller.commands.names import account_names;"
        "account_names(Path('accounts.example.yaml'));"
        "print({name.split('.')[0] for name in sys.modules} & {'rich', 'pydantic', 'aiohttp', 'prometheus_client'})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "set()\n"


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
