"""The simulator over real sockets, asked by a plain client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from yarl import URL

from poller.simulator import (
    KEY_KINDS,
    Fault,
    FaultKind,
    KeyKind,
    SimulatedAccount,
    SimulatorServer,
    SimulatorSettings,
    serve,
)
from poller.simulator.faults import DEFAULT_PATH, TRAP_PATH, WEIGHT_HEADER
from tests.simulator.fixtures import signed

pytestmark = pytest.mark.real_time

QUICK = (0.0, 0.0)


@dataclass(frozen=True)
class Client:
    session: aiohttp.ClientSession
    server: SimulatorServer

    async def poll(
        self, account: SimulatedAccount | None = None, session: aiohttp.ClientSession | None = None
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        account = account or self.server.accounts[0]
        target = signed(account, f"timestamp={self.server.exchange.now_us() // 1000}")
        url, headers = URL(self.server.url + target, encoded=True), {"X-MBX-APIKEY": account.api_key}
        async with (session or self.session).post(url, headers=headers, allow_redirects=False) as response:
            return response, await response.read()

    async def get(self, path: str) -> Any:
        async with self.session.get(f"{self.server.url}{path}") as response:
            return await response.json()

    async def post(self, path: str, document: Any = None) -> tuple[int, Any]:
        async with self.session.post(f"{self.server.url}{path}", json=document) as response:
            return response.status, await response.json()


@asynccontextmanager
async def client(**settings: Any) -> AsyncIterator[Client]:
    chosen = SimulatorSettings(**{"accounts": 3, "latency_ms": QUICK, "moves_per_s": 0.0, **settings})
    async with serve(chosen) as server, aiohttp.ClientSession() as session:
        yield Client(session, server)


@pytest.mark.parametrize("kind", KEY_KINDS)
async def test_a_signed_poll_is_answered_over_http(kind: KeyKind) -> None:
    async with client(key_kinds=(kind,)) as simulator:
        response, body = await simulator.poll()
        assert (response.status, response.headers[WEIGHT_HEADER]) == (200, "5")
        assert response.headers["Content-Type"] == "application/json;charset=UTF-8"
        assert body.startswith(b'[{"asset":"')


async def test_the_bytes_are_judged_as_they_were_sent() -> None:
    async with client() as simulator:
        account = simulator.server.accounts[0]
        target = signed(account, f"asset=%E5%B8%81&timestamp={simulator.server.exchange.now_us() // 1000}")
        headers = {"X-MBX-APIKEY": account.api_key}
        for sent, status in ((target, 200), (target.replace("%E5", "%e5"), 400)):
            url = URL(simulator.server.url + sent, encoded=True)
            async with simulator.session.post(url, headers=headers) as response:
                assert response.status == status


async def test_answers_over_http_are_what_the_books_held_meanwhile() -> None:
    async with client(accounts=5, key_kinds=("hmac",), moves_per_s=500.0, latency_ms=(0.0, 5.0)) as simulator:
        exchange = simulator.server.exchange
        answers = []
        for number in range(100):
            account = simulator.server.accounts[number % 5]
            before_us = exchange.now_us()
            response, _ = await simulator.poll(account)
            answers.append((account.name, before_us, exchange.now_us(), await response.json()))
        _, frozen = await simulator.post("/simulator/freeze")
        books = await simulator.get("/simulator/books")
        last = {}
        for account in simulator.server.accounts:
            response, _ = await simulator.poll(account)
            last[account.name] = await response.json()

    def without_valuation(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{name: value for name, value in row.items() if name != "btcValuation"} for row in rows]

    for name, before_us, after_us, answer in answers:
        history = books["accounts"][name]
        ends_us = [entry["time_us"] for entry in history[1:]] + [frozen["time_us"] + 1]
        held = [
            entry["balances"]
            for entry, end_us in zip(history, ends_us, strict=True)
            if entry["time_us"] <= after_us and end_us > before_us
        ]
        assert without_valuation(answer) in held
    assert {name: without_valuation(rows) for name, rows in last.items()} == {
        name: history[-1]["balances"] for name, history in books["accounts"].items()
    }


async def test_weight_is_counted_by_the_address_a_request_comes_from() -> None:
    async with client(weight_limit=10) as simulator:
        connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
        async with aiohttp.ClientSession(connector=connector) as elsewhere:
            statuses = [(await simulator.poll())[0].status for _ in range(3)]
            response, _ = await simulator.poll(session=elsewhere)
            assert (statuses, response.status) == ([200, 200, 429], 200)
        status = await simulator.get("/simulator/status")
        assert status["used"] == {"127.0.0.1": 15, "127.0.0.2": 5}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(FaultKind.RESET), (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)),
        (Fault(FaultKind.STALL, delay_s=0.02), (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)),
        (Fault(FaultKind.RESET_WITHIN), (aiohttp.ClientPayloadError, aiohttp.ClientOSError)),
        (Fault(FaultKind.CLOSE_WITHIN), (aiohttp.ClientPayloadError,)),
        (Fault(FaultKind.STALL_WITHIN, delay_s=0.02), (aiohttp.ClientPayloadError, aiohttp.ClientOSError)),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Fault) else "",
)
async def test_broken_connections_break_and_still_cost_weight(
    fault: Fault, error: tuple[type[Exception], ...]
) -> None:
    async with client(faults=(fault,)) as simulator:
        with pytest.raises(error):
            await simulator.poll()
        await simulator.post("/simulator/faults", {"faults": []})
        response, _ = await simulator.poll()
        assert (response.status, response.headers[WEIGHT_HEADER]) == (200, "10")


@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.RESET_WITHIN, FaultKind.CLOSE_WITHIN])
async def test_a_reset_is_one_on_the_wire_and_a_close_is_an_orderly_end(kind: FaultKind) -> None:
    async with client(faults=(Fault(kind, path="/api/v3/time"),)) as simulator:
        host, port = simulator.server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /api/v3/time HTTP/1.1\r\nHost: x\r\n\r\n")
        if kind is FaultKind.CLOSE_WITHIN:
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert b"Content-Length: 28" in head
            assert len(body) == 14
        else:
            with pytest.raises(ConnectionResetError):
                await reader.read()
        writer.close()


async def test_a_request_under_way_has_cost_nothing_yet() -> None:
    async with client(latency_ms=(60_000.0, 60_000.0)) as simulator:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await simulator.poll()
        assert simulator.server.exchange.tally.polls == {}


@pytest.mark.parametrize(
    "slow",
    [
        {"latency_ms": (60_000.0, 60_000.0)},
        {"faults": (Fault(FaultKind.LATENCY, delay_s=60.0),)},
        {"faults": (Fault(FaultKind.STALL),)},
        {"faults": (Fault(FaultKind.STALL_WITHIN),)},
    ],
    ids=["latency", "fault of latency", "stall", "stall within"],
)
async def test_who_is_slow_keeps_the_client_waiting(slow: dict[str, Any]) -> None:
    async with client(**slow) as simulator:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await simulator.poll()


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        (Fault(FaultKind.ERROR), 503, b'{"code":-1000,'),
        (Fault(FaultKind.ERROR_HTML, status=502), 502, b"<html>"),
        (Fault(FaultKind.ERROR_OBJECT), 200, b'{"code":-1003,'),
        (Fault(FaultKind.WAF), 403, b"<!DOCTYPE HTML>"),
        (Fault(FaultKind.TRUNCATED), 200, b'[{"asset":'),
        (Fault(FaultKind.EMPTY_LIST), 200, b"[]"),
        (Fault(FaultKind.EMPTY_OBJECT), 200, b"{}"),
        (Fault(FaultKind.BODY, value="\udcff\udcfe["), 200, b"\xff\xfe["),
        (Fault(FaultKind.REDIRECT), 302, b""),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Fault) else "",
)
async def test_spoiled_answers_arrive_as_they_are(fault: Fault, status: int, body: bytes) -> None:
    async with client(faults=(fault,)) as simulator:
        response, received = await simulator.poll()
        assert response.status == status
        assert received.startswith(body)
        assert not (fault.kind is FaultKind.TRUNCATED and received.endswith(b"]"))
        assert int(response.headers["Content-Length"]) == len(received)


async def test_a_bomb_is_small_on_the_wire_and_large_when_it_is_unpacked() -> None:
    async with client(faults=(Fault(FaultKind.BOMB, size_bytes=4_000_000),)) as simulator:
        response, body = await simulator.poll()
        assert int(response.headers["Content-Length"]) < 10_000
        assert (len(body), body[:1], body[-1:]) == (4_000_000, b"[", b"]")


@pytest.mark.parametrize("value", [None, "abc"])
async def test_headers_arrive_wrong_or_not_at_all(value: str | None) -> None:
    faults = (Fault(FaultKind.WEIGHT_HEADER, value=value), Fault(FaultKind.RETRY_AFTER, value=value))
    async with client(weight_limit=1, faults=faults) as simulator:
        response, _ = await simulator.poll()
        assert (
            response.status,
            response.headers.get(WEIGHT_HEADER),
            response.headers.get("Retry-After"),
        ) == (
            429,
            value,
            value,
        )


async def test_who_follows_a_redirect_is_noticed() -> None:
    async with client(faults=(Fault(FaultKind.REDIRECT),)) as simulator:
        response, _ = await simulator.poll()
        assert response.headers["Location"] == TRAP_PATH
        assert (await simulator.get("/simulator/status"))["trapped"] == 0
        await simulator.get(TRAP_PATH)
        assert (await simulator.get("/simulator/status"))["trapped"] == 1


async def test_all_of_it_can_be_steered_over_http() -> None:
    async with client() as simulator:
        assert (await simulator.poll())[0].status == 200
        assert await simulator.post("/simulator/revoke", {"account": "sim-0001"}) == (
            200,
            {"revoked": ["sim-0001"]},
        )
        assert b"-2015" in (await simulator.poll())[1]
        await simulator.post("/simulator/restore", {"account": "sim-0001"})
        await simulator.post("/simulator/maintenance", {"on": True})
        assert b"-10001" in (await simulator.poll())[1]
        await simulator.post("/simulator/maintenance", {"on": False})
        await simulator.post("/simulator/faults", {"faults": [{"kind": "body", "value": "null"}]})
        assert (await simulator.poll())[1] == b"null"
        assert (await simulator.post("/simulator/faults", {"faults": [{"kind": "x"}]}))[0] == 400
        status = await simulator.get("/simulator/status")
        assert status["requests"] == {f"POST {DEFAULT_PATH}": {"200": 2, "400": 1, "503": 1}}


async def test_a_post_without_a_body_is_enough_where_nothing_is_to_be_said() -> None:
    async with (
        client() as simulator,
        simulator.session.post(f"{simulator.server.url}/simulator/freeze") as response,
    ):
        assert response.status == 200
        assert (await response.json())["frozen"] is True


async def test_a_body_that_is_no_json_is_refused() -> None:
    async with client() as simulator:
        url = f"{simulator.server.url}/simulator/skew"
        response = await simulator.session.post(url, data=b"{")
        assert (response.status, await response.json()) == (400, {"error": "the body is no JSON"})


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with client(keepalive_s=0.05) as simulator:
        host, port = simulator.server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /api/v3/time HTTP/1.1\r\nHost: x\r\n\r\n")
        received = await reader.read()  # until the other side closes
        writer.close()
        await writer.wait_closed()
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
