"""Publish records to RabbitMQ (AMQP 0-9-1), one message a record, confirmed by the broker.

``write`` returns when the broker has confirmed every message and returned none as unroutable: each is
in every queue that is bound for its routing key. For a persistent message in a durable queue that means
on the disk, for a quorum queue on the disks of a majority. What can still be lost is what the queue was
told to lose: by an expiry, a length limit that drops the oldest, a queue or message that is not durable.

A message that no queue takes is not the record's fault: the binding is missing, and everything waits
until it is there. A message's id is the record's, and RabbitMQ does not drop duplicates: after a crash
or a lost confirm a consumer sees ids again, and has to remember them.

All messages of a batch are under way together, on one channel, so a queue has them in order. If the
broker refuses one for want of room (a queue with ``reject-publish``), later ones of the same account
may be in the queue before it comes again; ``sequence`` shows it. What was confirmed of a batch, up to
an account's first record that was not, is not sent again with it: a queue that never has room for a
whole batch gets it in parts.

The plain connection of aio-pika, not the robust one, which waits for its reconnect without bound: a
lost connection fails the write, and the next one connects anew.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import aio_pika
from aio_pika import DeliveryMode, ExchangeType
from aio_pika.abc import AbstractChannel, AbstractExchange, HeadersType
from aio_pika.exceptions import (
    AuthenticationError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
)
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import ChannelAccessRefused, ConnectionNotAllowed
from yarl import URL

from poller.errors import SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.model import Kind, Record
from poller.sinks import Channel, SinkOptions
from poller.sinks.amqp_options import DEFAULT_PORTS, AmqpOptions, vhost
from poller.sinks.messages import message
from poller.sinks.tls import ssl_context

CONNECT_TIMEOUT_S = 10.0  # from the first packet to an exchange that is there
CONFIRM_TIMEOUT_S = 20.0  # without any confirm while some are awaited
CLOSE_TIMEOUT_S = 1.0  # for the broker to say goodbye, too
HEARTBEAT_S = 15  # a peer that is silent for three of them is gone
# The binding admits "cloudEvents:" too, and prefers the one that JMS selectors can name.
CLOUDEVENTS_PREFIX = "cloudEvents_"

for _client in ("aiormq", "aio_pika"):
    # They log every lost connection with its traceback; what they raise says the same, and is counted.
    logging.getLogger(_client).setLevel(logging.CRITICAL)


class _TooLarge(SinkUnavailable):
    """Some message has more bytes than the broker takes."""

    def __init__(self, text: str, limit_bytes: int) -> None:
        super().__init__(text)
        self.limit_bytes = limit_bytes


class _Unconfirmed(Exception):
    """Too long without a confirm; the text says what is known of why."""


_TOO_LARGE = re.compile(r"message size \d+ .*max size (\d+)")


def _sink_error(error: BaseException, options: AmqpOptions) -> SinkError:  # noqa: PLR0911  # a table
    """Return what an error of the client means. Whatever is not known passes by itself."""
    said, exchange = _said(error), options.exchange
    match error:
        case PublishError():
            key = error.frame.routing_key if hasattr(error.frame, "routing_key") else ""
            wanting = (
                f"nothing is bound to exchange {exchange!r} for routing key {key!r}; bind a queue to it, or "
                "give it an alternate exchange"
                if exchange
                else f"there is no queue {key!r}; declare it, or name an exchange"
            )
            return SinkBroken(f"{said}: {wanting}")
        case DeliveryError():
            return SinkUnavailable("the broker refused a message for now (nack): a queue may be full or down")
        case ProbableAuthenticationError() | AuthenticationError():
            return SinkBroken(f"{said}; check user and password in 'url'")
        case InvalidFrameError() if "Connection.OpenOk" in said:
            # The client drops what the broker said.
            return SinkBroken(
                f"the broker refused virtual host {vhost(options.url)!r}: it is missing, or not for this user "
                "(rabbitmqctl add_vhost, set_permissions), or has too many connections"
            )
        case ConnectionNotAllowed():
            return SinkBroken(f"{said}; check the virtual host in 'url' and the user's permissions")
        case ChannelNotFoundEntity():
            return SinkBroken(f"{said}; declare the exchange, or write 'create: true'")
        case ChannelAccessRefused():
            return SinkBroken(f"{said}; give the user the permission (rabbitmqctl set_permissions)")
        case ChannelPreconditionFailed():
            if found := _TOO_LARGE.search(said):
                return _TooLarge(said, int(found[1]))
            return SinkBroken(f"{said}; remove 'create', or name another exchange")
        case OSError(__cause__=ssl.SSLCertVerificationError() as refused):
            return SinkBroken(f"the broker's certificate is refused: {refused.verify_message}; see 'ca'")
    return SinkUnavailable(said)


def _said(error: BaseException) -> str:
    match error:
        case PublishError():
            return str(error.args[0])
        case asyncio.CancelledError():
            return "the connection was closed"
        case TimeoutError():
            return f"no answer within {CONNECT_TIMEOUT_S:g} s"
        case ConnectionClosed(args=(_, str(text))):
            return text
        case OSError(strerror=str(text)) if text:
            return text
    return str(error) or type(error).__name__


class _Wire(TransportFactory):
    """Keeps hold of the socket: the client's own ``close`` waits for a peer that may be gone."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, self._writer = await factory.create(url, **options)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


