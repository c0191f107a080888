"""The page for everybody: by keyboard, in light and dark, on a phone, with contrast, without motion."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.browser import names, opened, until
from tests.page.conftest import Serve
from tests.page.made_up import MadeUpFleet, egress, summary
from tests.page.scenes import desk

pytestmark = pytest.mark.real_time

# Text whose contrast with what lies below it is less than 4.5, of all that is visible.
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const mix = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('option, noscript')) continue;
    const layers = [];
    let opacity = 1;
    for (let node = element; node; node = node.parentElement) {
      layers.unshift(getComputedStyle(node).backgroundColor);
      opacity *= Number(getComputedStyle(node).opacity);
    }
    const style = getComputedStyle(element);
    const colour = element.ownerSVGElement ? style.fill : style.color;
    const [below, text] = [light(mix(layers)), light(mix([...layers, colour]))];
    const ratio = (Math.max(below, text) + 0.05) / (Math.min(below, text) + 0.05);
    if (ratio < 4.5 || opacity < 1) bad.push(`${walker.currentNode.data.trim()} (${element.className}): ${ratio.toFixed(2)}`);
  }
  return bad;
}"""


def active(page: Page) -> str:
    """The account that the keyboard is at."""
    found: str = page.evaluate(
        "() => document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))"
        "?.querySelector('.name').textContent ?? ''"
    )
    return found


def test_the_table_is_used_by_keyboard(browser: Browser, serve: Serve) -> None:
    server = serve(MadeUpFleet([summary(f"acc-{index:04}") for index in range(5000)]))
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        until(page, lambda: len(names(page)) > 10)
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"
        page.keyboard.press("Enter")
        until(page, lambda: active(page) == "acc-0000")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        assert active(page) == "acc-0002"
        page.keyboard.press("ArrowUp")
        assert active(page) == "acc-0001"
        page.keyboard.press("End")
        until(page, lambda: active(page) == "acc-4999")
        row = page.locator(".grid-rows .row.is-active")
        expect(row).to_be_in_viewport(ratio=0.9)
        expect(row).to_have_attribute("aria-rowindex", "5001")
        expect(row).to_have_attribute("aria-selected", "true")
        page.keyboard.press("Home")
        until(page, lambda: active(page) == "acc-0000")
        expect(row).to_be_in_viewport(ratio=0.9)
        page.keyboard.press("PageDown")
        assert active(page) > "acc-0005"
        there = active(page)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text(there)
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        page.keyboard.press("Escape")
        until(page, lambda: active(page) == there)


def test_everything_that_can_be_used_has_a_name_and_a_place(browser: Browser, serve: Serve) -> None:
    server = serve(desk(60))
    with opened(browser, server.url) as (page, _):
        for path in ("/", "/account/treasury-0003"):
            page.goto(server.url + path)
            until(page, lambda: page.locator("#states button").count() == 4)
            expect(
                page.locator(".facts div" if "account" in path else "#sinks tbody tr").first
            ).to_be_visible()
            nameless = page.evaluate(
                """() => [...document.querySelectorAll('button, a, input, select, [tabindex="0"], section, [role=group], [role=img]')]
                    .filter((each) => each.checkVisibility())
                    .filter((each) => !(each.getAttribute('aria-label') || each.getAttribute('aria-labelledby') || each.textContent.trim()))
                    .map((each) => each.outerHTML.slice(0, 90))"""
            )
            assert nameless == []
            lost = page.evaluate(
                """() => [...document.querySelectorAll('[aria-labelledby], [aria-activedescendant]')]
                    .flatMap((each) => [each.getAttribute('aria-labelledby'), each.getAttribute('aria-activedescendant')])
                    .filter((id) => id && !document.getElementById(id))"""
            )
            assert lost == []
            doubled = page.evaluate(
                "() => [...document.querySelectorAll('[id]')].map(({ id }) => id).filter((id, i, all) => all.indexOf(id) !== i)"
            )
            assert doubled == []
            assert page.get_by_role("heading", level=1).count() == 1
            assert page.get_by_role("main").count() == 1
            assert page.get_by_role("banner").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, serve: Serve, scheme: str) -> None:
    fleet = desk(60)
    fleet.pause("nat-b", seconds=300)
    configuration = fleet.status().configuration
    fleet.status_fields = {
        "configuration": type(configuration)("accounts.yaml", configuration.loaded_at, (), ("wrong",), None)
    }
    server = serve(fleet)
    with opened(browser, server.url, color_scheme=scheme) as (page, _):
        page.goto(f"{server.url}/?q=treasury")
        expect(page.get_by_role("alert")).to_be_visible()
        page.get_by_role("button", name="stale").click()
        page.get_by_role("button", name="stale").click()
        until(page, lambda: page.locator("#feed li").count() > 10)
        assert page.evaluate(CONTRAST) == []
        page.goto(f"{server.url}/account/treasury-0003?asset=BTC")
        expect(page.locator(".history-line")).to_be_attached()
        assert page.evaluate(CONTRAST) == []


