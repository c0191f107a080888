from __future__ import annotations

import copy
import json
import os
import pickle
import secrets as standard_secrets
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.secrets import (
    Secret,
    SecretReference,
    SecretUnreadable,
    may_be_secret,
    parse_reference,
    redact,
    redaction,
)

NONE = (
    "not a secret reference; write env:NAME, file:PATH, credential:NAME, keyring:SERVICE/USER, "
    "vault:PATH#FIELD or exec:COMMAND, and keep the secret there"
)
KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test makes a secret is none to the next."""
    monkeypatch.setattr("poller.secrets.redaction._pieces", set())
    monkeypatch.setattr("poller.secrets.redaction._words", set())


# ---- the type


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    assert f"{secret} {secret!r} {secret:>10} %s" % secret == "*** Secret('***') *** ***"
    assert str([secret]) == "[Secret('***')]"


def test_secrets_with_the_same_text_are_the_same() -> None:
    assert Secret("same-text-1") == Secret("same-text-1")
    assert len({Secret("same-text-1"), Secret("same-text-1"), Secret("other-text-1")}) == 2
    assert Secret("same-text-1") != "same-text-1"


@pytest.mark.parametrize("leave", [pickle.dumps, copy.deepcopy, copy.copy])
def test_a_secret_is_not_copied_out(leave: object) -> None:
    assert callable(leave)
    with pytest.raises(TypeError, match=r"^a Secret is not pickled$"):
        leave(Secret(KEY))


# ---- redaction


def test_a_secret_is_hidden_wherever_it_stands() -> None:
    key = standard_secrets.token_hex(32)
    Secret(key)
    assert redact(f"X-MBX-APIKEY={key}&x=1") == "X-MBX-APIKEY=***&x=1"
    assert redact(f"GET /{key}?x {key}") == "GET /***?x ***"
    assert redact(f"before{key}") == "before***"
    assert redact(json.dumps({"key": f"a\n{key}\t"})) == '{"key": "a\\n***\\t"}'
    assert redact(repr(f"line\n{key}")) == "'line\\n***'"


def test_what_is_remembered_for_it_is_no_text() -> None:
    for text in (
        KEY,
        "hunter2024",
        "redis://u:s3cr3t-pass-word@h:1",
        f"-----BEGIN X-----\n{KEY}\n-----END X-----",
    ):
        Secret(text)
    remembered = {*redaction._pieces, *redaction._words}
    assert len(remembered) > 8
    assert {type(one) for one in remembered} == {int}


def test_a_secret_that_was_cut_off_is_hidden_too() -> None:
    key = standard_secrets.token_hex(32)
    Secret(key)
    assert redact(f"key {key[:40]}... refused") == "key ***... refused"
    assert key[-12:] not in redact(f"...{key[20:]}")


@given(st.text(min_size=12, max_size=200), st.text(max_size=40), st.text(max_size=40))
def test_a_long_secret_never_survives(text: str, before: str, after: str) -> None:
    Secret(text)
    shown = redact(before + text + after)
    if "://" not in text and "-----" not in text:
        assert text not in shown


def test_a_pem_is_hidden_line_by_line_and_its_boundaries_stay() -> None:
    lines = [standard_secrets.token_hex(32) for _ in range(3)]
    pem = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])
    Secret(pem)
    assert redact(pem) == "-----BEGIN PRIVATE KEY-----\n***\n***\n***\n-----END PRIVATE KEY-----\n"
    assert redact(repr(pem)).count("***") == 3
    assert not any(line in redact("".join(lines)) for line in lines)
    assert redact("a PRIVATE KEY that begins with -----BEGIN") == "a PRIVATE KEY that begins with -----BEGIN"


def test_of_an_url_the_password_is_hidden_and_the_host_is_not() -> None:
    Secret("redis://poller:s3cr3t-pass-word@redis.example.internal:6379/0")
    assert redact("connecting to redis.example.internal:6379 as poller failed") == (
        "connecting to redis.example.internal:6379 as poller failed"
    )
    assert redact("redis://poller:s3cr3t-pass-word@redis.example.internal:6379/0") == (
        "redis://poller:***@redis.example.internal:6379/0"
    )
    # base64 of poller:s3cr3t-pass-word
    assert redact("Proxy-Authorization: Basic cG9sbGVyOnMzY3IzdC1wYXNzLXdvcmQ=") == (
        "Proxy-Authorization: Basic ***"
    )


def test_a_password_is_hidden_as_it_stands_in_an_url_and_as_it_is() -> None:
    Secret("http://user:p%40ss%2Fword-2026@proxy:3128")
    assert redact("p@ss/word-2026 and p%40ss%2Fword-2026") == "*** and ***"


def test_a_token_in_the_path_or_the_query_of_an_url_is_hidden() -> None:
    Secret("https://hooks.example.org/services/T0AB12CD34EF56?token=q1w2e3r4t5y6u7")
    assert redact("POST /services/T0AB12CD34EF56?token=q1w2e3r4t5y6u7") == "POST /services/***?token=***"


def test_an_url_without_a_password_hides_its_user() -> None:
    Secret("https://d4e5f6a7b8c9d0e1@api.example.org/")
    assert redact("login d4e5f6a7b8c9d0e1") == "login ***"


def test_a_broken_url_is_hidden_whole() -> None:
    Secret("http://[broken-url-1234567890")
    assert redact("bad: http://[broken-url-1234567890!") == "bad: ***!"


def test_a_short_password_is_hidden_as_a_word_of_its_own() -> None:
    Secret("hunter2024")
    assert redact("auth hunter2024 failed, 'hunter2024', u:hunter2024@h") == "auth *** failed, '***', u:***@h"
    assert redact("hunter20245 xhunter2024") == "hunter20245 xhunter2024"


@pytest.mark.parametrize("word", ["abcdef", "a1b2c3", "balances", "password", "12345678", "a b c d 1"])
def test_what_may_be_an_everyday_word_stays_readable(word: str) -> None:
    # Its absence would tell the reader what the password is.
    Secret(word)
    assert redact(f"the {word} here") == f"the {word} here"


def test_signatures_are_hidden_whether_known_or_not() -> None:
    assert redact("GET /x?timestamp=1&signature=ab12%2Bcd&y=2") == "GET /x?timestamp=1&signature=***&y=2"
    assert redact(json.dumps({"url": 'x?Signature=ab12"'})) == '{"url": "x?Signature=***\\""}'


def test_redaction_leaves_ordinary_lines_alone() -> None:
    line = "2026-01-01T00:00:00Z info account treasury changed: BTC free 1.5 -> 2"
    assert redact(line) == line


# ---- references


@pytest.mark.parametrize(
    ("text", "scheme", "name"),
    [
        ("env:TREASURY_KEY", "env", "TREASURY_KEY"),
        ("env:_a1", "env", "_a1"),
        ("file:secrets/a.key", "file", "secrets/a.key"),
        ("file:/run/credentials/a b:c", "file", "/run/credentials/a b:c"),
    ],
)
def test_a_reference_says_where_a_secret_is_kept(text: str, scheme: str, name: str) -> None:
    reference = parse_reference(text)
    assert reference == SecretReference(scheme, name)
    assert str(reference) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", NONE),
        (KEY, NONE),
        ("bank:x", NONE),
        ("ENV:X", NONE),
        ("env:", "env: is not followed by the name of an environment variable; write env:NAME"),
        (
            "env:A-B",
            "env: is not followed by the name of an environment variable; write env:NAME",
        ),
        (
            "env: A",
            "env: is not followed by the name of an environment variable; write env:NAME",
        ),
        ("file:", "file: is not followed by the path of a file; write file:PATH"),
        ("file: x", "file: is not followed by the path of a file; write file:PATH"),
        ("file:a\nb", "file: is not followed by the path of a file; write file:PATH"),
        (f"env:{KEY}", "what follows env: looks like the secret itself; write env:NAME"),
        (f"file:{KEY}", "what follows file: looks like the secret itself; write file:PATH"),
        (f"exec:pass\t{KEY}", "what follows exec: looks like the secret itself; write exec:COMMAND"),
        (f"exec:pass\n{KEY}", "what follows exec: looks like the secret itself; write exec:COMMAND"),
        (
            "file:-----BEGIN PRIVATE KEY-----\nMC4",
            "what follows file: looks like the secret itself; write file:PATH",
        ),
    ],
)
def test_what_is_no_reference_is_refused_and_not_repeated(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_reference(text)
    assert str(caught.value) == message


@given(st.text() | st.tuples(st.sampled_from(["env:", "file:"]), st.text()).map("".join))
def test_any_text_is_a_reference_or_refused_without_repeating_it(text: str) -> None:
    try:
        shown = str(parse_reference(text))
    except ValueError as error:
        # A short text may well be one of the words of the message.
        assert len(text) < 12 or text not in str(error)  # noqa: PT017  # both outcomes are right
    else:
        assert shown == text


def test_a_long_name_with_punctuation_is_no_secret() -> None:
    assert may_be_secret(KEY)
    assert not may_be_secret("POLLER_PRODUCTION_TREASURY_ACCOUNT_SECRET_KEY")
    assert not may_be_secret("./da39a3ee5e6b4b0d3255bfef95601890afd80709")


# ---- reading


def keep(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def read(text: str, directory: Path) -> str:
    return parse_reference(text).read(directory).reveal()


def refusal(text: str, directory: Path) -> tuple[str, str]:
    with pytest.raises(SecretUnreadable) as caught:
        parse_reference(text).read(directory)
    return str(caught.value), caught.value.remedy


def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POLLER_TEST_KEY", "abc\n")
    assert read("env:POLLER_TEST_KEY", tmp_path) == "abc"


def test_a_variable_that_is_missing_empty_or_no_text_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("POLLER_TEST_KEY", raising=False)
    assert refusal("env:POLLER_TEST_KEY", tmp_path) == ("environment variable POLLER_TEST_KEY is not set", "")
    monkeypatch.setenv("POLLER_TEST_KEY", "")
    assert refusal("env:POLLER_TEST_KEY", tmp_path) == ("env:POLLER_TEST_KEY is empty", "")
    monkeypatch.setitem(os.environ, "POLLER_TEST_KEY", "\udcff-secret")
    assert refusal("env:POLLER_TEST_KEY", tmp_path) == (
        "environment variable POLLER_TEST_KEY is not UTF-8 text",
        "",
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"abc", "abc"),
        (b"abc\n", "abc"),
        (b"abc\r\n", "abc"),
        (b"abc\n\n", "abc\n"),
        (b"abc\r", "abc\r"),
        (b" abc ", " abc "),
        (b"-----BEGIN\r\nx\r\n-----END\r\n", "-----BEGIN\r\nx\r\n-----END"),
        ("pässwort\n".encode(), "pässwort"),
    ],
)
def test_of_a_file_one_line_break_at_the_end_is_dropped_and_nothing_else(
    tmp_path: Path, content: bytes, text: str
) -> None:
    keep(tmp_path / "key", content)
    assert read("file:key", tmp_path) == text


def test_a_path_is_relative_to_the_given_directory_or_absolute(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = keep(tmp_path / "deep" / "key", b"abc")
    assert read("file:deep/key", tmp_path) == "abc"
    assert read("file:../deep/key", tmp_path / "deep") == "abc"
    assert read(f"file:{path}", Path("/nowhere")) == "abc"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o777, 0o610])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = keep(tmp_path / "the key", b"abc", mode)
    assert refusal("file:the key", tmp_path) == (
        f"file '{path}' is open to others (mode {mode:04o})",
        f"run: chmod 600 '{path}'",
    )
    path.chmod(0o400)
    assert read("file:the key", tmp_path) == "abc"


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep(tmp_path / "key", b"abc")
    owner = path.stat().st_uid
    if owner == 0:
        os.chown(path, 4242, -1)
        owner = 4242
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert refusal("file:key", tmp_path) == (
        f"file {path} belongs to another user (uid {owner})",
        f"run: chown {os.geteuid()} {path}",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of root")
def test_a_file_of_root_is_taken_and_the_remedy_hands_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keep(tmp_path / "key", b"abc")
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert read("file:key", tmp_path) == "abc"
    path.chmod(0o644)
    assert refusal("file:key", tmp_path)[1] == f"run: chown 4242 {path} && chmod 600 {path}"


def test_of_a_symbolic_link_the_target_is_judged(tmp_path: Path) -> None:
    target = keep(tmp_path / "target", b"abc")
    link = tmp_path / "link"
    link.symlink_to(target)
    assert stat.S_IMODE(link.lstat().st_mode) == 0o777
    assert read("file:link", tmp_path) == "abc"
    target.chmod(0o640)
    assert refusal("file:link", tmp_path)[0] == f"file {link} is open to others (mode 0640)"


def test_what_is_no_readable_text_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(0o700)
    keep(tmp_path / "empty", b"")
    keep(tmp_path / "break", b"\n")
    keep(tmp_path / "big", b"x" * (64 * 1024 + 1))
    keep(tmp_path / "marked", b"\xef\xbb\xbfabc")
    keep(tmp_path / "binary", b"secret-\xff-bytes")
    (tmp_path / "loop").symlink_to("loop")
    found = {
        name: refusal(f"file:{name}", tmp_path)
        for name in ("missing", "pipe", "directory", "empty", "break", "big", "marked", "binary", "loop")
    }
    assert found == {
        "missing": (f"there is no file {tmp_path}/missing", ""),
        "pipe": (f"{tmp_path}/pipe is not a regular file", ""),
        "directory": (f"{tmp_path}/directory is not a regular file", ""),
        "empty": ("file:empty is empty", ""),
        "break": ("file:break is empty", ""),
        "big": (f"file {tmp_path}/big has more than 65536 bytes: that is no secret", ""),
        "marked": (f"file {tmp_path}/marked begins with a byte order mark", "save it without one"),
        "binary": (f"file {tmp_path}/binary is not UTF-8 text", ""),
        "loop": (f"file {tmp_path}/loop cannot be read: Too many levels of symbolic links", ""),
    }


def test_a_refusal_holds_no_cause_that_would_quote_the_file(tmp_path: Path) -> None:
    keep(tmp_path / "binary", b"secret-\xff-bytes")
    with pytest.raises(SecretUnreadable) as caught:
        parse_reference("file:binary").read(tmp_path)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_closed_to_us_is_refused(tmp_path: Path) -> None:
    path = keep(tmp_path / "key", b"abc", 0o200)
    assert refusal("file:key", tmp_path) == (f"file {path} cannot be read: Permission denied", "")
