"""Names, labels and errors that would like to be markup are shown as the text they are."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect

from poller.overview import Check, Discovery
from tests.page.browser import names, opened, until
from tests.page.conftest import Serve
from tests.page.made_up import MadeUpFleet, detail, egress, sink, summary

pytestmark = pytest.mark.real_time

IMAGE = "<img src=x onerror=window.broken=1>"
SCRIPT = '"><script src=x onerror=window.broken=1>'
TURNED = "safe\u202egpj.exe"
HOSTILE = [
    IMAGE,
    SCRIPT,
    "w" * 200,
    "money 🙂 日本",
    "a b?c#d%2F&e=é",
    "'`${1}`'",
    "__proto__",
    "javascript:alert(1)",
]


def test_hostile_text_is_shown_literally_everywhere(browser: Browser, serve: Serve) -> None:
    fleet = MadeUpFleet(
        [
            summary(
                name,
                labels={IMAGE: SCRIPT, name: name},
                egress=SCRIPT,
                error=f"{IMAGE} {name}",
                error_kind=SCRIPT,
                reason=IMAGE,
                state="stale",
            )
            for name in HOSTILE
        ]
    )
    fleet.egress_now = (egress(SCRIPT), egress(IMAGE))
    fleet.pause(SCRIPT, seconds=60, cause=IMAGE)
    fleet.sinks_now = (sink(IMAGE, SCRIPT, error=SCRIPT, failing_s=3.0),)
    fleet.status_fields = {
        "version": SCRIPT,
        "ready": (Check(IMAGE, ok=False, text=IMAGE),),
        "discoveries": (Discovery(SCRIPT, None, IMAGE, 1, (IMAGE,), (), ()),),
    }
    fleet.happen(IMAGE, (SCRIPT, IMAGE, IMAGE, SCRIPT))
    fleet.happen(SCRIPT, state=IMAGE, text=SCRIPT)
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        until(page, lambda: sorted(names(page)) == sorted(HOSTILE))
        expect(page.locator("#verdict")).to_contain_text(IMAGE)
        expect(page.locator("#sinks tbody")).to_contain_text(SCRIPT)
        expect(page.locator("#feed")).to_contain_text(f"{SCRIPT} {IMAGE} {IMAGE} → {SCRIPT}")
        expect(page.get_by_role("alert").first).to_contain_text(SCRIPT)
        expect(page.get_by_label("Egress", exact=True)).to_contain_text(IMAGE)
        assert page.evaluate("window.broken") is None
        assert page.locator("img").count() == 0
        assert page.locator("body script").count() == 0


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_an_account_of_any_name_has_its_page(browser: Browser, serve: Serve, name: str) -> None:
    one = summary(name)
    fleet = MadeUpFleet([one])
    fleet.details[name] = detail(one, {IMAGE: "1", SCRIPT: "2"})
    server = serve(fleet)
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        until(page, lambda: names(page) == [name])
        page.locator(".grid-rows .name").first.click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.locator(".balances tbody tr")).to_have_count(2)
        page.goto(f"{server.url}/account/{quote(name, safe='')}")
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.locator(".balances")).to_contain_text(SCRIPT)
        page.get_by_role("button", name=IMAGE).click()
        expect(page.get_by_role("heading", name=f"Amount of {IMAGE}")).to_be_visible()
        assert page.evaluate("window.broken") is None
        assert page.locator("img").count() == 0


def test_text_that_turns_its_direction_is_written_out(browser: Browser, serve: Serve) -> None:
    server = serve(MadeUpFleet([summary(TURNED, error=TURNED)]))
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)
        until(page, lambda: names(page) == ["safe⟨202E⟩gpj.exe"])
        expect(page.locator(".grid-rows .is-error").first).to_have_attribute("title", "safe⟨202E⟩gpj.exe")
        page.locator(".grid-rows .name").first.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("safe⟨202E⟩gpj.exe")
        expect(page.locator(".facts")).to_contain_text("Sequence")
