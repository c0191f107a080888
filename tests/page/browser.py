"""Chromium for the page's tests: where it is, and a page that forgives nothing."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Error, Page, Request, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_S = 20.0


def chromium() -> str | None:
    """Where a Chromium is: as ``POLLER_TEST_CHROMIUM`` says, or on the path; ``None`` if there is none."""
    named = os.environ.get("POLLER_TEST_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """Chromium; without one the test is skipped."""
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


@dataclass
class Watched:
    """What a page complained about.

    Attributes:
        url: where the page is from; a request for anything else is foreign.
        expected: pieces of complaints that a test brings about on purpose.
    """

    url: str
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def error(self, error: Error) -> None:
        self.complaints.append(str(error))

    def dialog(self, dialog: Dialog) -> None:
        self.complaints.append("a dialog opened")
        dialog.dismiss()

    def request(self, request: Request) -> None:
        if not request.url.startswith(self.url):
            self.foreign.append(request.url)

    def unexpected(self) -> list[str]:
        return [text for text in self.complaints if not any(piece in text for piece in self.expected)]


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[tuple[Page, Watched]]:
    """A page of its own whose errors, refused scripts and foreign requests are noted, and then fail the test."""
    context = browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | options))
    context.set_default_timeout(PATIENCE_S * 1000)
    watched = Watched(url)
    # A violation of the policy is an event of its own, whether or not the console says so, too.
    context.add_init_script(
        "document.addEventListener('securitypolicyviolation', (event) =>"
        " console.error('policy violated: ' + event.violatedDirective + ' ' + event.blockedURI))"
    )
    page = context.new_page()
    page.on("console", watched.console)
    page.on("pageerror", watched.error)
    page.on("dialog", watched.dialog)
    page.on("request", watched.request)
    try:
        yield page, watched
    finally:
        context.close()
    assert watched.unexpected() == []
    assert watched.foreign == []


def until(page: Page, holds: Callable[[], object]) -> None:
    """Wait until something holds, letting the page go on meanwhile; the page's own policy forbids its eval."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come to hold"
        page.wait_for_timeout(30)


def names(page: Page) -> list[str]:
    """The accounts whose rows are on the screen or just beyond it, from top to bottom."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('.grid-rows .row:not([hidden])')]
            .sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map((row) => row.querySelector('.name').textContent)"""
    )
    return found
