"""The simulator's sockets: real HTTP around the state machine.

Here is only what takes time or touches a connection. The path and the query are taken as they were
received: to parse and print them again would change the bytes that were signed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from poller.clock import Clock, SystemClock
from poller.simulator.admin import PREFIX, Admin
from poller.simulator.exchange import Exchange, Request
from poller.simulator.faults import Answer, Ending
from poller.simulator.keys import SimulatedAccount
from poller.simulator.settings import SimulatorSettings


class SimulatorServer:
    """A running simulator.

    Attributes:
        url: where it listens, such as ``http://127.0.0.1:8081``.
        exchange: what is behind the socket, for tests that want to look or to reach in.
    """

    def __init__(self, url: str, exchange: Exchange) -> None:
        self.url = url
        self.exchange = exchange

    @property
    def accounts(self) -> Sequence[SimulatedAccount]:
        """The fleet, with its keys."""
        return self.exchange.accounts

    @property
    def master(self) -> SimulatedAccount:
        """The master account, with its key."""
        return self.exchange.master


@asynccontextmanager
async def serve(
    settings: SimulatorSettings, host: str = "127.0.0.1", port: int = 0, *, clock: Clock | None = None
) -> AsyncIterator[SimulatorServer]:
    """Serve a simulated exchange as long as the context lasts.

    Args:
        host: where to listen; the simulator's own endpoints answer loopback clients only, wherever it is.
        port: 0 for any free one.

    Raises:
        OSError: the address cannot be had.
    """
    exchange = Exchange(settings, clock or SystemClock())
    handler = _Handler(exchange)
    server = web.Server(handler.handle, access_log=None, keepalive_timeout=settings.keepalive_s)
    # Whoever is kept waiting when the simulator stops need not be waited for.
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
        bound_host, bound_port, *_ = runner.addresses[0]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        yield SimulatorServer(f"http://{shown}:{bound_port}", exchange)
    finally:
        await runner.cleanup()


class _Handler:
    """Waits where an answer says so, and ends it as it says."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._admin = Admin(exchange)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        # The transport is asked now: once the client is gone, it no longer knows the address.
        peer = request.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        body = await request.read()
        if request.raw_path.startswith(PREFIX):
            return self._administer(request, address, body)
        there_s, back_s = self._exchange.latency_s()
        await asyncio.sleep(there_s)
        api_key = request.headers.get("X-MBX-APIKEY")
        answer = self._exchange.handle(Request(address, request.method, request.raw_path, api_key, body))
        await asyncio.sleep(back_s + answer.delay_s)
        return await _send(request, answer)

    def _administer(self, request: web.BaseRequest, address: str, body: bytes) -> web.Response:
        path = request.raw_path.partition("?")[0]
        try:
            document = json.loads(body) if body else {}
        except ValueError:
            return web.json_response({"error": "the body is no JSON"}, status=400)
        status, reply = self._admin.handle(address, request.method, path, request.query, document)
        return web.json_response(reply, status=status)


async def _send(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    if answer.ending is Ending.WHOLE:
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
    if answer.ending is Ending.STALL:
        await asyncio.sleep(answer.stall_s)
    if answer.ending in {Ending.STALL, Ending.RESET}:
        _abort(request)
        return web.Response()  # goes nowhere
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = max(2, len(answer.body))
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    if answer.ending is Ending.STALL_WITHIN:
        await asyncio.sleep(answer.stall_s)
    if answer.ending is Ending.CLOSE_WITHIN and request.transport is not None:
        request.transport.close()
    else:
        _abort(request)
    return response


def _abort(request: web.BaseRequest) -> None:
    """Tear the connection down. Without lingering the system sends a reset instead of an orderly end."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
