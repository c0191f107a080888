"""What users would otherwise take: published limiters, well used, against the same simulator as bench/budget.py.

The window is scaled to 10 s and the limit to 2,000 at the real cost of 5, which is the real rate of 40
polls a second; 300 accounts want more than fits. Each client is an asyncio program that signs for
itself, with one task per account that loops: acquire, send, next. ``Retry-After`` is honoured by the task
that was told (``--pause task``), or by all of them between limiter and request (``--pause fleet``), which
no limiter offers but a careful user writes. The simulator's own counts decide. A run ends with the
first ban: what would come after it is silence, and counts as that.

``used`` is of what the neighbour leaves, from a window and a half after the start: a limiter that goes in
bursts goes once a window, and so no burst falls on the edge. 429s and bans count from the start.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.simulator import POLL, fleet, signed_query, simulating
from poller.simulator import SimulatedAccount

WEIGHT = 5
LIMIT = 2000
WINDOW_S = 10
POLLS_PER_WINDOW = LIMIT // WEIGHT
ACCOUNTS = 300
INTERVAL_S = 5.0  # of an account, for clients whose limiter knows one account only: a third more than fits
SETTLE_S = 1.5 * WINDOW_S


@dataclass(frozen=True)
class Case:
    """What a client is put into; the names of bench/budget.py."""

    name: str
    window: str
    neighbour: float = 0.0
    mode: str = "even"
    bursts: int = 1
    latency_ms: str = "20-80"


@dataclass(frozen=True)
class Answer:
    """What the loops have to know of an answer."""

    status: int
    retry_after_s: float = 0.0


Poll = Callable[[SimulatedAccount], Awaitable[Answer]]


class Pauses:
    """Who has been told to wait, and until when: each account alone, or all together."""

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._until_s: dict[str, float] = {}

    def begin(self, account: SimulatedAccount, seconds: float) -> None:
        """Let the account's next request, or everybody's, wait so long."""
        until_s = asyncio.get_running_loop().time() + seconds
        name = self._name(account)
        self._until_s[name] = max(until_s, self._until_s.get(name, 0.0))

    async def over(self, account: SimulatedAccount) -> None:
        """Wait until the account may send; a pause that is prolonged meanwhile is waited for, too."""
        loop = asyncio.get_running_loop()
        # The end is known, but may have moved on meanwhile: so this goes round once or twice.
        while (left_s := self._until_s.get(self._name(account), 0.0) - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)

    def _name(self, account: SimulatedAccount) -> str:
        return "" if self._shared else account.name


@dataclass(frozen=True)
class Surroundings:
    """What a client works with."""

    url: str
    accounts: Sequence[SimulatedAccount]
    pauses: Pauses


@dataclass(frozen=True)
class Client:
    """A way to keep within the limit.

    ``open`` gives what polls once, waiting for its turn first; ``interval_s`` passes between an
    account's answer and its next poll, 0 to leave that to the limiter.
    """

    name: str
    open: Callable[[Surroundings], AbstractAsyncContextManager[Poll]]
    interval_s: float = 0.0


@dataclass(frozen=True)
class Result:
    """What became of it. ``banned_after_s`` is ``None`` without a ban."""

    used: float
    limited: int
    limited_later: int
    banned_after_s: float | None
    least: int
    most: int


@asynccontextmanager
async def sending(around: Surroundings) -> AsyncIterator[Poll]:
    """Give what sends as soon as no pause forbids it, with no limit of its own, connections included."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def send(account: SimulatedAccount) -> Answer:
            await around.pauses.over(account)
            query = signed_query(account, time.time_ns() // 1_000_000)
            headers = {"X-MBX-APIKEY": account.api_key}
            async with session.post(f"{around.url}{POLL}?{query}", headers=headers) as response:
                await response.read()
                return Answer(response.status, float(response.headers.get("Retry-After", 0)))

        yield send


@asynccontextmanager
async def with_aiolimiter(around: Surroundings) -> AsyncIterator[Poll]:
    """Share one leaky bucket, as the front page of its documentation has it."""
    async with _with_aiolimiter(around, POLLS_PER_WINDOW, WINDOW_S) as poll:
        yield poll


@asynccontextmanager
async def with_even_aiolimiter(around: Surroundings) -> AsyncIterator[Poll]:
    """Share one leaky bucket that holds one, which is the documentation's advice against bursts."""
    async with _with_aiolimiter(around, 1, WINDOW_S / POLLS_PER_WINDOW) as poll:
        yield poll


@asynccontextmanager
async def _with_aiolimiter(
    around: Surroundings, max_rate: float, time_period_s: float
) -> AsyncIterator[Poll]:
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(max_rate, time_period_s)
    async with sending(around) as send:

        async def poll(account: SimulatedAccount) -> Answer:
            async with limiter:
                return await send(account)

        yield poll


@asynccontextmanager
async def with_pyrate_limiter(around: Surroundings) -> AsyncIterator[Poll]:
    """Share one exact log of the last window, wrapped for asyncio as its documentation asks."""
    from pyrate_limiter import BucketAsyncWrapper, Duration, InMemoryBucket, Limiter, Rate

    rate = Rate(POLLS_PER_WINDOW, Duration.SECOND * WINDOW_S)
    with Limiter(BucketAsyncWrapper(InMemoryBucket([rate]))) as limiter:
        async with sending(around) as send:

            async def poll(account: SimulatedAccount) -> Answer:
                await limiter.try_acquire_async("getUserAsset")
                return await send(account)

            yield poll


@asynccontextmanager
async def with_ccxt(around: Surroundings) -> AsyncIterator[Poll]:
    """Make an exchange object per account, each with its own limiter; connections are shared.

    The window's scale does not matter here: the limiter knows the rate alone, which is the real one.
    """
    from ccxt.async_support import binance
    from ccxt.base.errors import DDoSProtection, ExchangeError

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        exchanges: dict[str, Any] = {
            account.name: binance(
                {
                    "apiKey": account.api_key,
                    "secret": account.secret,
                    "session": session,
                    "urls": {"api": {"sapiV3": f"{around.url}/sapi/v3"}},
                    "ssl_context": False,  # plain HTTP: a context for each account would take seconds
                }
            )
            for account in around.accounts
        }

        async def poll(account: SimulatedAccount) -> Answer:
            exchange = exchanges[account.name]
            await around.pauses.over(account)
            try:
                await exchange.sapiV3PostAssetGetUserAsset()
            except DDoSProtection as error:
                retry_after_s = float(exchange.last_response_headers.get("Retry-After", 0))
                return Answer(418 if " 418 " in str(error) else 429, retry_after_s)
            except ExchangeError as error:
                raise RuntimeError(f"ccxt was refused: {error}") from error
            return Answer(200)

        try:
            yield poll
        finally:
            await asyncio.gather(*(exchange.close() for exchange in exchanges.values()))


CLIENTS = (
    Client("aiolimiter", with_aiolimiter),
    Client("aiolimiter, no bursts", with_even_aiolimiter),
    Client("pyrate-limiter", with_pyrate_limiter),
    Client("ccxt, one per account", with_ccxt, interval_s=INTERVAL_S),
)


def cases() -> list[Case]:
    """Return the cases of bench/budget.py, and what a limiter is made for: nobody else, no latency."""
    rows = []
    for window in ("fixed", "rolling"):
        rows += [
            Case("alone, no latency", window, latency_ms="0-0"),
            Case("alone, share 100 %", window),
            Case("neighbour 40 % even", window, neighbour=0.4),
            Case("neighbour 40 % bursts", window, neighbour=0.4, mode="bursts"),
            Case("neighbour 40 % 10 bursts", window, neighbour=0.4, mode="bursts", bursts=10),
            Case("neighbour 40 % 40 bursts", window, neighbour=0.4, mode="bursts", bursts=40),
        ]
    return rows


async def keep_polling(
    poll: Poll, account: SimulatedAccount, interval_s: float, pauses: Pauses, banned: asyncio.Event
) -> None:
    """Poll one account until cancelled, as a good user would."""
    while True:
        answer = await poll(account)
        if answer.status == 418:
            banned.set()
        elif answer.status not in {200, 429}:
            raise RuntimeError(f"the simulator answered with {answer.status}")
        pauses.begin(account, answer.retry_after_s)
        await asyncio.sleep(interval_s)


async def measure(case: Case, client: Client, seconds: float, *, shared_pause: bool) -> Result:
    """Run one client in one case for so long after it has settled, or to its first ban."""
    options: dict[str, object] = {
        "--accounts": ACCOUNTS, "--window": case.window, "--window-length": WINDOW_S, "--weight-limit": LIMIT,
        "--latency": case.latency_ms, "--neighbour": case.neighbour, "--neighbour-mode": case.mode,
        "--neighbour-bursts": case.bursts,
    }  # fmt: skip
    banned = asyncio.Event()
    with simulating(options) as url:
        around = Surroundings(url, fleet(ACCOUNTS), Pauses(shared=shared_pause))
        async with aiohttp.ClientSession() as session, client.open(around) as poll:
            started_s = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(keep_polling(poll, account, client.interval_s, around.pauses, banned))
                    for account in around.accounts
                ]
                settled = await status_after(SETTLE_S, banned, session, url)
                # With a ban in force this does not wait, and the status is the same.
                last = await status_after(seconds, banned, session, url)
                banned_after_s = time.perf_counter() - started_s if banned.is_set() else None
                for task in tasks:
                    task.cancel()
    return judge(case, settled, last, seconds, banned_after_s)


