"""An account's page in a real browser: facts, balances, history, polls, and that it lives."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect

from poller.overview import BalanceSeen, PollSeen
from tests.page.browser import names, opened, until
from tests.page.conftest import Serve
from tests.page.made_up import MadeUpFleet, detail, summary, text_of

pytestmark = pytest.mark.real_time

EXACT = "123456789012345678901234.000000000000000001"


def fleet_with_history() -> MadeUpFleet:
    one = summary("treasury", total_btc="1.5", labels={"desk": "mm"}, sequence=7, interval_s=10.0)
    fleet = MadeUpFleet([one, summary("other")])
    fleet.details["treasury"] = replace(
        detail(one),
        balances=(
            BalanceSeen("BTC", "1.2", "0.05", "0", "0", "0", "1.25", "1.25"),
            BalanceSeen("SHIB", EXACT, "0", "0", "0", "0", EXACT, None),
            BalanceSeen("USDT", "7300.125", "0", "0", "0", "0", "7300.125", "0.07"),
        ),
        polls=(
            PollSeen("2026-11-25T03:04:05.000000Z", "ok", "", 0.003, 84.2, 7),
            PollSeen("2026-11-25T03:03:55.000000Z", "no_response", "no answer within 10 s", 0.2, None, 6),
        ),
    )
    now = datetime.now(UTC)
    fleet.history = {
        "treasury": [
            {"at": text_of(now - timedelta(days=20)), "total_btc": "0.9", "sequence": 4, "BTC": "0.7"},
            {"at": text_of(now - timedelta(days=3)), "total_btc": "1.1", "sequence": 5, "BTC": "0.8"},
            {"at": text_of(now - timedelta(hours=5)), "total_btc": "1.3", "sequence": 6, "BTC": "1.0"},
            {
                "at": text_of(now - timedelta(hours=1)),
                "total_btc": "1.50000001",
                "sequence": 7,
                "BTC": "1.25",
            },
        ]
    }
    return fleet


def test_an_accounts_page_says_how_it_stands_and_what_it_holds(browser: Browser, serve: Serve) -> None:
    server = serve(fleet_with_history())
    with opened(browser, server.url) as (page, _):
        page.goto(f"{server.url}/account/treasury")
        expect(page.get_by_role("heading", level=1)).to_have_text("treasury")
        expect(page.locator(".why li").first).to_have_text("It was last polled 5 s ago and answered well.")
        facts = page.locator(".facts")
        for fact in ("Interval10 s", "Labelsdesk=mm", "Sequence7", "Last errornone"):
            expect(facts).to_contain_text(fact)
        rows = page.locator(".balances tbody tr")
        expect(rows).to_have_count(3)
        assert [text.split()[0] for text in rows.all_inner_texts()] == ["BTC", "USDT", "SHIB"]
        expect(page.locator(f"[title='{EXACT}']").first).to_be_visible()
        page.get_by_role("columnheader", name="Total").get_by_role("button").press("Enter")
        until(page, lambda: [text.split()[0] for text in rows.all_inner_texts()] == ["SHIB", "USDT", "BTC"])
        expect(page.get_by_role("columnheader", name="Total")).to_have_attribute("aria-sort", "descending")
        polls = page.locator(".is-polls tbody tr")
        expect(polls.first).to_contain_text("03:04:05ok3 ms84 ms7")
        expect(polls.nth(1)).to_contain_text("no responseno answer within 10 s")


def test_the_history_shows_value_or_an_asset_over_a_range(browser: Browser, serve: Serve) -> None:
    server = serve(fleet_with_history())
    with opened(browser, server.url) as (page, _):
        page.goto(f"{server.url}/account/treasury")
        figure, reading = page.locator(".history-figure"), page.locator(".reading")
        expect(reading).to_contain_text("3 points")
        figure.focus()
        page.keyboard.press("ArrowLeft")
        expect(reading).to_contain_text("UTC: 1.50000001 BTC, sequence 7")
        page.keyboard.press("ArrowLeft")
        expect(reading).to_contain_text("UTC: 1.3 BTC, sequence 6")
        box = figure.bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 60)
        expect(reading).to_contain_text("UTC: 1.1 BTC, sequence 5")
        page.get_by_role("button", name="30 d").click()
        expect(reading).to_contain_text("4 points")
        page.get_by_role("button", name="BTC", exact=True).click()
        expect(page.get_by_role("heading", name="Amount of BTC")).to_be_visible()
        assert page.url == f"{server.url}/account/treasury?asset=BTC&days=30"
        figure.focus()
        page.keyboard.press("Home")
        expect(reading).to_contain_text("UTC: 0.7 BTC, sequence 4")
        page.reload()
        expect(page.get_by_role("heading", name="Amount of BTC")).to_be_visible()
        expect(page.get_by_role("button", name="BTC", exact=True)).to_have_attribute("aria-pressed", "true")
        expect(reading).to_contain_text("4 points")
        page.get_by_role("button", name="Value in BTC").click()
        expect(page.get_by_role("heading", name="Value in BTC")).to_be_visible()


def test_without_a_history_the_page_says_so(browser: Browser, serve: Serve) -> None:
    fleet = fleet_with_history()
    fleet.history = None
    server = serve(fleet)
    with opened(browser, server.url) as (page, watched):
        watched.expected = ["404"]
        page.goto(f"{server.url}/account/treasury")
        expect(page.get_by_text("no history is kept; a sink of kind sqlite keeps one")).to_be_visible()


def test_the_page_lives(browser: Browser, serve: Serve) -> None:
    fleet = fleet_with_history()
    server = serve(fleet)
    with opened(browser, server.url) as (page, watched):
        page.goto(f"{server.url}/account/treasury")
        expect(page.locator(".facts")).to_contain_text("Sequence7")
        known = fleet.details["treasury"]
        fleet.details["treasury"] = replace(known, balances=known.balances[:1], why=("It is refused.",))
        fleet.change("treasury", sequence=8, state="quarantined", reason="the key was refused three times")
        expect(page.locator(".facts")).to_contain_text("Sequence8")
        expect(page.locator(".account-state")).to_contain_text("quarantined")
        expect(page.locator(".balances tbody tr")).to_have_count(1)
        expect(page.locator(".why")).to_have_text("It is refused.")
        watched.expected = ["404"]
        page.goto(f"{server.url}/account/nobody")
        expect(page.get_by_text("there is no account of that name")).to_be_visible()


def test_why_it_stands_so_is_told_anew_without_a_poll(browser: Browser, serve: Serve) -> None:
    fleet = fleet_with_history()
    server = serve(fleet)
    with opened(browser, server.url) as (page, watched):
        page.goto(f"{server.url}/account/treasury")
        expect(page.locator(".why")).to_contain_text("It was last polled 5 s ago")
        why = ("Every request from egress default pauses for 50 s more.",)
        fleet.details["treasury"] = replace(fleet.details["treasury"], why=why)
        expect(page.locator(".why")).to_have_text(why[0])
        watched.expected = ["404"]
        fleet.remove("treasury")
        expect(page.get_by_text("there is no account of that name")).to_be_visible()
        expect(page.locator(".why")).to_be_hidden()


def test_to_an_account_and_back_to_the_same_place(browser: Browser, serve: Serve) -> None:
    fleet = MadeUpFleet([summary(f"acc-{index:04}") for index in range(900)])
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(f"{server.url}/?q=acc")
        until(page, lambda: len(names(page)) > 10)
        page.evaluate("() => scrollTo(0, 12000)")
        until(page, lambda: names(page)[0] > "acc-0300")
        there = page.evaluate("scrollY")
        row = page.get_by_role("link", name=names(page)[20])
        name = row.inner_text()
        row.click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        assert page.url == f"{server.url}/account/{quote(name)}"
        page.go_back()
        until(page, lambda: names(page) and page.evaluate("scrollY") == there)
        assert page.url == f"{server.url}/?q=acc"
        page.get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        page.get_by_role("link", name="Fleet").click()
        until(page, lambda: names(page) and page.evaluate("scrollY") == there)
        assert page.url == f"{server.url}/?q=acc"
