"""The fleet table in a real browser: order, search, filters, the address, live changes, many accounts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.page.browser import names, opened, until
from tests.page.conftest import Serve
from tests.page.made_up import MadeUpFleet, sink, summary

pytestmark = pytest.mark.real_time


def small() -> MadeUpFleet:
    return MadeUpFleet(
        [
            summary("alpha-2", total_btc="2.00000001", labels={"desk": "mm"}),
            summary("alpha-10", total_btc="2.00000002", labels={"desk": "otc"}, egress="nat-b"),
            summary(
                "beta",
                total_btc=None,
                error="the exchange answered 502",
                error_kind="unavailable",
                failures=1,
            ),
            summary(
                "gamma", total_btc="100", state="stale", reason="no good answer for 3 intervals", age_s=200.0
            ),
            summary("delta", total_btc="9", state="quarantined", reason="refused", labels={"desk": "mm"}),
            summary("omega", total_btc=None, state="keyless", age_s=None, lateness_s=None),
        ]
    )


TROUBLE_FIRST = ["gamma", "delta", "omega", "beta", "alpha-2", "alpha-10"]


def test_trouble_comes_first_and_then_names_with_their_numbers_in_order(
    browser: Browser, serve: Serve
) -> None:
    server = serve(small())
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        until(page, lambda: names(page) == TROUBLE_FIRST)
        row = page.locator(".grid-rows .row").filter(has_text="gamma")
        assert row.locator(".is-state").inner_text() == "stale"
        assert row.locator(".is-error").inner_text() == "no good answer for 3 intervals"
        assert row.locator(".is-age").get_attribute("data-fresh") == "old"
        assert page.locator("#verdict").inner_text() == "Ready"
        assert page.title() == "3 not ok · poller"


def test_search_and_filters_narrow_the_rows_and_the_address_says_how(browser: Browser, serve: Serve) -> None:
    server = serve(small())
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        until(page, lambda: len(names(page)) == 6)
        page.keyboard.press("/")
        page.keyboard.type("ALPHA")
        until(page, lambda: names(page) == ["alpha-2", "alpha-10"])
        assert page.url == f"{server.url}/?q=ALPHA"
        expect(page.locator(".found")).to_have_text("2 of 6")
        page.get_by_label("Label", exact=True).select_option("desk=mm")
        until(page, lambda: names(page) == ["alpha-2"])
        assert page.url == f"{server.url}/?q=ALPHA&label=desk%3Dmm"
        page.get_by_role("button", name="Clear").click()
        until(page, lambda: names(page) == TROUBLE_FIRST)
        page.get_by_label("Egress", exact=True).select_option("nat-b")
        until(page, lambda: names(page) == ["alpha-10"])
        page.get_by_role("button", name="Clear").click()
        page.locator("#search").fill("answered 502")
        until(page, lambda: names(page) == ["beta"])
        page.locator("#search").fill("no such thing")
        expect(page.get_by_text("No account matches")).to_be_visible()
        page.keyboard.press("Escape")
        until(page, lambda: names(page) == TROUBLE_FIRST)
        assert page.url == f"{server.url}/"


def test_a_link_shows_what_its_sender_saw(browser: Browser, serve: Serve) -> None:
    server = serve(small())
    with opened(browser, server.url) as (page, _):
        page.goto(f"{server.url}/?q=a&label=desk%3Dmm&sort=value&turned=1")
        until(page, lambda: names(page) == ["alpha-2", "delta"])
        assert page.locator("#search").input_value() == "a"
        assert page.get_by_label("Label", exact=True).input_value() == "desk=mm"
        expect(page.get_by_role("columnheader", name="Value, BTC")).to_have_attribute(
            "aria-sort", "ascending"
        )


def test_the_link_that_the_docs_show_means_what_they_say(browser: Browser, serve: Serve) -> None:
    [link] = re.findall(
        r"For example `(/[^`]+)`", (Path(__file__).parents[2] / "docs" / "page.md").read_text()
    )
    fleet = small()
    fleet.put(
        summary("newly", state="stale", age_s=200.0, labels={"desk": "mm"}),
        summary("longer", state="stale", age_s=300.0, labels={"desk": "mm"}),
    )
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(server.url + link)
        until(page, lambda: names(page) == ["longer", "newly"])


def test_a_state_in_the_header_filters_and_lets_go(browser: Browser, serve: Serve) -> None:
    server = serve(small())
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        button = page.get_by_role("button", name="1 quarantined")
        button.click()
        until(page, lambda: names(page) == ["delta"])
        expect(button).to_have_attribute("aria-pressed", "true")
        assert page.url.endswith("?state=quarantined")
        button.click()
        until(page, lambda: names(page) == TROUBLE_FIRST)


def test_headers_sort_both_ways_exactly_and_then_give_the_order_back(browser: Browser, serve: Serve) -> None:
    server = serve(small())
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        head = page.get_by_role("columnheader", name="Value, BTC")
        head.get_by_role("button").press("Enter")
        # Equal to a float's eye, not to ours; what is not known goes last either way.
        until(page, lambda: names(page) == ["gamma", "delta", "alpha-10", "alpha-2", "beta", "omega"])
        expect(head).to_have_attribute("aria-sort", "descending")
        head.get_by_role("button").press("Enter")
        until(page, lambda: names(page) == ["alpha-2", "alpha-10", "delta", "gamma", "beta", "omega"])
        assert page.url.endswith("?sort=value&turned=1")
        head.get_by_role("button").press("Enter")
        until(page, lambda: names(page) == TROUBLE_FIRST)
        assert page.url == f"{server.url}/"


def test_amounts_keep_every_digit(browser: Browser, serve: Serve) -> None:
    exact = "1234567890123456789012.1234567890123456789"
    server = serve(MadeUpFleet([summary("whale", total_btc=exact)]))
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        cell = page.locator(".grid-rows .row:not([hidden]) .is-value")
        expect(cell).to_have_attribute("title", exact)
        assert "".join(cell.inner_text().split()).replace("\u202f", "") == exact


def test_changes_arrive_by_themselves(browser: Browser, serve: Serve) -> None:
    fleet = small()
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        until(page, lambda: names(page) == TROUBLE_FIRST)
        fleet.change("alpha-2", total_btc="77.5", state="stale", reason="no good answer")
        fleet.put(summary("newcomer"))
        fleet.remove("beta")
        fleet.sinks_now = (sink("bus", "nats", backlog=12_345, lag_s=90.0, failing_s=80.0, error="refused"),)
        fleet.happen("alpha-2", ("BTC", "free", "1.2", "1.5"))
        fleet.happen("alpha-2", state="stale", text="no good answer")
        until(page, lambda: names(page) == ["alpha-2", "gamma", "delta", "omega", "alpha-10", "newcomer"])
        expect(page.locator(".grid-rows .row").first.locator("..").locator("[title='77.5']")).to_be_visible()
        expect(page.locator("#sinks tbody tr")).to_have_count(1)
        expect(page.locator("#sinks tbody")).to_contain_text("failing for 1 min 20 s; refused")
        assert "12\u202f345" in page.locator("#sinks tbody").inner_text()
        expect(page.locator("#feed li").first).to_contain_text("alpha-2 is stale: no good answer")
        expect(page.locator("#feed li").nth(1)).to_contain_text("alpha-2 BTC free 1.2 → 1.5")
        expect(page.get_by_role("button", name="2 stale")).to_be_visible()


def many(size: int = 5000) -> MadeUpFleet:
    return MadeUpFleet([summary(f"acc-{index:04}", total_btc=str(index)) for index in range(size)])


def test_five_thousand_accounts_need_few_elements_and_scrolling_shows_the_right_ones(
    browser: Browser, serve: Serve
) -> None:
    fleet = many()
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        expect(page.get_by_role("grid", name="Accounts")).to_have_attribute("aria-rowcount", "5001")
        until(page, lambda: names(page)[:2] == ["acc-0000", "acc-0001"])
        for share in (0.37, 0.72, 1.0, 0.11):
            page.evaluate("(share) => scrollTo(0, share * document.body.scrollHeight)", share)
            until(page, lambda: on_screen(page)["shown"] == on_screen(page)["due"])
            assert page.locator(".grid-rows .row").count() < 90
        page.evaluate("() => scrollTo(0, 2500 * 34)")
        before = page.evaluate("scrollY")
        # A tenth of the fleet changes at once: the place stays, what is seen is new.
        shown = on_screen(page)["shown"]
        middle = shown[len(shown) // 2]
        fleet.put(*(replace(one, total_btc="0.125") for one in fleet.accounts()[2300:2800]))
        until(
            page,
            lambda: page.locator(f"[title='{middle}']").locator("../..").locator("[title='0.125']").count(),
        )
        assert page.evaluate("scrollY") == before
        assert on_screen(page)["shown"] == on_screen(page)["due"] == shown
        page.locator("#search").fill("acc-4999")
        until(page, lambda: names(page) == ["acc-4999"])


def on_screen(page: object) -> dict[str, list[str]]:
    """Names of the rows at each row's height on the screen, and the names that belong there."""
    found: dict[str, list[str]] = page.evaluate(  # type: ignore[attr-defined]  # a Page
        """() => {
          const top = document.querySelector('.grid-rows').getBoundingClientRect().top;
          const [shown, due] = [[], []];
          for (let y = document.querySelector('.grid-head').getBoundingClientRect().bottom + 17; y < innerHeight; y += 34) {
            const row = document.elementFromPoint(300, y)?.closest('.grid-rows .row');
            const index = Math.floor((y - top) / 34);
            if (index >= 5000) break;
            shown.push(row?.querySelector('.name').textContent ?? '');
            due.push('acc-' + String(index).padStart(4, '0'));
          }
          return { shown, due };
        }"""
    )
    return found
