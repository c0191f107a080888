"""``exec:COMMAND`` with real processes."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from poller.secrets import Secret, parse_reference, read_all, redact, reference_in
from poller.secrets.back_ends import commands
from tests.end_to_end.processes import wait_for
from tests.secrets.conftest import NOT_NOW, WRONG, read, refusal

pytestmark = pytest.mark.real_time


def python(script: str, *arguments: str) -> str:
    """A reference to what a Python program prints."""
    return f"exec:{shlex.join([sys.executable, '-c', script, *arguments])}"


def sh(script: str, *arguments: str) -> str:
    return f"exec:{shlex.join(['sh', '-c', script, 'sh', *arguments])}"


def runs(pid: int) -> bool:
    """Tell whether a process is there and not only waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ---- what is right


def test_what_a_command_prints_is_the_secret(tmp_path: Path) -> None:
    assert read("exec:printf abc", tmp_path) == "abc"
    assert read("exec:echo 'two words'  and", tmp_path) == "two words and"
    assert read(r"exec:printf 'a\nb\n\n'", tmp_path) == "a\nb\n"


def test_no_shell_sees_the_words(tmp_path: Path) -> None:
    assert read("exec:echo '$HOME;' '*' '`id`' '|'", tmp_path) == "$HOME; * `id` |"


def test_a_list_of_words_is_the_same_as_their_text() -> None:
    assert reference_in({"exec": ["pass", "show", "a b"]}) == parse_reference("exec:pass show 'a b'")
    assert parse_reference("exec:pass show 'a b'").shown == "exec:pass ..."
    assert parse_reference("exec:my-script").shown == "exec:my-script"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"exec": "pass show a"}, "exec: is not followed by a list of texts; put each word into quotes"),
        ({"exec": ["pass", 5]}, "exec: is not followed by a list of texts; put each word into quotes"),
        ({"exec": []}, "exec: is not followed by a command and its arguments; write exec:COMMAND"),
        ({"exec": None}, "exec: is not followed by a list of texts; put each word into quotes"),
        ({"exec": ["x" * 64]}, "what follows exec: looks like the secret itself; write exec:COMMAND"),
        ({"exec": ["pass", "x" * 64]}, "what follows exec: looks like the secret itself; write exec:COMMAND"),
        ({"env": "NAME"}, "env: is followed by no text; write env:NAME, without a space"),
        ("exec:", "exec: is not followed by a command and its arguments; write exec:COMMAND"),
        ("exec: pass", "exec: is not followed by a command and its arguments; write exec:COMMAND"),
        ("exec:pass 'a", "exec: is not followed by a command and its arguments; write exec:COMMAND"),
        ("exec:''", "exec: is not followed by a command and its arguments; write exec:COMMAND"),
    ],
)
def test_what_is_no_command_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        reference_in(value)
    assert str(caught.value) == message


def test_a_path_is_relative_to_the_configuration_and_so_is_the_command(tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "key.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\npwd\n")
    script.chmod(0o700)
    assert read("exec:scripts/key.sh", tmp_path) == str(tmp_path)
    assert read(f"exec:{script}", tmp_path / "scripts") == str(tmp_path / "scripts")


def test_the_environment_is_ours_and_there_is_nothing_to_read_and_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OP_ACCOUNT", "the desk")
    script = (
        "import os, sys; print(os.environ['OP_ACCOUNT'], repr(sys.stdin.read()), os.getsid(0) == os.getpid())"
    )
    assert read(python(script), tmp_path) == "the desk '' True"


def test_what_a_command_leaves_behind_does_not_keep_us_waiting(tmp_path: Path) -> None:
    # It holds the pipes open for longer than the limit, as an agent would that is started with the first use.
    pid = tmp_path / "pid"
    reference = sh(f"sleep 600 & echo $! > {shlex.quote(str(pid))}; echo the-secret")
    try:
        assert read(reference, tmp_path) == "the-secret"
        assert runs(int(pid.read_text()))
    finally:
        os.kill(int(pid.read_text()), 9)


def test_only_some_commands_run_at_once(tmp_path: Path) -> None:
    script = "touch now-$1; sleep 0.05; ls | grep -c now-; rm now-$1"
    wanted = [(parse_reference(sh(script, str(number))), tmp_path) for number in range(24)]
    counts = [int(found.reveal()) for found in read_all(wanted).values() if isinstance(found, Secret)]
    assert len(counts) == 24
    assert 1 < max(counts) <= commands.AT_ONCE


# ---- what is wrong


def test_a_command_that_fails_is_named_with_its_first_words_of_complaint(tmp_path: Path) -> None:
    assert refusal(sh("echo >&2; echo 'no such  item' >&2; echo more >&2; exit 3"), tmp_path) == (
        WRONG, "the command 'sh' failed with exit code 3: no such  item", "run it by hand"
    )  # fmt: skip
    assert refusal("exec:false", tmp_path)[1] == "the command 'false' failed with exit code 1"
    assert refusal(sh("printf 'a\\033[31m%0500d' 1 >&2; exit 1"), tmp_path)[1] == (
        "the command 'sh' failed with exit code 1: a[31m" + "0" * 195
    )


