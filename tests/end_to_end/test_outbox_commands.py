"""``poller outbox`` as an operator uses it: beside a daemon, without one, and after a kill."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import SimulatedExchange, run, simulating, start, stop, wait_for

pytestmark = pytest.mark.real_time

HUNG = "  pipe: {kind: jsonl, path: in-the-way}\n"  # a folder: it never takes a record


@contextmanager
def fleet(directory: Path) -> Iterator[SimulatedExchange]:
    """An exchange, and a configuration with a sink that is well and one that takes nothing."""
    (directory / "in-the-way").mkdir()
    with simulating(directory, "--accounts", "4", "--interval", "1s", "--moves-per-second", "8") as exchange:
        config = directory / "accounts.yaml"
        text = config.read_text().replace("sinks:\n", f"sinks:\n{HUNG}")
        config.write_text(text + "shutdown: {drain: 1s}\n")
        yield exchange


def outbox(directory: Path, *arguments: str) -> Any:
    result = run("outbox", *arguments, "-c", str(directory / "accounts.yaml"), "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def place(directory: Path, sink: str) -> dict[str, Any]:
    [found] = [row for row in outbox(directory, "ls")["sinks"] if row["sink"] == sink]
    return dict(found)


def lines(directory: Path) -> list[str]:
    return (directory / "data" / "records.jsonl").read_text().splitlines()


@pytest.mark.timeout(180)
def test_beside_a_daemon_it_is_asked_and_without_one_the_file_is_opened(tmp_path: Path) -> None:
    with fleet(tmp_path) as exchange:
        daemon = start(tmp_path, log=tmp_path / "log")
        try:
            exchange.wait_until_all_polled(3)
            assert (tmp_path / "data" / "outbox.db.sock").is_socket()
            waiting = place(tmp_path, "pipe")
            assert waiting["backlog"] > 0
            [oldest] = outbox(tmp_path, "ls", "--sink", "pipe", "--limit", "1")
            shown = outbox(tmp_path, "show", oldest["id"])
            assert shown["waits_for"] == ["pipe"]
            assert shown["record"]["id"] == oldest["id"]

            before = lines(tmp_path)
            answer = outbox(tmp_path, "replay", "--sink", "log", "--from", "1")
            assert answer["after"] == 0
            assert answer["records"] >= len(before)
            wait_for(lambda: len(lines(tmp_path)) >= 2 * len(before))
            after = lines(tmp_path)
            assert [line for line in after if line in set(before)].count(before[0]) == 2
            assert set(before) <= set(after)

            refused = run(
                "outbox", "drop", "--sink", "pipe", "--backlog", "-c", str(tmp_path / "accounts.yaml")
            )
            assert refused.returncode == 2
            assert "records that wait for it; add --yes to do it" in refused.stderr
            dropped = outbox(tmp_path, "drop", "--sink", "pipe", "--backlog", "--yes")
            assert dropped["count"] >= waiting["backlog"]
            assert place(tmp_path, "pipe")["dropped"] == dropped["count"]
            assert outbox(tmp_path, "vacuum")["freed_bytes"] >= 0
        finally:
            assert stop(daemon) == 0
        assert not (tmp_path / "data" / "outbox.db.sock").exists()

    # Nobody there: the same commands on the file.
    delivered = len(lines(tmp_path))
    last = outbox(tmp_path, "ls")["last_position"]
    answer = outbox(tmp_path, "replay", "--sink", "log", "--since", "1h")
    assert answer["records"] == last
    assert len(lines(tmp_path)) == delivered
    assert place(tmp_path, "log")["backlog"] == last


@pytest.mark.timeout(180)
def test_after_a_kill_the_socket_that_is_left_is_no_daemon(tmp_path: Path) -> None:
    with fleet(tmp_path) as exchange:
        daemon = start(tmp_path, log=tmp_path / "log")
        exchange.wait_until_all_polled(2)
        daemon.kill()
        daemon.wait()
        assert (tmp_path / "data" / "outbox.db.sock").is_socket()
        kept = place(tmp_path, "pipe")["backlog"]
        assert kept > 0
        daemon = start(tmp_path, log=tmp_path / "log")
        try:
            exchange.wait_until_all_polled(1)
            assert place(tmp_path, "pipe")["backlog"] >= kept
        finally:
            assert stop(daemon) == 0


@pytest.mark.timeout(180)
def test_dead_letters_are_delivered_again(tmp_path: Path) -> None:
    with fleet(tmp_path) as exchange:
        daemon = start(tmp_path, log=tmp_path / "log")
        exchange.wait_until_all_polled(2)
        assert stop(daemon) == 0
        # A sink that refused a record: put aside by hand, as the delivery does.
        with closing(sqlite3.connect(tmp_path / "data" / "outbox.db")) as db:
            db.execute(
                "INSERT INTO dead_letters (sink, position, id, kind, account, sequence, reason, payload,"
                " refused_because, at_ns) SELECT 'log', position, id, kind, account, sequence, reason, payload,"
                " 'too large', accepted_ns FROM records WHERE position = 2"
            )
            db.commit()
        [letter] = outbox(tmp_path, "ls", "--sink", "log", "--dead")
        assert letter["reason"] == "too large"
        assert outbox(tmp_path, "replay", "--sink", "log", "--dead", letter["id"]) == {
            "sink": "log",
            "dead_letters": 1,
        }
        count = sum(letter["id"] in line for line in lines(tmp_path))
        daemon = start(tmp_path, log=tmp_path / "log")
        try:
            wait_for(lambda: sum(letter["id"] in line for line in lines(tmp_path)) == count + 1)
            wait_for(lambda: place(tmp_path, "log")["dead_letters"] == 0)
        finally:
            assert stop(daemon) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ls",), "there is no outbox yet; 'poller run' makes it"),
        (("ls", "--dead"), "--dead needs --sink"),
        (("replay", "--sink", "log"), "give one of --since, --from and --dead"),
        (("replay", "--sink", "log", "--since", "2x"), "--since: '2x' is not a duration"),
        (("replay", "--sink", "log", "--since", "2h", "an-id"), "ids go with --dead"),
        (("drop", "--sink", "log"), "give one of --dead, --backlog and --cursor"),
    ],
)
def test_a_mistake_is_a_message_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    with fleet(tmp_path):
        result = run("outbox", *arguments, "-c", str(tmp_path / "accounts.yaml"))
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