def test_dark_is_a_choice_that_is_kept(browser: Browser, serve: Serve) -> None:
    server = serve(desk(20))
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, server.url, color_scheme="light") as (page, _):
        page.goto(server.url)
        light = page.evaluate(ground)
        button = page.locator("#theme")
        expect(button).to_have_text("Auto")
        button.click()
        expect(button).to_have_text("Light")
        assert page.evaluate(ground) == light
        button.click()
        expect(button).to_have_text("Dark")
        dark = page.evaluate(ground)
        assert dark != light
        page.reload()
        expect(button).to_have_text("Dark")
        assert page.evaluate(ground) == dark
        button.click()
        expect(button).to_have_text("Auto")
        assert page.evaluate(ground) == light
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(ground) == dark


@pytest.mark.parametrize("width", [360, 720, 1000, 1280, 1920])
def test_nothing_is_cut_off_at_any_width(browser: Browser, serve: Serve, width: int) -> None:
    fleet = desk(60)
    fleet.pause("nat-b", seconds=300)
    server = serve(fleet)
    with opened(browser, server.url, viewport={"width": width, "height": 800}) as (page, _):
        for path in ("/", "/account/treasury-0003"):
            page.goto(server.url + path)
            expect(
                page.locator(".facts div" if "account" in path else "#sinks tbody tr").first
            ).to_be_attached()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            if path == "/":
                row = page.locator(".grid-rows .row:not([hidden])").first
                for cell in (".is-age", ".is-value", ".is-account"):
                    expect(row.locator(cell)).to_be_visible()
                    # Ages and amounts are never shortened; names may be.
                    if cell != ".is-account":
                        assert row.locator(cell).evaluate(
                            "(cell) => cell.scrollWidth <= cell.clientWidth + 1"
                        )


@pytest.mark.parametrize(("addresses", "width"), [(1, 1280), (1, 1440), (1, 1900), (2, 1900)])
def test_the_weight_of_few_addresses_is_seen_whole(
    browser: Browser, serve: Serve, addresses: int, width: int
) -> None:
    fleet = MadeUpFleet([summary(f"acc-{number:02}") for number in range(30)])
    fleet.egress_now = tuple(egress(name) for name in ("default", "nat-b")[:addresses])
    for number in range(100):  # a long feed takes no room from the others
        fleet.happen("acc-01", ("BTC", "free", "1", f"1.{number}"))
    server = serve(fleet)
    with opened(browser, server.url, viewport={"width": width, "height": 900}) as (page, _):
        page.goto(server.url)
        expect(page.locator("#feed li")).to_have_count(100)
        expect(page.locator(".egress-card")).to_have_count(addresses)
        cut = "() => [...document.querySelectorAll('#egress, #sinks')].filter((it) => it.scrollHeight > it.clientHeight + 1)"
        until(page, lambda: page.evaluate(f"({cut})().length") == 0)


def test_nothing_moves_for_who_wants_no_motion(browser: Browser, serve: Serve) -> None:
    fleet = desk(20)
    server = serve(fleet)
    with opened(browser, server.url, reduced_motion="reduce") as (page, _):
        page.goto(server.url)
        until(page, lambda: names(page))
        fleet.change(names(page)[0], total_btc="5")
        expect(page.locator(".grid-rows [title='5']")).to_be_visible()
        assert page.evaluate("document.getAnimations().length") == 0
