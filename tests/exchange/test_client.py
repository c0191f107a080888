from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from urllib.parse import parse_qs

import pytest
from aioresponses import aioresponses

from poller.clock import SystemClock
from poller.errors import (
    AccessDenied,
    BadAnswer,
    BadRequest,
    Banned,
    Blocked,
    ClockSkew,
    Maintenance,
    NoResponse,
    Overloaded,
    PollError,
    RateLimited,
    StaleConnection,
    Unavailable,
)
from poller.exchange.client import Answer, ExchangeClient, Restrictions, SubAccount, SystemStatus
from poller.exchange.request import Request
from poller.exchange.response import Response
from poller.exchange.server_time import Sample, ServerTime
from poller.exchange.transport import AiohttpTransport
from poller.metrics import Metrics
from poller.model import Account, Balance, Snapshot
from poller.testing.virtual_time import START_UTC_S, VirtualClock
from tests.exchange.keys import SAMPLE_API_KEY, sample_credentials

ACCOUNT = Account("treasury", interval_s=10.0)
ROWS = b'[{"asset":"BTC","free":"0.10","locked":"0","freeze":"0","withdrawing":"0","ipoable":"0","btcValuation":"0.1"}]'
START_MS = START_UTC_S * 1000


class ScriptedTransport:
    """Answers from a list, each after ``round_trip_s``; an error in the list is raised."""

    def __init__(self, clock: VirtualClock, *answers: bytes | PollError | tuple[int, bytes]) -> None:
        self.clock = clock
        self.answers = list(answers)
        self.round_trip_s = 0.2
        self.headers: dict[str, str] = {}
        self.requests: list[Request] = []
        self.closed = 0

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        sent_s = self.clock.monotonic_s()
        await asyncio.sleep(self.round_trip_s)
        said = self.answers.pop(0)
        if isinstance(said, PollError):
            raise said
        status, body = said if isinstance(said, tuple) else (200, said)
        return Response(status, self.headers, body, sent_s, self.clock.monotonic_s())

    async def close(self) -> None:
        self.closed += 1


class Bench:
    """A client on a scripted transport, with all that it was built from."""

    def __init__(self, clock: VirtualClock, *answers: bytes | PollError | tuple[int, bytes]) -> None:
        self.clock = clock
        self.transport = ScriptedTransport(clock, *answers)
        self.server_time = ServerTime(clock)
        self.metrics = Metrics()
        self.client = ExchangeClient(
            {"default": self.transport, "nat-b": self.transport},
            {"treasury": sample_credentials()},
            self.server_time,
            clock,
            recv_window_ms=10_000,
            metrics=self.metrics,
            masters={"main": sample_credentials()},
        )
        self.permits: list[float] = []

    async def permit(self) -> None:
        self.permits.append(self.clock.monotonic_s())

    def asked(self, number: int = 0) -> dict[str, list[str]]:
        return parse_qs(self.transport.requests[number].query, strict_parsing=True)


def time_answer(server_ms: float) -> bytes:
    return json.dumps({"serverTime": round(server_ms)}).encode()


# A poll


async def test_a_poll_is_a_snapshot_with_its_time_on_the_exchanges_clock(clock: VirtualClock) -> None:
    bench = Bench(clock, ROWS)
    bench.transport.headers = {"x-sapi-used-ip-weight-1m": "35"}
    bench.server_time.update([Sample(0.0, START_MS + 60_000, 0.0)])
    await asyncio.sleep(1)
    answer = await bench.client.user_assets(ACCOUNT)
    # Half a millisecond for a clock of whole ones, 50 ppm of 1.2 s for the drift.
    uncertainty_ms = 100.0 + 0.5 + 0.06
    assert answer == Answer(
        Snapshot(
            "treasury",
            (Balance("BTC", Decimal("0.1"), btc_valuation=Decimal("0.1")),),
            observed_ns=(START_MS + 61_100) * 10**6 + 500_000,
            uncertainty_ms=pytest.approx(uncertainty_ms),  # type: ignore[arg-type]  # compares like one
            latency_ms=pytest.approx(200.0),  # type: ignore[arg-type]  # compares like one
        ),
        used_weight=35,
        sent_s=1.0,
        answered_s=1.2,
    )


