"""How many requests a second the simulator serves, against a server that answers a constant.

The floor is aiohttp's low-level server with one of the simulator's own answers as its constant. Each
server is a process of its own. The client sends requests that were signed beforehand, over enough
connections that the server always has one to read, and looks at no more than an answer's status and
length; how busy it was is printed, because a client without time to spare flatters the slower server.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.parse import urlsplit

from aiohttp import web

from poller.simulator import KeyKind, SimulatedAccount
from poller.simulator.keys import make_accounts

POLL = "/sapi/v3/asset/getUserAsset"
HMAC_ONLY: tuple[KeyKind, ...] = ("hmac",)
SEED = 1
ACCOUNTS = 50
CONNECTIONS = 32
ROUNDS = 5


@contextmanager
def simulating(options: dict[str, object]) -> Iterator[str]:
    """Run ``poller simulate`` with these options and yield its URL. All keys are HMAC keys; see ``fleet``."""
    shown = [str(part) for option in options.items() for part in option]
    kinds = ["--key-kinds", ",".join(HMAC_ONLY), "--seed", str(SEED)]
    with serving([sys.executable, "-m", "poller", "simulate", *kinds, *shown]) as url:
        yield url


def fleet(accounts: int) -> Sequence[SimulatedAccount]:
    """Return the accounts, with their keys, of a simulator that was started with so many."""
    return make_accounts(accounts, HMAC_ONLY, SEED)


@contextmanager
def serving(command: Sequence[str]) -> Iterator[str]:
    """Run a server that prints its URL first, and end it afterwards."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://[^\s/]+", line)
            if found is None:
                raise SystemExit(f"the server did not start; it said: {line!r}")
            yield found.group()
        finally:
            process.terminate()


def signed_query(account: SimulatedAccount, now_ms: int, *, window_ms: int = 5000) -> str:
    """Return a poll's parameters, as any small client of the exchange would write them."""
    query = f"recvWindow={window_ms}&timestamp={now_ms}"
    return f"{query}&signature={hmac.digest(account.secret.encode(), query.encode(), 'sha256').hex()}"


def requests(host: str) -> list[bytes]:
    """Return one request of each account: signed now, fit to be sent for a minute."""
    now_ms = time.time_ns() // 1_000_000
    return [
        (
            f"POST {POLL}?{signed_query(account, now_ms, window_ms=60_000)} HTTP/1.1\r\nHost: {host}\r\n"
            f"X-MBX-APIKEY: {account.api_key}\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        for account in fleet(ACCOUNTS)
    ]


class _Connection(asyncio.Protocol):
    """Sends a request, waits for the end of its answer, sends the next."""

    def __init__(self, requests: Sequence[bytes], first: int) -> None:
        self._requests = requests
        self._sent = first
        self._buffer = b""
        self.answered = 0
        self.last_body = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the server answered {head[:40]!r} {body[:200]!r}")
        self.answered += 1
        self.last_body = body
        self._buffer = b""
        self._send()

    def _send(self) -> None:
        assert self.transport is not None
        self._sent += 1
        self.transport.write(self._requests[self._sent % len(self._requests)])


async def drive(url: str, seconds: float) -> tuple[float, float, bytes]:
    """Return requests a second, the busy part of this process's time, and an answer's body."""
    address = urlsplit(url)
    prepared = requests(address.netloc)
    loop = asyncio.get_running_loop()
    cpu_s, started_s = time.process_time(), time.perf_counter()
    connections = []
    for number in range(CONNECTIONS):
        _, connection = await loop.create_connection(
            partial(_Connection, prepared, number), address.hostname or "", address.port or 80
        )
        connections.append(connection)
    await asyncio.sleep(seconds)
    elapsed_s = time.perf_counter() - started_s
    busy = (time.process_time() - cpu_s) / elapsed_s
    for connection in connections:
        assert connection.transport is not None
        connection.transport.close()
    answered = sum(connection.answered for connection in connections)
    return answered / elapsed_s, busy, max(connection.last_body for connection in connections)


async def serve_constant(size_bytes: int) -> None:
    """Be the floor: read each request, answer so many bytes, print the URL first."""
    body = b"[" + b" " * (size_bytes - 2) + b"]"

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/json")

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port, *_ = runner.addresses[0]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


def main(arguments: list[str] | None = None) -> None:
    """Measure both in turn, several times, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    parser.add_argument("--constant", type=int, metavar="BYTES", help="be the floor, and nothing else")
    chosen = parser.parse_args(arguments or [])
    if chosen.constant:
        asyncio.run(serve_constant(chosen.constant))
        return
    options: dict[str, object] = {"--accounts": ACCOUNTS, "--weight-limit": 10**9, "--latency": "0-0"}
    with ExitStack() as servers:
        simulated = servers.enter_context(simulating(options))
        _, _, body = asyncio.run(drive(simulated, 0.5))
        constant = [sys.executable, "-m", "bench.simulator", "--constant", str(len(body))]
        floor = servers.enter_context(serving(constant))
        ratios = []
        for _ in range(ROUNDS):
            floor_rate, floor_busy, _ = asyncio.run(drive(floor, chosen.seconds))
            rate, busy, _ = asyncio.run(drive(simulated, chosen.seconds))
            ratios.append(rate / floor_rate)
            print(
                f"simulator {rate:7.0f}/s (client {busy:3.0%} busy), "
                f"constant of {len(body)} bytes {floor_rate:7.0f}/s (client {floor_busy:3.0%} busy)",
                flush=True,
            )
    print(f"ratio to the floor, median: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
