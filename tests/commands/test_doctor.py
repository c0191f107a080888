"""``poller doctor``: what it finds, what it hides, and that it works when nothing else does."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from poller.cli import main
from poller.commands.doctor_configuration import MAPPINGS, PLAIN, SECTIONS, scrubbed
from poller.commands.doctor_machine import _sqlite, cgroup_limits, fits
from poller.config.loading import KEYS
from poller.locks import FileLock
from tests.commands.fleets import CONFIGURATION, desk, serving, write_configuration

pytestmark = pytest.mark.real_time

CANARY = "CanaryThatMustNotBeSeen"
KEYED = """\
egress:
  far: {proxy: env:FAR_PROXY}
accounts:
  treasury: {api_key: file:secrets/treasury.key, secret: file:secrets/treasury.secret}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_configuration(tmp_path)


def invoke(config: Path, *options: str) -> Result:
    result = CliRunner().invoke(main, ["doctor", "-c", str(config), *options], catch_exceptions=False)
    assert "Traceback" not in result.output
    return result


def found(config: Path, section: str, name: str | None = None) -> list[dict[str, Any]]:
    document = json.loads(invoke(config, "--json").stdout)
    return [
        finding
        for finding in document["findings"]
        if finding["section"] == section and name in {None, finding["name"]}
    ]


def secret(directory: Path, name: str, mode: int = 0o600) -> Path:
    path = directory / "secrets" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(CANARY)
    path.chmod(mode)
    return path


def test_a_report_has_every_section(config: Path) -> None:
    result = invoke(config)
    assert result.exit_code == 0
    for section in (
        "versions",
        "dependencies",
        "limits",
        "clock",
        "configuration",
        "file systems",
        "permissions",
        "secrets",
        "daemon",
    ):
        assert f"\n{section}\n" in result.stdout
    assert "WAL-reset bug" in result.stdout
    document = json.loads(invoke(config, "--json").stdout)
    assert document["worst"] == "warning"  # the variables are not set here
    assert {finding["level"] for finding in document["findings"]} <= {"ok", "warning"}


def test_a_configuration_that_is_wrong_is_told_with_all_the_rest(config: Path) -> None:
    config.write_text(CONFIGURATION + "sinks_: {}\noutbox: {retain: 5}\n")
    result = invoke(config)
    assert result.exit_code == 1
    assert "unknown key 'sinks_', did you mean 'sinks'?" in result.stdout
    assert "accounts.yaml:11" in result.stdout
    assert "accounts.treasury.api_key" in result.stdout


@pytest.mark.parametrize("text", ["accounts: [", "\x00", "", "- a\n", "accounts: 5\nsinks: [1]\negress: x\n"])
def test_it_works_whatever_the_file_holds(config: Path, text: str) -> None:
    config.write_text(text)
    result = invoke(config)
    assert result.exit_code == 1
    assert "\nversions\n" in result.stdout


def test_it_works_without_a_file(tmp_path: Path) -> None:
    [finding] = found(tmp_path / "accounts.yaml", "configuration")
    assert (finding["level"], finding["text"]) == ("error", "cannot be read: No such file or directory")


# Secrets -----------------------------------------------------------------------------------------

PLANTED = f"""\
exchange: {{base_url: "https://user:{CANARY}@exchange.example"}}
egress:
  far: {{proxy: "http://user:{CANARY}@proxy.example:3128"}}
  near: {{prxy: {CANARY}}}
accounts:
  literal: {{api_key: {CANARY}, secret: {CANARY}, interval: 10s}}
  misspelt: {{api_kye: {CANARY}, secret: env:GOOD_NAME}}
  nested: {{labels: {{note: "https://a:{CANARY}@b/{CANARY}?token={CANARY}"}}}}
  glued: {{api_key:{CANARY}}}
  list: [{CANARY}]
  text: {CANARY}
sinks:
  hook: {{kind: webhook, url: "https://hooks.example/{CANARY}", secret: {CANARY}}}
  unknown: {{kind: nonesuch, path: {CANARY}}}
  bare: {CANARY}
  stdout: {{kind: stdout, password: {CANARY}}}
discover: {{master: {{api_key: {CANARY}}}}}
password: {CANARY}
? [{CANARY}]
: {CANARY}
"""