async def test_a_poll_is_stamped_when_it_goes_out(clock: VirtualClock) -> None:
    bench = Bench(clock, ROWS, ROWS)
    bench.server_time.update([Sample(0.0, START_MS, 0.0)])
    await asyncio.sleep(3)
    await bench.client.user_assets(ACCOUNT)
    await bench.client.user_assets(ACCOUNT)
    stamps = [int(bench.asked(number)["timestamp"][0]) - START_MS for number in range(2)]
    assert stamps == [2_999, 3_199]  # a hair behind, for the drift
    assert bench.asked()["recvWindow"] == ["10000"]


@pytest.mark.parametrize(
    ("account", "parameters"),
    [
        (ACCOUNT, {"needBtcValuation": ["true"]}),
        (Account("treasury", 10.0, btc_valuation=False), {}),
        (Account("treasury", 10.0, asset="币"), {"asset": ["币"], "needBtcValuation": ["true"]}),
    ],
)
async def test_a_poll_asks_what_the_account_wants(
    account: Account, parameters: dict[str, list[str]], clock: VirtualClock
) -> None:
    bench = Bench(clock, ROWS)
    await bench.client.user_assets(account)
    own = {"timestamp", "recvWindow", "signature"}
    assert {name: values for name, values in bench.asked().items() if name not in own} == parameters
    assert bench.transport.requests[0].headers == {"X-MBX-APIKEY": SAMPLE_API_KEY}


async def test_a_valuation_that_was_not_asked_for_is_unknown(clock: VirtualClock) -> None:
    bench = Bench(clock, ROWS)
    answer = await bench.client.user_assets(Account("treasury", 10.0, btc_valuation=False))
    assert isinstance(answer.outcome, Snapshot)
    assert answer.outcome.balances == (Balance("BTC", Decimal("0.1")),)


async def test_an_account_polls_through_its_own_address(clock: VirtualClock) -> None:
    here, there = ScriptedTransport(clock), ScriptedTransport(clock, ROWS)
    client = ExchangeClient(
        {"default": here, "nat-b": there},
        {"treasury": sample_credentials()},
        ServerTime(clock),
        clock,
        recv_window_ms=10_000,
        metrics=Metrics(),
    )
    await client.user_assets(Account("treasury", 10.0, egress="nat-b"))
    assert (len(here.requests), len(there.requests)) == (0, 1)


@pytest.mark.parametrize(
    "error", [NoResponse("no connection", cause="connect"), StaleConnection("dead")], ids=["none", "stale"]
)
async def test_a_poll_without_an_answer_is_an_outcome_and_not_repeated(
    error: PollError, clock: VirtualClock
) -> None:
    bench = Bench(clock, error)
    await asyncio.sleep(1)
    assert await bench.client.user_assets(ACCOUNT) == Answer(error, None, 1.0, 1.2)
    assert len(bench.transport.requests) == 1


async def test_a_refused_poll_still_tells_the_used_weight(clock: VirtualClock) -> None:
    bench = Bench(clock, (429, b'{"code":-1003,"msg":"Too many requests; current request has limited."}'))
    bench.transport.headers = {"x-sapi-used-ip-weight-1m": "12001", "retry-after": "9"}
    answer = await bench.client.user_assets(ACCOUNT)
    assert type(answer.outcome) is RateLimited
    assert answer.outcome.retry_after_s == 9.0
    assert (answer.used_weight, answer.sent_s, answer.answered_s) == (12_001, 0.0, 0.2)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty_body"),
        (b"{}", "not_a_list"),
        (b"null", "not_a_list"),
        (b'{"code":0}', "not_a_list"),
        (b'{"code":"000000","success":true}', "not_a_list"),
        (b"<html></html>", "not_json"),
        (b'[{"asset":"BTC"}]', "missing_field"),
        (b'[{"asset":"BTC","free":1}]', "number_amount"),
        (ROWS[:-1], "not_json"),
    ],
)
async def test_no_success_without_balances_is_an_empty_account(
    body: bytes, reason: str, clock: VirtualClock
) -> None:
    answer = await Bench(clock, body).client.user_assets(ACCOUNT)
    assert isinstance(answer.outcome, BadAnswer)
    assert answer.outcome.reason == reason


