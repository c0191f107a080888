"""Schemas, roles and servers of a test's own, and a way to look behind the postgres sink."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from poller.secrets import Secret
from poller.sinks.postgres import PostgresOptions, PostgresSink
from poller.sinks.postgres_tables import quoted


@dataclass
class Database:
    """A schema in a database; ``admin`` is a superuser's connection past the sink."""

    url: str
    schema: str
    admin: Any

    def sink(self, **options: Any) -> PostgresSink:
        return make_sink(**{"url": self.url, "schema": self.schema, **options})

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Run a query with ``SCHEMA`` in it as the schema's name."""
        found: list[Any] = await self.admin.fetch(query.replace("SCHEMA", quoted(self.schema)), *arguments)
        return found

    async def execute(self, query: str) -> None:
        await self.admin.execute(query.replace("SCHEMA", quoted(self.schema)))

    async def ids(self) -> list[str]:
        """Return the ids of what is there, in the order of arrival: snapshots, then statuses."""
        rows = await self.fetch(
            "SELECT id::text FROM (SELECT 0, number, id FROM SCHEMA.snapshots"
            " UNION ALL SELECT 1, number, id FROM SCHEMA.statuses) AS r (kind, number, id) ORDER BY kind, number"
        )
        return [row["id"] for row in rows]

    async def sessions(self, application: str) -> list[int]:
        """Return the server's processes that serve the connections of a name."""
        rows = await self.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY pid", application
        )
        return [row["pid"] for row in rows]


def make_sink(**options: Any) -> PostgresSink:
    return PostgresSink(PostgresOptions.model_validate({**options, "url": Secret(options["url"])}))


@asynccontextmanager
async def database(url: str, schema: str) -> AsyncIterator[Database]:
    """Give a name for a schema, and remove what was made under it."""
    admin = await asyncpg.connect(url)
    try:
        yield Database(url, schema, admin)
    finally:
        await admin.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")
        await admin.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something at the server: it tells nobody."""
    while not await condition():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
