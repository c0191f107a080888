"""Connections under watch: how many there are, and how long a client may keep us waiting.

aiohttp closes a connection that is idle for too long, but lets a client take its time with what it
has begun, and waits without end for one that does not read its last answer. Here every connection
either is being served, which its handler bounds, or waits for its client until a deadline and is then torn
down. Whoever waits longest also makes room for a newcomer, so that silent clients keep nobody out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web

from poller.server.settings import ServerSettings

MOST_HEADER_BYTES: Final = 8 * 1024
MOST_BODY_BYTES: Final = 1024
_LINGERING_S: Final = 1.0  # for a body that nobody asked for

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Malformed = Callable[[int], web.StreamResponse]


class Connections(web.Server):
    """All connections of one server; the factory of their protocols.

    Args:
        handle: answers a request.
        malformed: returns the answer to what is no request, by its status.
        settings: the bounds.
    """

    def __init__(self, handle: Handler, malformed: Malformed, settings: ServerSettings) -> None:
        super().__init__(handle, request_factory=_request, handler_cancellation=True)
        self.malformed = malformed
        self.settings = settings
        self._open: dict[Connection, asyncio.Transport] = {}
        self._waiting: dict[Connection, None] = {}  # those that wait for their client, by since when

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self)

    def __len__(self) -> int:
        return len(self._open)

    def __bool__(self) -> bool:
        return True

    def admit(self, connection: Connection, transport: asyncio.Transport) -> bool:
        """Take a connection in, at the expense of the one that has waited longest if need be."""
        if len(self._open) >= self.settings.most_connections:
            longest = next(iter(self._waiting), None)
            if longest is None:
                return False
            longest.abort()
            self.left(longest)
        self._open[connection] = transport
        return True

    def left(self, connection: Connection) -> None:
        """Forget a connection."""
        self._open.pop(connection, None)
        self._waiting.pop(connection, None)

    def waits(self, connection: Connection) -> None:
        """Note that a connection waits for its client from now on."""
        if connection in self._open:
            self._waiting.pop(connection, None)
            self._waiting[connection] = None

    def serves(self, connection: Connection) -> None:
        """Note that a connection is being served."""
        self._waiting.pop(connection, None)

    async def close(self) -> None:
        """End every connection: those being served get a moment, nobody more than that."""
        for connection in list(self._waiting):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * self.settings.closing_s):
                await self.shutdown(self.settings.closing_s)

    def abort(self) -> None:
        """Tear every connection down."""
        for connection in list(self._open):
            connection.abort()


class Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ("_deadline", "_header_bytes", "_is_served", "_seen", "_server", "_wire")

    def __init__(self, server: Connections) -> None:
        settings = server.settings
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # turns it off, which the annotation does not know
            keepalive_timeout=settings.keep_alive_s,
            max_line_size=MOST_HEADER_BYTES,
            max_field_size=MOST_HEADER_BYTES,
            lingering_time=_LINGERING_S,
            auto_decompress=False,  # a form is a kibibyte, not what comes out of one
        )
        self._server = server
        self._wire: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._seen = 0  # requests whose head is complete
        self._is_served = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch the connection, or close it at once."""
        wire = cast("asyncio.Transport", transport)
        if not self._server.admit(self, wire):
            wire.abort()
            return
        self._wire = wire
        self._wait(self._server.settings.header_s)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._cancel()
        self._server.left(self)
        self._wire = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; of a head that is not complete only so many, and only so long."""
        if self._wire is None:
            return
        super().data_received(data)
        if self._request_count > self._seen:
            self._seen = self._request_count
            self._header_bytes = 0
            if not self._is_served:
                # Or a deadline that is over now would tear down who has just kept it.
                self._wait(self._server.settings.header_s)
        elif not self._is_served:
            if self._header_bytes == 0 and self._seen:
                self._wait(self._server.settings.header_s)
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES + MOST_BODY_BYTES:
                self.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request, without the words of a parser that repeats it."""
        response = self._server.malformed(status)
        response.force_close()
        return response

    def begin(self) -> None:
        """Note that a request is complete and being answered: nobody is torn down for being slow meanwhile."""
        self._is_served = True
        self._cancel()
        self._server.serves(self)

    def end(self) -> None:
        """Note that it is answered."""
        self._is_served = False
        self._wait(self._server.settings.keep_alive_s)

    def abort(self) -> None:
        """Tear the connection down, whatever is still to be sent."""
        if self._wire is not None:
            self._wire.abort()

    def _wait(self, at_most_s: float) -> None:
        self._cancel()
        if self._wire is not None:
            self._deadline = asyncio.get_running_loop().call_later(at_most_s, self.abort)
            self._server.waits(self)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MOST_BODY_BYTES)