def test_a_complaint_does_not_repeat_what_was_printed_or_read(tmp_path: Path) -> None:
    Secret("an-older-secret-2026")
    script = "echo a-new-secret-2026; echo a-new-secret-2026 and an-older-secret-2026 >&2; exit 1"
    _, message, _ = refusal(sh('eval "$1"', script), tmp_path)
    assert message == "the command 'sh' failed with exit code 1: *** and ***"
    assert redact("a-new-secret-2026") == "***"
    script = "echo open sesame now; echo said: open sesame now >&2; exit 1"
    assert refusal(sh(script), tmp_path)[1] == "the command 'sh' failed with exit code 1: said: ***"
    assert redact("open sesame now") == "open sesame now"


@pytest.mark.parametrize("code", [os.EX_UNAVAILABLE, os.EX_TEMPFAIL])
def test_a_command_can_say_that_it_is_not_to_be_had_now(code: int, tmp_path: Path) -> None:
    assert refusal(sh(f"echo offline >&2; exit {code}"), tmp_path) == (
        NOT_NOW,
        f"the command 'sh' cannot do it now (exit code {code}): offline",
        "",
    )


def test_a_command_that_is_killed_may_succeed_later(tmp_path: Path) -> None:
    assert refusal(sh("kill -9 $$"), tmp_path)[:2] == (NOT_NOW, "the command 'sh' was ended by signal 9")


def test_a_command_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    (tmp_path / "plain").chmod(0o600)
    (tmp_path / "broken").write_bytes(b"\x7fELFx")
    (tmp_path / "broken").chmod(0o700)
    assert refusal("exec:no-such-program-here a", tmp_path) == (
        WRONG, "there is no program 'no-such-program-here'", "install it, or write its whole path"
    )  # fmt: skip
    assert refusal("exec:./none", tmp_path)[1] == "there is no program './none'"
    assert refusal("exec:./plain", tmp_path)[1] == "the command './plain' cannot be run: Permission denied"
    assert refusal("exec:./broken", tmp_path)[1] == "the command './broken' cannot be run: Exec format error"


def test_what_is_printed_has_to_be_a_secret(tmp_path: Path) -> None:
    assert refusal("exec:true", tmp_path)[:2] == (WRONG, "the command 'true' printed nothing")
    assert refusal("exec:echo", tmp_path)[:2] == (WRONG, "the command 'echo' printed nothing")
    assert refusal(r"exec:printf 'a-long-text\377'", tmp_path)[:2] == (
        WRONG, "the command 'printf' printed what is not UTF-8 text"
    )  # fmt: skip
    assert refusal("exec:yes", tmp_path)[:2] == (
        WRONG, "the command 'yes' printed more than 65536 bytes: that is no secret"
    )  # fmt: skip


def test_much_complaint_is_no_obstacle(tmp_path: Path) -> None:
    assert read(sh("head -c 1000000 /dev/zero >&2; echo abc"), tmp_path) == "abc"


# ---- time


def test_a_command_that_takes_too_long_is_killed_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "TIME_LIMIT_S", 1.0)
    pids = tmp_path / "pids"
    reference = sh(f"sleep 600 & echo $! $$ > {shlex.quote(str(pids))}; wait")
    assert refusal(reference, tmp_path) == (
        NOT_NOW, "the command 'sh' did not end within 1 s", "run it by hand: it must not ask anybody anything"
    )  # fmt: skip
    started = [int(pid) for pid in pids.read_text().split()]
    wait_for(lambda: not any(map(runs, started)))


def test_a_command_that_closes_its_output_and_stays_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "TIME_LIMIT_S", 0.5)
    assert refusal(sh("echo a; exec >&- 2>&-; sleep 600"), tmp_path)[0] is NOT_NOW


def test_a_command_that_never_stops_complaining_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "TIME_LIMIT_S", 0.5)
    assert refusal(sh("yes >&2"), tmp_path)[0] is NOT_NOW


def test_a_program_that_never_ends_is_not_run_for_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "TIME_LIMIT_S", 0.3)
    hanging = [
        (parse_reference(sh("echo >> ran; sleep 600", str(number))), tmp_path) for number in range(100)
    ]
    other = (parse_reference("exec:echo abc"), tmp_path)
    found = read_all([*hanging, other])
    assert found.pop(other) == Secret("abc")
    assert {(type(one), str(one)) for one in found.values()} == {
        (NOT_NOW, "the command 'sh' did not end within 0.3 s")
    }
    assert (tmp_path / "ran").read_text().count("\n") <= 2 * commands.AT_ONCE