async def status_after(
    seconds: float, banned: asyncio.Event, session: aiohttp.ClientSession, url: str
) -> dict[str, Any]:
    """Return the simulator's books after so long, or at the first ban."""
    try:
        async with asyncio.timeout(seconds):
            await banned.wait()
    except TimeoutError:
        pass
    async with session.get(f"{url}/simulator/status") as response:
        status: dict[str, Any] = await response.json()
    return status


def judge(
    case: Case,
    settled: dict[str, Any],
    last: dict[str, Any],
    seconds: float,
    banned_after_s: float | None,
) -> Result:
    """Compare two pages of the simulator's books, ``seconds`` apart unless there was a ban."""

    def count(status: dict[str, Any], code: str) -> int:
        counts: dict[str, int] = status["requests"].get(f"POST {POLL}", {})
        return counts.get(code, 0)

    if banned_after_s is None:
        seconds = (last["time_us"] - settled["time_us"]) / 1e6
    left = LIMIT * seconds / WINDOW_S * (1 - case.neighbour)
    polls = [last["polls"].get(account.name, 0) for account in fleet(ACCOUNTS)]
    return Result(
        used=(count(last, "200") - count(settled, "200")) * WEIGHT / left,
        limited=count(last, "429"),
        limited_later=count(last, "429") - count(settled, "429"),
        banned_after_s=banned_after_s,
        least=min(polls),
        most=max(polls),
    )


