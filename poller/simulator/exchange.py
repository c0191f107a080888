"""The exchange as a state machine: a request's bytes in, an answer out.

No I/O and no waiting: what takes time is written into the answer. The order is that of the real one, as
far as anybody knows it: the weight is charged first, whatever comes of the request; then the limits
speak; then the API key, the parameters, the clock, the signature; then the endpoint.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from poller.clock import Clock
from poller.simulator.amounts import padded, plain
from poller.simulator.catalogue import worth
from poller.simulator.faults import (
    DEFAULT_PATH,
    HTML,
    JSON,
    ON_EVERY_ANSWER,
    WEIGHT_HEADER,
    Answer,
    Fault,
    Faults,
    spoil,
)
from poller.simulator.keys import SimulatedAccount, make_accounts, make_master
from poller.simulator.market import Balances, Entry, Market
from poller.simulator.rules import (
    Refused,
    Route,
    Sent,
    asset_asked_for,
    check_key_form,
    check_names,
    check_signed,
    parse,
    valuation_asked_for,
)
from poller.simulator.settings import SimulatorSettings
from poller.simulator.sub_accounts import PARAMETERS as SUB_ACCOUNT_PARAMETERS
from poller.simulator.sub_accounts import SubAccounts
from poller.simulator.weights import US_PER_S, Neighbour, Verdict, Weights

POLL_PARAMETERS: Final = ("asset", "needBtcValuation")
API_LIMIT: Final = 6_000  # one pool for everything under /api
API_POOL: Final = "/api"
TIME_PATH: Final = "/api/v3/time"
STATUS_PATH: Final = "/sapi/v1/system/status"
SUB_ACCOUNT_PATH: Final = "/sapi/v1/sub-account/list"
KEY_PATH: Final = "/sapi/v1/account/apiRestrictions"


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived.

    Attributes:
        address: where it came from: weight is counted by it.
        target: path and query exactly as received.
        api_key: the ``X-MBX-APIKEY`` header.
    """

    address: str
    method: str
    target: str
    api_key: str | None = field(default=None, repr=False)
    body: bytes = b""


@dataclass(slots=True)
class Tally:
    """What was asked and how it was answered, faults included.

    Attributes:
        statuses: by endpoint (``POST /sapi/...``) and HTTP status.
        codes: the exchange's own error codes, given by the rules (not by faults).
        polls: ``getUserAsset`` requests, by account, whatever came of them.
        trapped: requests that followed a redirect.
    """

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    codes: Counter[int] = field(default_factory=Counter)
    polls: Counter[str] = field(default_factory=Counter)
    trapped: int = 0


@dataclass(frozen=True, slots=True)
class _Call:
    """A request that passed all checks, and what its account holds."""

    sent: Sent
    balances: Balances
    now_us: int
    permissions: Mapping[str, bool] = field(default_factory=dict)
    is_of_master: bool = False


_Endpoint = Callable[[_Call], Any]


