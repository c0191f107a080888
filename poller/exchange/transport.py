"""Carries requests to the exchange and answers back: one egress address, one pool of connections.

What arrives is an answer or ``NoResponse``. No error's text holds an URL, a header or a proxy's
password, and no error of the HTTP library is chained to one: theirs show all three.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import math
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Final, NoReturn, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from poller import __version__
from poller.clock import Clock
from poller.errors import NoResponse, StaleConnection
from poller.exchange.body import Body, BodyDamaged, BodyTooLarge
from poller.exchange.request import Request
from poller.exchange.response import Response
from poller.secrets import Secret

CONNECT_TIMEOUT_S: Final = 5.0
TOTAL_TIMEOUT_S: Final = 15.0  # the exchange itself may work for 10 s
# What a refusal says beyond its status and headers is worth this much waiting: others go on meanwhile.
REFUSAL_TIMEOUT_S: Final = 2.0
# The far side drops idle connections after a minute or more; connections that live are cheaper than
# new ones, connections found dead cost weight.
KEEPALIVE_S: Final = 50.0
BODY_LIMIT_BYTES: Final = 8 * 1024 * 1024
DNS_CACHE_S: Final = 60
# Names that nobody resolves any more: the addresses they had are tried for this long.
DNS_STALE_S: Final = 3600.0

_HEADERS: Final = {
    "Accept": "application/json",
    # Left to itself the library would ask for whatever decompressors happen to be installed.
    "Accept-Encoding": "gzip, deflate",
    "Cache-Control": "no-cache",
    "User-Agent": f"poller/{__version__}",
}


class Transport(Protocol):
    """One way to the exchange."""

    async def send(self, request: Request) -> Response:
        """Send the request once and return the answer, whatever its status.

        Raises:
            NoResponse: there is no whole answer. The request may have been counted all the same.
            StaleConnection: a kept-alive connection turned out to be dead before any answer.
        """
        ...

    async def close(self) -> None:
        """Let go of all connections. Harmless when called twice."""
        ...


@dataclass(slots=True)
class _Progress:
    """How far one request got.

    ``refusal`` is an answer other than 200, as soon as its headers are there.
    """

    sent_s: float
    reused: bool = False
    refusal: Response | None = None


class _NoAnswer(Exception):  # it is no error to anybody outside
    """A connection ended before the head of an answer was complete."""


class AiohttpTransport:
    """Connections from one egress address.

    The pool has no limit: the dispatcher bounds what is under way, and a granted request that waited
    for a connection would go out with an old timestamp. Sessions are made on first use.

    Args:
        base_url: scheme, host and port of the exchange; no path.
        clock: stamps sending and answer.
        local_address: IP address that connections leave from; ``None`` leaves it to the system.
        proxy: URL of an HTTP proxy, its user and password included.
        connect_timeout_s: for name, connection and TLS together.
        total_timeout_s: from the call of ``send`` to the end of the answer, however it trickles in.
        keepalive_s: idle connections older than this are not used again.
        body_limit_bytes: most of a body, decompressed.
        tls: whom to trust; ``None`` for the system's authorities.

    Raises:
        ValueError: an address that cannot be used, or a ``tls`` that does not verify.
    """

    def __init__(
        self,
        base_url: str,
        *,
        clock: Clock,
        local_address: str | None = None,
        proxy: Secret | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
        keepalive_s: float = KEEPALIVE_S,
        body_limit_bytes: int = BODY_LIMIT_BYTES,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._origin = _origin(base_url)
        self._clock = clock
        self._local_address = None if local_address is None else str(ipaddress.ip_address(local_address))
        self._proxy = None if proxy is None else _proxy_url(proxy)
        self._connect_timeout_s = connect_timeout_s
        self._total_timeout_s = total_timeout_s
        self._keepalive_s = keepalive_s
        self._body_limit_bytes = body_limit_bytes
        if tls is not None and (tls.verify_mode is not ssl.CERT_REQUIRED or not tls.check_hostname):
            raise ValueError("tls has to verify the exchange's certificate and name")
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"AiohttpTransport({str(self._origin)!r}, local_address={self._local_address!r})"

    async def send(self, request: Request) -> Response:
        """Send the request once and return the answer, whatever its status.

        Raises:
            NoResponse: there is no whole answer. The request may have been counted all the same.
            StaleConnection: a kept-alive connection turned out to be dead before any answer.
        """
        if self._closed:
            raise NoResponse("the transport is closed", cause="connect")
        progress = _Progress(self._clock.monotonic_s())
        try:
            async with asyncio.timeout(self._total_timeout_s) as deadline:
                return await self._exchange(request, progress, deadline)
        except TimeoutError:
            if progress.refusal is not None:
                return replace(progress.refusal, answered_s=self._clock.monotonic_s())
            raise NoResponse(f"no whole answer within {self._total_timeout_s:g} s", cause="timeout") from None

    async def close(self) -> None:
        """Let go of all connections. Harmless when called twice."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, request: Request, progress: _Progress, deadline: asyncio.Timeout) -> Response:
        try:
            answer = await self._opened().request(
                request.method,
                self._url(request),
                headers=request.headers,
                proxy=self._proxy,
                allow_redirects=False,
                trace_request_ctx=progress,
            )
        except (_NoAnswer, aiohttp.ClientError, OSError) as error:
            self._explain(error, progress)
        async with answer:
            if self._proxy is not None and answer.status == 407:
                raise NoResponse("the proxy wants other credentials", cause="proxy")
            now_s = self._clock.monotonic_s()
            response = Response(answer.status, _headers(answer), b"", progress.sent_s, now_s)
            if answer.status != 200:
                # A 429 is a 429, whatever becomes of its text.
                progress.refusal = response
                deadline.reschedule(min(deadline.when() or math.inf, now_s + REFUSAL_TIMEOUT_S))
            body = await self._body(answer, response.headers)
        return replace(response, body=body, answered_s=self._clock.monotonic_s())

    async def _body(self, answer: aiohttp.ClientResponse, headers: Mapping[str, str]) -> bytes:
        try:
            body = Body(headers.get("content-encoding", ""), limit_bytes=self._body_limit_bytes)
            async for chunk in answer.content.iter_any():
                body.feed(chunk)
            return body.finish()
        except (BodyTooLarge, BodyDamaged, aiohttp.ClientError, OSError) as error:
            answer.close()
            if answer.status != 200:
                return b""
            if isinstance(error, BodyTooLarge):
                text = f"the answer has more than {self._body_limit_bytes} bytes"
                raise NoResponse(text, cause="too_large") from None
            if isinstance(error, BodyDamaged):
                raise NoResponse(f"the answer cannot be read: {error}", cause="protocol") from None
            raise NoResponse("the answer broke off", cause="reset") from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_reuseconn.append(self._on_reused)
            tracing.on_request_headers_sent.append(self._on_sent)
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                headers=_HEADERS,
                skip_auto_headers=("Content-Type",),  # of a body that is not there
                cookie_jar=aiohttp.DummyCookieJar(),
                # The whole has a deadline of its own, exact and over everything.
                timeout=aiohttp.ClientTimeout(
                    connect=self._connect_timeout_s, ceil_threshold=self._connect_timeout_s
                ),
                trust_env=False,
                auto_decompress=False,
                middlewares=(_once,),
                trace_configs=[tracing],
            )
        return self._session

    def _connector(self) -> aiohttp.TCPConnector:
        # A proxy is where the operator says it is, and so is a stand-in on this machine.
        guarded = self._proxy is None and not _is_local(self._origin.host or "")
        return aiohttp.TCPConnector(
            limit=0,
            ssl=self._tls or _system_tls() if self._origin.scheme == "https" else True,
            local_addr=None if self._local_address is None else (self._local_address, 0),
            resolver=_Resolver(self._clock, public_only=guarded),
            ttl_dns_cache=DNS_CACHE_S,
            keepalive_timeout=self._keepalive_s,
            timeout_ceil_threshold=self._connect_timeout_s,
        )

    def _url(self, request: Request) -> URL:
        query = f"?{request.query}" if request.query else ""
        # As it is: left to itself the URL would be encoded anew, and the signature no longer fit.
        return URL(f"{self._origin}{request.path}{query}", encoded=True)

    async def _on_reused(
        self,
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        _parameters: aiohttp.TraceConnectionReuseconnParams,
    ) -> None:
        context.trace_request_ctx.reused = True

    async def _on_sent(
        self,
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        _parameters: aiohttp.TraceRequestHeadersSentParams,
    ) -> None:
        context.trace_request_ctx.sent_s = self._clock.monotonic_s()

    def _explain(self, error: Exception, progress: _Progress) -> NoReturn:
        """Raise what an error of the HTTP library means to us; nothing of its text is kept."""
        if isinstance(error, _NoAnswer):
            if progress.reused:
                raise StaleConnection("a kept-alive connection was dead") from None
            raise NoResponse("the connection ended before an answer", cause="reset") from None
        for kinds, cause, text in _CAUSES:
            if isinstance(error, kinds):
                raise NoResponse(text, cause=cause) from None
        raise NoResponse("the connection failed", cause="connect") from None