@dataclass(frozen=True, slots=True)
class _Link:
    connection: aio_pika.Connection
    wire: _Wire
    channel: AbstractChannel
    exchange: AbstractExchange


@dataclass(frozen=True, slots=True)
class _Letter:
    record: Record
    message: aio_pika.Message
    routing_key: str


class AmqpSink:
    """Publishes batches on one channel of one connection."""

    Options: ClassVar[type[SinkOptions]] = AmqpOptions

    def __init__(self, options: AmqpOptions) -> None:
        self._options = options
        self._link: _Link | None = None
        self._confirmed: set[str] = set()  # ids of a batch that failed, which are not sent again with it

    def channel(self) -> Channel:
        """Return the exchange and the routing keys."""
        options = self._options
        url = URL(options.url.reveal())
        port = url.explicit_port or DEFAULT_PORTS.get(url.scheme, 5672)
        exchange: dict[str, Any] = {"name": options.exchange, "vhost": vhost(options.url)}
        if options.create:
            exchange |= {"type": "topic", "durable": True}
        elif not options.exchange:
            exchange |= {"type": "default"}
        return Channel(
            protocol=url.scheme or "amqp",
            host=f"{url.host}:{port}" if url.host else "",
            address=options.routing_key.text,
            content_type=options.content_type,
            bindings={"is": "routingKey", "exchange": exchange},
        )

    async def open(self) -> None:
        """Connect, and declare the exchange or look for it.

        Raises:
            SinkUnavailable: the broker cannot be reached, or does not answer in time.
            SinkBroken: it refuses us, or the exchange is missing or of another type.
        """
        await self._let_go(is_graceful=True)
        self._link = await self._connect()

    async def write(self, batch: Sequence[Record]) -> None:
        """Publish the batch and wait for every confirm.

        Raises:
            SinkUnavailable: some messages were not confirmed.
            SinkRejected: some messages are larger than the broker takes; it has the others.
            SinkBroken: as from ``open``, or no queue takes a message.
        """
        letters = [self._letter(record) for record in batch]
        self._confirmed &= {record.id for record in batch}
        rejected: dict[str, str] = {}
        try:
            await self._publish(letters)
        except _TooLarge as error:
            # Which message it was is not said, and with it went all that followed.
            limit_bytes = error.limit_bytes
            rejected = {
                letter.record.id: f"{size} bytes; the broker takes {limit_bytes} (its max_message_size)"
                for letter in letters
                if (size := letter.message.body_size) > limit_bytes
            }
            await self._publish([letter for letter in letters if letter.record.id not in rejected])
        self._confirmed.clear()
        if rejected:
            raise SinkRejected(f"{len(rejected)} messages are too large", rejected=rejected)

    async def close(self) -> None:
        """Close the connection; a broker that does not answer is not waited for."""
        await self._let_go(is_graceful=True)

    async def _connect(self) -> _Link:
        options = self._options
        url = URL(options.url.reveal()).with_query(heartbeat=HEARTBEAT_S)
        context = ssl_context(options) if url.scheme == "amqps" else None
        wire = _Wire()
        connection = aio_pika.Connection(
            url, ssl_context=context, client_properties={"connection_name": "poller"}
        )
        connection.kwargs["transport_factory"] = wire
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()
                channel = connection.channel(on_return_raises=True)
                await channel.initialize()
                if not options.exchange:
                    return _Link(connection, wire, channel, channel.default_exchange)
                exchange = await channel.declare_exchange(
                    options.exchange, ExchangeType.TOPIC, durable=True, passive=not options.create
                )
                return _Link(connection, wire, channel, exchange)
        except BaseException as error:
            wire.abort()
            await _closed(connection, CLOSE_TIMEOUT_S)
            if not isinstance(error, Exception):
                raise
            raise self._error(error) from error

    async def _let_go(self, *, is_graceful: bool) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        if is_graceful:
            await _closed(link.connection, CLOSE_TIMEOUT_S)
        link.wire.abort()
        await _closed(link.connection, CLOSE_TIMEOUT_S)

    def _letter(self, record: Record) -> _Letter:
        options = self._options
        content = message(record, options)
        prefix = CLOUDEVENTS_PREFIX if options.format == "cloudevents-binary" else ""
        headers: HeadersType = {prefix + name: value for name, value in content.attributes.items()}
        return _Letter(
            record,
            aio_pika.Message(
                content.body,
                headers=headers,
                content_type=content.content_type,
                delivery_mode=DeliveryMode.PERSISTENT if options.persistent else DeliveryMode.NOT_PERSISTENT,
                expiration=options.expiration,
                message_id=record.id,
                timestamp=_instant(record.document, record.kind),
                type=record.kind.schema,
                app_id="poller",
            ),
            options.routing_key.render(record),
        )

    async def _publish(self, letters: Sequence[_Letter]) -> None:
        if self._link is None or self._link.channel.is_closed:
            await self._let_go(is_graceful=False)
            self._link = await self._connect()
        link = self._link
        # The client's lock serves them in this order, so the channel has them in this order.
        sent = [
            (
                letter.record,
                asyncio.create_task(
                    link.exchange.publish(letter.message, letter.routing_key, mandatory=True)
                ),
            )
            for letter in letters
            if letter.record.id not in self._confirmed
        ]
        tasks = [task for _, task in sent]
        try:
            await _confirms(link, tasks)
        except BaseException as error:
            for task in tasks:
                task.cancel()
            await self._let_go(is_graceful=False)
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
            if not isinstance(error, Exception):
                raise
            raise self._error(error) from error
        finally:
            self._remember(sent)
        if failures := [found for task in tasks if (found := _outcome(task)) is not None]:
            errors = [(self._error(failure), failure) for failure in failures]
            # A channel that is closed for one message fails those after it with less to say.
            worst, cause = max(errors, key=lambda pair: _severity(pair[0]))
            raise worst from cause

    def _remember(self, sent: Sequence[tuple[Record, asyncio.Task[Any]]]) -> None:
        """Keep what was confirmed, up to an account's first record that was not."""
        waiting: set[str] = set()
        for record, task in sent:
            if record.account not in waiting and task.done() and _outcome(task) is None:
                self._confirmed.add(record.id)
            else:
                waiting.add(record.account)

    def _error(self, error: BaseException) -> SinkError:
        return error if isinstance(error, SinkError) else _sink_error(error, self._options)


