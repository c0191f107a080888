"""The postgres sink against a real server: the contract, what stands in the tables, lost connections and answers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from poller.sinks.postgres import PostgresSink
from poller.testing.sink_contract import SinkContract
from tests.services.postgres_servers import Database, database
from tests.services.servers import POSTGRES

pytestmark = pytest.mark.real_time


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Database]:
    async with database(POSTGRES.require(), f'poller "test" {os.getpid()} {tmp_path.name[-30:]}') as there:
        yield there


class TestPostgresSink(SinkContract):
    @pytest.fixture(autouse=True)
    def _on_the_server(self, there: Database) -> None:
        self.there = there

    def make_sink(self, tmp_path: Path) -> PostgresSink:
        return self.there.sink()

    async def written(self, tmp_path: Path) -> list[str]:
        return await self.there.ids()
