"""The simulator's own endpoints, under ``/simulator/``: the books, what happened, and what is to go wrong.

Pure: where it came from, method, path, query and document in, status and document out. What changes something is a POST with
a JSON object, and answers with the new state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any, Final

from poller.simulator.exchange import Exchange, rows
from poller.simulator.faults import DEFAULT_PATH, TRAP_PATH, Fault
from poller.simulator.market import Entry
from poller.simulator.weights import Neighbour

PREFIX: Final = "/simulator/"

Query = Mapping[str, str]
Reply = tuple[int, Any]


class _Unfit(ValueError):
    """The request makes no sense; the text says what would."""


class Admin:
    """What a test, or a person with curl, may ask the simulator besides what the exchange serves."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._gets: dict[str, Callable[[Query], Any]] = {
            "": lambda query: self._index(),
            "books": self._books,
            "status": lambda query: self._status(),
            "faults": lambda query: self._faults(),
        }
        self._posts: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "faults": self._set_faults,
            "freeze": lambda document: {"frozen": True, "time_us": exchange.freeze()},
            "thaw": self._thaw,
            "skew": self._set_skew,
            "revoke": self._revoke,
            "restore": self._restore,
            "permissions": self._set_permissions,
            "maintenance": self._set_maintenance,
            "neighbour": self._set_neighbour,
            "sub_account": self._set_sub_account,
        }

    def handle(self, address: str, method: str, path: str, query: Query, document: Any) -> Reply:
        """Answer one request; what is wrong with it is in ``error``.

        Args:
            address: where it came from. The books and the switches are for this machine only, wherever the
                simulator listens; the trap is for everybody.
        """
        if path == TRAP_PATH:
            self._exchange.tally.trapped += 1
            return 200, []
        if not _is_this_machine(address):
            return 403, {"error": "only from the machine that the simulator runs on"}
        name = path.removeprefix(PREFIX)
        if method == "GET" and name in self._gets:
            return _guarded(self._gets[name], query)
        if method == "POST" and name in self._posts:
            if not isinstance(document, dict):
                return 400, {"error": "the body is to be a JSON object, or nothing"}
            return _guarded(self._posts[name], document)
        return 404, {"error": "no such endpoint", **self._index()}

    def _index(self) -> dict[str, list[str]]:
        gets, posts = ([f"{PREFIX}{name}" for name in names if name] for names in (self._gets, self._posts))
        return {"GET": gets, "POST": posts}

    def _books(self, query: Query) -> Any:
        """``?account=`` picks one, ``?since_us=`` what held at that time and after."""
        exchange = self._exchange
        names = [account.name for account in exchange.accounts]
        if "account" in query:
            names = [_known(exchange, query["account"])]
        since_us = int(query.get("since_us", 0))
        books = {
            name: [_entry(entry) for entry in held_since(exchange.books(name), since_us)] for name in names
        }
        return {"time_us": exchange.now_us(), "accounts": books}

    def _status(self) -> Any:
        exchange = self._exchange
        now_us = exchange.now_us()
        exchange.market.advance(now_us)
        record = exchange.weights.record
        worst = record.worst_fixed if exchange.settings.window == "fixed" else record.worst_rolling
        return {
            "time_us": now_us,
            "skew_ms": exchange.skew_ms,
            "requests": {
                endpoint: {str(status): count for status, count in sorted(statuses.items())}
                for endpoint, statuses in exchange.tally.statuses.items()
            },
            "codes": {str(code): count for code, count in exchange.tally.codes.items()},
            "polls": dict(exchange.tally.polls),
            "trapped": exchange.tally.trapped,
            "worst_window": worst,
            **asdict(record),
            "used": exchange.weights.used(DEFAULT_PATH, now_us),
            "banned_until_us": exchange.weights.banned_until_us(now_us),
            "neighbour": asdict(exchange.weights.neighbour),
            "faults_given": exchange.faults.given,
            "moves": exchange.market.moves,
            "frozen": exchange.market.is_frozen,
            "maintenance": exchange.is_in_maintenance,
            "revoked": sorted(exchange.revoked),
        }

    def _faults(self) -> Any:
        return {
            "faults": [fault.to_json() for fault in self._exchange.faults.current()],
            "given": self._exchange.faults.given,
        }

    def _set_faults(self, document: Mapping[str, Any]) -> Any:
        """``{"faults": [...]}`` replaces those that are set; an empty list clears them."""
        faults = document.get("faults")
        if not isinstance(faults, list):
            raise _Unfit('write {"faults": [{"kind": ...}, ...]}; an empty list clears them')
        self._exchange.faults.set([Fault.from_json(fault) for fault in faults], self._exchange.now_us())
        return self._faults()

    def _thaw(self, document: Mapping[str, Any]) -> Any:
        self._exchange.thaw()
        return {"frozen": False, "time_us": self._exchange.now_us()}

    def _set_skew(self, document: Mapping[str, Any]) -> Any:
        self._exchange.set_skew_ms(_number(document, "skew_ms"))
        return {"skew_ms": self._exchange.skew_ms, "time_us": self._exchange.now_us()}

    def _revoke(self, document: Mapping[str, Any]) -> Any:
        self._exchange.revoked.add(_known_key(self._exchange, document.get("account")))
        return {"revoked": sorted(self._exchange.revoked)}

    def _restore(self, document: Mapping[str, Any]) -> Any:
        self._exchange.revoked.discard(_known_key(self._exchange, document.get("account")))
        return {"revoked": sorted(self._exchange.revoked)}

    def _set_permissions(self, document: Mapping[str, Any]) -> Any:
        """``{"account": "sim-0001", "enableWithdrawals": true}`` changes what apiRestrictions says of a key."""
        fields = {name: value for name, value in document.items() if name != "account"}
        if not fields or not all(isinstance(value, bool) for value in fields.values()):
            raise _Unfit('write {"account": ..., "enableWithdrawals": true}; fields as in apiRestrictions')
        permissions = self._exchange.permissions[_known_key(self._exchange, document.get("account"))]
        permissions.update(fields)
        return permissions

    def _set_maintenance(self, document: Mapping[str, Any]) -> Any:
        on = document.get("on", True)
        if not isinstance(on, bool):
            raise _Unfit("on: true or false")
        self._exchange.is_in_maintenance = on
        return {"maintenance": on}

    def _set_sub_account(self, document: Mapping[str, Any]) -> Any:
        """``{"email": ...}`` creates one, with ``"frozen": true`` it is frozen, with ``"exists": false`` deleted."""
        email = document.get("email")
        exists, frozen = document.get("exists", True), document.get("frozen", False)
        if not isinstance(email, str) or not isinstance(exists, bool) or not isinstance(frozen, bool):
            raise _Unfit('write {"email": "new@sub.example", "frozen": true, "exists": true}')
        sub_accounts = self._exchange.sub_accounts
        if exists:
            sub_accounts.put(email, is_frozen=frozen)
        else:
            sub_accounts.remove(email)
        return {"sub_accounts": [asdict(one) for one in sub_accounts.all]}

    def _set_neighbour(self, document: Mapping[str, Any]) -> Any:
        mode = document.get("mode", "even")
        share = _number(document, "share")
        bursts = document.get("bursts", 1)
        if mode not in {"even", "bursts"} or share < 0:
            raise _Unfit('write {"share": 0.5, "mode": "even"}; the other mode is "bursts"')
        if isinstance(bursts, bool) or not isinstance(bursts, int) or not 1 <= bursts <= 1000:
            raise _Unfit('write {"share": 0.5, "mode": "bursts", "bursts": 10}; bursts a window, 1 to 1,000')
        self._exchange.set_neighbour(Neighbour(share, mode, self._exchange.settings.seed, bursts))
        return asdict(self._exchange.weights.neighbour)


