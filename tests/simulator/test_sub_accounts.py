"""The master account's list of sub-accounts: who may ask, what a page is, and what can go wrong with it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from poller.simulator import KEY_KINDS, Exchange, Fault, FaultKind, KeyKind, SimulatorSettings
from poller.simulator.admin import Admin
from poller.simulator.exchange import KEY_PATH, SUB_ACCOUNT_PATH, Request
from poller.simulator.faults import WEIGHT_HEADER, Answer, Ending
from tests.simulator.fixtures import START_MS, HandClock, signed

REFUSED_KEY = (400, -2015)
SETTINGS = SimulatorSettings(accounts=21, key_kinds=("hmac",), moves_per_s=0)


class Desk:
    def __init__(self, **changes: Any) -> None:
        self.exchange = Exchange(replace(SETTINGS, **changes), HandClock())
        self.admin = Admin(self.exchange)
        self.account = self.exchange.master

    def ask(self, parameters: str = "", path: str = SUB_ACCOUNT_PATH, method: str = "GET") -> Answer:
        stamped = f"{parameters}&timestamp={START_MS}".removeprefix("&")
        target = signed(self.account, stamped, path)
        return self.exchange.handle(Request("127.0.0.1", method, target, self.account.api_key))

    def emails(self, parameters: str) -> list[str]:
        answer = self.ask(parameters)
        assert answer.status == 200, answer.body
        return [row["email"] for row in json.loads(answer.body)["subAccounts"]]

    def post(self, **document: Any) -> Any:
        status, reply = self.admin.handle("127.0.0.1", "POST", "/simulator/sub_account", {}, document)
        assert status == 200, reply
        return reply


def refusal(answer: Answer) -> tuple[int, int]:
    return answer.status, json.loads(answer.body)["code"]


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_the_master_sees_its_sub_accounts(kind: KeyKind) -> None:
    desk = Desk(key_kinds=(kind,))
    answer = desk.ask("limit=200")
    assert (answer.status, answer.headers[WEIGHT_HEADER]) == (200, "1")
    rows = json.loads(answer.body)["subAccounts"]
    assert [row["email"] for row in rows] == [f"sim-{n:04d}@sub.example" for n in range(1, 22)]
    assert rows[1] == {
        "subUserId": 1000002,
        "email": "sim-0002@sub.example",
        "remark": "",
        "isFreeze": False,
        "createTime": 1767225600001,
        "isManagedSubAccount": False,
        "isAssetManagementSubAccount": False,
    }


def test_a_sub_account_does_not_see_the_others() -> None:
    desk = Desk()
    desk.account = desk.exchange.accounts[0]
    assert refusal(desk.ask("limit=200")) == REFUSED_KEY


def test_pages_follow_one_another_to_the_end() -> None:
    desk = Desk()
    assert desk.emails("") == ["sim-0001@sub.example"]  # one row unless more are asked for
    pages = [desk.emails(f"page={page}&limit=10") for page in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [10, 10, 1, 0]
    assert [email for page in pages for email in page] == desk.emails("limit=200")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("limit=201", -1102),
        ("limit=0", -1102),
        ("page=0", -1102),
        ("page=-1", -1100),
        ("limit=ten", -1100),
        ("isFreeze=maybe", -1100),
        ("size=10", -1104),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters: str, code: int) -> None:
    assert refusal(Desk().ask(parameters)) == (400, code)


def test_sub_accounts_come_go_and_are_frozen() -> None:
    desk = Desk()
    desk.post(email="new@sub.example")
    desk.post(email="sim-0002@sub.example", frozen=True)
    desk.post(email="sim-0003@sub.example", exists=False)
    emails = desk.emails("limit=200")
    assert (len(emails), emails[-1]) == (21, "new@sub.example")
    assert "sim-0003@sub.example" not in emails
    assert desk.emails("limit=200&isFreeze=true") == ["sim-0002@sub.example"]
    assert desk.emails("limit=200&email=new%40sub.example") == ["new@sub.example"]
    desk.post(email="sim-0002@sub.example", frozen=False)
    assert desk.emails("limit=200&isFreeze=true") == []


def test_the_masters_key_is_checked_as_every_other() -> None:
    desk = Desk()
    assert json.loads(desk.ask(path=KEY_PATH).body)["enableReading"] is True
    desk.admin.handle("127.0.0.1", "POST", "/simulator/revoke", {}, {"account": "master"})
    assert refusal(desk.ask("limit=200")) == REFUSED_KEY
    desk.admin.handle("127.0.0.1", "POST", "/simulator/restore", {}, {"account": "master"})
    desk.exchange.is_in_maintenance = True
    assert refusal(desk.ask("limit=200")) == (503, -10001)
    desk.exchange.is_in_maintenance = False
    forged = replace(desk.account, secret="x" * 64)
    target = signed(forged, f"timestamp={START_MS}", SUB_ACCOUNT_PATH)
    answer = desk.exchange.handle(Request("127.0.0.1", "GET", target, desk.account.api_key))
    assert refusal(answer) == (400, -1022)


def test_the_master_holds_nothing_itself_and_its_limit_is_its_own() -> None:
    desk = Desk(weight_limit=2)
    assert desk.ask(path="/sapi/v3/asset/getUserAsset", method="POST").status == 429
    assert [desk.ask("limit=200").status for _ in range(3)] == [200, 200, 429]
    desk = Desk()
    assert desk.ask(path="/sapi/v3/asset/getUserAsset", method="POST").body == b"[]"


@pytest.mark.parametrize("kind", list(FaultKind))
def test_whatever_can_go_wrong_can_go_wrong_here_too(kind: FaultKind) -> None:
    desk = Desk()
    good = desk.ask("limit=200")
    fault = Fault(kind, path=SUB_ACCOUNT_PATH, account="master", delay_s=1.0, value="7", size_bytes=1000)
    desk.exchange.faults.set([fault], desk.exchange.now_us())
    spoiled = desk.ask("limit=200")
    if kind is FaultKind.RETRY_AFTER:
        assert spoiled.headers["Retry-After"] == "7"
    elif kind is FaultKind.WEIGHT_HEADER:
        assert spoiled.headers[WEIGHT_HEADER] == "7"
    else:
        assert (spoiled.status, spoiled.body, spoiled.delay_s, spoiled.ending) != (
            200,
            good.body,
            0.0,
            Ending.WHOLE,
        )
    assert desk.exchange.faults.given == {kind: 1}
