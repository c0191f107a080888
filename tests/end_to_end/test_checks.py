"""Keys, maintenance and addresses over real sockets: what a user sees, and what the exchange was asked."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from poller import maintenance
from poller.app import App
from poller.budget import pause
from poller.config import load, read_secrets
from poller.model import State
from poller.simulator import SimulatorSettings, serve, write_config
from tests.end_to_end.processes import SimulatedExchange, run, simulating, start, stop, wait_for

pytestmark = pytest.mark.real_time

HARMLESS = "the key works from any address"


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[SimulatedExchange]:
    with simulating(tmp_path, "--accounts", "6", "--latency", "1-5", "--interval", "500ms") as simulated:
        yield simulated


def check(directory: Path, *options: str) -> tuple[int, str, str]:
    result = run("check", "-c", str(directory / "accounts.yaml"), "--online", *options)
    return result.returncode, result.stdout, result.stderr


def require_read_only(directory: Path) -> None:
    with (directory / "accounts.yaml").open("a") as file:
        file.write("key_policy: require_read_only\n")


def test_a_check_shows_clock_status_and_what_is_wrong_with_keys(
    tmp_path: Path, exchange: SimulatedExchange
) -> None:
    for account in exchange.accounts:
        exchange.post("permissions", account=account, ipRestrict=True)
    code, out, err = check(tmp_path)
    assert code == 0, out + err
    assert "clock: the exchange is " in out
    assert "system status through default: normal\n" in out
    assert out.endswith("keys: 6 good (policy: warn)\n")

    exchange.post("revoke", account="sim-0001")
    exchange.post("permissions", account="sim-0002", enableWithdrawals=True, enableTomorrow=True)
    exchange.post("permissions", account="sim-0003", enableReading=False)
    exchange.post("skew", skew_ms=5000)
    code, out, _ = check(tmp_path)
    assert code == 1
    assert re.search(r"ahead of this machine, known to \d+ ms; synchronise this machine's clock", out)
    assert "keys: 2 refused, 1 warning, 3 good (policy: warn)\n" in out
    assert re.search(
        r"^sim-0001 +default +refused +the key is refused: HTTP 400, code -2015", out, re.MULTILINE
    )
    assert re.search(r"^sim-0002 +default +warning +the key can do more than read: ", out, re.MULTILINE)
    assert re.search(r"^sim-0003 +default +refused +reading is not enabled", out, re.MULTILINE)
    assert exchange.get("status")["polls"] == {}


def test_a_check_as_json_says_the_same_and_nothing_else_on_stdout(
    tmp_path: Path, exchange: SimulatedExchange
) -> None:
    require_read_only(tmp_path)
    exchange.post("permissions", account="sim-0002", enableWithdrawals=True)
    code, out, _ = check(tmp_path, "--json")
    assert code == 1
    told = json.loads(out)
    assert abs(told["clock"]["offset_s"]) < 1
    assert told["systems"] == [
        {"egress": "default", "normal": True, "message": "normal", "refused_alike": False}
    ]
    assert {key["account"]: key["verdict"] for key in told["keys"]} == {
        **dict.fromkeys(exchange.accounts, "warning"),
        "sim-0002": "forbidden",
    }
    assert told["keys"][1] == {
        "account": "sim-0002",
        "egress": "default",
        "verdict": "forbidden",
        "reasons": ["the key can do more than read: enableWithdrawals", HARMLESS],
        "reading": True,
        "ip_restricted": False,
        "beyond_reading": ["enableWithdrawals"],
    }


def test_keys_that_are_refused_alike_are_blamed_on_their_address(
    tmp_path: Path, exchange: SimulatedExchange
) -> None:
    for account in exchange.accounts:
        exchange.post("revoke", account=account)
    code, out, _ = check(tmp_path)
    assert code == 1
    assert (
        "egress default: most keys are refused alike: it is the address or the exchange, not the keys" in out
    )


def test_what_is_not_answered_in_time_is_unknown(tmp_path: Path, exchange: SimulatedExchange) -> None:
    exchange.post(
        "faults", faults=[{"kind": "stall", "path": "/sapi/v1/account/apiRestrictions", "delay_s": 60}]
    )
    code, out, _ = check(tmp_path, "--timeout", "2")
    assert code == 1
    assert "keys: 6 unknown (policy: warn)\n" in out


def test_json_without_online_is_a_mistake(tmp_path: Path, exchange: SimulatedExchange) -> None:
    result = run("check", "-c", str(tmp_path / "accounts.yaml"), "--json")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: --json shows what the exchange says; give it with --online\n"


def test_the_daemon_does_not_poll_a_key_that_the_policy_forbids(
    tmp_path: Path, exchange: SimulatedExchange
) -> None:
    require_read_only(tmp_path)
    exchange.post("permissions", account="sim-0002", enableWithdrawals=True)
    daemon = start(tmp_path, log=tmp_path / "log")
    others = set(exchange.accounts) - {"sim-0002"}
    wait_for(lambda: all(exchange.polls()[name] >= 3 for name in others))
    assert stop(daemon) == 0
    assert exchange.polls()["sim-0002"] == 0
    with closing(sqlite3.connect(tmp_path / "data" / "history.db")) as history:
        statuses = history.execute("SELECT account, state, reason FROM statuses").fetchall()
    assert statuses == [("sim-0002", "quarantined", "the key can do more than read: enableWithdrawals")]


def second(directory: Path) -> Path:
    """The same fleet on the same address, with an outbox and sinks of its own."""
    text = (directory / "accounts.yaml").read_text()
    path = directory / "second.yaml"
    path.write_text(text.replace("data/", "data/second-"))
    return path


def test_a_second_daemon_on_an_address_is_refused_until_the_first_is_gone_or_both_share(
    tmp_path: Path, exchange: SimulatedExchange
) -> None:
    other = second(tmp_path)
    first = start(tmp_path, log=tmp_path / "log")
    exchange.wait_until_all_polled(1)
    for command in (["run"], ["once"], ["check", "--online"]):
        result = run(*command, "-c", str(other))
        assert result.returncode == 75, command
        assert (
            f"error: egress 'default': process {first.pid} sends from this address already" in result.stderr
        )
        assert "egress.default.shared: true" in result.stderr
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert run("once", "-c", str(other)).returncode == 0

    for path in (tmp_path / "accounts.yaml", other):
        path.write_text(f"{path.read_text()}egress: {{default: {{shared: true}}}}\n")
    first = start(tmp_path, log=tmp_path / "log")
    exchange.wait_until_all_polled(1)
    assert run("once", "-c", str(other)).returncode == 0
    assert stop(first) == 0


async def happens(condition: Callable[[], Any]) -> None:
    """Wait for what a daemon on the same loop does; the test's own limit ends a vain wait."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # what it waits for sets no event
            await asyncio.sleep(0.02)


