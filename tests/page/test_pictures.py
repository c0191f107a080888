"""The pictures that the README shows: taken of the page as it is, when ``POLLER_TAKE_PICTURES=1`` asks for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.page.browser import names, opened, until
from tests.page.conftest import Serve
from tests.page.scenes import desk

pytestmark = pytest.mark.real_time

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
MOST_BYTES = 250_000
SCENES = [
    ("fleet-light", "/", 1360, 820, "light"),
    ("fleet-dark", "/", 1360, 820, "dark"),
    ("account", "/account/treasury-0003", 1360, 820, "light"),
    ("phone", "/", 390, 844, "light"),
]


@pytest.mark.parametrize(
    ("name", "path", "width", "height", "scheme"), SCENES, ids=[scene[0] for scene in SCENES]
)
def test_take_pictures(
    browser: Browser, serve: Serve, tmp_path: Path, name: str, path: str, width: int, height: int, scheme: str
) -> None:
    directory = PICTURES if os.environ.get("POLLER_TAKE_PICTURES") == "1" else tmp_path
    directory.mkdir(exist_ok=True)
    fleet = desk()
    if name == "fleet-dark":
        fleet.pause("nat-b", seconds=95)
    server = serve(fleet)
    with opened(browser, server.url, viewport={"width": width, "height": height}, color_scheme=scheme) as (
        page,
        _,
    ):
        page.goto(server.url + path)
        if path == "/":
            until(page, lambda: len(names(page)) > 5 and page.locator("#feed li").count() > 20)
            expect(page.locator(".found")).to_have_text("5\u202f000 accounts")
            expect(page.locator(".weights .area-own").last).to_be_attached()
        else:
            expect(page.locator(".history-line")).to_be_attached()
            page.locator(".history-figure").hover(position={"x": 620, "y": 90})
        page.screenshot(path=directory / f"{name}.png")
    assert 10_000 < (directory / f"{name}.png").stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", [scene[0] for scene in SCENES])
def test_the_pictures_are_there_and_small(name: str) -> None:
    assert 10_000 < (PICTURES / f"{name}.png").stat().st_size < MOST_BYTES