async def test_an_empty_list_is_an_empty_account(clock: VirtualClock) -> None:
    answer = await Bench(clock, b"[]").client.user_assets(ACCOUNT)
    assert isinstance(answer.outcome, Snapshot)
    assert answer.outcome.balances == ()


async def test_fields_too_many_and_too_few_are_counted(clock: VirtualClock) -> None:
    bench = Bench(clock, b'[{"asset":"A","free":"1","x":1,"y":2},{"asset":"B","free":"1","locked":"0"}]')
    await bench.client.user_assets(ACCOUNT)
    assert bench.metrics.value("unknown_fields_total") == 2
    assert bench.metrics.value("missing_fields_total", field="locked") == 1
    assert bench.metrics.value("missing_fields_total", field="freeze") == 2


# The clock


async def test_the_clock_is_measured_with_a_permit_for_each_request(clock: VirtualClock) -> None:
    bench = Bench(clock, *(time_answer(START_MS + 5_000 + 200 * turn + 100) for turn in range(4)))
    await bench.client.synchronise("default", bench.permit)
    assert bench.permits == pytest.approx([0.0, 0.2, 0.4, 0.6])
    assert bench.server_time.now_ns() - clock.utc_ns() == pytest.approx(5_000.5 * 10**6, abs=1_000)
    assert bench.metrics.value("clock_offset_seconds") == pytest.approx(5.0005)
    assert {(each.method, each.path, each.query) for each in bench.transport.requests} == {
        ("GET", "/api/v3/time", "")
    }


async def test_a_dead_connection_costs_one_sample_only(clock: VirtualClock) -> None:
    bench = Bench(clock, StaleConnection("dead"), *[time_answer(START_MS)] * 3)
    await bench.client.synchronise("default", bench.permit)
    assert len(bench.permits) == 4
    assert bench.server_time.age_s < 1


async def test_dead_connections_only_measure_nothing(clock: VirtualClock) -> None:
    bench = Bench(clock, *[StaleConnection("dead")] * 4)
    with pytest.raises(StaleConnection):
        await bench.client.synchronise("default", bench.permit)


async def test_slow_answers_only_measure_nothing(clock: VirtualClock) -> None:
    bench = Bench(clock, *[time_answer(START_MS)] * 4)
    bench.transport.round_trip_s = 1.5
    with pytest.raises(NoResponse, match="too slow"):
        await bench.client.synchronise("default", bench.permit)
    assert bench.server_time.now_ns() == clock.utc_ns()


async def test_a_refusal_ends_the_measurement_at_once(clock: VirtualClock) -> None:
    bench = Bench(clock, time_answer(START_MS), (429, b""), time_answer(START_MS))
    with pytest.raises(RateLimited):
        await bench.client.synchronise("default", bench.permit)
    assert len(bench.transport.requests) == 2


async def test_without_a_permit_nothing_is_sent(clock: VirtualClock) -> None:
    bench = Bench(clock, time_answer(START_MS))

    async def refuse() -> None:
        raise RateLimited("a pause is in force")

    with pytest.raises(RateLimited):
        await bench.client.synchronise("default", refuse)
    assert bench.transport.requests == []


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"[]",
            b"{}",
            b'{"serverTime":null}',
            b'{"serverTime":"1767225600000"}',
            b'{"serverTime":true}',
        ),
        *(b'{"serverTime":-1}', b'{"serverTime":1767225600}', b'{"serverTime":1767225600000000}'),
        *(b'{"serverTime":1.5e12}', b'{"serverTime":99999999999999999999}', b"<html>"),
    ],
)
async def test_what_is_no_time_measures_nothing(body: bytes, clock: VirtualClock) -> None:
    bench = Bench(clock, body)
    with pytest.raises(BadAnswer):
        await bench.client.synchronise("default", bench.permit)


