"""The socket: what goes through, who gets nothing, and that nobody disturbs the daemon. Real sockets."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from poller.control import NobodyThere, Refused, Serving, ask, server, socket_path
from poller.control.wire import LONGEST_REQUEST_BYTES

pytestmark = pytest.mark.real_time


async def echo(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return dict(arguments)


async def refuse(arguments: Mapping[str, Any]) -> None:
    raise ValueError("not that")


async def fail(arguments: Mapping[str, Any]) -> None:
    raise RuntimeError("a bug")


VERBS = {"echo": echo, "refuse": refuse, "fail": fail}


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    path = socket_path(tmp_path / "outbox.db")
    async with Serving(path, VERBS):
        yield path
    assert not path.exists()


async def say(path: Path, said: bytes) -> bytes:
    """Say something by hand; return everything that is answered."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(said)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def test_a_question_is_answered(path: Path) -> None:
    assert path.name == "outbox.db.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for _ in range(20):
        assert await ask(path, "echo", {"a": [1, "é\n", None]}) == {"a": [1, "é\n", None]}


async def test_what_a_verb_refuses_is_said_in_its_words(path: Path) -> None:
    with pytest.raises(Refused, match=r"^not that$"):
        await ask(path, "refuse", {})


async def test_a_bug_is_logged_by_the_daemon_and_only_named_to_the_command(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Refused, match=r"^the daemon failed: RuntimeError; see its log$"):
        await ask(path, "fail", {})
    assert "a command could not be answered" in caplog.messages
    assert await ask(path, "echo", {}) == {}


async def test_an_unknown_verb_lists_those_there_are(path: Path) -> None:
    with pytest.raises(Refused, match="unknown verb; known: echo, fail, refuse"):
        await ask(path, "reboot", {})


@pytest.mark.parametrize(
    "said",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"{}\n",
        b'{"version": 2, "verb": "echo"}\n',
        b'{"version": "1", "verb": "echo"}\n',
        b'{"version": 1, "verb": ["echo"]}\n',
        b'{"version": 1, "verb": "echo", "arguments": [1]}\n',
        b"[" * 60_000 + b"\n",
    ],
)
async def test_whatever_is_no_request_is_told_so(path: Path, said: bytes) -> None:
    assert "not a request of version 1" in orjson.loads(await say(path, said))["error"]
    assert await ask(path, "echo", {}) == {}


async def test_an_endless_line_is_not_read_to_its_end(path: Path) -> None:
    answer = await say(path, b"x" * (LONGEST_REQUEST_BYTES * 4))
    assert answer == b"" or b"at most" in answer
    assert await ask(path, "echo", {}) == {}


async def test_who_says_nothing_is_hung_up_on_and_who_comes_too_many_gets_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENCE_S", 0.3)
    silent = [await asyncio.open_unix_connection(str(path)) for _ in range(100)]
    # All of them end by themselves, the first eight after their time.
    ends = await asyncio.wait_for(
        asyncio.gather(*(reader.read() for reader, _ in silent), return_exceptions=True), 10
    )
    assert all(end == b"" or isinstance(end, ConnectionError) for end in ends)
    for _, writer in silent:
        writer.transport.abort()
    assert await ask(path, "echo", {}) == {}


async def test_a_stranger_is_hung_up_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    monkeypatch.setattr(server, "_ROOT_UID", 54321)
    with pytest.raises(Refused, match="runs as another user"):
        await ask(path, "echo", {})


async def test_nobody_there_is_told_apart_from_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(NobodyThere):
        await ask(tmp_path / "none.sock", "echo", {})
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(stale))
    with pytest.raises(NobodyThere):
        await ask(stale, "echo", {})


async def test_what_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = socket_path(tmp_path / "outbox.db")
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    async with Serving(path, VERBS):
        assert await ask(path, "echo", {"b": 2}) == {"b": 2}


async def test_a_path_longer_than_an_address_is_reached_through_its_directory(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    path = socket_path(directory / "outbox.db")
    async with Serving(path, VERBS):
        assert await ask(path, "echo", {"b": 2}) == {"b": 2}
    assert not path.exists()


async def test_a_name_that_no_address_holds_is_a_warning_and_not_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Serving(socket_path(tmp_path / ("o" * 150)), VERBS):
        assert caplog.messages == ["commands cannot reach this daemon: it has no socket"]


async def test_closing_does_not_wait_for_who_is_silent(tmp_path: Path) -> None:
    path = socket_path(tmp_path / "outbox.db")
    async with asyncio.timeout(3):
        async with Serving(path, VERBS):
            _, writer = await asyncio.open_unix_connection(str(path))
            await ask(path, "echo", {})
    writer.transport.abort()
