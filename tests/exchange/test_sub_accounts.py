"""The list of sub-accounts over real sockets, from an exchange that verifies every signature."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from poller.budget import WeightBudget, WeightWindow
from poller.budget.questions import Questions
from poller.clock import SystemClock
from poller.discovery import DiscoveryWatch, Roster
from poller.errors import PollError
from poller.exchange.client import ExchangeClient
from poller.exchange.server_time import ServerTime
from poller.exchange.signing import Credentials, hmac_signer, private_key_signer
from poller.exchange.transport import AiohttpTransport
from poller.metrics import Metrics
from poller.secrets import Secret
from poller.simulator import KEY_KINDS, Fault, FaultKind, KeyKind, SimulatorServer, SimulatorSettings, serve
from poller.simulator.exchange import SUB_ACCOUNT_PATH

pytestmark = pytest.mark.real_time


async def save(_state: bytes) -> None: ...


async def blame(_error: PollError) -> None: ...


@asynccontextmanager
async def watching(
    kind: KeyKind = "hmac", accounts: int = 450
) -> AsyncIterator[tuple[SimulatorServer, DiscoveryWatch]]:
    settings = SimulatorSettings(accounts=accounts, key_kinds=(kind,), latency_ms=(0.0, 0.0), moves_per_s=0)
    async with serve(settings) as server:
        clock, metrics, secret = SystemClock(), Metrics(), Secret(server.master.secret)
        signer = hmac_signer(secret) if kind == "hmac" else private_key_signer(secret, None)
        client = ExchangeClient(
            {"default": AiohttpTransport(server.url, clock=clock)},
            {},
            ServerTime(clock),
            clock,
            recv_window_ms=10_000,
            metrics=metrics,
            masters={"main": Credentials(Secret(server.master.api_key), signer)},
        )
        budget = WeightBudget("default", WeightWindow(limit=12_000), clock, save, metrics=metrics)
        roster = Roster(
            ["main"], {account.name: f"{account.name}@sub.example" for account in server.accounts}
        )
        try:
            yield (
                server,
                DiscoveryWatch(
                    "main",
                    roster,
                    Questions(budget, blame),
                    partial(client.sub_accounts, "main", "default"),
                    interval_s=3600.0,
                    clock=clock,
                    metrics=metrics,
                ),
            )
        finally:
            await client.close()


@pytest.mark.parametrize("kind", KEY_KINDS)
async def test_all_pages_are_read_with_every_kind_of_key(kind: KeyKind) -> None:
    async with watching(kind) as (server, watch):
        server.exchange.sub_accounts.put("sim-0007@sub.example", is_frozen=True)
        server.exchange.sub_accounts.put("new@sub.example", is_frozen=False)
        server.exchange.sub_accounts.remove("sim-0450@sub.example")
        seen = await watch.ask()
        assert (seen.error, seen.found) == ("", 450)
        assert seen.missing == ("new@sub.example",)
        assert seen.frozen == ("sim-0007@sub.example",)
        assert seen.gone == ("sim-0450",)
        assert server.exchange.tally.statuses[f"GET {SUB_ACCOUNT_PATH}"] == {200: 3}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(FaultKind.ERROR, path=SUB_ACCOUNT_PATH), "HTTP 503"),
        (Fault(FaultKind.TRUNCATED, path=SUB_ACCOUNT_PATH), "the body is not JSON"),
        (Fault(FaultKind.EMPTY_LIST, path=SUB_ACCOUNT_PATH), "an object was due, not a list"),
        (Fault(FaultKind.EMPTY_OBJECT, path=SUB_ACCOUNT_PATH), "a list was due, not null"),
        (Fault(FaultKind.ERROR_OBJECT, path=SUB_ACCOUNT_PATH, nth=2), ""),
        (Fault(FaultKind.WAF, path=SUB_ACCOUNT_PATH, nth=3), "HTTP 403"),
    ],
)
async def test_a_page_that_fails_fails_the_whole(fault: Fault, error: str) -> None:
    async with watching() as (server, watch):
        server.exchange.faults.set([fault], server.exchange.now_us())
        seen = await watch.ask()
        assert seen.error
        assert error in seen.error
        assert (seen.at, seen.found, seen.gone) == (None, 0, ())