def parser() -> argparse.ArgumentParser:
    """Return what reads the options."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", default="", help="cases whose name contains this")
    options.add_argument("--client", default="", help="clients whose name contains this")
    options.add_argument("--window", default="", help="fixed or rolling alone")
    options.add_argument("--seconds", type=float, default=60.0, help="of each row, after it has settled")
    options.add_argument(
        "--pause", choices=["task", "fleet"], default="fleet", help="who honours Retry-After"
    )
    return options


def run(chosen: argparse.Namespace) -> None:
    """Print a row for each case and client."""
    print(
        f"{'case':24} {'window':8} {'client':22} {'used':>7} {'429':>5} {'later':>6} {'banned':>8} {'polls':>9}"
    )
    for case in cases():
        if chosen.only not in case.name or chosen.window not in case.window:
            continue
        for client in CLIENTS:
            if chosen.client not in client.name:
                continue
            result = asyncio.run(measure(case, client, chosen.seconds, shared_pause=chosen.pause == "fleet"))
            banned = "no" if result.banned_after_s is None else f"{result.banned_after_s:.1f} s"
            print(
                f"{case.name:24} {case.window:8} {client.name:22} {result.used:7.1%} {result.limited:5d} "
                f"{result.limited_later:6d} {banned:>8} {f'{result.least}-{result.most}':>9}",
                flush=True,
            )


if __name__ == "__main__":
    run(parser().parse_args())
