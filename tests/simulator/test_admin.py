from __future__ import annotations

import json
from typing import Any

import pytest

from poller.simulator import Exchange, SimulatorSettings
from poller.simulator.admin import Admin
from poller.simulator.exchange import KEY_PATH, Request
from poller.simulator.faults import DEFAULT_PATH, Fault, FaultKind
from tests.simulator.fixtures import START_MS, START_US, HandClock, signed


class Desk:
    def __init__(self, **settings: Any) -> None:
        self.clock = HandClock()
        self.exchange = Exchange(SimulatorSettings(accounts=3, key_kinds=("hmac",), **settings), self.clock)
        self.admin = Admin(self.exchange)

    def get(self, name: str, **query: str) -> Any:
        return self._ask("GET", name, query, {})

    def post(self, name: str, **document: Any) -> Any:
        return self._ask("POST", name, {}, document)

    def _ask(self, method: str, name: str, query: dict[str, str], document: dict[str, Any]) -> Any:
        status, reply = self.admin.handle("127.0.0.1", method, f"/simulator/{name}", query, document)
        assert status == 200, reply
        return reply


def test_the_books_give_every_state_of_every_account_with_its_time_and_cause() -> None:
    desk = Desk(moves_per_s=5)
    desk.clock.advance(10)
    books = desk.get("books")
    assert books["time_us"] == START_US + 10_000_000
    assert list(books["accounts"]) == ["sim-0001", "sim-0002", "sim-0003"]
    assert sum(len(entries) - 1 for entries in books["accounts"].values()) == desk.exchange.market.moves > 0
    first = books["accounts"]["sim-0001"][0]
    assert (first["time_us"], first["cause"]) == (START_US, "opening")
    assert first["balances"][0].keys() == {"asset", "free", "locked", "freeze", "withdrawing", "ipoable"}


