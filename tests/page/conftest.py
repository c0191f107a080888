"""One Chromium for a module's tests, and a server of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest
from playwright.sync_api import Browser

from tests.page.browser import launched
from tests.page.made_up import MadeUpFleet
from tests.page.served import ServedFleet


class Serve(Protocol):
    def __call__(self, fleet: MadeUpFleet, *, token: str | None = None) -> ServedFleet: ...


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as started:
        yield started


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a made-up fleet until the test ends."""
    started: list[ServedFleet] = []

    def start(fleet: MadeUpFleet, *, token: str | None = None) -> ServedFleet:
        server = ServedFleet(fleet, token=token)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()
