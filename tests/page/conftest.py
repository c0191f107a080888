"""One Chromium for a module's tests, and a server of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.page.browser import PATIENCE_S, chromium
from tests.page.made_up import MadeUpFleet
from tests.page.served import ServedFleet


class Serve(Protocol):
    def __call__(self, fleet: MadeUpFleet, *, token: str | None = None) -> ServedFleet: ...


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip("no Chromium on this machine; name one in POLLER_TEST_CHROMIUM")
    expect.set_options(timeout=PATIENCE_S * 1000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--font-render-hinting=none"]
        )
        yield started
        started.close()


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