async def test_a_maintenance_is_waited_out_and_only_the_status_is_asked_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sixty seconds are half of one here; nothing else is different.
    monkeypatch.setattr(maintenance, "ASK_EVERY_S", 0.5)
    monkeypatch.setattr(maintenance, "PAUSE_S", 1.5)
    monkeypatch.setattr(pause, "ENDPOINT_S", 0.5)
    settings = SimulatorSettings(accounts=8, latency_ms=(1.0, 5.0))
    async with serve(settings) as server:
        config = load(write_config(tmp_path, server.url, server.accounts, settings, interval="200ms"))
        app, stop_it = App(config, read_secrets(config)), asyncio.Event()
        running = asyncio.create_task(app.run(stop_it))
        statuses = server.exchange.tally.statuses
        poll, status = "POST /sapi/v3/asset/getUserAsset", "GET /sapi/v1/system/status"
        await happens(lambda: statuses[poll][200] >= 16)
        server.exchange.is_in_maintenance = True
        await happens(lambda: statuses[status][200] >= 2)
        told = app.status()
        assert told is not None
        assert told.budgets[0].pause_cause == "maintenance"
        polled = sum(statuses[poll].values())
        await happens(lambda: statuses[status][200] >= 5)
        assert sum(statuses[poll].values()) == polled
        told = app.status()
        assert told is not None
        assert told.dispatchers[0].states[State.QUARANTINED] == 0
        server.exchange.is_in_maintenance = False
        good = statuses[poll][200]
        await happens(lambda: statuses[poll][200] >= good + 16)
        stop_it.set()
        await running