class Exchange:
    """All that there is behind the socket.

    Its clock starts at this machine's wall clock plus the skew and then runs on its own: it does not
    follow when the machine's is set, as no exchange would.
    """

    def __init__(self, settings: SimulatorSettings, clock: Clock) -> None:
        self.settings = settings
        self.accounts = make_accounts(settings.accounts, settings.key_kinds, settings.seed)
        self.master = make_master(settings.key_kinds[0], settings.seed)
        self.sub_accounts = SubAccounts(account.name for account in self.accounts)
        self.is_in_maintenance = False
        self.revoked: set[str] = set()
        # What keys may do other than by default: account -> field of apiRestrictions -> value.
        self.permissions: dict[str, dict[str, bool]] = defaultdict(dict)
        self.tally = Tally()
        self._clock = clock
        self._skew_us = round(settings.skew_ms * 1000)
        self._ahead_us = clock.utc_ns() // 1000 + self._skew_us - round(clock.uptime_s() * US_PER_S)
        self._by_key = {account.api_key: account for account in (*self.accounts, self.master)}
        self._random = Random(f"exchange/{settings.seed}")
        self.weights = Weights(
            settings.weight_rules, neighbour_pool=DEFAULT_PATH, neighbour=settings.neighbour
        )
        self.faults = Faults(Random(f"faults/{settings.seed}"))
        self.faults.set(settings.faults, self.now_us())
        self.market = Market(
            [account.name for account in self.accounts],
            seed=settings.seed,
            moves_per_s=settings.moves_per_s,
            start_us=self.now_us(),
        )
        self._routes: dict[tuple[str, str], tuple[Route, _Endpoint]] = {
            (route.method, route.path): (route, endpoint) for route, endpoint in self._endpoints()
        }

    def now_us(self) -> int:
        """Return the exchange's time: microseconds since the epoch, skew included."""
        return round(self._clock.uptime_s() * US_PER_S) + self._ahead_us

    @property
    def skew_ms(self) -> float:
        """How far the exchange's clock is ahead of what the machine's showed at the start."""
        return self._skew_us / 1000

    def set_skew_ms(self, skew_ms: float) -> None:
        """Set the exchange's clock. Bans, freezes and planned moves stay as far ahead as they are.

        The books keep the times that entries had; after a step back they are no longer in order.
        """
        self.market.advance(self.now_us())
        by_us = round(skew_ms * 1000) - self._skew_us
        self._skew_us += by_us
        self._ahead_us += by_us
        for part in (self.market, self.weights, self.faults):
            part.step_clock(by_us)

    def set_neighbour(self, neighbour: Neighbour) -> None:
        """Let somebody else use the addresses from now on."""
        self.weights.neighbour = neighbour

    def latency_s(self) -> tuple[float, float]:
        """Draw how long the next request is under way to us, and its answer back."""
        low_ms, high_ms = self.settings.latency_ms
        whole_s = self._random.uniform(low_ms, high_ms) / 1000
        there_s = whole_s * self._random.random()
        return there_s, whole_s - there_s

    def freeze(self) -> int:
        """Stop the market and return the time: the books' last entries hold from then on."""
        now_us = self.now_us()
        self.market.freeze(now_us)
        return now_us

    def thaw(self) -> None:
        """Let the market go on."""
        self.market.thaw(self.now_us())

    def books(self, account: str) -> Sequence[Entry]:
        """Return every state of the account up to now. Raises ``KeyError`` for an unknown account."""
        self.market.advance(self.now_us())
        return self.market.history(account)

    def handle(self, request: Request) -> Answer:
        """Answer a request that arrives now."""
        now_us = self.now_us()
        self.market.advance(now_us)
        path, _, query = request.target.partition("?")
        found = self._routes.get((request.method, path))
        if found is None:
            self.tally.statuses["unknown"][404] += 1
            return Answer(404, b"<html><body><h1>404 Not Found</h1></body></html>", {"Content-Type": HTML})
        route, endpoint = found
        account = self._by_key.get(request.api_key or "")
        name = account.name if account else None
        if account and path == DEFAULT_PATH:
            self.tally.polls[account.name] += 1
        limit = API_LIMIT if route.pool == API_POOL else self.settings.weight_limit
        verdict = self.weights.charge(request.address, route.pool, route.weight, limit, now_us)
        hits = self.faults.pick(path, name, now_us)
        try:
            _speak_limits(route, verdict, limit)
            status, document = 200, endpoint(self._admitted(route, request, account, query, now_us))
        except Refused as refusal:
            self.tally.codes[refusal.code] += 1
            status, document = refusal.status, {"code": refusal.code, "msg": refusal.text}
        answer = Answer(status, _json(document), self._headers(route, verdict))
        answer = self._spoiled(answer, hits, is_limited=verdict.status != 200)
        self.tally.statuses[f"{request.method} {path}"][answer.status] += 1
        return answer

    def _spoiled(self, answer: Answer, hits: Iterable[Fault], *, is_limited: bool) -> Answer:
        for fault in hits:
            # What is over the limit does not get as far as to where most things go wrong.
            if not is_limited or fault.kind in ON_EVERY_ANSWER:
                answer = spoil(answer, fault, self._random)
        return answer

    def _headers(self, route: Route, verdict: Verdict) -> dict[str, str]:
        draw = f"{self._random.getrandbits(128):032x}"
        headers = {
            "Content-Type": JSON,
            "x-mbx-uuid": f"{draw[:8]}-{draw[8:12]}-{draw[12:16]}-{draw[16:20]}-{draw[20:]}",
        }
        if route.pool == API_POOL:
            headers["x-mbx-used-weight"] = headers["x-mbx-used-weight-1m"] = str(verdict.used)
        else:
            headers[WEIGHT_HEADER] = str(verdict.used)
        if verdict.retry_after_s:
            headers["Retry-After"] = str(verdict.retry_after_s)
        return headers

    def _admitted(
        self, route: Route, request: Request, account: SimulatedAccount | None, query: str, now_us: int
    ) -> _Call:
        """Return what the endpoint needs, or raise ``Refused``."""
        sent = parse(query.encode(errors="surrogateescape"), request.body)
        if not route.signed:
            check_names(sent, route.parameters)
            return _Call(sent, (), now_us)
        if self.is_in_maintenance:
            raise Refused(503, -10001, "The system is under maintenance, please try again later.")
        check_key_form(request.api_key)
        if account is None or account.name in self.revoked:
            raise Refused(400, -2015, "Invalid API-key, IP, or permissions for action.")
        check_signed(sent, route, account, now_us // 1000)
        permissions = self.permissions.get(account.name, {})
        if account is self.master:  # its own wallet is empty
            return _Call(sent, (), now_us, permissions, is_of_master=True)
        return _Call(sent, self.market.balances(account.name), now_us, permissions)

    def _endpoints(self) -> Iterable[tuple[Route, _Endpoint]]:
        poll = Route(
            "POST", DEFAULT_PATH, DEFAULT_PATH, self.settings.weight, signed=True, parameters=POLL_PARAMETERS
        )
        yield poll, _assets
        yield Route("GET", KEY_PATH, KEY_PATH, 1, signed=True), _restrictions
        yield (
            Route(
                "GET", SUB_ACCOUNT_PATH, SUB_ACCOUNT_PATH, 1, signed=True, parameters=SUB_ACCOUNT_PARAMETERS
            ),
            self._sub_accounts,
        )
        yield Route("GET", STATUS_PATH, STATUS_PATH, 1, signed=False), self._status
        yield Route("GET", TIME_PATH, API_POOL, 1, signed=False), _time

    def _sub_accounts(self, call: _Call) -> Any:
        if not call.is_of_master:
            raise Refused(400, -2015, "Invalid API-key, IP, or permissions for action.")
        return self.sub_accounts.page(call.sent)

    def _status(self, call: _Call) -> Any:
        down = self.is_in_maintenance
        return {"status": int(down), "msg": "system_maintenance" if down else "normal"}


def rows(
    balances: Balances, *, asset: str | None = None, valued_us: int | None = None
) -> list[dict[str, str]]:
    """Return the rows of an answer.

    Args:
        asset: this one alone.
        valued_us: value each row at the prices of that moment; ``None`` leaves the valuation at ``0``.
    """
    return [
        {
            "asset": code,
            "free": plain(holding.free),
            "locked": plain(holding.locked),
            "freeze": plain(holding.freeze),
            "withdrawing": plain(holding.withdrawing),
            "ipoable": plain(holding.ipoable),
            "btcValuation": "0" if valued_us is None else padded(worth(code, holding.total, valued_us)),
        }
        for code, holding in balances
        if asset in {None, code}
    ]


def _speak_limits(route: Route, verdict: Verdict, limit: int) -> None:
    advice = "Please use WebSocket Streams for live updates to avoid"
    if verdict.status == 418:
        until_ms = -(-verdict.banned_until_us // 1000)
        raise Refused(
            418, -1003, f"Way too much request weight used; IP banned until {until_ms}. {advice} bans."
        )
    if verdict.status == 429 and route.pool == API_POOL:
        used = f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE."
        raise Refused(429, -1003, f"{used} {advice} polling the API.")
    if verdict.status == 429:
        raise Refused(429, -1003, "Too many requests; current request has limited.")


def _assets(call: _Call) -> Any:
    asset = asset_asked_for(call.sent)
    valued_us = call.now_us if valuation_asked_for(call.sent) else None
    return rows(call.balances, asset=asset, valued_us=valued_us)


def _time(call: _Call) -> Any:
    return {"serverTime": call.now_us // 1000}


def _restrictions(call: _Call) -> Any:
    can = dict.fromkeys(
        (
            "enableWithdrawals",
            "enableInternalTransfer",
            "permitsUniversalTransfer",
            "enableSpotAndMarginTrading",
            "enableMargin",
            "enableFutures",
            "enableVanillaOptions",
            "enablePortfolioMarginTrading",
            "enableFixApiTrade",
            "enableFixReadOnly",
        ),
        False,
    )
    return {
        "ipRestrict": False,
        "createTime": 1_767_225_600_000,
        "enableReading": True,
        **can,
        **call.permissions,
    }


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
