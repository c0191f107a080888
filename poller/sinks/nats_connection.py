"""One connection to NATS: made within a bound, its end known at once, its errors named.

The client's own reconnecting is off: a batch that fails comes again anyway, and a write that finds the
connection lost makes a new one. So there are no attempts in the background and nothing is buffered for later.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import nats.errors
from nats.aio.client import Client, RawCredentials
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from poller.errors import SinkBroken, SinkError, SinkUnavailable
from poller.secrets import Secret
from poller.sinks.nats_options import NatsOptions, credential_lines
from poller.sinks.tls import ssl_context

T = TypeVar("T")

CONNECT_S: Final = 10.0
CONNECT_ONE_S: Final = 3  # of several servers
CLOSE_S: Final = 1.0
LAST_PATIENCE_S: Final = 2.0  # for work that was cancelled
BUFFER_BYTES: Final = 64 * 1024 * 1024  # more than a batch: publishing never waits inside of the client

# JetStream's codes for what does not pass by itself, with what to repair.
_BROKEN_CODES: Final = {
    10039: "enable JetStream for this account on the server",
    10060: "name the stream that has the subject, or repair the stream's subjects",
    10065: "another stream has these subjects; name that one, or change 'subject'",
    10109: "the stream is sealed; name another one",
}
# The server's words, as the client passes them on.
_BROKEN_WORDS: Final = {
    "authorization violation": "repair user, password, token or key",
    "authorization failed": "repair user, password, token or key",
    "authentication expired": "renew the credentials",
    "authentication revoked": "renew the credentials",
    "permissions violation": "allow this user to publish the subject and to subscribe to _INBOX.>",
}


def meaning(error: BaseException, subject: str = "") -> SinkError:
    """Return what an error of the client means for the batch; whatever is not known may pass by itself."""
    match error:
        case SinkError():
            return error
        case NoStreamResponseError():
            # The answer is the same while a server or JetStream is starting.
            return SinkUnavailable(
                f"no stream takes {subject!r}, or JetStream is not running; make the stream"
            )
        case APIError():
            text = error.description or "JetStream is not running, or does not answer"
            return _told(text, _BROKEN_CODES.get(error.err_code or 0))
        case nats.errors.SecureConnWantedError():
            return SinkBroken("no TLS is offered, and nothing was sent; enable it there, or write nats://")
        case ssl.SSLError():
            reason = getattr(error, "verify_message", "") or error.reason or str(error)
            is_verdict = isinstance(error, ssl.SSLCertVerificationError) or "ALERT" in reason
            return _told(f"TLS: {reason}", "repair the certificates, or 'ca'" if is_verdict else None)
        case TimeoutError():
            text = "no answer in time"
        case OSError():
            text = error.strerror or str(error)
        case _:
            text = str(error).removeprefix("nats: ").strip("'")
    text = text or type(error).__name__
    return _told(text, next((cure for said, cure in _BROKEN_WORDS.items() if said in text.lower()), None))


def _told(text: str, remedy: str | None) -> SinkError:
    return SinkUnavailable(text) if remedy is None else SinkBroken(f"{text}; {remedy}")


class Connection:
    """A connection that was made, until it ends. Make one with ``connect``."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lost: asyncio.Future[SinkError] = asyncio.get_running_loop().create_future()
        self.said: Exception | None = None
        self.jetstream: JetStreamContext = client.jetstream()

    @property
    def is_lost(self) -> bool:
        """Whether a new one has to be made."""
        return self._lost.done() or self._client.is_closed

    @property
    def max_payload_bytes(self) -> int:
        """Most bytes of a message, headers included, that the server takes."""
        return self._client.max_payload

    async def attend(self, work: Awaitable[T]) -> T:
        """Await work on this connection, no longer than the connection lives.

        Raises:
            SinkError: the connection ended, or the server said that something is not allowed.
        """
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self._lost}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self._lost.result()
            return task.result()
        finally:
            task.cancel()
            task.add_done_callback(_look_at)
            await asyncio.wait({task}, timeout=LAST_PATIENCE_S)

    async def close(self) -> None:
        """End it, within a second."""
        closing = asyncio.create_task(self._client.close())
        await asyncio.wait({closing}, timeout=CLOSE_S)
        if not closing.done():
            # It waits for bytes to leave that nobody takes. There is no public way to give them up.
            writer = getattr(self._client._transport, "_io_writer", None)  # noqa: SLF001
            if writer is not None:
                writer.transport.abort()
            closing.cancel()
        elif not closing.cancelled():
            closing.exception()  # whatever it is, the connection is gone

    async def on_error(self, error: Exception) -> None:
        """Take note of what the client says outside of any call."""
        self.said = error
        # No answer will come to what was not allowed: those who wait for one have to know.
        if isinstance(found := meaning(error), SinkBroken):
            self._end(found)

    async def on_closed(self) -> None:
        """Wake those who wait for answers."""
        reason = self._client.last_error or self.said
        found = meaning(reason) if reason is not None else SinkUnavailable("the connection was closed")
        self._end(found)

    def _end(self, found: SinkError) -> None:
        if not self._lost.done():
            self._lost.set_result(found)


def _look_at(task: asyncio.Future[Any]) -> None:
    """Take note of how abandoned work ended, or asyncio would report it as lost."""
    if not task.cancelled():
        task.exception()


async def connect(options: NatsOptions) -> Connection:
    """Return a connection to one of the servers.

    Raises:
        SinkUnavailable: none of them answers.
        SinkBroken: credentials or a certificate are refused, or there is no TLS where it has to be.
    """
    client = Client()
    connection = Connection(client)
    try:
        async with asyncio.timeout(CONNECT_S):
            await client.connect(
                servers=options.servers,
                name="poller",
                allow_reconnect=False,
                max_reconnect_attempts=1,  # of the first connection; without a number it would try for ever
                reconnect_time_wait=0,
                connect_timeout=CONNECT_ONE_S,
                pending_size=BUFFER_BYTES,
                error_cb=connection.on_error,
                closed_cb=connection.on_closed,
                tls=ssl_context(options),
                **_login(client, options),
            )
        _require_tls(client, options)
    except BaseException as error:
        await connection.close()
        if not isinstance(error, Exception):
            raise
        # When it has tried all servers it says only that; what the last one said is the reason.
        known = connection.said if isinstance(error, nats.errors.NoServersError) else error
        found = meaning(known or error)
        raise type(found)(f"{', '.join(options.servers)}: {found}") from error
    return connection


def _login(client: Client, options: NatsOptions) -> dict[str, Any]:
    """Return the client's arguments for logging in.

    Passwords and tokens as functions: they are called when the encryption stands, so they are the
    place to refuse a server that offers none. The client itself would take tls:// for a wish.
    """

    def over_tls(secret: Secret) -> str:
        _require_tls(client, options)
        return secret.reveal()

    if (password := options.password) is not None:
        return {"user": options.user, "password": lambda: over_tls(password)}
    if (token := options.token) is not None:
        return {"token": lambda: over_tls(token)}
    if options.credentials is not None:
        lines = credential_lines(options.credentials)
        return {"user_credentials": RawCredentials("\n".join([*lines, ""]))}
    if options.nkey_seed is not None:
        return {"nkeys_seed_str": options.nkey_seed.reveal()}
    return {}


def _require_tls(client: Client, options: NatsOptions) -> None:
    # The client encrypts if, and only if, the server asks for it. There is no public way to see it.
    if options.is_encrypted and not client._server_info.get("tls_required"):  # noqa: SLF001
        raise nats.errors.SecureConnWantedError
