"""Produce records to a Kafka topic, keyed by account.

``write`` returns when every record was acknowledged with ``acks=all``: it is in the logs of all replicas
that are in sync, at least ``min.insync.replicas`` of the topic. Brokers acknowledge what the operating
system has, not the disk: the loss of all those replicas at one time loses records, and with one replica
a power cut does. Retention and compaction of the topic delete records, read or not.

The producer is idempotent: what it sends again by itself is stored once. A restart, or an error after
which it is built anew, lets records come again, with the same ids; consumers leave out ids that they
know. Order is kept per account, as long as nobody changes the number of partitions. After a repetition
an account's ``sequence`` steps back and comes again; one that keeps the last state alone compares it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import aiokafka
from aiokafka import errors

from poller.errors import SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.model import Kind, Record
from poller.sinks import Channel, SinkOptions
from poller.sinks.kafka_client import Complaints, end
from poller.sinks.kafka_options import KafkaOptions
from poller.sinks.messages import message
from poller.sinks.tls import ssl_context

REQUEST_TIMEOUT_S = 8.0  # of one request, and longest wait for a topic to appear
PATIENCE = 1.5  # so many of those a call lasts before it is given up, and goes on when it comes again
GIVEN_UP = 3  # calls for one batch in a row, and the producer is built anew: it may be stuck
RETRY_BACKOFF_MS = 200
SMALLEST_BATCH_BYTES = 16 * 1024
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

# What does not pass by itself, and what somebody has to do about it. Everything else is transient.
_BROKEN: Final[Mapping[type[BaseException], str]] = {
    errors.UnknownTopicOrPartitionError: (
        "create the topic, or let brokers create topics (auto.create.topics.enable)"
    ),
    errors.InvalidTopicError: "give 'topic' another name",
    errors.TopicAuthorizationFailedError: "allow our user to Describe and Write the topic",
    errors.ClusterAuthorizationFailedError: "allow our user IdempotentWrite on the cluster",
    errors.SaslAuthenticationFailed: "check 'user' and 'password'",
    errors.AuthenticationFailedError: "check 'user' and 'password'",
    errors.UnsupportedSaslMechanismError: "set 'sasl' to a mechanism that the brokers offer",
    errors.IllegalSaslStateError: "name a listener for SASL in 'bootstrap', or leave 'sasl' out",
    errors.AuthenticationMethodNotSupported: "set 'sasl' to a mechanism that the brokers offer",
    errors.SecurityDisabled: "name a listener for SASL in 'bootstrap', or leave 'sasl' out",
    errors.UnsupportedVersionError: "use brokers of version 0.11 or later",
    errors.IncompatibleBrokerVersion: (
        "use brokers of version 0.11 or later; if this is about SASL, name a listener that has it, or leave 'sasl' out"
    ),
    errors.UnrecognizedBrokerVersion: "use brokers of version 0.11 or later",
    errors.UnsupportedForMessageFormatError: "set the topic's message.format.version to 0.11 or later",
    errors.UnsupportedCodecError: "set 'compression' to what the brokers understand",
    errors.PolicyViolationError: "see the brokers' policy",
    # Of a whole batch, and no record is wrong: they are as old as the outage that held them up.
    errors.InvalidTimestampError: (
        "raise the topic's message.timestamp.before.max.ms, or set its message.timestamp.type to LogAppendTime"
    ),
    ssl.SSLCertVerificationError: "name the authority of the brokers' certificates as 'ca'",
}
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError, errors.RecordTooLargeError)
# What follows in a partition once the producer's count of it has a hole.
_FOLLOWS = (errors.OutOfOrderSequenceNumber, errors.UnknownProducerId)
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})


def classified(error: BaseException, where: str, text: str = "") -> SinkError:
    """Return what an error of the client means. ``text`` is said of it instead of its own words."""
    said = f"{where}: {text or str(error) or type(error).__name__}"
    for kind, remedy in _BROKEN.items():
        if isinstance(error, kind):
            return SinkBroken(f"{said}; {remedy}")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if reason in _NO_TLS:
            return SinkBroken(f"{said}; name a port that speaks TLS in 'bootstrap', or leave 'tls' out")
        if "ALERT" in reason:
            return SinkBroken(f"{said}; the brokers refuse our side of TLS: check 'certificate'")
    return SinkUnavailable(said)


class KafkaSink:
    """Writes with one producer, which is built anew after any error that it does not retry by itself."""

    Options: ClassVar[type[SinkOptions]] = KafkaOptions

    def __init__(self, options: KafkaOptions, *, request_timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._options = options
        self._where = ",".join(options.bootstrap)
        self._request_timeout_s = request_timeout_s
        self._patience_s = PATIENCE * request_timeout_s
        self._complaints = Complaints()
        self._producer: Any = None
        # What was sent of the batch that is being written, by id. A call that is given up or cancelled
        # leaves it: the producer goes on, and the same batch is not sent a second time behind itself.
        self._sent: dict[str, asyncio.Future[Any]] = {}
        self._given_up = 0  # calls for the batch that were
        self._batch_bytes = options.max_message
        self._is_one_by_one = False  # a batch was too large, and which record of it is to be found out

    def channel(self) -> Channel:
        """Return where records go."""
        return Channel(
            "kafka-secure" if self._options.tls else "kafka",
            self._where,
            self._options.topic.text,
            self._options.content_type,
            {} if self._options.topic.fields else {"topic": self._options.topic.text},
        )

    async def open(self) -> None:
        """Connect, and look for the topic if its name has no fields.

        Raises:
            SinkUnavailable: no broker answers.
            SinkBroken: we may not log in or write, or there is no such topic.
        """
        await self.close()
        with self._complaints.heard():
            self._complaints.clear()
            await self._start()
            if not self._options.topic.fields:
                try:
                    async with asyncio.timeout(self._patience_s):
                        await self._producer.partitions_for(self._options.topic.text)
                except Exception as error:
                    found = await self._meaning(error, self._options.topic.text)
                    await self.close()
                    raise found from error

    async def write(self, batch: Sequence[Record]) -> None:
        """Produce the batch, all of it at once, and wait until every record is acknowledged.

        Raises:
            SinkUnavailable: not everything was acknowledged.
            SinkRejected: some records are too large; the others were written.
            SinkBroken: as from ``open``.
        """
        with self._complaints.heard():
            self._complaints.clear()
            self._forget_all_but({record.id for record in batch})
            self._given_up = self._given_up + 1 if self._sent else 0
            # Behind what failed in the meantime nothing may be sent.
            if self._given_up >= GIVEN_UP or any(_is_failed(future) for future in self._sent.values()):
                self._given_up = 0
                await self._begin_anew(batch)
            # Once more at most: one by one.
            while (refused := await self._attempt(batch)) is None:
                pass
        self._forget_all_but(set())
        if self._is_one_by_one:
            self._is_one_by_one = False
            if not refused:
                # The whole was too large, no record is: smaller ones from now on.
                self._batch_bytes = max(self._batch_bytes // 2, SMALLEST_BATCH_BYTES)
            await self._end()
        if refused:
            raise SinkRejected(f"{self._where}: {len(refused)} records are too large", rejected=refused)

    async def close(self) -> None:
        """End the producer; it does not wait for brokers."""
        self._forget_all_but(set())
        await self._end()

    async def _start(self) -> None:
        options = self._options
        secured = (
            {True: "SASL_SSL", False: "SASL_PLAINTEXT"} if options.sasl else {True: "SSL", False: "PLAINTEXT"}
        )
        login = {}
        if options.sasl is not None and options.password is not None:
            login = {
                "sasl_mechanism": options.sasl,
                "sasl_plain_username": options.user,
                "sasl_plain_password": options.password.reveal(),
            }
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=list(options.bootstrap),
            client_id=options.client_id,
            acks="all",
            # One by one, a record that is refused must not make a hole in the count of those behind it.
            enable_idempotence=not self._is_one_by_one,
            # A batch always takes its first record, however large.
            max_batch_size=1 if self._is_one_by_one else self._batch_bytes,
            max_request_size=options.max_message,
            compression_type=None if options.compression == "none" else options.compression,
            request_timeout_ms=round(self._request_timeout_s * 1000),
            retry_backoff_ms=RETRY_BACKOFF_MS,
            security_protocol=secured[options.tls],
            ssl_context=ssl_context(options) if options.tls else None,
            **login,
        )
        try:
            async with asyncio.timeout(self._patience_s):
                await producer.start()
        except Exception as error:
            await end(producer)
            raise self._reason(error) from error
        except BaseException:
            await end(producer)
            raise
        self._producer = producer

    async def _end(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await end(producer)

    async def _attempt(self, batch: Sequence[Record]) -> dict[str, str] | None:
        """Send what was not sent and wait for all of it.

        Returns: reasons by the ids of refused records; ``None`` if the batch is to be sent one by one.
        """
        if self._producer is None:
            await self._start()
        refused: dict[str, str] = {}
        topic = ""
        try:
            async with asyncio.timeout(self._patience_s):
                for record in batch:
                    topic = self._options.topic.render(record)
                    if record.id not in self._sent and (why := await self._send(record, topic)):
                        refused[record.id] = why
                if self._sent:
                    await asyncio.wait(self._sent.values())
        except TimeoutError as error:
            raise self._reason(error) from error
        except Exception as error:
            found = await self._meaning(error, topic)
            await self._begin_anew(batch)
            raise found from error
        return await self._judge(batch, refused)

    async def _send(self, record: Record, topic: str) -> str:
        """Give a record to the producer. Returns why it cannot be sent; empty if it can."""
        sent = message(record, self._options)
        prefix = "ce_" if self._options.format == "cloudevents-binary" else ""
        headers = [(prefix + name, value.encode()) for name, value in sent.attributes.items()]
        try:
            self._sent[record.id] = await self._producer.send(
                topic,
                sent.body,
                key=record.account.encode(),
                timestamp_ms=_timestamp_ms(record),
                headers=[*headers, ("content-type", sent.content_type.encode())],
            )
        except errors.MessageSizeTooLargeError:
            return f"{len(sent.body)} bytes and headers are more than 'max_message' = {self._options.max_message}"
        return ""

    async def _judge(self, batch: Sequence[Record], refused: dict[str, str]) -> dict[str, str] | None:
        """Look at how the records ended. Returns as ``_attempt`` does."""
        failed = {
            record.id: error
            for record in batch
            if record.id in self._sent and (error := self._sent[record.id].exception()) is not None
        }
        too_large = {key: str(error) for key, error in failed.items() if isinstance(error, _TOO_LARGE)}
        if len(too_large) == len(failed) and (not failed or self._is_one_by_one):
            return refused | too_large
        await self._begin_anew(batch)
        others = [error for error in failed.values() if not isinstance(error, _TOO_LARGE + _FOLLOWS)]
        if too_large and not others:
            self._is_one_by_one = True
            return None
        meanings = [classified(error, self._where) for error in others or failed.values()]
        raise next((found for found in meanings if isinstance(found, SinkBroken)), meanings[0])

    async def _begin_anew(self, batch: Sequence[Record]) -> None:
        """End the producer. Of each account everything from its first record on that is not stored goes again."""
        again: set[str] = set()
        stored: set[str] = set()
        for record in batch:
            if record.account in again or not _is_stored(self._sent.get(record.id)):
                again.add(record.account)
            else:
                stored.add(record.id)
        self._forget_all_but(stored)
        await self._end()

    def _forget_all_but(self, ids: set[str]) -> None:
        for key in self._sent.keys() - ids:
            future = self._sent.pop(key)
            if future.done():
                _look_at(future)
            else:
                future.add_done_callback(_look_at)

    async def _meaning(self, error: Exception, topic: str) -> SinkError:
        """Return what an error means that may be about a topic."""
        if isinstance(error, errors.UnknownTopicOrPartitionError):
            # The client says so too when it could ask nobody.
            is_asked = False
            try:
                async with asyncio.timeout(self._request_timeout_s):
                    is_asked = await self._producer.client.force_metadata_update()
            except TimeoutError:
                pass
            if not is_asked:
                return SinkUnavailable(f"{self._where}: {self._complaints.text or 'no broker answers'}")
            return classified(error, self._where, self._complaints.text or f"there is no topic {topic!r}")
        return self._reason(error)

    def _reason(self, error: BaseException) -> SinkError:
        """Return what an error means, in the light of what the client complained of."""
        if isinstance(error, SinkError):
            return error
        found = classified(error, self._where)
        if isinstance(found, SinkBroken):
            return found
        blamed = [classified(cause, self._where, self._complaints.text) for cause in self._complaints.errors]
        if broken := next((one for one in blamed if isinstance(one, SinkBroken)), None):
            return broken
        if isinstance(error, TimeoutError):
            said = self._complaints.text or "the brokers are there, and silent"
            return SinkUnavailable(f"{self._where}: not acknowledged within {self._patience_s:g} s; {said}")
        hint = self._hint()
        return SinkUnavailable(
            f"{self._where}: {self._complaints.text or str(error) or type(error).__name__}{hint}"
        )

    def _hint(self) -> str:
        """What to think of when brokers hang up at once."""
        hung_up = (ConnectionResetError, EOFError, errors.KafkaConnectionError, ssl.SSLError)
        if not any(isinstance(error, hung_up) for error in self._complaints.errors):
            return ""
        return "; does that port speak TLS?" if self._options.tls else "; does that port want TLS or SASL?"


def _timestamp_ms(record: Record) -> int:
    """When it was observed, or began to be so: milliseconds since the epoch."""
    text = record.document["observed_at" if record.kind is Kind.SNAPSHOT else "since"]
    return (dt.datetime.fromisoformat(text) - _EPOCH) // dt.timedelta(milliseconds=1)


def _is_stored(future: asyncio.Future[Any] | None) -> bool:
    return future is not None and future.done() and not _is_failed(future)


def _is_failed(future: asyncio.Future[Any]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)


def _look_at(future: asyncio.Future[Any]) -> None:
    """Take note of how it ended, or asyncio would report it as lost."""
    if not future.cancelled():
        future.exception()
