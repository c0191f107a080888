"""Keep the history in PostgreSQL: what everybody held, when, and what changed, in one schema of its own.

``poller.sinks.postgres_tables`` has the tables. A batch is one transaction of four round trips, however
many records it has. ``write`` returns when the server has confirmed COMMIT, and it is asked to sync its log
first even where the database's default would not. What can still be lost: what a server loses that runs
with ``fsync=off``, or a replica that becomes the primary without having been waited for
(``synchronous_standby_names``). If the answer to COMMIT does not arrive, the batch comes again, and the
ids that are there already are left alone: every record is there once, and a consumer needs to drop nothing.

The connection may lead through PgBouncer in transaction mode: outside of a transaction nothing is assumed
about the session.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Final

import asyncpg
from pydantic import AfterValidator, Field, model_validator

from poller.errors import BatchRejected, SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.model import Record
from poller.secrets import Secret
from poller.sinks import Channel, SinkOptions
from poller.sinks.postgres_rows import Rows, rows
from poller.sinks.postgres_tables import SCHEMA, VERSION, checked, ddl, insert, literal, quoted, upgrades
from poller.sinks.postgres_url import UNENCRYPTED, Address, encryption, parse
from poller.sinks.tls import TlsOptions
from poller.units import Duration

CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 5.0  # for the way of an answer, beyond what the server may take
CLOSE_TIMEOUT_S: Final = 1.0
IDLE_TIMEOUT_S: Final = 60.0  # a daemon that fell silent in a transaction holds others up for no longer

# What follows from an SQLSTATE: the longest prefix that fits decides. Whatever is not here is transient:
# connections (08), rollbacks for serialization and deadlock (40), resources (53), locks (55), an operator's
# intervention, time-outs and a server that starts or stops (57), its system (58), a read-only standby (25).
_BROKEN = {
    "0A": "a feature is not there",
    "28": "correct user and password in 'url', or the server's pg_hba.conf",
    "3D": "create the database, or correct its name in 'url'",
    "3F": "create the schema: run 'poller sinks sql'",
    "42": "the tables are not what they should be: compare them with 'poller sinks sql'",
    "42501": "grant the rights, or let somebody else run 'poller sinks sql' and set 'create: false'",
    "42P07": "another program's tables are in this schema; name a schema of its own",
}
_DATA = ("22", "23", "44", "54", "P0001")  # values, constraints, limits, and what a trigger raises


def classified(error: BaseException, address: Address) -> SinkError:
    """Return what an error of the client or the server means. The text names no secret."""
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error, address)
    if isinstance(error, asyncpg.ClientConfigurationError | ValueError) and not isinstance(error, OSError):
        # Its words may repeat parts of the URL, and not those that one would expect.
        return SinkBroken(
            f"{address}: the client cannot make sense of 'url' and the PG* variables; correct them"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return SinkBroken(f"{address}: {error.verify_message}; correct 'ca', or the server's certificate")
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return SinkBroken(
            f"{address}: the server does not speak TLS; switch it on there, or change sslmode in 'url'"
        )
    if isinstance(error, TimeoutError):
        return SinkUnavailable(f"{address}: no answer in time")
    return SinkUnavailable(f"{address}: {str(error) or type(error).__name__}")


def _of_server(error: asyncpg.PostgresError, address: Address) -> SinkError:
    code = error.sqlstate or ""
    text = f"{address}: {error.args[0]} (SQLSTATE {code})"
    if code == "23514" and not error.constraint_name:
        return SinkBroken(f"{text}; make the partition, and a default one besides")
    for length in (5, 2):
        if remedy := _BROKEN.get(code[:length]):
            return SinkBroken(f"{text}; {remedy}")
    return BatchRejected(text) if code.startswith(_DATA) else SinkUnavailable(text)


SchemaName = Annotated[str, AfterValidator(checked)]


_IS_THERE = """
    SELECT EXISTS (
        SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = $1 AND relname = $2
    )