def _is_this_machine(address: str) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    # A socket for both families shows 127.0.0.1 as ::ffff:127.0.0.1.
    return ((parsed.version == 6 and parsed.ipv4_mapped) or parsed).is_loopback


def held_since(history: Sequence[Entry], since_us: int) -> Sequence[Entry]:
    """Return the entries after that time, and the one that held then."""
    later = sum(1 for entry in history if entry.time_us > since_us)
    return history[max(0, len(history) - later - 1) :]


def _entry(entry: Entry) -> Any:
    balances = rows(entry.balances)
    for row in balances:
        del row["btcValuation"]  # prices move on their own; the books are about amounts
    return {"time_us": entry.time_us, "cause": entry.cause, "balances": balances}


def _guarded(answer: Callable[[Any], Any], argument: Any) -> Reply:
    try:
        return 200, answer(argument)
    except ValueError as error:
        return 400, {"error": str(error)}


def _known(exchange: Exchange, account: object) -> str:
    if not any(known.name == account for known in exchange.accounts):
        raise _Unfit(f"no such account: {account!r}; they are {exchange.accounts[0].name} and so on")
    return str(account)


def _known_key(exchange: Exchange, account: object) -> str:
    """Return the owner of a key: one of the fleet, or the master account."""
    return exchange.master.name if account == exchange.master.name else _known(exchange, account)


def _number(document: Mapping[str, Any], name: str) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Unfit(f"{name}: a number is needed")
    return value
