"""``poller reload`` against a daemon's socket: what it says of every answer, and of none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from poller.control import socket_path
from tests.end_to_end.processes import run

BROKEN = "outbox: {path: outbox.db}\nnonsense: true\n"


@contextmanager
def answering(outbox: Path, answer: bytes) -> Iterator[list[dict[str, object]]]:
    """Answer one question, and hang up."""
    asked: list[dict[str, object]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(socket_path(outbox)))
        listening.listen()

        def serve() -> None:
            peer, _ = listening.accept()
            with peer, peer.makefile("rwb") as stream:
                asked.append(json.loads(stream.readline()))
                stream.write(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "options", "code", "out", "err"),
    [
        (b'{"answer":{"changed":[]}}\n', [], 0, "nothing is different\n", ""),
        (b'{"answer":{"changed":["a","b"]}}\n', [], 0, "a\nb\n", ""),
        (b'{"answer":{"changed":["a"]}}\n', ["--json"], 0, '{"changed":["a"]}\n', ""),
        (
            b'{"answer":{"problems":["accounts.yaml:2: nonsense"]}}\n',
            [],
            2,
            "",
            "error: not reloaded; what was in force still is\naccounts.yaml:2: nonsense\n",
        ),
        (
            b'{"answer":{"problems":["accounts.yaml:2: nonsense"]}}\n',
            ["--json"],
            2,
            '{"problems":["accounts.yaml:2: nonsense"]}\n',
            "",
        ),
        (
            b'{"error":"the daemon failed: KeyError; see its log"}\n',
            [],
            1,
            "",
            (
                "error: not known what came of it: the daemon failed: KeyError; see its log;"
                " see what is in force: poller status\n"
            ),
        ),
        (
            b"",
            [],
            1,
            "",
            (
                "error: not known what came of it: the daemon did not answer: it is busy with others, or runs as"
                " another user; try again; see what is in force: poller status\n"
            ),
        ),
    ],
)
def test_the_daemon_is_asked_whatever_the_file_is_like(
    tmp_path: Path, answer: bytes, options: list[str], code: int, out: str, err: str
) -> None:
    config = tmp_path / "accounts.yaml"
    config.write_text(BROKEN)
    with answering(tmp_path / "outbox.db", answer) as asked:
        result = run("reload", "-c", str(config), *options)
    assert (result.returncode, result.stdout, result.stderr) == (code, out, err)
    assert [question["verb"] for question in asked] == ["reload"]


def test_without_a_daemon_that_is_said(tmp_path: Path) -> None:
    config = tmp_path / "accounts.yaml"
    config.write_text(BROKEN)
    result = run("reload", "-c", str(config))
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: no daemon runs on {tmp_path / 'outbox.db'}: ")
    assert result.stderr.endswith(f"start one with: poller run -c {config}\n")