async def _confirms(link: _Link, tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait until every message is confirmed or refused.

    Raises:
        _Unconfirmed: for too long there was neither.
    """
    pending = set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, timeout=CONFIRM_TIMEOUT_S)
        if not done:
            raise _Unconfirmed(
                "the broker blocks publishers: it is short of memory or disk"
                if await _is_blocked(link)
                else f"no confirm within {CONFIRM_TIMEOUT_S:g} s"
            )


async def _is_blocked(link: _Link) -> bool:
    transport = link.connection.transport
    try:
        async with asyncio.timeout(0):
            if transport is not None:
                await transport.ready()
    except TimeoutError:
        return True
    return False


async def _closed(connection: aio_pika.Connection, timeout_s: float) -> None:
    """Close the connection, or wait no longer than that."""

    async def close() -> None:
        with suppress(Exception):
            await connection.close()

    await asyncio.wait([asyncio.create_task(close())], timeout=timeout_s)


def _outcome(task: asyncio.Task[Any]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def _severity(error: SinkError) -> tuple[bool, bool, bool]:
    return isinstance(error, _TooLarge), isinstance(error, SinkBroken), "nack" in str(error)


def _instant(document: Mapping[str, Any], kind: Kind) -> datetime:
    return datetime.fromisoformat(document["observed_at" if kind is Kind.SNAPSHOT else "since"])
