"""``poller check --online`` with a master account, as a user sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import SimulatedExchange, run, simulating

pytestmark = pytest.mark.real_time


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[SimulatedExchange]:
    with simulating(tmp_path, "--accounts", "6", "--latency", "1-5", "--with-master") as simulated:
        yield simulated


def check(directory: Path, *options: str) -> tuple[int, str, str]:
    result = run("check", "-c", str(directory / "accounts.yaml"), "--online", *options)
    return result.returncode, result.stdout, result.stderr


def test_sub_accounts_that_are_as_configured_are_one_line(
    tmp_path: Path, exchange: SimulatedExchange
) -> None:
    code, out, err = check(tmp_path)
    assert code == 0, out + err
    assert out.endswith("sub-accounts of main: 6 found\n")


def test_what_is_found_is_shown_and_is_no_failure(tmp_path: Path, exchange: SimulatedExchange) -> None:
    exchange.post("sub_account", email="new.trader@sub.example")
    exchange.post("sub_account", email="sim-0002@sub.example", frozen=True)
    exchange.post("sub_account", email="sim-0003@sub.example", exists=False)
    code, out, err = check(tmp_path)
    assert code == 0, out + err
    assert "sub-accounts of main: 6 found, 1 missing, 1 frozen, 1 gone\n" in out
    for line in (
        r"new\.trader@sub\.example +missing +no account has it as its sub_account",
        r"sim-0002@sub\.example +sim-0002 +frozen +the exchange has frozen it",
        r"sim-0003@sub\.example +sim-0003 +gone +the master account does not list it",
    ):
        assert re.search(f"^{line} *$", out, re.MULTILINE), out
    code, out, _ = check(tmp_path, "--json")
    assert code == 0
    [told] = json.loads(out)["discover"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", told.pop("at"))
    assert told == {
        "name": "main",
        "error": "",
        "found": 6,
        "missing": ["new.trader@sub.example"],
        "frozen": ["sim-0002@sub.example"],
        "gone": ["sim-0003"],
    }


def test_a_master_account_that_does_not_say_is_no_failure_either(
    tmp_path: Path, exchange: SimulatedExchange
) -> None:
    exchange.post("revoke", account="master")
    code, out, _ = check(tmp_path)
    assert code == 0
    assert "sub-accounts of main: not known: HTTP 400, code -2015" in out
    exchange.post("restore", account="master")
    stall = {"kind": "stall", "path": "/sapi/v1/sub-account/list", "delay_s": 60}
    exchange.post("faults", faults=[stall])
    code, out, _ = check(tmp_path, "--timeout", "3", "--json")
    assert code == 0
    assert json.loads(out)["discover"] == [{"name": "main", "error": "was not asked in time"}]


def test_without_a_master_account_nothing_is_asked(tmp_path: Path, exchange: SimulatedExchange) -> None:
    path = tmp_path / "accounts.yaml"
    path.write_text(re.sub(r"^discover:\n(?: .*\n)+", "", path.read_text(), flags=re.MULTILINE))
    code, out, err = check(tmp_path)
    assert code == 0, out + err
    assert "sub-accounts" not in out
    assert not any("sub-account" in endpoint for endpoint in exchange.get("status")["requests"])
