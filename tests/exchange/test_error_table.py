"""Every answer that is not a success, from the socket to who has to wait, and for how long.

The left half of each row is what the exchange is documented or was seen to answer; the right half is
what it means for a fleet. It is written down here a second time, apart from the table in the code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
import pytest

from poller.budget import WeightBudget, WeightWindow
from poller.clock import SystemClock
from poller.errors import (
    AccessDenied,
    BadAnswer,
    BadRequest,
    Banned,
    Blocked,
    ClockSkew,
    Maintenance,
    Overloaded,
    PollError,
    RateLimited,
    Scope,
    Unavailable,
)
from poller.exchange.client import ExchangeClient
from poller.exchange.server_time import ServerTime
from poller.exchange.signing import Credentials, hmac_signer
from poller.exchange.transport import AiohttpTransport
from poller.metrics import Metrics
from poller.model import Account, State
from poller.outcomes import Outcomes
from poller.secrets import Secret
from poller.simulator import Fault, FaultKind, SimulatorServer, SimulatorSettings, serve

pytestmark = pytest.mark.real_time

ACCOUNTS = 12  # so many that a single refused one is not half of those that answered
ALIKE = 5  # so many with the same refusal are not their own fault
DAY_S = 86_400.0


@dataclass(frozen=True)
class Means:
    """What an answer means.

    Attributes:
        account_s: so long this account alone is not asked.
        silence_s: so long nobody is.
        alike_s: so long nobody is, once five accounts were answered like this.
    """

    error: type[PollError]
    scope: Scope
    account_s: float = 0.0
    silence_s: float = 0.0
    alike_s: float = 0.0


RETRY = Means(Unavailable, Scope.POLL)
REJECTED = Means(BadAnswer, Scope.POLL)
CLOCK = Means(ClockSkew, Scope.POLL)
KEY = Means(AccessDenied, Scope.ACCOUNT, account_s=60.0, alike_s=60.0)
OURS = Means(BadRequest, Scope.ENDPOINT, alike_s=60.0)
CLOSED = Means(Overloaded, Scope.ENDPOINT, silence_s=60.0, alike_s=60.0)
DOWN = Means(Maintenance, Scope.ENDPOINT, silence_s=60.0, alike_s=60.0)


def limited(silence_s: float) -> Means:
    return Means(RateLimited, Scope.EGRESS, silence_s=silence_s, alike_s=silence_s)


def banned(silence_s: float) -> Means:
    return Means(Banned, Scope.EGRESS, silence_s=silence_s, alike_s=silence_s)


def blocked(silence_s: float) -> Means:
    return Means(Blocked, Scope.EGRESS, silence_s=silence_s, alike_s=silence_s)


HTML = "<html><head><title>ERROR: The request could not be satisfied</title></head><body>...</body></html>"
LIMIT_TEXT = "Too many requests; current request has limited."
BAN_TEXT = "Way too much request weight used; IP banned until {}. Please use WebSocket Streams."
PAST_MS = 1_600_000_000_000
FAR_MS = 9_000_000_000_000


def coded(code: object, msg: str = "What the exchange says.") -> str:
    return orjson.dumps({"code": code, "msg": msg}).decode()


# The name of the row; status, body, Retry-After; what it means.
Row = tuple[str, int, str, str | None, Means]

BY_STATUS: list[Row] = [
    ("200, an error's object", 200, coded(-2015), None, KEY),
    ("200, an error nobody knows", 200, coded(-77_777), None, RETRY),
    ("200, too many requests", 200, coded(-1003, LIMIT_TEXT), None, limited(60)),
    (
        "200, success is false, too many",
        200,
        '{"success":false,"msg":"Too many requests"}',
        None,
        limited(60),
    ),
    ("200, success is false", 200, '{"success":false,"msg":"try again"}', None, RETRY),
    (
        "200, an error as text in an error",
        200,
        orjson.dumps({"success": False, "msg": coded(-1021)}).decode(),
        None,
        CLOCK,
    ),
    ("200, a code that means success, no list", 200, coded("000000"), None, REJECTED),
    ("200, code 200, no list", 200, coded(200), None, REJECTED),
    ("200, an empty object", 200, "{}", None, REJECTED),
    ("200, nothing", 200, "", None, REJECTED),
    ("200, a page", 200, HTML, None, REJECTED),
    ("200, half a list", 200, '[{"asset":"BTC","free":"1"', None, REJECTED),
    ("202, a list", 202, "[]", None, REJECTED),
    ("301", 301, "", None, OURS),
    ("302", 302, "", None, OURS),
    ("307", 307, "", None, OURS),
    ("400 without a code", 400, HTML, None, OURS),
    ("400, a code nobody knows", 400, coded(-77_777), None, RETRY),
    ("401 without a code", 401, HTML, None, KEY),
    ("401, -2014", 401, coded(-2014), None, KEY),
    ("403, the firewall's page", 403, HTML, None, blocked(300)),
    ("403, the firewall in JSON", 403, '{"message":"Forbidden"}', None, blocked(300)),
    ("403, with a wish", 403, HTML, "900", blocked(900)),
    ("404, a page", 404, HTML, None, OURS),
    ("404, -1099", 404, coded(-1099), None, KEY),
    ("408", 408, HTML, None, RETRY),
    ("418, says how long", 418, coded(-1003, BAN_TEXT.format(PAST_MS)), "960", banned(960)),
    (
        "418, a ban beyond all that is known",
        418,
        coded(-1003, BAN_TEXT.format(FAR_MS)),
        "179",
        banned(7 * DAY_S),
    ),
    ("418, says nothing", 418, coded(-1003, LIMIT_TEXT), None, banned(120)),
    ("418, zero", 418, coded(-1003, LIMIT_TEXT), "0", banned(120)),
    ("418, a page", 418, HTML, "300", banned(300)),
    ("429, says how long", 429, coded(-1003, LIMIT_TEXT), "35", limited(35)),
    ("429, says nothing", 429, coded(-1003, LIMIT_TEXT), None, limited(60)),
    ("429, zero", 429, coded(-1003, LIMIT_TEXT), "0", limited(60)),
    ("429, negative", 429, coded(-1003, LIMIT_TEXT), "-5", limited(60)),
    ("429, no number", 429, coded(-1003, LIMIT_TEXT), "soon", limited(60)),
    ("429, absurd", 429, coded(-1003, LIMIT_TEXT), "999999999999", limited(7 * DAY_S)),
    ("429, another code", 429, coded(-4005), "10", limited(10)),
    ("429, a page", 429, HTML, "10", limited(10)),
    ("451, a page", 451, HTML, None, blocked(3600)),
    ("451, JSON", 451, '{"msg":"Service unavailable from a restricted location"}', None, blocked(3600)),
    ("500, -1000", 500, coded(-1000), None, RETRY),
    ("500, a page", 500, HTML, None, RETRY),
    ("502, a page", 502, HTML, None, RETRY),
    ("504, a page", 504, HTML, None, RETRY),
    ("520 of a gateway", 520, HTML, None, RETRY),
]

BY_TEXT: list[Row] = [  # the flavours of 503
    (f"503, {text}", 503, orjson.dumps(document | {"msg": text}).decode(), None, means)
    for text, document, means in (
        ("Unknown error, please check your request or try again later.", {"code": -1000}, RETRY),
        ("Service Unavailable.", {"timestamp": "2026-01-01", "path": "/sapi"}, RETRY),
        ("Internal error; unable to process your request. Please try again.", {"code": -1001}, RETRY),
        ("Request throttled by system-level protection.", {"code": -1008}, CLOSED),
        ("Request occur unknown error.", {}, RETRY),
        ("The system is under maintenance, please try again later.", {"code": -10001}, DOWN),
    )
]
BY_TEXT.append(("503, a page", 503, HTML, None, RETRY))
BY_TEXT.append(("503, nothing", 503, "", None, RETRY))

CODES: dict[Means, tuple[int, ...]] = {
    RETRY: (
        -1000,
        -1001,
        -1004,
        -1006,
        -1007,
        -3000,
        -3044,
        -4038,
        -4041,
        -4045,
        -1033,
        -1034,
        -1035,
        100001003,
    ),
    CLOCK: (-1021,),
    KEY: (-1002, -1022, -1099, -2008, -2014, -2015, -3001, -3999, -4004, -4039, -4044, -4046, -5021),
    OURS: (
        *(-1010, -1013, -1014, -1015),
        *(-1100, -1101, -1102, -1103, -1104, -1105, -1106, -1108),
        *range(-1128, -1110),
        *(-1130, -1131, -1134, -1135, -1139, -1145),
        *(-1151, -1170, -1199),
        *(-3002, -3026, -4001, -4006, -4018),
        *range(-5012, -5000),
    ),
    CLOSED: (-1008, -1016, -1020, -4005, -6009, -9000),
    DOWN: (1, -10001),
    limited(60): (-1003,),
}
BY_CODE: list[Row] = [
    (f"400, {code}", 400, coded(code), None, means) for means, codes in CODES.items() for code in codes
]


class Bench:
    """The simulated exchange, the real client before it, and what its outcomes lead to."""

    def __init__(self, server: SimulatorServer) -> None:
        self.clock = SystemClock()
        self.simulator = server.exchange
        self.accounts = [Account(account.name, 10.0) for account in server.accounts]
        self.server_time = ServerTime(self.clock)
        self.metrics = Metrics()
        self.client = ExchangeClient(
            {"default": AiohttpTransport(server.url, clock=self.clock)},
            {
                account.name: Credentials(Secret(account.api_key), hmac_signer(Secret(account.secret)))
                for account in server.accounts
            },
            self.server_time,
            self.clock,
            recv_window_ms=10_000,
            metrics=self.metrics,
        )
        self.saved: list[bytes] = []
        self.forget()

    def forget(self) -> None:
        """Begin anew: nobody was refused and nothing pauses."""
        self.saved.clear()
        window = WeightWindow(limit=12_000)
        self.budget = WeightBudget("default", window, self.clock, self._save, metrics=self.metrics)
        self.outcomes = Outcomes(
            "default",
            self.accounts,
            self.budget,
            None,
            exchange_ns=self.server_time.now_ns,
            clock=self.clock,
            metrics=self.metrics,
        )

    async def _save(self, state: bytes) -> None:
        self.saved.append(state)

    def answer_with(self, status: int, body: str, retry_after: str | None) -> None:
        faults = [Fault(FaultKind.BODY, status=status, value=body)]
        faults += [Fault(FaultKind.RETRY_AFTER, value=retry_after)] if retry_after is not None else []
        self.simulator.faults.set(faults, self.simulator.now_us())

    def answer_well(self) -> None:
        self.simulator.faults.set([], self.simulator.now_us())

    async def poll(self, account: Account) -> tuple[object, float]:
        """Return the outcome and for how long the account is not asked again."""
        outcome = (await self.client.user_assets(account)).outcome
        return outcome, await self.outcomes.settle(account, outcome)

    def silence_s(self) -> float:
        """Return how long the silence is that was begun last; to the digit, as it lies on the disk."""
        if not self.saved:
            return 0.0
        length_s: float = orjson.loads(self.saved[-1])["pause"]["length_s"]
        return length_s


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    settings = SimulatorSettings(
        accounts=ACCOUNTS, key_kinds=("hmac",), latency_ms=(0, 0), moves_per_s=0, weight_limit=10**6
    )
    async with serve(settings) as server:
        made = Bench(server)
        yield made
        await made.client.close()


TABLE = [pytest.param(*row, id=name) for name, *row in (*BY_STATUS, *BY_TEXT, *BY_CODE)]


@pytest.mark.parametrize(("status", "body", "retry_after", "means"), TABLE)
async def test_an_answer_makes_wait_whom_it_concerns_and_nobody_else(
    bench: Bench, status: int, body: str, retry_after: str | None, means: Means
) -> None:
    for account in bench.accounts:
        await bench.poll(account)  # everybody has answered well before
    bench.answer_with(status, body, retry_after)

    outcome, account_s = await bench.poll(bench.accounts[0])
    assert type(outcome) is means.error
    assert outcome.scope is means.scope
    assert (account_s, bench.silence_s()) == (means.account_s, means.silence_s)

    bench.forget()
    for account in bench.accounts[:ALIKE]:
        await bench.poll(account)
    assert bench.silence_s() == means.alike_s


@pytest.mark.parametrize("code", CODES[KEY])
async def test_a_refused_key_is_asked_three_times_before_it_is_quarantined(bench: Bench, code: int) -> None:
    for account in bench.accounts:
        await bench.poll(account)
    bench.answer_with(400, coded(code), None)
    waits = [(await bench.poll(bench.accounts[0]))[1] for _ in range(5)]
    assert waits == [60.0, 60.0, 900.0, 1800.0, 3600.0]
    assert bench.outcomes.states() == {State.OK: ACCOUNTS - 1, State.STALE: 0, State.QUARANTINED: 1}
    assert bench.silence_s() == 0
    bench.answer_well()
    assert (await bench.poll(bench.accounts[0]))[1] == 0
    assert bench.outcomes.states()[State.OK] == ACCOUNTS


async def test_answers_under_way_when_a_silence_begins_are_no_new_offences(bench: Bench) -> None:
    bench.answer_with(503, coded(-1008), None)
    for account in bench.accounts:
        await bench.poll(account)
    assert {orjson.loads(state)["strikes"] for state in bench.saved} == {1}
    assert bench.silence_s() == 60


async def test_a_ban_ends_when_its_text_says_on_the_clock_of_the_exchange(bench: Bench) -> None:
    until_ms = bench.simulator.now_us() // 1000 + 1_000_000
    bench.answer_with(418, coded(-1003, BAN_TEXT.format(until_ms)), "30")
    began_s = bench.clock.monotonic_s()
    await bench.poll(bench.accounts[0])
    took_ms = (bench.clock.monotonic_s() - began_s) * 1000
    pause = orjson.loads(bench.saved[-1])["pause"]
    # A second more, to be sure, counted from the answer; what it took until then is all that it may be off.
    assert 999 <= pause["until_ns"] // 10**6 - until_ms <= 1000 + took_ms
