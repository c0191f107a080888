"""Post every record to an URL, signed by the Standard Webhooks convention.

``write`` returns when every record was answered with a 2xx, or refused for good. What the receiver does
with a record after it has answered is its own; a record whose answer got lost comes again, under the
same ``webhook-id``, so a receiver keeps the ids it has seen (see ``poller.webhooks.verify``).

One request a record. Those of one account go one after the other, so their order holds; accounts go side by
side. What was delivered of a batch that failed is remembered, and only the rest comes again. After a
restart, or a refusal, more of it may come again, from some record of an account on and in order.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Final
from urllib.parse import quote

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from poller import __version__, webhooks
from poller.clock import NS_PER_S, Clock, SystemClock
from poller.errors import SinkBroken, SinkRejected, SinkUnavailable
from poller.model import Record
from poller.secrets import HIDDEN, redact
from poller.sinks import Channel, SinkOptions
from poller.sinks.messages import message
from poller.sinks.peers import PeerRefused, Peers, host_of, parse_endpoint
from poller.sinks.tls import ssl_context
from poller.sinks.webhook_answers import Answer, Failed, Refused, judge, printable
from poller.sinks.webhook_options import WebhookOptions

BODY_LIMIT_BYTES: Final = 64 * 1024
# The head of an answer decides; its body is read for words, and to use the connection again.
BODY_TIMEOUT_S: Final = 2.0
LOOKED_AT_BYTES: Final = 8192  # of it, for words
SHORTEST_TOKEN: Final = 8  # characters; a shorter part of a path is a word, and no secret
KEEPALIVE_S: Final = 4.0  # common servers drop idle connections after 5 s
DNS_CACHE_S: Final = 60
# So many failures with no success between: the receiver is down, and not a request unlucky.
FAILURES_IN_A_ROW: Final = 3
GONE_PAUSE_S: Final = 3600.0  # between two requests to a receiver that answered 410

# The first that fits; the library's classes overlap. The flag: somebody has to repair something.
_CAUSES: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, bool], ...]] = (
    (aiohttp.ClientConnectorCertificateError, "its certificate does not prove that it is the one", True),
    (PeerRefused, "its address is not one to connect to", True),
    (aiohttp.InvalidURL, "'url' cannot be used", True),
    ((aiohttp.ClientSSLError, ssl.SSLError), "TLS failed", False),
    (aiohttp.ClientConnectorDNSError, "its name has no address", False),
    (aiohttp.ClientConnectorError, "no connection", False),
    ((aiohttp.ClientResponseError, aiohttp.ClientPayloadError), "the answer is not proper HTTP", False),
    (
        (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError),
        "the connection ended before an answer",
        False,
    ),
)


class WebhookSink:
    """Posts from one pool of connections.

    ``open`` only prepares: there is nothing to ask a receiver but to take a record.
    """

    Options: ClassVar[type[SinkOptions]] = WebhookOptions
    DEFAULTS: ClassVar[dict[str, Any]] = {"batch": 100, "write_timeout": "60s"}

    def __init__(
        self, options: WebhookOptions, clock: Clock | None = None, resolver: AbstractResolver | None = None
    ) -> None:
        self._options = options
        self._clock = clock or SystemClock()
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        # Of a batch that failed: by id what became of records, until they are behind us.
        self._known: dict[str, _Known] = {}
        self._gone_until_s: float | None = None
        self._gone_text = ""

    def channel(self) -> Channel:
        """Return where records go; no path: a token may stand in it."""
        text = self._options.url.reveal()
        url = parse_endpoint(text) if text else URL("https://localhost")
        return Channel(url.scheme, f"{url.host_subcomponent}:{url.port}", "/", self._options.content_type)

    async def open(self) -> None:
        """Prepare to connect.

        Raises:
            SinkBroken: a file for TLS cannot be used.
        """
        # To load the authorities takes 40 ms and more.
        tls = await asyncio.to_thread(ssl_context, self._options)
        await self.close()
        url = parse_endpoint(self._options.url.reveal())
        peers = Peers(host_of(url), self._options.allow_private)
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_on_reused)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._options.concurrency,
                ssl=tls,
                resolver=_Resolver(peers, self._resolver),
                ttl_dns_cache=DNS_CACHE_S,
                keepalive_timeout=KEEPALIVE_S,
                # Whatever the name was resolved to, and whenever: this is the address of the connection.
                socket_factory=lambda address: _socket(peers, address),
            ),
            headers={"Accept-Encoding": "identity", "User-Agent": f"poller/{__version__}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # each request has a deadline over everything
            trust_env=False,
            auto_decompress=False,
            trace_configs=[tracing],
        )

    async def write(self, batch: Sequence[Record]) -> None:
        """Post the batch; return when every record was answered.

        Raises:
            SinkUnavailable: the receiver did not take some records; the rest need not be sent again.
            SinkBroken: it takes none before somebody repairs something.
            SinkRejected: it refuses some for good; it took the others.
        """
        # A batch may come again in parts, from the front: what lies further on stays known.
        first = min((record.position for record in batch), default=0)
        self._known = {id_: known for id_, known in self._known.items() if known.position >= first}
        lanes: dict[str, list[Record]] = {}
        for record in batch:
            if record.id not in self._known:
                lanes.setdefault(record.account, []).append(record)
        round_ = _Round(deque(lanes.values()))
        await self._ask_whether_gone(round_)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._options.concurrency, len(round_.lanes))):
                tasks.create_task(self._work(round_))
        if round_.failures:
            raise _worst(round_.failures)
        self._settle(batch)

    async def close(self) -> None:
        """Let go of all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _settle(self, batch: Sequence[Record]) -> None:
        """Forget the batch, and raise what was refused of it."""
        known = {record.id: self._known[record.id] for record in batch}
        refused = {id_: outcome.reason for id_, outcome in known.items() if outcome.reason is not None}
        if not refused:
            self._known = {id_: outcome for id_, outcome in self._known.items() if id_ not in known}
            return
        # Should they come again after all, what stands behind them has to come after them again.
        accounts = {known[id_].account for id_ in refused}
        self._known = {id_: it for id_, it in self._known.items() if it.account not in accounts}
        raise SinkRejected(f"{len(refused)} records refused", rejected=refused)

    async def _ask_whether_gone(self, round_: _Round) -> None:
        """After a 410: nothing for an hour, then one request alone."""
        if self._gone_until_s is None or not round_.lanes:
            return
        if self._clock.monotonic_s() < self._gone_until_s:
            raise SinkBroken(self._gone_text)
        await self._send_lane(round_, round_.lanes[0][:1])
        if round_.failures:
            raise _worst(round_.failures)
        self._gone_until_s = None
        del round_.lanes[0][:1]

    async def _work(self, round_: _Round) -> None:
        while round_.lanes and not round_.is_over:
            await self._send_lane(round_, round_.lanes.popleft())

    async def _send_lane(self, round_: _Round, records: Sequence[Record]) -> None:
        """Send one account's records until one of them fails."""
        for record in records:
            if round_.is_over:
                return
            outcome = await self._deliver(record)
            if isinstance(outcome, Failed):
                round_.failed(outcome)
                if outcome.is_gone:
                    self._gone_until_s = self._clock.monotonic_s() + GONE_PAUSE_S
                    self._gone_text = str(outcome.error)
                return
            round_.in_a_row = 0
            reason = None if outcome is None else outcome.reason
            self._known[record.id] = _Known(record.position, record.account, reason)

    async def _deliver(self, record: Record) -> Refused | Failed | None:
        attempt = _Attempt()
        outcome = await self._attempt(record, attempt)
        if attempt.is_stale:
            # The far side closed an idle connection as we took it. The id is the same, whatever it has seen.
            outcome = await self._attempt(record, _Attempt())
        return outcome

    async def _attempt(self, record: Record, attempt: _Attempt) -> Refused | Failed | None:
        """Send once. What the library raises is taken in here: its errors show URL and headers."""
        host = host_of(parse_endpoint(self._options.url.reveal()))
        if self._session is None:
            return Failed(SinkUnavailable("the sink is not open"), is_for_all=True)
        try:
            async with asyncio.timeout(self._options.timeout) as deadline:
                async with self._post(self._session, record, attempt) as answer:
                    attempt.answer = Answer(answer.status, _headers(answer))
                    deadline.reschedule(asyncio.get_running_loop().time() + BODY_TIMEOUT_S)
                    said = await _body(answer)
            if not answer.ok:
                attempt.answer = Answer(answer.status, attempt.answer.headers, self._shown(said))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if attempt.answer is None:
                attempt.is_stale = (
                    attempt.is_reused
                    and isinstance(error, aiohttp.ClientConnectionError | ConnectionError)
                    and not isinstance(error, TimeoutError)
                )
                return self._explain(error, host)
        return judge(attempt.answer, host, self._clock.utc_ns())

    def _post(
        self, session: aiohttp.ClientSession, record: Record, attempt: _Attempt
    ) -> aiohttp.client._RequestContextManager:
        options = self._options
        sent = message(record, options)
        secrets = [
            secret.reveal() for secret in (options.secret, options.previous_secret) if secret is not None
        ]
        headers = webhooks.sign(sent.body, record.id, self._clock.utc_ns() // NS_PER_S, secrets)
        headers["Content-Type"] = sent.content_type
        if options.format == "cloudevents-binary":
            headers |= {f"ce-{name}": _ce_value(value) for name, value in sent.attributes.items()}
        if options.credential is not None:
            headers[options.credential_header] = options.credential.reveal()
        return session.post(
            parse_endpoint(options.url.reveal()),
            data=sent.body,
            headers=headers,
            allow_redirects=False,
            trace_request_ctx=attempt,
        )

    def _explain(self, error: Exception, host: str) -> Failed:
        """Return what an error of the library means; of its text nothing is kept that may show the URL."""
        inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
        seen = inner if isinstance(inner, PeerRefused) else error
        for kinds, text, is_broken in _CAUSES:
            if isinstance(seen, kinds) and not isinstance(seen, TimeoutError):
                said = f"{host}: {text}{_words(seen)}"
                return _broken(said) if is_broken else Failed(SinkUnavailable(said))
        return Failed(SinkUnavailable(f"{host}: no answer within {self._options.timeout:g} s"))

    def _shown(self, body: bytes) -> str:
        """Return what the receiver says, without what we told it in confidence."""
        text = body[:LOOKED_AT_BYTES].decode("ascii", errors="replace")
        url, credential = parse_endpoint(self._options.url.reveal()), self._options.credential
        hidden = [url.raw_path_qs, url.raw_path, url.path, url.raw_query_string]
        hidden += [part for part in url.raw_path.split("/") if len(part) >= SHORTEST_TOKEN]
        hidden += [] if credential is None else [credential.reveal()]
        for part in sorted(set(hidden) - {"", "/"}, key=len, reverse=True):
            text = text.replace(part, HIDDEN)
        return printable(redact(text))


@dataclass(frozen=True, slots=True)
class _Known:
    """What became of a record: delivered, or refused for a reason."""

    position: int
    account: str
    reason: str | None


@dataclass(slots=True)
class _Attempt:
    """How far one request got."""

    is_reused: bool = False
    is_stale: bool = False
    answer: Answer | None = None


class _Round:
    """One call of ``write``: what is to be sent, account by account, and what failed so far."""

    def __init__(self, lanes: deque[list[Record]]) -> None:
        self.lanes = lanes
        self.failures: list[Failed] = []
        self.in_a_row = 0

    @property
    def is_over(self) -> bool:
        return self.in_a_row >= FAILURES_IN_A_ROW or any(failure.is_for_all for failure in self.failures)

    def failed(self, failure: Failed) -> None:
        self.failures.append(failure)
        self.in_a_row += 1


class _Resolver(AbstractResolver):
    """The system's resolver, asked in a thread, less the addresses that are not connected to."""

    def __init__(self, peers: Peers, system: AbstractResolver | None) -> None:
        # Named here because the library would prefer c-ares wherever that happens to be installed.
        self._system = system or aiohttp.ThreadedResolver()
        self._peers = peers

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        allowed, refused = [], None
        for found in await self._system.resolve(host, port, family):
            try:
                self._peers.check(found["host"])
            except PeerRefused as error:
                refused = error
            else:
                allowed.append(found)
        if refused is not None and not allowed:
            raise refused
        return allowed

    async def close(self) -> None:
        await self._system.close()


def _socket(peers: Peers, address: Any) -> socket.socket:
    family, kind, protocol, _, peer = address
    peers.check(str(peer[0]))
    return socket.socket(family, kind, protocol)


async def _on_reused(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _parameters: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    context.trace_request_ctx.is_reused = True


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """Return how the body begins; beyond the limit the connection is given up."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            answer.close()
            break
    return bytes(body[:BODY_LIMIT_BYTES])


def _headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """Return the headers by lower-case name; of one that is there twice, the first."""
    return {name.lower(): answer.headers[name] for name in answer.headers}


def _worst(failures: Sequence[Failed]) -> SinkUnavailable | SinkBroken:
    """Return what is wrong with the whole: what has to be repaired, or else the longest wait asked for."""
    for failure in failures:
        if isinstance(failure.error, SinkBroken):
            return failure.error
    waits = [error for error in (failure.error for failure in failures) if isinstance(error, SinkUnavailable)]
    return max(waits, key=lambda error: -1.0 if error.retry_after_s is None else error.retry_after_s)


def _ce_value(value: str) -> str:
    """Return an attribute as the HTTP binding of CloudEvents has it: like an URL, less what needs not be."""
    return quote(value, safe="".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%'))


def _broken(text: str) -> Failed:
    return Failed(SinkBroken(text), is_for_all=True)


def _words(error: Exception) -> str:
    """Return what is wrong with the other side's certificate or address."""
    if isinstance(error, PeerRefused):
        return f": {error}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        verification = error.certificate_error
        if isinstance(verification, ssl.SSLCertVerificationError):
            return f": {verification.verify_message}"
    return ""
