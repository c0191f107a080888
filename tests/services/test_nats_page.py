"""What ``docs/sinks/nats.md`` shows, with a daemon and the consumer of the page."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.services.nats_servers import ids_in, nats_server
from tests.services.pages import running_page

pytestmark = pytest.mark.real_time

TOKEN = "the-token-of-this-page"


def test_the_consumer_prints_what_the_daemon_delivered(tmp_path: Path) -> None:
    with nats_server(tmp_path / "server", authorization={"token": TOKEN}) as server:
        replace = {"nats://127.0.0.1:4222": server.url}
        with running_page("nats", tmp_path, {"NATS_TOKEN": TOKEN}, replace=replace) as page:
            page.exchange.wait_until_all_polled()
            printed = [line.split() for line in page.consume().splitlines()]
        assert {account for _, account, _ in printed} == set(page.exchange.accounts)
        ids = asyncio.run(ids_in(server.url, "balances", token=TOKEN))
        assert [found for found, _, _ in printed] == ids[: len(printed)]
        for account in page.exchange.accounts:
            sequences = [int(number) for _, name, number in printed if name == account]
            assert sequences == sorted(sequences)
        assert TOKEN not in page.log