"""
_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)"


class PostgresOptions(TlsOptions):
    """Options of the ``postgres`` sink."""

    url: Secret = Field(description="postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full")
    schema_: SchemaName = Field(
        SCHEMA, alias="schema", description="Where the tables are; a schema of their own."
    )
    create: bool = Field(
        True,  # noqa: FBT003  # a field's default
        description="Make the tables, and upgrade them; otherwise somebody runs `poller sinks sql`.",
    )
    statement_timeout: Duration = Field(
        20.0, gt=0, le=86400, description="The server gives a statement up after so long."
    )

    @model_validator(mode="after")
    def _url_is_one(self) -> PostgresOptions:
        if self.url.reveal():
            address = parse(self.url)
            if self.has_tls_files() and address.sslmode in UNENCRYPTED:
                raise ValueError(
                    f"'ca' and 'certificate' ask for TLS, and sslmode={address.sslmode} in 'url' does not; "
                    "write sslmode=verify-full"
                )
        return self


class PostgresSink:
    """Writes batches, each in one transaction, over one connection that it renews after any failure."""

    Options: ClassVar[type[SinkOptions]] = PostgresOptions

    def __init__(self, options: PostgresOptions) -> None:
        self._options = options
        self._insert = insert(options.schema_)
        self._prelude = _prelude(options)
        self._connection: Any = None  # an asyncpg.Connection, which is not typed

    async def open(self) -> None:
        """Connect; make or upgrade the tables, or see that they are the right ones.

        Raises:
            SinkUnavailable: the server cannot be reached, or does not let us in now.
            SinkBroken: credentials, rights, tables or certificates have to be put right.
        """
        await self._undisturbed(self._open())

    async def write(self, batch: Sequence[Record]) -> None:
        """Commit the batch; records whose ids are there already are left as they are.

        Raises:
            SinkUnavailable: whether it was committed may not be known; the same batch may come again.
            SinkRejected: some records do not have the published shape; the others were written.
            BatchRejected: the server refuses something in it, and nothing was written.
            SinkBroken: credentials, rights or tables have to be put right.
        """
        found = rows(batch)
        await self._undisturbed(self._write(found))
        if found.rejected:
            raise SinkRejected(f"{len(found.rejected)} records refused", rejected=found.rejected)

    async def close(self) -> None:
        """Say goodbye, and hang up if that takes long."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                await connection.close(timeout=CLOSE_TIMEOUT_S)

    def channel(self) -> Channel:
        """Return where records go."""
        address = parse(self._options.url) if self._options.url.reveal() else Address()
        return Channel("postgresql", address.hosts, f"{self._options.schema_}.snapshots")

    async def _undisturbed(self, work: Coroutine[Any, Any, None]) -> None:
        """Await something that uses the connection; when it fails, takes too long or is cancelled, hang up.

        On a cancellation the client would ask the server to cancel as well. A COMMIT that waits for a
        replica would then end at once, unreplicated, and the batch that comes again would find its records
        there and call them safe. Over a connection that was hung up it asks for nothing.
        """
        bound_s = CONNECT_TIMEOUT_S + self._options.statement_timeout + ANSWER_TIMEOUT_S
        task = asyncio.create_task(work)
        try:
            await asyncio.wait([task], timeout=bound_s)
        finally:
            is_in_time = task.done()
            if not is_in_time:
                self._hang_up()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if not is_in_time:
            raise SinkUnavailable(f"{self._address()}: no answer within {bound_s:g} s")
        try:
            task.result()
        except SinkError:
            self._hang_up()
            raise
        except Exception as error:  # noqa: BLE001  # the client raises errors of many families
            self._hang_up()
            raise classified(error, self._address()) from None

    async def _open(self) -> None:
        self._hang_up()
        address = self._address()
        # Statements that the client keeps prepared belong to one session, and PgBouncer changes it.
        self._connection = await asyncpg.connect(
            **address.arguments(),
            ssl=encryption(address, self._options),
            timeout=CONNECT_TIMEOUT_S,
            statement_cache_size=0,
        )
        await self._begin()
        version = await self._version()
        if self._options.create and (version or 0) < VERSION:
            await self._make(version)
        elif version is None:
            raise SinkBroken(
                f"{address}: there are no tables in schema {self._options.schema_!r}; "
                "run the SQL that 'poller sinks sql' prints, or set 'create: true'"
            )
        elif version < VERSION:
            raise SinkBroken(
                f"{address}: the tables are of version {version}, and have to be of {VERSION}; set 'create: true' once"
            )
        elif version > VERSION:
            raise SinkBroken(
                f"{address}: the tables are of version {version}, made by a newer poller; "
                f"this one knows {VERSION}: upgrade it, or name another schema"
            )
        await self._commit()

    async def _version(self) -> int | None:
        # Not by to_regclass: within a transaction that remembers that a table was missing, also once
        # whoever had the lock before us has made it.
        there = await self._connection.fetchval(_IS_THERE, self._options.schema_, "schema_version")
        if not there:
            return None
        table = f"{quoted(self._options.schema_)}.schema_version"
        version: int | None = await self._connection.fetchval(f"SELECT max(version) FROM {table}")
        return version

    async def _make(self, version: int | None) -> None:
        """Make or upgrade the tables, in the transaction that holds the lock."""
        schema = self._options.schema_
        if version is None:
            statements = ddl(schema)
            if await self._connection.fetchval(_HAS_SCHEMA, schema):
                # Even IF NOT EXISTS would need the right to make one.
                statements = statements[1:]
        else:
            statements = [statement for step in upgrades(schema)[version - 1 :] for statement in step]
            statements.append(f"UPDATE {quoted(schema)}.schema_version SET version = {VERSION}")
        for statement in statements:
            await self._connection.execute(statement)

    async def _write(self, found: Rows) -> None:
        if self._connection is None or self._connection.is_closed():
            await self._open()
        await self._begin()
        await self._connection.execute(self._insert, found.snapshots, found.statuses)
        await self._commit()

    async def _begin(self) -> None:
        # In one round trip. What is set ends with the transaction. The lock lets one writer in after the
        # other: so the numbers of rows are in the order in which they can be seen, and whoever reads on from
        # the last number misses none.
        await self._connection.execute(self._prelude)

    async def _commit(self) -> None:
        # The server's time-out does not reach a COMMIT that waits for a replica.
        said = await self._connection.execute("COMMIT")
        if said != "COMMIT":
            raise SinkUnavailable(f"{self._address()}: the transaction was not committed: {said}")

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def _address(self) -> Address:
        return parse(self._options.url)


def _prelude(options: PostgresOptions) -> str:
    timeout_ms = max(1, round(options.statement_timeout * 1000))
    name = literal(f"poller {options.schema_}")
    return f"""BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL statement_timeout = {timeout_ms};
SET LOCAL idle_in_transaction_session_timeout = {round(IDLE_TIMEOUT_S * 1000)};
SET LOCAL jit = off;
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
SELECT pg_advisory_xact_lock(hashtextextended({name}, 0))"""
