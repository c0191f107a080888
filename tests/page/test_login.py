"""The way in with a token, in a real browser: the form, the cookie, and a daemon that has forgotten it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from poller.server.security import COOKIE
from tests.page.browser import names, opened, until
from tests.page.conftest import Serve
from tests.page.made_up import MadeUpFleet, summary
from tests.page.served import TOKEN

pytestmark = pytest.mark.real_time

ACCOUNTS = ["acc-0", "acc-1", "acc-2"]


def fleet() -> MadeUpFleet:
    return MadeUpFleet([summary(name) for name in ACCOUNTS])


def log_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


def test_who_has_the_token_comes_in_and_stays_in(browser: Browser, serve: Serve) -> None:
    server = serve(fleet(), token=TOKEN)
    with opened(browser, server.url) as (page, watched):
        page.goto(f"{server.url}/account/acc-1")
        assert page.url == f"{server.url}/login"
        assert "acc" not in page.content()
        watched.expected = ["401"]
        log_in(page, "x" * len(TOKEN))
        expect(page.get_by_text("This is not the token.")).to_be_visible()
        log_in(page, TOKEN)
        page.wait_for_url(f"{server.url}/")
        until(page, lambda: names(page) == ACCOUNTS)
        expect(page.locator("#link")).to_have_text("live")
        [cookie] = page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
        assert TOKEN not in str(cookie)
        assert page.evaluate("document.cookie") == ""
        assert TOKEN not in page.content()
        page.reload()
        until(page, lambda: names(page) == ACCOUNTS)
        another = page.context.new_page()
        another.goto(f"{server.url}/account/acc-1")
        expect(another.get_by_role("heading", level=1)).to_have_text("acc-1")


def test_a_daemon_that_has_forgotten_the_session_asks_for_the_token_again(
    browser: Browser, serve: Serve
) -> None:
    server = serve(fleet(), token=TOKEN)
    with opened(browser, server.url) as (page, watched):
        watched.expected = ["401", "net::ERR_", "Failed to load resource"]
        page.goto(server.url)
        log_in(page, TOKEN)
        until(page, lambda: names(page) == ACCOUNTS)
        server.stop()
        expect(page.locator("#link")).to_have_text("cut off")
        server.start()
        page.wait_for_url(re.compile("/login$"))
        log_in(page, TOKEN)
        until(page, lambda: names(page) == ACCOUNTS)


def test_without_a_token_the_login_leads_to_the_page(browser: Browser, serve: Serve) -> None:
    server = serve(fleet())
    with opened(browser, server.url) as (page, _):
        page.goto(f"{server.url}/login")
        assert page.url == f"{server.url}/"
        until(page, lambda: names(page) == ACCOUNTS)


def test_what_is_not_there_is_an_error_and_no_page(browser: Browser, serve: Serve) -> None:
    server = serve(fleet())
    with opened(browser, server.url) as (page, watched):
        watched.expected = ["404"]
        for path in ("/nothing", "/account/", "/account/a/b", "/static/../serving.py", "/static/nothing.js"):
            response = page.goto(server.url + path)
            assert response is not None
            assert response.status == 404
            assert response.headers["content-security-policy"].startswith("default-src 'none'")
