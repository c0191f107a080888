"""The page of the redis sink, run as a reader would."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from redis import Redis

from tests.services.pages import running_page
from tests.services.servers import REDIS

pytestmark = pytest.mark.real_time


def test_the_configuration_and_the_consumer_that_the_page_shows(tmp_path: Path) -> None:
    url = REDIS.require()
    stream = f"poller-test:page:{os.getpid()}"
    with Redis.from_url(url, decode_responses=True) as server:
        try:
            with running_page("redis", tmp_path, {"REDIS_URL": url}, replace={"balances": stream}) as page:
                page.exchange.wait_until_all_polled()
                printed = [line.split() for line in page.consume().splitlines()]
                again = [line.split() for line in page.consume().splitlines()]
            accounts = {account for _, account, _ in printed}
            assert len(accounts) == 5
            found = [id for id, _, _ in [*printed, *again]]  # noqa: A001
            assert len(set(found)) == len(found)
            delivered = [fields["id"] for _, fields in server.xrange(stream)]
            assert found == delivered[: len(found)]
            for account in accounts:
                sequences = [int(number) for _, name, number in [*printed, *again] if name == account]
                assert sequences == list(range(1, len(sequences) + 1))
        finally:
            keys = list(server.scan_iter(f"*{stream}*"))
            if keys:
                server.delete(*keys)