def test_no_secret_is_shown_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOD_NAME", CANARY)
    # A canary in a path of an URL is no secret by its place; of a label, only user and query are.
    config = write_configuration(tmp_path, PLANTED.replace(f"@b/{CANARY}?", "@b/page?"))
    for options in ((), ("--json",)):
        output = invoke(config, *options).output
        assert CANARY not in output
        assert "env:GOOD_NAME" in output
        assert "https://***@b/page?***" in output


def test_secrets_are_looked_at_from_outside_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_configuration(tmp_path, KEYED)
    key, value = secret(tmp_path, "treasury.key"), secret(tmp_path, "treasury.secret")
    monkeypatch.setenv("FAR_PROXY", f"http://{CANARY}@proxy.example:3128")
    opened: list[str] = []

    def watch(event: str, arguments: Any) -> None:
        if watching and event == "open":
            opened.append(str(arguments[0]))

    watching: list[bool] = [True]
    sys.addaudithook(watch)
    output = invoke(config).output
    watching.clear()
    assert str(config) in opened
    assert not {str(key), str(value)} & set(opened)
    assert CANARY not in output
    assert "3 of 3 are there, and closed to others" in output


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o644), "mode 0644; it is open to others"),
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.write_text(""), "is empty"),
        (lambda path: (path.unlink(), path.mkdir()), "is not a regular file"),
    ],
)
def test_what_is_wrong_with_a_secret_is_an_error(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    config = write_configuration(tmp_path, KEYED)
    secret(tmp_path, "treasury.key")
    spoil(secret(tmp_path, "treasury.secret"))
    [finding] = found(config, "secrets", "accounts.treasury.secret")
    assert finding["level"] == "error"
    assert finding["text"] == f"{tmp_path}/secrets/treasury.secret: {said}"
    assert finding["remedy"]
    assert invoke(config).exit_code == 1


def test_of_thousands_of_accounts_a_few_are_shown_and_all_are_looked_at(tmp_path: Path) -> None:
    accounts = "".join(
        f"  a{number:04}: {{api_key: file:k/{number}, secret: env:S_{number}}}\n" for number in range(2000)
    )
    config = write_configuration(tmp_path, "accounts:\n" + accounts)
    document = json.loads(invoke(config, "--json").stdout)
    shown = document["configuration"][str(config)]["accounts"]
    assert list(shown) == ["a0000", "a0001", "a0002", "..."]
    assert shown["..."] == "1,997 more"
    [rest] = found(config, "secrets", "...")
    assert rest["text"] == "3,990 more are wrong"


def test_every_section_of_the_configuration_is_shown_by_its_model() -> None:
    # A section that is added has to be added there, or all of it is hidden.
    assert {*SECTIONS, *MAPPINGS, *PLAIN, "sinks"} == set(KEYS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nats://user:word@host:4222", "nats://***@host:4222"),
        ("a://u@h,b://v:w@i", "a://***@h,b://***@i"),
        ("https://h/p?token=x", "https://h/p?***"),
        ("https://h/p#x y", "https://h/p?*** y"),
        ("data/history.db", "data/history.db"),
        ("a" * 64, "***"),
        ("key: " + "aB3" * 20, "key: ***"),
    ],
)
def test_texts_are_scrubbed(text: str, expected: str) -> None:
    assert scrubbed(text) == expected


@given(
    st.text(),
    st.text(min_size=1).filter(lambda text: not set(text) & set("/?#@ \t\n") and text.isprintable()),
)
def test_no_user_of_an_url_is_left(before: str, user: str) -> None:
    assert f"{user}@host" not in scrubbed(f"{before} http://{user}@host/") or user == "***"


# Files -------------------------------------------------------------------------------------------


