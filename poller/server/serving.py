"""The server: binds, lets in who may come in, answers, and closes within a bound."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self, cast

from aiohttp import web

from poller.clock import Clock
from poller.errors import ConfigError, ServerNotBound
from poller.metrics import Metrics
from poller.overview import Overview
from poller.secrets import Secret
from poller.server.answers import Refused, accepts_html, compressed, refusal
from poller.server.connections import MOST_HEADER_BYTES, Connection, Connections
from poller.server.events import Hub
from poller.server.exposition import Exposition
from poller.server.login import Login
from poller.server.routes import ReadBalances, ReadHistory, Routes
from poller.server.security import COOKIE, HEADERS, LOGIN, Access, Gate, Head, known_names
from poller.server.sessions import Sessions
from poller.server.settings import ServerSettings, host_and_port, token_fault
from poller.server.worker import Worker

logger = logging.getLogger(__name__)

_READING: Final = frozenset({"GET", "HEAD"})
_VERSIONS: Final = frozenset({(1, 0), (1, 1)})
_REMEDIES: Final = {
    errno.EADDRINUSE: "it is in use; stop what listens there, or write another port",
    errno.EADDRNOTAVAIL: "it is none of this machine's; write one that is, such as 127.0.0.1:8080",
    errno.EACCES: "ports below 1024 are not for everybody; write a higher one",
}
_REFUSALS: Final = {
    Access.BAD_TARGET: (400, "write a path, such as /api/status"),
    Access.WRONG_HOST: (
        421,
        "not known under this name; names are listed under 'hosts' in the configuration",
    ),
    Access.WRONG_ORIGIN: (403, "not for the pages of other sites"),
    Access.NO_TOKEN: (401, "a token is wanted: 'Authorization: Bearer TOKEN', or log in at /login"),
}
_MALFORMED: Final = "this is no request that can be understood"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return host_and_port(self.host, self.port)

    @property
    def url(self) -> str:
        """What to open."""
        return f"http://{self}"


class Server:
    """The daemon's own HTTP server, read-only. It listens as long as its context lasts.

    Args:
        token: what clients have to show; ``None`` lets in everybody who can reach it, which is for loopback
            addresses only.
        history: reads what an account held; see ``Routes``. ``None`` if nobody keeps it.
        balances: reads what an account holds, for those of which the overview itself has nothing.
        is_alive: returns what keeps the daemon from its work; empty if nothing does.

    Raises:
        ConfigError: another address without a token, or a token that protects nothing.
    """

    def __init__(
        self,
        overview: Overview,
        metrics: Metrics,
        clock: Clock,
        settings: ServerSettings,
        *,
        token: Secret | None,
        history: ReadHistory | None = None,
        balances: ReadBalances | None = None,
        is_alive: Callable[[], str] = str,
    ) -> None:
        if token is None and not settings.is_loopback:
            raise ConfigError(
                f"server.token: required to listen on {settings.listen_host}; add token: env:NAME"
            )
        if token is not None and (fault := token_fault(token.reveal())):
            raise ConfigError(f"server.token: {fault}")
        self._clock = clock
        self._settings = settings
        self._token = token
        self._sessions = Sessions()
        self.hub = Hub(overview, settings)
        self._worker = Worker()
        self.exposition = Exposition(metrics.registry, self._worker)
        self._routes = Routes(
            overview,
            self.exposition,
            self.hub,
            settings,
            self._worker,
            history=history,
            balances=balances,
            is_alive=is_alive,
        )
        self._listening: asyncio.Server | None = None
        self._telling: asyncio.Task[None] | None = None
        self._address = Address(settings.listen_host, settings.listen_port)

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            ServerNotBound: the address cannot be had.
        """
        self.connections = Connections(self._handle, _malformed, self._settings)
        wanted = self._address
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                self.connections, wanted.host, wanted.port, backlog=self._settings.most_connections
            )
        except OSError as error:
            why = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
            raise ServerNotBound(str(wanted), why) from None
        port = self._listening.sockets[0].getsockname()[1]
        self._address = Address(wanted.host, port)
        names = known_names(wanted.host, port, self._settings.hosts)
        self._gate = Gate(names, self._token, self._is_session)
        self._login = Login(self._gate, self._sessions, self._clock)
        self._telling = asyncio.create_task(self.hub.run(), name="events")
        logger.info("listening", extra={"url": self._address.url, "token": self._token is not None})
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listening is None or self._telling is None:
            return
        self._listening.close()
        self.hub.close()
        self._telling.cancel()
        try:
            await asyncio.gather(self._telling, return_exceptions=True)
            await self.connections.close()
            await self.exposition.close(at_most_s=self._settings.closing_s)
        finally:
            self.connections.abort()
            self._worker.close()
            self._listening = None

    @property
    def address(self) -> Address:
        """Where it listens; before it does, what was configured."""
        return self._address

    def _is_session(self, session: str) -> bool:
        return self._sessions.is_valid(session, self._clock.monotonic_s())

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        response: web.StreamResponse
        try:
            try:
                response = await self._answer(request, connection)
            except Refused as refused:
                response = refusal(refused.status, str(refused), refused.headers)
            if isinstance(response, web.Response):
                response = await compressed(request, response, self._worker)
            # Here and not in aiohttp, which would wait without end for a client that does not read.
            async with asyncio.timeout(self._settings.answer_s):
                await response.prepare(request)
                await response.write_eof()
        except (TimeoutError, ConnectionError):
            response = _cut_off(connection)
        except Exception:
            logger.exception(
                "a request could not be answered", extra={"path": request.rel_url.raw_path[:200]}
            )
            if request.writer.output_size:
                response = _cut_off(connection)
            else:
                response = refusal(500, "the daemon failed; see its log")
                response.force_close()
        finally:
            connection.end()
        return response

    async def _answer(self, request: web.BaseRequest, connection: Connection) -> web.StreamResponse:
        if request.version not in _VERSIONS:
            # A parser takes a first line that makes no sense for one of 1991.
            raise Refused(505, "HTTP/1.1 is spoken here")
        access = self._gate.decide(_head(request))
        if access is Access.NO_TOKEN and _is_page(request.path) and accepts_html(request):
            return web.Response(status=303, headers={**HEADERS, "Location": LOGIN})
        if access in _REFUSALS:
            status, text = _REFUSALS[access]
            wanted = {"WWW-Authenticate": "Bearer"} if access is Access.NO_TOKEN else {}
            return refusal(status, text, wanted)
        if sum(len(name) + len(value) + 4 for name, value in request.raw_headers) > MOST_HEADER_BYTES:
            raise Refused(431, "the headers are too long")
        if request.path == LOGIN and request.method == "POST":
            # Not begun yet: whoever keeps us waiting for a form is as any other that waits.
            peer = request.get_extra_info("peername")
            name = str(peer[0]) if peer else ""
            return await self._login.submit(request, name, at_most_s=self._settings.header_s)
        if request.method not in _READING:
            allowed = "GET, HEAD, POST" if request.path == LOGIN else "GET, HEAD"
            raise Refused(405, "nothing can be changed here", Allow=allowed)
        connection.begin()
        if request.path == LOGIN:
            return self._login.form()
        return await self._routes.answer(request, word_only=access is Access.WORD_ONLY)


def _head(request: web.BaseRequest) -> Head:
    headers = request.headers
    return Head(
        target=request.raw_path,
        path=request.path,
        hosts=headers.getall("Host", ()),
        origins=headers.getall("Origin", ()),
        authorizations=headers.getall("Authorization", ()),
        session=request.cookies.get(COOKIE, ""),
    )


def _is_page(path: str) -> bool:
    return path == "/" or path.startswith("/account/")


def _malformed(status: int) -> web.StreamResponse:
    return refusal(status, _MALFORMED)


def _cut_off(connection: Connection) -> web.StreamResponse:
    connection.abort()
    return web.Response()  # goes nowhere
