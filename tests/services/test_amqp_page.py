"""What docs/sinks/amqp.md shows: a queue, a configuration, a consumer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.pages import blocks, replaced, running_page
from tests.services.rabbitmq import Place
from tests.services.servers import RABBITMQ

pytestmark = pytest.mark.real_time


def test_the_page_is_what_happens(tmp_path: Path) -> None:
    place = Place(RABBITMQ.require())
    environment = {"AMQP_URL": place.url}
    exchange = {"exchange: poller": f"exchange: {place.name}"}
    queue = {'"audit"': f'"{place.name}"'}
    declare, _ = blocks("amqp", "python")
    try:
        subprocess.run(
            [sys.executable, "-c", replaced(declare, {**queue, '"poller"': f'"{place.name}"'})],
            env={**os.environ, **environment},
            check=True,
        )
        with running_page("amqp", tmp_path, environment, replace=exchange) as page:
            page.replace = queue
            printed = page.consume(1)
            lines = [line.split() for line in printed.splitlines()]
            assert len({identity for identity, _, _ in lines}) == len(lines) == 5
            assert {account for _, account, _ in lines} <= set(page.exchange.accounts)
            assert "does not take" not in page.log
    finally:
        place.remove()
