"""``kill -9`` of a running daemon at random moments: what was accepted is delivered, once under each id."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from poller.demo import read_books
from poller.records import json_schema
from poller.sinks.sqlite import read_history
from poller.testing.books import last_states_differ, mismatches
from tests.end_to_end.processes import SimulatedExchange, simulating, start, stop, wait_for

pytestmark = pytest.mark.real_time

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
WEIGHT_LIMIT = 4000
# A short window, so that what a killed daemon had reserved does not hold up the next one for a minute.
EXCHANGE = (
    *("--accounts", "24", "--interval", "500ms", "--moves-per-second", "60", "--latency", "1-10"),
    *("--window", "rolling", "--window-length", "4", "--weight-limit", str(WEIGHT_LIMIT)),
)


def kill_again_and_again(directory: Path, exchange: SimulatedExchange, kills: int, seed: int) -> None:
    dice = random.Random(seed)
    log = directory / "log"
    start_s = until_polls(directory, exchange, log)
    for _ in range(kills - 1):
        process = start(directory, log=log)
        # From the first imports to polls in full swing; seldom later, where nothing new can happen.
        time.sleep(dice.choice([dice.uniform(0.2, start_s), start_s + dice.uniform(0.0, 1.5)]))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, log.read_text()[-2000:]


def until_polls(directory: Path, exchange: SimulatedExchange, log: Path) -> float:
    """Start a daemon, kill it at its first polls, and return how long it took to them, in seconds.

    A busy machine takes several times as long as an idle one: what is killed before it polls shows nothing.
    """
    before, begun_s = sum(exchange.polls().values()), time.monotonic()
    process = start(directory, log=log)
    wait_for(lambda: sum(exchange.polls().values()) > before)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, log.read_text()[-2000:]
    return time.monotonic() - begun_s


def settle(directory: Path, exchange: SimulatedExchange) -> None:
    """Let a last daemon see the final state of every account and drain."""
    process = start(directory, log=directory / "log")
    exchange.post("freeze")
    exchange.wait_until_all_polled()
    assert stop(process) == 0, (directory / "log").read_text()[-2000:]


def accepted(directory: Path) -> list[tuple[str, str, bytes]]:
    with closing(sqlite3.connect(directory / "data" / "outbox.db")) as outbox:
        return outbox.execute("SELECT kind, id, payload FROM records ORDER BY position").fetchall()


def statuses(directory: Path) -> list[str]:
    with closing(sqlite3.connect(directory / "data" / "history.db")) as history:
        return [id_ for (id_,) in history.execute("SELECT id FROM statuses ORDER BY number")]


def delivered_to_file(directory: Path) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {}
    for line in (directory / "data" / "records.jsonl").read_text().splitlines():
        lines.setdefault(json.loads(line)["id"], []).append(line)
    return lines


def judge(directory: Path, exchange: SimulatedExchange) -> dict[str, Any]:
    books = read_books(exchange.get("books"))
    status = exchange.get("status")
    history = read_history(directory / "data" / "history.db")
    in_outbox = accepted(directory)
    in_file = delivered_to_file(directory)
    # Everything accepted was delivered: the same ids, in the same order, with the same content.
    assert [record["id"] for record in history] == [id_ for kind, id_, _ in in_outbox if kind == "snapshot"]
    assert statuses(directory) == [id_ for kind, id_, _ in in_outbox if kind == "status"]
    assert set(in_file) == {id_ for _, id_, _ in in_outbox}
    for _, id_, payload in in_outbox:
        VALIDATOR.validate(json.loads(payload))
        assert set(in_file[id_]) == {payload.decode()}, "another content under the same id"
    assert mismatches(history, books) == []
    assert last_states_differ(history, books) == []
    assert status["worst_window"] <= WEIGHT_LIMIT
    assert "429" not in status["requests"].get("POST /sapi/v3/asset/getUserAsset", {})
    return {
        "records": len(in_outbox),
        "lines delivered twice": sum(len(lines) - 1 for lines in in_file.values()),
        "heaviest window": status["worst_window"],
    }


def campaign(directory: Path, kills: int, seed: int) -> dict[str, Any]:
    with simulating(directory, *EXCHANGE) as exchange:
        kill_again_and_again(directory, exchange, kills, seed)
        settle(directory, exchange)
        return judge(directory, exchange)


@pytest.mark.timeout(300)
def test_twenty_kills_lose_and_invent_nothing(tmp_path: Path) -> None:
    result = campaign(tmp_path, kills=20, seed=1)
    assert result["records"] > 100


@pytest.mark.skipif("POLLER_KILLS" not in os.environ, reason="a campaign of its own: make kill KILLS=500")
def test_campaign(tmp_path: Path) -> None:
    kills = int(os.environ["POLLER_KILLS"])
    print(f"\n{kills} kills: {campaign(tmp_path, kills, seed=random.randrange(2**32))}")


@pytest.mark.timeout(120)
def test_a_second_daemon_on_the_same_outbox_names_the_first_and_leaves(tmp_path: Path) -> None:
    with simulating(tmp_path, *EXCHANGE):
        first = start(tmp_path, log=tmp_path / "log")
        try:
            wait_for((tmp_path / "data" / "history.db").exists)
            second = start(tmp_path, log=tmp_path / "second.log")
            assert second.wait(timeout=30) == 75
            assert f"process {first.pid}" in (tmp_path / "second.log").read_text()
        finally:
            assert stop(first) == 0


@pytest.mark.timeout(120)
def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    with simulating(tmp_path, *EXCHANGE) as exchange:
        process = start(tmp_path, log=tmp_path / "log")
        exchange.wait_until_all_polled()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) in {0, 128 + signal.SIGINT, 128 + signal.SIGTERM}
        settle(tmp_path, exchange)
        judge(tmp_path, exchange)


@pytest.mark.timeout(120)
def test_the_log_says_when_it_started_and_when_it_stopped(tmp_path: Path) -> None:
    with simulating(tmp_path, *EXCHANGE) as exchange:
        process = start(tmp_path, "--log-format", "json", log=tmp_path / "log")
        exchange.wait_until_all_polled(1)
        assert stop(process) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["message"] for line in lines] == ["started", "stopping: polls end, sinks drain", "stopped"]
    assert lines[0]["accounts"] == 24
    assert lines[0]["backlogs"] == {"history": 0, "log": 0}