def test_the_books_can_be_read_for_one_account_and_from_a_time_on() -> None:
    desk = Desk(moves_per_s=5)
    desk.clock.advance(20)
    [(name, entries)] = desk.get("books", account="sim-0002")["accounts"].items()
    assert name == "sim-0002"
    middle_us = entries[len(entries) // 2]["time_us"]
    later = desk.get("books", account=name, since_us=str(middle_us))["accounts"][name]
    assert later == entries[len(entries) // 2 :]  # what held then, and all after
    earlier = desk.get("books", account=name, since_us=str(middle_us - 1))["accounts"][name]
    assert earlier == entries[len(entries) // 2 - 1 :]
    assert desk.get("books", account=name, since_us="0")["accounts"][name] == entries
    assert desk.get("books", account=name, since_us=str(10**18))["accounts"][name] == entries[-1:]


def test_the_status_tells_what_was_asked_and_what_it_cost() -> None:
    desk = Desk(moves_per_s=0, weight_limit=10, ban_after=0)
    account = desk.exchange.accounts[0]
    for _ in range(5):
        target = signed(account, f"timestamp={START_MS}")
        desk.exchange.handle(Request("127.0.0.1", "POST", target, account.api_key))
    status = desk.get("status")
    assert status["requests"] == {f"POST {DEFAULT_PATH}": {"200": 2, "418": 2, "429": 1}}
    assert status["polls"] == {"sim-0001": 5}
    assert status["codes"] == {"-1003": 3}
    assert (status["worst_window"], status["worst_fixed"], status["worst_rolling"]) == (20, 20, 20)
    assert (status["warnings"], status["bans"], status["during_ban"]) == (1, 1, 1)
    assert status["used"] == {"127.0.0.1": 20}
    assert status["banned_until_us"] == {"127.0.0.1": START_US + 120_000_000}


def test_faults_are_set_shown_and_cleared() -> None:
    desk = Desk()
    fault = {"kind": "error", "rate": 0.25, "status": 502}
    shown = desk.post("faults", faults=[fault])
    assert shown == desk.get("faults")
    assert fault.items() <= shown["faults"][0].items()
    assert desk.exchange.faults.current() == [Fault(FaultKind.ERROR, rate=0.25, status=502)]
    assert desk.post("faults", faults=[])["faults"] == []


def test_freezing_tells_from_when_on_nothing_moves() -> None:
    desk = Desk(moves_per_s=50)
    desk.clock.advance(2)
    assert desk.post("freeze") == {"frozen": True, "time_us": START_US + 2_000_000}
    before = desk.get("books")["accounts"]
    desk.clock.advance(60)
    assert desk.get("books")["accounts"] == before
    assert desk.get("status")["frozen"] is True
    assert desk.post("thaw") == {"frozen": False, "time_us": START_US + 62_000_000}
    desk.clock.advance(2)
    assert desk.get("books")["accounts"] != before


def test_the_clock_can_be_set() -> None:
    desk = Desk()
    assert desk.post("skew", skew_ms=-1500) == {"skew_ms": -1500, "time_us": START_US - 1_500_000}
    assert desk.get("status")["skew_ms"] == -1500


def test_keys_are_revoked_and_restored() -> None:
    desk = Desk()
    assert desk.post("revoke", account="sim-0002") == {"revoked": ["sim-0002"]}
    assert desk.exchange.revoked == {"sim-0002"}
    assert desk.post("restore", account="sim-0002") == {"revoked": []}
    assert desk.exchange.revoked == set()


def test_maintenance_begins_and_ends() -> None:
    desk = Desk()
    assert desk.post("maintenance") == {"maintenance": True}
    assert desk.exchange.is_in_maintenance
    assert desk.post("maintenance", on=False) == {"maintenance": False}
    assert not desk.exchange.is_in_maintenance


def test_a_neighbour_moves_in() -> None:
    desk = Desk()
    assert desk.post("neighbour", share=0.4, mode="bursts", bursts=3) == {
        "share": 0.4,
        "mode": "bursts",
        "seed": 1,
        "bursts": 3,
    }
    assert desk.get("status")["neighbour"]["share"] == 0.4


def test_who_falls_into_the_trap_is_counted() -> None:
    desk = Desk()
    assert desk.get("trap") == []
    assert desk.get("status")["trapped"] == 1


def test_permissions_of_a_key_are_changed_for_that_key_alone() -> None:
    desk = Desk()
    assert desk.post("permissions", account="sim-0002", enableWithdrawals=True) == {"enableWithdrawals": True}
    assert desk.post("permissions", account="sim-0002", ipRestrict=True) == {
        "enableWithdrawals": True,
        "ipRestrict": True,
    }
    told = {}
    for account in desk.exchange.accounts[:2]:
        target = signed(account, f"timestamp={START_MS}", KEY_PATH)
        answer = desk.exchange.handle(Request("127.0.0.1", "GET", target, account.api_key))
        told[account.name] = json.loads(answer.body)
    changed = {name for name, value in told["sim-0002"].items() if told["sim-0001"][name] != value}
    assert changed == {"enableWithdrawals", "ipRestrict"}
    assert told["sim-0002"]["enableWithdrawals"] is True


@pytest.mark.parametrize(
    ("name", "document", "complaint"),
    [
        ("faults", {}, 'write {"faults": [{"kind": ...}, ...]}'),
        ("faults", {"faults": [{"kind": "x"}]}, "'x' is not a valid FaultKind"),
        ("skew", {}, "skew_ms: a number is needed"),
        ("skew", {"skew_ms": float("nan")}, "skew_ms: a number is needed"),
        ("skew", {"skew_ms": True}, "skew_ms: a number is needed"),
        ("revoke", {}, "no such account: None"),
        ("restore", {"account": "sim-0009"}, "no such account: 'sim-0009'"),
        ("permissions", {"account": "sim-0001"}, 'write {"account"'),
        ("permissions", {"account": "sim-0001", "enableMargin": 1}, 'write {"account"'),
        ("permissions", {"account": "nobody", "enableMargin": True}, "no such account: 'nobody'"),
        ("maintenance", {"on": "no"}, "on: true or false"),
        ("neighbour", {"share": -1}, 'write {"share": 0.5'),
        ("neighbour", {"share": 1, "mode": "loud"}, 'write {"share": 0.5'),
        ("neighbour", {"share": 1, "mode": "bursts", "bursts": 0}, "bursts a window, 1 to 1,000"),
        ("freeze", [], "a JSON object"),
    ],
)
def test_what_makes_no_sense_is_answered_with_what_would(name: str, document: Any, complaint: str) -> None:
    status, reply = Desk().admin.handle("127.0.0.1", "POST", f"/simulator/{name}", {}, document)
    assert status == 400
    assert complaint in reply["error"]


@pytest.mark.parametrize("query", [{"account": "nobody"}, {"since_us": "yesterday"}])
def test_books_of_nobody_are_refused(query: dict[str, str]) -> None:
    assert Desk().admin.handle("127.0.0.1", "GET", "/simulator/books", query, {})[0] == 400


def test_the_index_lists_what_can_be_asked_and_done() -> None:
    assert Desk().get("") == {
        "GET": ["/simulator/books", "/simulator/status", "/simulator/faults"],
        "POST": [
            "/simulator/faults",
            "/simulator/freeze",
            "/simulator/thaw",
            "/simulator/skew",
            "/simulator/revoke",
            "/simulator/restore",
            "/simulator/permissions",
            "/simulator/maintenance",
            "/simulator/neighbour",
            "/simulator/sub_account",
        ],
    }


@pytest.mark.parametrize(
    ("method", "name"), [("GET", "freeze"), ("POST", "books"), ("POST", ""), ("PUT", "faults")]
)
def test_elsewhere_one_is_told_what_there_is(method: str, name: str) -> None:
    desk = Desk()
    status, reply = desk.admin.handle("127.0.0.1", method, f"/simulator/{name}", {}, {})
    assert (status, reply) == (404, {"error": "no such endpoint", **desk.get("")})


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_may_look_into_the_books(address: str) -> None:
    assert Desk().admin.handle(address, "GET", "/simulator/books", {}, {})[0] == 200


@pytest.mark.parametrize("address", ["192.168.1.7", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1%eth0", ""])
def test_others_may_not_but_are_caught_by_the_trap_all_the_same(address: str) -> None:
    desk = Desk()
    assert desk.admin.handle(address, "POST", "/simulator/freeze", {}, {}) == (
        403,
        {"error": "only from the machine that the simulator runs on"},
    )
    assert not desk.exchange.market.is_frozen
    assert desk.admin.handle(address, "GET", "/simulator/trap", {}, {})[0] == 200
