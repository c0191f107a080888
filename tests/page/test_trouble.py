"""What is wrong is seen at once: pauses, refused configurations, lost connections, the login, discovery."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, Page, expect

from poller.overview import Check, ConfigurationSeen, Discovery, OutboxSeen
from tests.page.browser import names, opened, until
from tests.page.conftest import Serve
from tests.page.made_up import MadeUpFleet, egress, summary

pytestmark = pytest.mark.real_time

CUT_OFF = ["net::ERR_", "Failed to load resource"]


def fleet_of(size: int = 3) -> MadeUpFleet:
    return MadeUpFleet([summary(f"acc-{index}") for index in range(size)])


def seconds_left(page: Page) -> int:
    minutes, seconds = page.locator(".banner .count").inner_text().split(":")
    return int(minutes) * 60 + int(seconds)


def test_a_pause_has_a_banner_with_its_cause_and_counts_down(browser: Browser, serve: Serve) -> None:
    fleet = fleet_of()
    fleet.egress_now = (egress("default"), egress("nat-b", accounts=1667))
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        until(page, lambda: names(page))
        expect(page.locator(".banner")).to_have_count(0)
        fleet.pause("nat-b", seconds=95, cause="banned")
        banner = page.get_by_role("alert")
        expect(banner).to_contain_text("nat-b is paused. The exchange has banned this address (418).")
        expect(banner).to_contain_text("1\u202f667 accounts wait")
        first = seconds_left(page)
        assert 85 <= first <= 95
        until(page, lambda: seconds_left(page) < first)
        card = page.locator(".egress-card").nth(1)
        expect(card.locator(".pause")).to_contain_text(re.compile(r"Pause 1:\d\d: the exchange has banned"))
        assert card.locator(".pause-bands rect").count() == 1
        fleet.egress_now = (egress("default"), egress("nat-b", accounts=1667))
        expect(page.locator(".banner")).to_have_count(0)
        expect(card.locator(".pause-bands rect")).to_have_count(0)


def test_what_is_not_ready_is_said_in_words(browser: Browser, serve: Serve) -> None:
    fleet = fleet_of()
    fleet.status_fields = {
        "ready": (Check("outbox", ok=False, text="the outbox is full"), Check("sinks", ok=True, text="open")),
        "outbox": OutboxSeen(10, 900, 1000, 1.0, is_full=True),
    }
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        expect(page.locator("#verdict")).to_have_text("Not readythe outbox is full")
        expect(page.locator("#figures")).to_contain_text("full")
        assert page.title() == "Not ready · poller"


def test_a_page_that_goes_into_the_background_keeps_its_title_true(browser: Browser, serve: Serve) -> None:
    fleet = fleet_of()
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        until(page, lambda: page.title() == "poller")
        # What a browser does: the frame that was asked for does not come, and the page is told that it is hidden.
        page.evaluate("() => { window.requestAnimationFrame = () => 0; }")
        fleet.change("acc-1", state="stale", reason="no good answer for 30 s")
        page.wait_for_timeout(2_500)
        page.evaluate(
            """() => {
                Object.defineProperty(document, "hidden", { get: () => true });
                document.dispatchEvent(new Event("visibilitychange"));
            }"""
        )
        until(page, lambda: page.title() == "1 not ok · poller")
        fleet.change("acc-2", state="stale", reason="no good answer for 30 s")
        until(page, lambda: page.title() == "2 not ok · poller")


def test_a_refused_configuration_is_shown_with_every_problem(browser: Browser, serve: Serve) -> None:
    fleet = fleet_of()
    problems = ("accounts.yaml:3: accounts.a.intervall: did you mean interval?", "accounts.yaml:9: no sink")
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        until(page, lambda: names(page))
        configuration = fleet.status().configuration
        fleet.status_fields = {
            "configuration": replace(
                configuration, problems=problems, refused_at="2026-11-25T03:04:05.000000Z"
            )
        }
        banner = page.locator(".banner.is-warn")
        expect(banner).to_contain_text("accounts.yaml was read at 2026-11-25 03:04:05 UTC")
        assert banner.locator("li").all_inner_texts() == list(problems)
        fleet.status_fields = {
            "configuration": ConfigurationSeen("accounts.yaml", configuration.loaded_at, (), (), None)
        }
        expect(banner).to_have_count(0)


def test_what_discovery_found_is_mentioned(browser: Browser, serve: Serve) -> None:
    fleet = fleet_of()
    fleet.status_fields = {
        "discoveries": (
            Discovery("main", None, "", 12, ("new-1", "new-2"), ("cold",), ("gone-1",)),
            Discovery("quiet", None, "", 3, (), (), ()),
        )
    }
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        note = page.locator(".banner.is-note")
        expect(note).to_have_count(1)
        expect(note).to_contain_text("2 sub-accounts without an account here: new-1, new-2")
        expect(note).to_contain_text("1 frozen by the exchange: cold")
        expect(note).to_contain_text("1 configured but gone: gone-1")


def test_a_lost_connection_is_said_and_everything_is_taken_up_again(browser: Browser, serve: Serve) -> None:
    fleet = fleet_of()
    fleet.happen("acc-0", ("BTC", "free", "1", "2"))
    server = serve(fleet)
    with opened(browser, server.url) as (page, watched):
        watched.expected = CUT_OFF
        page.goto(server.url)
        until(page, lambda: names(page) == ["acc-0", "acc-1", "acc-2"])
        expect(page.locator("#link")).to_have_text("live")
        server.stop()
        expect(page.get_by_role("alert")).to_contain_text(re.compile(r"Live data stopped \d+ s ago"))
        expect(page.locator("#link")).to_have_text("cut off")
        assert page.evaluate("document.body.classList.contains('is-cut')")
        frozen = page.locator(".grid-rows .age-text").first.inner_text()
        fleet.change("acc-1", state="stale", reason="no good answer")
        fleet.remove("acc-0")
        fleet.happen("acc-1", state="stale", text="no good answer")
        until(page, lambda: page.get_by_role("alert").inner_text().find("stopped 2 s ago") > 0)
        # What happened since is not known, so no age grows.
        assert page.locator(".grid-rows .age-text").first.inner_text() == frozen
        server.start()
        until(page, lambda: names(page) == ["acc-1", "acc-2"])
        expect(page.locator(".banner")).to_have_count(0)
        expect(page.locator("#feed li")).to_have_count(2)
        assert not page.evaluate("document.body.classList.contains('is-cut')")


def test_a_new_version_of_the_daemon_asks_to_load_the_page_anew(browser: Browser, serve: Serve) -> None:
    fleet = fleet_of()
    server = serve(fleet)
    with opened(browser, server.url) as (page, watched):
        watched.expected = CUT_OFF
        page.goto(server.url)
        until(page, lambda: names(page))
        server.stop()
        expect(page.locator("#link")).to_have_text("cut off")
        fleet.status_fields = {"version": "0.2.0"}
        server.start()
        expect(page.locator(".banner")).to_contain_text("The daemon is now version 0.2.0.")
        page.get_by_role("button", name="Load the new page").click()
        until(page, lambda: page.locator("#link").inner_text() == "live" and names(page))
        expect(page.locator(".banner")).to_have_count(0)


def test_the_feed_stands_still_while_it_is_read_and_keeps_two_hundred_lines(
    browser: Browser, serve: Serve
) -> None:
    fleet = fleet_of()
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        until(page, lambda: names(page))
        for index in range(450):
            fleet.happen("acc-1", ("BTC", "free", str(index), str(index + 1)))
        lines = page.locator("#feed li")
        expect(lines).to_have_count(200)
        expect(lines.first).to_contain_text("acc-1 BTC free 449 → 450")
        button = page.get_by_role("button", name="Pause")
        button.click()
        fleet.happen("acc-2", ("ETH", "free", "1", "2"))
        expect(page.locator("#feed-pause")).to_have_text("Go on, 1 new")
        expect(lines.first).to_contain_text("acc-1 BTC free 449 → 450")
        page.locator("#feed-pause").click()
        expect(lines.first).to_contain_text("acc-2 ETH free 1 → 2")
        lines.first.hover()
        fleet.happen("acc-0", ("ETH", "free", "3", "4"))
        expect(page.locator("#feed-pause")).to_have_text("Held, 1 new")
        page.mouse.move(700, 5)
        expect(lines.first).to_contain_text("acc-0 ETH free 3 → 4")
        expect(lines).to_have_count(200)