# Status and restrictions


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"status":0,"msg":"normal"}', SystemStatus(normal=True, message="normal")),
        (
            b'{"status":1,"msg":"system_maintenance"}',
            SystemStatus(normal=False, message="system_maintenance"),
        ),
        (b'{"status":1,"msg":"a\\nb"}', SystemStatus(normal=False, message="a\\nb")),
        (b'{"status":0}', SystemStatus(normal=True, message="")),
    ],
)
async def test_the_systems_status_is_asked_without_a_key(
    body: bytes, status: SystemStatus, clock: VirtualClock
) -> None:
    bench = Bench(clock, body)
    assert await bench.client.system_status("default") == status
    (request,) = bench.transport.requests
    assert (request.path, request.query, dict(request.headers)) == ("/sapi/v1/system/status", "", {})


@pytest.mark.parametrize("body", [b"{}", b'{"status":2}', b'{"status":"0"}', b'{"status":true}', b"[]"])
async def test_an_unclear_status_is_no_status(body: bytes, clock: VirtualClock) -> None:
    with pytest.raises(BadAnswer):
        await Bench(clock, body).client.system_status("default")


async def test_a_keys_restrictions_name_all_it_may_beyond_reading(clock: VirtualClock) -> None:
    body = {
        "ipRestrict": False,
        "createTime": 1767225600000,
        "enableReading": True,
        "enableWithdrawals": True,
        "enableMargin": False,
        "permitsUniversalTransfer": True,
        "enableFixReadOnly": True,
        "enableSomethingNew": True,
    }
    bench = Bench(clock, json.dumps(body).encode())
    assert await bench.client.api_restrictions(ACCOUNT) == Restrictions(
        reading=True,
        ip_restricted=False,
        beyond_reading=("enableSomethingNew", "enableWithdrawals", "permitsUniversalTransfer"),
    )
    (request,) = bench.transport.requests
    assert (request.method, request.path) == ("GET", "/sapi/v1/account/apiRestrictions")
    assert "&signature=" in request.query


@pytest.mark.parametrize("body", [b"{}", b'{"enableReading":true}', b'{"enableReading":1,"ipRestrict":true}'])
async def test_unclear_restrictions_are_none(body: bytes, clock: VirtualClock) -> None:
    with pytest.raises(BadAnswer):
        await Bench(clock, body).client.api_restrictions(ACCOUNT)


async def test_a_page_of_sub_accounts_is_asked_for_with_the_masters_key(clock: VirtualClock) -> None:
    body = {
        "subAccounts": [
            {"subUserId": 1, "email": "a+b@example.com", "remark": "", "isFreeze": False, "createTime": 1},
            {"email": "c@example.com", "isFreeze": True, "somethingNew": [1]},
        ]
    }
    bench = Bench(clock, json.dumps(body).encode(), b'{"subAccounts":[]}')
    assert await bench.client.sub_accounts("main", "nat-b", 3) == [
        SubAccount("a+b@example.com", is_frozen=False),
        SubAccount("c@example.com", is_frozen=True),
    ]
    (request,) = bench.transport.requests
    assert (request.method, request.path) == ("GET", "/sapi/v1/sub-account/list")
    assert request.query.startswith("page=3&limit=200&recvWindow=10000&timestamp=")
    assert "&signature=" in request.query
    assert await bench.client.sub_accounts("main", "default", 1) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{}", "not_a_list"),
        (b"[]", "not_an_object"),
        (b'{"subAccounts":{}}', "not_a_list"),
        (b'{"subAccounts":["a@b"]}', "not_an_object"),
        (b'{"subAccounts":[{}]}', "sub_accounts"),
        (b'{"subAccounts":[{"email":"a@b"}]}', "sub_accounts"),
        (b'{"subAccounts":[{"email":"a@b","isFreeze":"false"}]}', "sub_accounts"),
        (b'{"subAccounts":[{"email":1,"isFreeze":false}]}', "sub_accounts"),
        (b'{"subAccounts":[{"email":null,"isFreeze":false}]}', "sub_accounts"),
        (b'{"subAccounts":[{"email":"","isFreeze":false}]}', "sub_accounts"),
        (b'{"subAccounts":[{"email":"a\\n@b","isFreeze":false}]}', "sub_accounts"),
        (b'{"subAccounts":[{"email":"a @b","isFreeze":false}]}', "sub_accounts"),
        (
            json.dumps({"subAccounts": [{"email": "a@" + "b" * 319, "isFreeze": False}]}).encode(),
            "sub_accounts",
        ),
        (b'{"subAccounts":[{"email":"a@b","email":"c@d","isFreeze":false}]}', "duplicate_key"),
        (
            json.dumps(
                {"subAccounts": [{"email": f"{n}@b", "isFreeze": False} for n in range(201)]}
            ).encode(),
            "too_many_rows",
        ),
    ],
)
async def test_a_page_that_is_not_as_documented_is_refused_whole(
    body: bytes, reason: str, clock: VirtualClock
) -> None:
    with pytest.raises(BadAnswer) as caught:
        await Bench(clock, body).client.sub_accounts("main", "default", 1)
    assert caught.value.reason == reason