# The first that fits; the library's classes overlap.
_CAUSES: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...]] = (
    (
        (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError, ssl.SSLError),
        "tls",
        "the exchange could not prove who it is, or TLS failed",
    ),
    (aiohttp.ClientHttpProxyError, "proxy", "the proxy refused the connection"),
    (aiohttp.ClientProxyConnectionError, "proxy", "the proxy cannot be reached"),
    (aiohttp.ClientConnectorDNSError, "dns", "the exchange's name has no usable address"),
    (aiohttp.ConnectionTimeoutError, "connect", "no connection in time"),
    (aiohttp.ClientConnectorError, "connect", "no connection to the exchange"),
    (aiohttp.ClientResponseError, "protocol", "the answer is not proper HTTP"),
    (aiohttp.ClientPayloadError, "protocol", "the answer is not proper HTTP"),
)


class _Resolver(AbstractResolver):
    """The system's resolver, asked in a thread; believed about public addresses only.

    A name of the exchange that leads into a private network is a mistake or an attack: no key goes
    there. When names can no longer be resolved, the last good addresses are used for an hour.
    """

    def __init__(self, clock: Clock, *, public_only: bool) -> None:
        # Named here because the library would prefer c-ares wherever that happens to be installed.
        self._system = aiohttp.ThreadedResolver()
        self._clock = clock
        self._public_only = public_only
        self._last: dict[str, tuple[list[ResolveResult], float]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        now_s = self._clock.monotonic_s()
        try:
            found = await self._system.resolve(host, port, family)
        except OSError:
            last, found_s = self._last.get(host, ([], 0.0))
            if last and now_s - found_s <= DNS_STALE_S:
                return last
            raise
        if self._public_only and not all(_is_public(each["host"]) for each in found):
            raise OSError("a private address for a public name")
        self._last[host] = (found, now_s)
        return found

    async def close(self) -> None:
        await self._system.close()


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send once: the library repeats a GET by itself on a dead connection, and no budget would know."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # never repeated, and what failed is in its class
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        if isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str):
            raise aiohttp.ClientPayloadError from None  # an answer had begun
        # After a reset nobody can tell: it throws away what was not read yet.
        raise _NoAnswer from None


@functools.cache
def _system_tls() -> ssl.SSLContext:
    """Return the one context of all sessions: to load the authorities takes 27 ms each time."""
    return ssl.create_default_context()


def _headers(answer: aiohttp.ClientResponse) -> Mapping[str, str]:
    """Return the headers by lower-case name; repeated ones joined, as HTTP reads them."""
    headers: dict[str, str] = {}
    for name, value in answer.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def _origin(base_url: str) -> URL:
    url = URL(base_url)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("base_url is like https://api.binance.com")
    if url.user or url.password or url.query_string or url.fragment or url.path not in {"", "/"}:
        raise ValueError("base_url is scheme, host and port, and nothing else")
    return url.origin()


def _proxy_url(proxy: Secret) -> URL:
    # The cause would show the URL, and the URL may hold a password.
    try:
        url = URL(proxy.reveal())
    except ValueError:
        raise ValueError("the proxy is not an URL") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("the proxy is like http://user:password@host:port")
    return url


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    ip = mapped or ip
    return ip.is_global and not ip.is_multicast
