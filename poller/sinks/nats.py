"""Publish records to a NATS JetStream stream, each acknowledged by the stream.

``write`` returns when the stream has acknowledged every record: it is in the stream's storage, on a
majority of its replicas. With one replica a server that loses power may lose what it acknowledged last
and had not synced (its ``sync_interval``); with memory storage, a restart loses everything. The
stream's limits (age, size, discard policy) remove records from readers whether they were read or not.

The id goes as ``Nats-Msg-Id``: the stream drops what it has seen within its duplicate window and says
so, which is a success. After the window an id may stand there twice; readers skip an id they have seen.

An account's records are sent one after the other, each after the last one's acknowledgement, and many
accounts at once. To send them without waiting would be quicker for one account, but wrong: if the
second of three failed and the third did not, the batch would come again, the stream would drop the third as a
duplicate, and the second would stand behind it for ever. So a reader sees an account's records in order;
the only step back there is, is to a record that comes again after the duplicate window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlsplit

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, Header, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from poller.errors import SinkBroken, SinkError, SinkRejected
from poller.model import Record
from poller.sinks import Channel, SinkOptions
from poller.sinks.in_turn import publish_in_turn
from poller.sinks.messages import Message, message
from poller.sinks.nats_connection import CONNECT_S, Connection, connect, meaning
from poller.sinks.nats_options import NatsOptions

IN_FLIGHT = 512  # records sent and not yet acknowledged; the server itself takes 10,000 a stream
ANSWER_S = 10.0  # for the acknowledgement of a record

# Codes of JetStream's errors: https://github.com/nats-io/nats-server/blob/main/server/errors.json
_RECORD_TOO_LARGE = {10054, 10097}  # of the message, of its headers
_ALREADY_THERE = 10058  # another made the stream meanwhile, with limits of its own


class NatsSink:
    """Publishes over one connection, which a write makes anew after it was lost."""

    Options: ClassVar[type[SinkOptions]] = NatsOptions

    def __init__(self, options: NatsOptions) -> None:
        self._options = options
        self._connection: Connection | None = None
        self._is_doubtful = False

    def channel(self) -> Channel:
        """Return the subject and the servers."""
        hosts = (urlsplit(server) for server in self._options.servers)
        return Channel(
            protocol="nats",
            host=",".join(f"{host.hostname}:{host.port or 4222}" for host in hosts),
            address=self._options.subject.text,
            content_type=self._options.content_type,
        )

    async def open(self) -> None:
        """Connect; with ``create``, make the stream if it is missing.

        Raises:
            SinkUnavailable: no server answers, or JetStream does not.
            SinkBroken: the credentials or the certificate are refused, or the stream cannot be made.
        """
        await self._connected()

    async def write(self, batch: Sequence[Record]) -> None:
        """Publish the batch and wait for every acknowledgement.

        Raises:
            SinkUnavailable: a part of the batch was not acknowledged; what of it is in the stream will
                be dropped there as a duplicate.
            SinkRejected: records larger than the server or the stream takes.
            SinkBroken: this client may not publish, or another stream than the one named takes the subject.
        """
        connection = await self._connected()
        publishing = _Publishing(connection, self._options)
        try:
            await connection.attend(publish_in_turn(batch, publishing.publish, in_flight=IN_FLIGHT))
        except BaseException:
            # It may be half dead, or the stream gone: the next write starts with a new one.
            self._is_doubtful = True
            raise
        if publishing.rejected:
            raise SinkRejected(
                f"{len(publishing.rejected)} records are too large", rejected=publishing.rejected
            )

    async def close(self) -> None:
        """Drop the connection. Nothing is waiting in it that was promised to anybody."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> Connection:
        if self._connection is not None and (self._is_doubtful or self._connection.is_lost):
            await self.close()
        if self._connection is None:
            connection = await connect(self._options)
            self._is_doubtful = False
            try:
                if self._options.create:
                    await connection.attend(_ensure_stream(connection.jetstream, self._options))
            except BaseException:
                await connection.close()
                raise
            self._connection = connection
        return self._connection


class _Publishing:
    """One batch on its way.

    Attributes:
        rejected: ids that the server or the stream refuses for good, with the reason.
    """

    def __init__(self, connection: Connection, options: NatsOptions) -> None:
        self.rejected: dict[str, str] = {}
        self._connection = connection
        self._options = options

    async def publish(self, record: Record) -> None:
        """Publish one record and wait for its acknowledgement.

        Raises:
            SinkUnavailable, SinkBroken: it was not acknowledged.
        """
        sent = message(record, self._options)
        headers = _headers(record, sent, self._options)
        size_bytes = len(sent.body) + _size_bytes(headers)
        most_bytes = self._connection.max_payload_bytes
        if size_bytes > most_bytes:
            # The client looks at the body alone; the server would cut the connection, again and again.
            self.rejected[record.id] = f"{size_bytes} bytes with headers; the server takes {most_bytes}"
            return
        subject = self._options.subject.render(record)
        try:
            # Whether it is a duplicate does not matter: the stream has it.
            await self._connection.jetstream.publish(subject, sent.body, timeout=ANSWER_S, headers=headers)
        except APIError as error:
            if error.err_code in _RECORD_TOO_LARGE:
                self.rejected[record.id] = f"{error.description}"
                return
            raise meaning(error, subject) from error
        except Exception as error:
            raise meaning(error, subject) from error


def _headers(record: Record, sent: Message, options: NatsOptions) -> dict[str, str]:
    headers = {Header.MSG_ID.value: record.id, "Content-Type": sent.content_type}
    if options.stream is not None:
        headers[Header.EXPECTED_STREAM.value] = options.stream
    if options.format == "cloudevents-binary":
        headers |= {f"ce-{name}": value for name, value in sent.attributes.items()}
        headers["ce-datacontenttype"] = sent.content_type
    else:
        headers |= sent.attributes
    return headers


def _size_bytes(headers: Mapping[str, str]) -> int:
    """Return what headers take on the wire: a version line, a line each, an empty line."""
    return 12 + sum(len(name) + len(value) + 4 for name, value in headers.items())


async def _ensure_stream(jetstream: JetStreamContext, options: NatsOptions) -> None:
    name = options.stream or ""
    try:
        async with asyncio.timeout(CONNECT_S):
            try:
                await jetstream.stream_info(name)
            except NotFoundError:
                await jetstream.add_stream(_stream_config(name, options))
    except APIError as error:
        if error.err_code == _ALREADY_THERE:
            return
        raise _not_made(error, name) from error
    except Exception as error:
        raise meaning(error) from error


def _not_made(error: APIError, name: str) -> SinkError:
    found = meaning(error)
    if isinstance(found, SinkBroken) or error.code not in {400, 500}:
        return found
    return SinkBroken(f"stream {name!r} cannot be made: {error.description}")


def _stream_config(name: str, options: NatsOptions) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=[options.subjects_of_stream],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=options.max_age,
        max_bytes=options.max_size if options.max_size is not None else -1,
        duplicate_window=options.duplicate_window_s,
        num_replicas=options.replicas,
    )
