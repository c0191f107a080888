"""Produce records to a Kafka topic, keyed by account.

``write`` returns when every record was acknowledged with ``acks=all``: it is in the logs of all replicas
that are in sync. How many those are is the topic's ``min.insync.replicas``: with 1, or without
``flush.messages``, the loss of machines at one time can lose what was acknowledged. Retention and
compaction of the topic delete records, whoever has read them or not.

The producer is idempotent: what it sends again by itself is stored once. A restart, or an error after
which it is built anew, lets records come again, with the same ids; consumers leave out ids that they
know. Order is kept per account, as long as nobody changes the number of partitions. After a repetition
an account's ``sequence`` steps back and comes again; one that keeps the last state alone compares it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import Sequence
from typing import Any, ClassVar

import aiokafka
from aiokafka import errors

from poller.errors import SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.model import Kind, Record
from poller.sinks import Channel, SinkOptions
from poller.sinks.kafka_client import Complaints, end
from poller.sinks.kafka_errors import FOLLOWS, TOO_LARGE, classified
from poller.sinks.kafka_options import KafkaOptions
from poller.sinks.messages import message
from poller.sinks.tls import ssl_context

REQUEST_TIMEOUT_S = 8.0  # of one request, and longest wait for a topic to appear
PATIENCE = 1.5  # so many of those a call lasts before it is given up, and goes on when it comes again
STALLED = 4.0  # after so many without any acknowledgement the producer is built anew
RETRY_BACKOFF_MS = 200
SMALLEST_BATCH_BYTES = 16 * 1024
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class KafkaSink:
    """Writes with one producer, which is built anew after any error that it does not retry itself."""

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
        self._progress_s = 0.0  # the loop's time at the last acknowledgement
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
        self._progress_s = asyncio.get_running_loop().time()

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
        settled_before = self._settled()
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
            now_s = asyncio.get_running_loop().time()
            if self._settled() > settled_before:
                self._progress_s = now_s
            found = self._reason(error)
            if now_s - self._progress_s > STALLED * self._request_timeout_s:
                await self._begin_anew(batch)
            raise found from error
        except Exception as error:
            found = await self._meaning(error, topic)
            await self._begin_anew(batch)
            raise found from error
        self._progress_s = asyncio.get_running_loop().time()
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
        failed = {sent: error for sent, future in self._sent.items() if (error := future.exception())}
        if not failed:
            return refused
        too_large = {sent: error for sent, error in failed.items() if isinstance(error, TOO_LARGE)}
        others = [
            error
            for sent, error in failed.items()
            if sent not in too_large and not isinstance(error, FOLLOWS)
        ]
        if not others and too_large and not self._is_one_by_one:
            await self._begin_anew(batch)
            self._is_one_by_one = True
            return None
        if len(too_large) == len(failed):
            return refused | {sent: str(error) for sent, error in too_large.items()}
        await self._begin_anew(batch)
        meanings = [classified(error, self._where) for error in others or failed.values()]
        worst = next((found for found in meanings if isinstance(found, SinkBroken)), meanings[0])
        raise worst from None

    async def _begin_anew(self, batch: Sequence[Record]) -> None:
        """End the producer. Of each account everything from its first record on that is not stored goes again."""
        await self._end()
        again: set[str] = set()
        stored: set[str] = set()
        for record in batch:
            if record.account in again or not _is_stored(self._sent.get(record.id)):
                again.add(record.account)
            else:
                stored.add(record.id)
        self._forget_all_but(stored)

    def _forget_all_but(self, ids: set[str]) -> None:
        for sent in self._sent.keys() - ids:
            self._sent.pop(sent).add_done_callback(_look_at)

    def _settled(self) -> int:
        return sum(future.done() for future in self._sent.values())

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
            said = self._complaints.text
            if "not a valid topic name" in said:  # the client says so to its log alone
                return classified(errors.InvalidTopicError(), self._where, said)
            return classified(error, self._where, said or f"there is no topic {topic!r}")
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
    return future is not None and future.done() and not future.cancelled() and future.exception() is None


def _look_at(future: asyncio.Future[Any]) -> None:
    """Take note of how it ended, or asyncio would report it as lost."""
    if not future.cancelled():
        future.exception()
