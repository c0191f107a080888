"""Schemas, roles and servers of a test's own, and a way to look behind the postgres sink."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from poller.secrets import Secret
from poller.sinks.postgres import PostgresOptions, PostgresSink
from poller.sinks.postgres_tables import quoted

CANARY = "canary-9f3b7c2e81d4"  # a password


@dataclass
class Database:
    """A schema in a database.

    Attributes:
        admin: a superuser's connection past the sinks.
        made: sinks that are closed in the end, whatever happened.
    """

    url: str
    schema: str
    admin: Any
    made: list[PostgresSink] = field(default_factory=list)

    def sink(self, **options: Any) -> PostgresSink:
        given = {"url": self.url, "schema": self.schema, **options}
        sink = PostgresSink(PostgresOptions.model_validate({**given, "url": Secret(given["url"])}))
        self.made.append(sink)
        return sink

    async def make_tables(self) -> None:
        sink = self.sink()
        await sink.open()
        await sink.close()

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Run a query, in which ``THERE`` is the schema's name."""
        found: list[Any] = await self.admin.fetch(query.replace("THERE", quoted(self.schema)), *arguments)
        return found

    async def execute(self, query: str) -> None:
        await self.admin.execute(query.replace("THERE", quoted(self.schema)))

    async def ids(self) -> list[str]:
        """Return the ids of what is there, in the order of arrival: snapshots, then statuses."""
        rows = await self.fetch(
            "SELECT id::text FROM (SELECT 0, number, id FROM THERE.snapshots"
            " UNION ALL SELECT 1, number, id FROM THERE.statuses) AS r (kind, number, id) ORDER BY kind, number"
        )
        return [row["id"] for row in rows]

    async def sessions(self, application: str) -> list[int]:
        """Return the server's processes that serve the connections of a name."""
        rows = await self.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY pid", application
        )
        return [row["pid"] for row in rows]


@asynccontextmanager
async def database(url: str, schema: str) -> AsyncIterator[Database]:
    """Give a name for a schema, and remove what was made under it."""
    admin = await asyncpg.connect(url)
    there = Database(url, schema, admin)
    try:
        yield there
    finally:
        for sink in there.made:
            await sink.close()
        if not admin.is_closed():
            await admin.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")
            await admin.close()


@asynccontextmanager
async def role(there: Database, *settings: str) -> AsyncIterator[str]:
    """Make a role; yield the URL to log in with it."""
    name = f"poller_test_{os.getpid()}"
    await there.admin.execute(f"CREATE ROLE {name} LOGIN")
    try:
        for setting in settings:
            await there.execute(f"ALTER ROLE {name} {setting}")
        address = urlsplit(there.url)
        yield f"postgresql://{name}:{CANARY}@{address.hostname}:{address.port}{address.path}"
    finally:
        await there.admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something at the server: it tells nobody."""
    while not await condition():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