async def test_refusals_of_other_questions_are_raised(clock: VirtualClock) -> None:
    refusal = (400, b'{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}')
    with pytest.raises(AccessDenied):
        await Bench(clock, refusal).client.api_restrictions(ACCOUNT)
    with pytest.raises(AccessDenied):
        await Bench(clock, refusal).client.sub_accounts("main", "default", 1)
    with pytest.raises(Overloaded):
        await Bench(clock, b'{"code":-1008}').client.system_status("default")


async def test_closing_closes_every_transport(clock: VirtualClock) -> None:
    bench = Bench(clock)
    await bench.client.close()
    assert bench.transport.closed == 2  # it stands under two names


# Through aiohttp, with its session replaced: what each answer becomes by the time it reaches us

USER_ASSETS = re.compile(r"^https://exchange\.example/sapi/v3/asset/getUserAsset\?.*$")


@pytest.fixture
async def client() -> AsyncIterator[ExchangeClient]:
    clock = SystemClock()
    client = ExchangeClient(
        {"default": AiohttpTransport("https://exchange.example", clock=clock)},
        {"treasury": sample_credentials()},
        ServerTime(clock),
        clock,
        recv_window_ms=10_000,
        metrics=Metrics(),
    )
    yield client
    await client.close()


@pytest.mark.real_time
async def test_answers_can_be_faked_beneath_the_client(client: ExchangeClient) -> None:
    with aioresponses() as faked:
        faked.post(USER_ASSETS, body=ROWS, headers={"X-SAPI-USED-IP-WEIGHT-1M": "5"})
        answer = await client.user_assets(ACCOUNT)
    assert isinstance(answer.outcome, Snapshot)
    assert answer.outcome.balances == (Balance("BTC", Decimal("0.1"), btc_valuation=Decimal("0.1")),)
    assert answer.used_weight == 5


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b'{"code":-1003,"msg":"Too many"}', RateLimited),
        (200, b'{"code":-1021,"msg":"Timestamp"}', ClockSkew),
        (200, b"{}", BadAnswer),
        (302, b"", BadRequest),
        (304, b"", BadAnswer),
        (400, b'{"code":-1021,"msg":"Timestamp"}', ClockSkew),
        (400, b'{"code":-1022,"msg":"Signature"}', AccessDenied),
        (400, b'{"code":-1102,"msg":"Mandatory parameter"}', BadRequest),
        (401, b'{"code":-2015,"msg":"Invalid API-key"}', AccessDenied),
        (403, b"<html>", Blocked),
        (404, b"<html>", BadRequest),
        (418, b'{"code":-1003,"msg":"IP banned until 1767225900000"}', Banned),
        (429, b'{"code":-1003,"msg":"Too many"}', RateLimited),
        (451, b"<html>", Blocked),
        (500, b'{"code":-1000,"msg":"Unknown"}', Unavailable),
        (502, b"<html>", Unavailable),
        (503, b'{"code":-1008,"msg":"Throttled"}', Overloaded),
        (503, b'{"code":-10001,"msg":"Maintenance"}', Maintenance),
    ],
)
async def test_every_refusal_reaches_the_caller_as_who_has_to_wait(
    status: int, body: bytes, kind: type[PollError], client: ExchangeClient
) -> None:
    with aioresponses() as faked:
        faked.post(USER_ASSETS, status=status, body=body)
        answer = await client.user_assets(ACCOUNT)
    assert type(answer.outcome) is kind
    assert SAMPLE_API_KEY not in str(answer.outcome)
