"""Append records to streams of Redis or Valkey, each batch as one transaction in one round trip.

An entry has the fields ``id``, ``schema``, ``account`` and ``sequence``, and the record as ``record``; as a
binary CloudEvent it has the event's attributes instead, under their own names.

``write`` returns when the server has executed the transaction: in its memory, and in its append-only file
as soon as ``appendfsync`` has it there. With ``wait_aof`` it returns when that file is synced. What can still
be lost there: what was not synced, in a crash; what a replica did not have, in a failover; and what
``max_length`` trims before a slow reader comes to it.

A transaction happens whole or not at all, so no order is broken half-way. Only its answer can be lost:
then the batch comes again. From 8.6 on Redis tells by itself that it has an entry (``IDMP``), among the last
hundred unless the stream is set otherwise; ``deduplicate`` remembers ids for as long as it says, on every
server; and readers can drop ids that they have seen.

The client speaks RESP2: nothing here needs more, and proxies and servers before Redis 6 know no ``HELLO``.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, Field, field_validator, model_validator
from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from poller.errors import SinkBroken, SinkRejected, SinkUnavailable
from poller.model import Record
from poller.secrets import Secret
from poller.sinks import Channel, SinkOptions
from poller.sinks.messages import MessageOptions, message
from poller.sinks.redis_server import Address, classified, error_code, parse_url
from poller.sinks.templates import Template, spelled
from poller.sinks.tls import TlsOptions, ssl_context
from poller.units import Duration

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 10.0  # for each answer; longer than what the server may wait for its disk
WAIT_AOF_MS: Final = 5000
CLOSE_TIMEOUT_S: Final = 1.0
# After this long without a sign of the other side the kernel gives a connection up, and with it what a
# hung server did not take: redis-py closes connections, but waits for no end of that.
DEAD_AFTER_MS: Final = 30_000
LONGEST_VALUE_BYTES: Final = 512 * 1024 * 1024  # the server's own default, where it may not be asked
LONGEST_MEMORY_S: Final = 7 * 86400

# Adding comes before remembering: a script that fails between the two says so, and adds twice rather than
# never. XADD is the first write: after another one the server would not hold it against maxmemory.
ADD_ONCE: Final = """
local now = tonumber(redis.call('TIME')[1])
local seen = redis.call('ZSCORE', KEYS[2], ARGV[2])
if seen and tonumber(seen) > now - tonumber(ARGV[1]) then return false end
local added = redis.call('XADD', KEYS[1], unpack(ARGV, 3))
redis.call('ZADD', KEYS[2], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[1]))
redis.call('EXPIRE', KEYS[2], ARGV[1])
return added
"""
ADD_ONCE_SHA: Final = hashlib.sha1(ADD_ONCE.encode(), usedforsecurity=False).hexdigest()

Command = tuple[str | bytes | int, ...]


class RedisOptions(MessageOptions, TlsOptions):
    """Options of the ``redis`` sink."""

    url: Secret = Field(
        description="redis://, rediss:// (TLS) or unix://, with user, password and number of the database: "
        "rediss://user:password@host:6379/0."
    )
    stream: Annotated[
        Template, AfterValidator(spelled(r"[A-Za-z0-9_.:/-]*", "a stream", longest_bytes=512))
    ] = Field(Template("balances"), description="The stream's key, with fields of the record.")
    max_length: int | None = Field(
        None,
        ge=1,
        description="Entries to keep in each stream, or somewhat more; older ones are lost to slow readers.",
    )
    wait_aof: bool = Field(
        False,  # noqa: FBT003  # a field's default
        description="Wait until the server's append-only file is synced (Redis and Valkey from 7.2 on).",
    )
    deduplicate: Duration | None = Field(
        None,
        ge=1,
        le=LONGEST_MEMORY_S,
        description="Add no record whose id was added within this time, such as 1h; 7d at most.",
    )

    @field_validator("url")
    @classmethod
    def _url_can_be_used(cls, url: Secret) -> Secret:
        if url.reveal():  # a stand-in has nothing to check
            parse_url(url.reveal())
        return url

    @model_validator(mode="after")
    def _tls_files_need_tls(self) -> RedisOptions:
        if self.has_tls_files() and self.url.reveal() and parse_url(self.url.reveal()).scheme != "rediss":
            raise ValueError("'ca' and 'certificate' are for TLS; write rediss:// in 'url', or remove them")
        return self


class RedisSink:
    """Writes over one connection."""

    Options: ClassVar[type[SinkOptions]] = RedisOptions

    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._client: Redis | None = None
        self._is_good = False  # the connection, and what the server was found to be
        self._knows_ids = False  # the server has IDMP
        self._refuses_ids = False  # it said so, and yet it does not take it as we write it
        self._longest_value_bytes = LONGEST_VALUE_BYTES

    def channel(self) -> Channel:
        """Return where records go. The host is empty while ``url`` is not known."""
        url = self._options.url.reveal()
        protocol, host = parse_url(url).channel() if url else ("redis", "")
        return Channel(
            protocol=protocol,
            host=host,
            address=self._options.stream.text,
            content_type=self._options.content_type,
        )

    async def open(self) -> None:
        """Connect, and look at what the server can do.

        Raises:
            SinkUnavailable: it cannot be reached, or is not ready.
            SinkBroken: it does not let us in, or cannot do what is asked for.
        """
        stream = self._options.stream
        await self._check([] if stream.fields else [stream.text])

    async def write(self, batch: Sequence[Record]) -> None:
        """Add the batch in its order, all of it or nothing.

        Raises:
            SinkUnavailable: it is not known to be there.
            SinkRejected: some records are longer than the server takes; the others were added.
            SinkBroken: the server does not let us, or a stream's key holds something else.
        """
        if not self._is_good:
            await self._check(sorted({self._options.stream.render(record) for record in batch}))
        fitting: list[Command] = []
        rejected: dict[str, str] = {}
        for record in batch:
            command = self._command(record)
            if max(len(part) for part in command if isinstance(part, bytes)) > self._longest_value_bytes:
                limit = f"{self._longest_value_bytes} bytes (its proto-max-bulk-len)"
                rejected[record.id] = f"longer than what the server takes: {limit}"
            else:
                fitting.append(command)
        await self._add(fitting)
        if rejected:
            raise SinkRejected(f"{len(rejected)} records are too long", rejected=rejected)

    async def close(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        self._is_good = False
        if client is not None:
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await client.aclose()

    async def _check(self, streams: Sequence[str]) -> None:
        """Connect anew, and find out what would break a transaction half-way or all the time.

        A new connection each time: behind the same name there may be another server after a failover.
        """
        await self.close()
        self._client = _client(parse_url(self._options.url.reveal()), self._options)
        wanted: dict[str, str] = dict.fromkeys(streams, "stream")
        if self._options.deduplicate is not None:
            wanted |= {_ids_key(stream): "zset" for stream in streams}
        # Without arguments XCFGSET changes nothing, and complains of that or of being unknown.
        questions: list[Command] = [("CONFIG", "GET", "proto-max-bulk-len"), ("XCFGSET",)]
        if self._options.wait_aof:
            questions.append(("WAITAOF", 1, 0, 1))
        limit, idmp, *rest = await self._ask([*questions, *(("TYPE", key) for key in wanted)])
        # Neither is granted to everybody; then the server is taken for an ordinary one.
        self._longest_value_bytes = (
            int(limit[1]) if isinstance(limit, list) and limit else LONGEST_VALUE_BYTES
        )
        self._knows_ids = not self._refuses_ids and str(idmp).startswith("wrong number of arguments")
        if self._options.wait_aof:
            self._raise_first(rest[:1])
        types = rest[len(rest) - len(wanted) :]
        self._raise_first([found for found in types if error_code(found) != "NOPERM"])
        for (key, kind), found in zip(wanted.items(), types, strict=True):
            if isinstance(found, str) and found not in {kind, "none"}:
                raise SinkBroken(
                    f"{self._place}: {key!r} holds a {found} and no {kind}; name another 'stream', or remove it"
                )
        self._is_good = True

    async def _add(self, commands: Sequence[Command]) -> None:
        if not commands:
            return
        before: list[Command] = [("MULTI",)]
        if self._options.deduplicate is not None:
            before.insert(0, ("SCRIPT", "LOAD", ADD_ONCE))
        after: list[Command] = [("EXEC",)]
        if self._options.wait_aof:
            after.append(("WAITAOF", 1, 0, WAIT_AOF_MS))
        self._is_good = False  # until it is known to be
        answers = await self._ask([*before, *commands, *after])
        # First what was refused while queueing, which is why nothing was executed; then what failed.
        executed = answers[len(before) + len(commands)]
        found = [*answers[: len(answers) - len(after)], executed]
        if isinstance(executed, list):
            found += executed
        if self._knows_ids and any(error_code(answer) == "ERR" for answer in found):
            # Without it readers see an id again after a lost answer; with it nothing would be written.
            self._refuses_ids = True
            logger.warning("a server's own de-duplication is not used", extra={"server": self._place})
        self._raise_first(found)
        if self._options.wait_aof:
            self._raise_first(answers[-1:])
            if answers[-1][0] < 1:
                raise SinkUnavailable(
                    f"{self._place}: not synced to its disk in {WAIT_AOF_MS} ms; with 'appendfsync no' it never is"
                )
        self._is_good = True

    def _command(self, record: Record) -> Command:
        options = self._options
        sent = message(record, options)
        fields: dict[str, str | bytes] = {**sent.attributes, "record": sent.body}
        if options.format == "cloudevents-binary":
            fields["datacontenttype"] = sent.content_type
        entry: list[str | bytes | int] = ["*"]
        for name, value in fields.items():
            entry += (name, value)
        if options.max_length is not None:
            entry[:0] = ("MAXLEN", "~", options.max_length)
        stream = options.stream.render(record)
        if options.deduplicate is not None:
            window_s = math.ceil(options.deduplicate)
            return ("EVALSHA", ADD_ONCE_SHA, 2, stream, _ids_key(stream), window_s, record.id, *entry)
        if self._knows_ids:
            return ("XADD", stream, "IDMP", options.source, record.id, *entry)
        return ("XADD", stream, *entry)

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send everything at once; return the answers, errors of single commands among them."""
        assert self._client is not None  # noqa: S101  # _check made it
        pipeline = self._client.pipeline(
            transaction=False
        )  # MULTI and EXEC are ours, and WAITAOF behind them
        for command in commands:
            pipeline.execute_command(*command)
        try:
            return await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            raise classified(error, self._place) from error

    def _raise_first(self, answers: Sequence[object]) -> None:
        for answer in answers:
            if isinstance(answer, RedisError):
                raise classified(answer, self._place) from answer

    @property
    def _place(self) -> str:
        return parse_url(self._options.url.reveal()).place


class _TlsConnection(SSLConnection):
    """Trusts whom we say: redis-py's own context would trust the system's authorities besides."""

    def __init__(self, *, options: TlsOptions, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ssl_context.context = ssl_context(options)


def _client(address: Address, options: TlsOptions) -> Redis:
    """Return a client of one connection that was not made yet, and that tries nothing twice by itself."""
    settings: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "db": address.database,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": ANSWER_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "decode_responses": True,
    }
    kind: type[AbstractConnection] = Connection
    if address.scheme == "unix":
        kind = UnixDomainSocketConnection
        settings["path"] = address.path
    else:
        settings |= {"host": address.host, "port": address.port, "socket_keepalive_options": _tcp_options()}
    if address.scheme == "rediss":
        kind = _TlsConnection
        settings["options"] = options
    pool = BlockingConnectionPool(
        max_connections=1, timeout=CONNECT_TIMEOUT_S, connection_class=kind, **settings
    )
    return Redis.from_pool(pool)


def _tcp_options() -> Mapping[int, int]:
    wanted = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": DEAD_AFTER_MS}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def _ids_key(stream: str) -> str:
    # In braces, so that a cluster behind a proxy keeps it where the stream is.
    return f"{{{stream}}}:delivered"