def test_files_that_others_can_change_or_open_are_told(config: Path) -> None:
    config.chmod(0o666)
    outbox = config.parent / "data" / "outbox.db"
    outbox.parent.mkdir()
    outbox.touch()
    outbox.chmod(0o644)
    [finding] = found(config, "permissions", "configuration")
    assert (finding["level"], finding["remedy"]) == ("error", f"chmod o-w {config}")
    [finding] = found(config, "permissions", "outbox")
    assert (finding["level"], finding["remedy"]) == ("warning", f"chmod 600 {outbox}")


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no directory in memory")
def test_an_outbox_in_memory_is_a_warning(config: Path) -> None:
    config.write_text(CONFIGURATION + "outbox: {path: /dev/shm/poller-doctor/outbox.db}\n")
    [finding] = found(config, "file systems", "outbox")
    assert finding["level"] == "warning"
    assert "(is made): tmpfs" in finding["text"]


# The daemon --------------------------------------------------------------------------------------


def test_a_daemon_is_named_with_version_and_uptime(config: Path) -> None:
    (config.parent / "data").mkdir()
    lock = FileLock(config.parent / "data" / "outbox.db.lock")
    try:
        with serving(config.parent, desk()):
            running, *ready = found(config, "daemon")
        assert running["text"] == f"process {os.getpid()}, version 0.1.0, up 4 h"
        assert [(check["name"], check["level"]) for check in ready] == [
            ("ready: outbox", "ok"),
            ("ready: polls", "warning"),
            ("egress nat-b", "warning"),
            ("sink bus", "warning"),
        ]
        assert ready[-1]["text"] == (
            "nats, backlog 312, dead letters 2; nats.example:4222: connection refused"
        )
        [silent] = found(config, "daemon")
    finally:
        lock.release()
    assert silent["level"] == "warning"
    assert f"process {os.getpid()}, but nobody answers" in silent["text"]


def test_no_daemon_is_no_mistake_and_a_socket_that_is_left_is_none(config: Path) -> None:
    (config.parent / "data").mkdir()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(config.parent / "data" / "outbox.db.sock"))
    left.close()
    assert [(one["level"], one["text"]) for one in found(config, "daemon")] == [("ok", "no")]


# The machine -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 54, 0), False),
    ],
)
def test_the_versions_with_the_bug_are_known(version: tuple[int, int, int], has_it: bool) -> None:
    assert ("WAL-reset bug" in _sqlite(version)) == has_it


@pytest.mark.parametrize(
    ("version", "bounds", "expected"),
    [
        ("3.14.4", ">=3.14.4,<4", True),
        ("3.14.3", "<4,>=3.14.4", False),
        ("4", ">=3.14.4,<4", False),
        ("0.14.0", ">=0.14,<0.15", True),
        ("15.0.0", "<16,>=14", True),
        ("1.2.post1", "==1.2", True),
        ("2.0rc1", "!=2.1", True),
        ("1.4.5", "~=1.4.2", True),
        ("1.5", "~=1.4.2", False),
        ("1", "", True),
    ],
)
def test_versions_are_held_against_their_bounds(version: str, bounds: str, expected: bool) -> None:
    assert fits(version, bounds) is expected


def test_limits_of_control_groups_of_both_versions_are_found(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    inner = tmp_path / "two" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text("1073741824\n")
    (inner / "cpu.max").write_text("150000 100000\n")
    (inner / "pids.max").write_text("100\n")
    assert cgroup_limits(own, tmp_path / "two") == ["cpu 1.5", "pids 100", "memory 1.0 GiB"]
    own.write_text("4:memory:/x\n1:cpu,cpuacct:/\n")
    (tmp_path / "one" / "memory" / "x").mkdir(parents=True)
    (tmp_path / "one" / "memory" / "x" / "memory.limit_in_bytes").write_text("536870912\n")
    (tmp_path / "one" / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "one" / "cpu").mkdir()
    (tmp_path / "one" / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_limits(own, tmp_path / "one") == ["memory 512.0 MiB"]
    assert cgroup_limits(tmp_path / "missing", tmp_path) == []
