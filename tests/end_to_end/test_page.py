"""The page of a real daemon: what happens at the exchange, to the sinks and to the files is seen in a browser."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.end_to_end.processes import SimulatedExchange, free_port, run, simulating, start, stop, wait_for
from tests.page.browser import Watched, launched, names, opened, until

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(180)]

OPTIONS = ("--accounts", "6", "--interval", "500ms", "--latency", "1-5", "--moves-per-second", "4")
CUT_OFF = ["net::ERR_", "Failed to load resource"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as started:
        yield started


@dataclass
class Fleet:
    """A daemon in a process of its own, and the exchange that it polls."""

    directory: Path
    exchange: SimulatedExchange
    url: str
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> Path:
        return self.directory / "accounts.yaml"

    def start(self) -> None:
        self.process = start(self.directory, "--log-format", "json", log=self.directory / "log")

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


@dataclass
class Seen(Fleet):
    """... and its page in a browser."""

    page: Page
    watched: Watched


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    url = f"http://127.0.0.1:{free_port()}"
    with simulating(directory, *OPTIONS) as exchange:
        with (directory / "accounts.yaml").open("a") as file:
            # Browsers come back to the same address, so it is a fixed one; and nothing is reloaded unasked.
            file.write(f"server: {{listen: '{url.removeprefix('http://')}'}}\n")
            file.write("reload: {watch: false}\nshutdown: {drain: 1s}\n")
        found = Fleet(directory, exchange, url, start(directory, log=directory / "log"))
        try:
            wait_for(lambda: '"listening"' in (directory / "log").read_text())
            yield found
        finally:
            assert stop(found.process) == 0


@pytest.fixture
def seen(browser: Browser, fleet: Fleet) -> Iterator[Seen]:
    """The fleet's page, live; what the test does to the configuration is undone."""
    good = fleet.config.read_text()
    with opened(browser, fleet.url) as (page, watched):
        page.goto(fleet.url)
        until(page, lambda: names(page) == fleet.exchange.accounts)
        yield Seen(fleet.directory, fleet.exchange, fleet.url, fleet.process, page, watched)
    if fleet.config.read_text() != good:
        fleet.config.write_text(good)
        fleet.reload()


@contextmanager
def frozen(seen: Seen) -> Iterator[None]:
    """While it lasts no balance moves, and every account has been asked since it began."""
    seen.exchange.post("freeze")
    seen.exchange.wait_until_all_polled()
    yield
    seen.exchange.post("thaw")


def test_the_fleet_and_what_changes_in_it(seen: Seen) -> None:
    page = seen.page
    expect(page.get_by_role("button", name="6 ok")).to_be_visible()
    expect(page.locator("#verdict")).to_have_text("Ready")
    expect(page.locator("#link")).to_have_text("live")
    assert [cell.inner_text() for cell in page.locator(".grid-rows .row:not([hidden]) .is-state").all()] == [
        "ok"
    ] * 6
    expect(page.locator(".egress-card")).to_have_count(1)
    assert page.locator("#sinks .name").all_inner_texts() == ["history", "log"]
    # What the feed shows last of an account is what the exchange's books say.
    expect(page.locator("#feed li").filter(has_text="→").first).to_be_visible()
    with frozen(seen):
        line = page.locator("#feed li").filter(has_text="→").first
        name = line.get_by_role("link").inner_text()
        [asset, field, after] = re.findall(r"(\w+) (\w+) \S+ → (\S+?)(?:,|$)", line.inner_text())[0]
        held = seen.exchange.get(f"books?account={name}")["accounts"][name][-1]["balances"]
        [balance] = [row for row in held if row["asset"] == asset] or [{field: "0"}]
        assert balance[field] == after


def test_an_account_is_shown_as_the_books_have_it_with_its_history(seen: Seen) -> None:
    page = seen.page
    name = seen.exchange.accounts[2]
    wait_for(lambda: len(seen.exchange.get(f"books?account={name}")["accounts"][name]) > 3)
    with frozen(seen):
        page.get_by_role("link", name=name).first.click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        held = seen.exchange.get(f"books?account={name}")["accounts"][name][-1]["balances"]
        until(page, lambda: shown(page) == {row["asset"]: (row["free"], row["locked"]) for row in held})
        expect(page.locator(".history-line")).to_be_attached()
        expect(page.locator(".reading")).to_contain_text(re.compile(r"\d+ points"))
        page.locator(".history-figure").focus()
        page.keyboard.press("End")
        expect(page.locator(".reading")).to_contain_text("BTC, sequence")
        expect(page.locator(".why li").first).to_contain_text("Its last good answer is")
        expect(page.locator(".is-polls tbody tr").first).to_contain_text("ok")


def shown(page: Page) -> dict[str, tuple[str, str]]:
    """Free and locked of each asset, as exact as the page has them."""
    found: dict[str, tuple[str, str]] = {}
    for asset, free, locked in page.evaluate(
        """() => [...document.querySelectorAll('.balances tbody tr')].map((row) => [
            row.querySelector('th').textContent,
            ...['free', 'locked'].map((column) => row.querySelector(`[data-column=${column}]`).dataset.text)])"""
    ):
        found[asset] = (free, locked)
    return found


def test_a_storm_of_429_pauses_the_address_and_passes(seen: Seen) -> None:
    page = seen.page
    seen.exchange.post(
        "faults",
        faults=[
            {"kind": "error", "status": 429, "count": 3},
            {"kind": "retry_after", "value": "4", "count": 3},
        ],
    )
    banner = page.get_by_role("alert")
    expect(banner).to_contain_text("default is paused.")
    expect(banner).to_contain_text("6 accounts wait; no request leaves until")
    counts = banner.locator(".count")
    first = counts.inner_text()
    assert re.fullmatch(r"0:0\d|ends now", first)
    until(page, lambda: not counts.count() or counts.inner_text() != first)
    expect(page.locator("#verdict")).to_contain_text("pauses")
    expect(page.locator(".pause-bands rect").first).to_be_attached()
    seen.exchange.post("faults", faults=[])
    expect(banner).to_have_count(0)
    expect(page.locator("#verdict")).to_have_text("Ready")


def test_a_configuration_that_is_refused_and_one_that_is_not(seen: Seen) -> None:
    page = seen.page
    page.evaluate("() => { window.mark = 'not loaded anew'; }")
    good, last = seen.config.read_text(), seen.exchange.accounts[-1]
    seen.config.write_text(good.replace("share: 90%", "shaer: 90%"))
    assert run("reload", "-c", str(seen.config)).returncode == 2
    banner = page.locator(".banner.is-warn")
    expect(banner).to_contain_text("The changed configuration was refused.")
    expect(banner.locator("li").first).to_contain_text("budget.shaer")
    expect(banner.locator("li").first).to_contain_text("share")
    seen.config.write_text(re.sub(rf"^  {last}:\n(    [^\n]*\n)+", "", good, flags=re.MULTILINE))
    seen.reload()
    until(page, lambda: names(page) == seen.exchange.accounts[:-1])
    expect(banner).to_have_count(0)
    expect(page.get_by_role("button", name="5 ok")).to_be_visible()
    assert page.evaluate("window.mark") == "not loaded anew"


def test_a_sink_that_is_dead_is_named_with_what_it_fails_with(seen: Seen) -> None:
    good = seen.config.read_text()
    seen.config.write_text(good.replace("path: data/records.jsonl", "path: /proc/nowhere/records.jsonl"))
    seen.reload()
    row = seen.page.locator("#sinks tbody tr").filter(has_text="log")
    expect(row).to_have_class("is-bad")
    expect(row.locator(".trouble")).to_contain_text("failing for")
    expect(row.locator(".trouble")).to_contain_text("/proc/nowhere")
    expect(seen.page.locator("#sinks tbody tr").filter(has_text="history")).to_have_class("is-good")


def test_a_daemon_that_is_started_again_is_noticed_and_the_page_goes_on(fleet: Fleet, seen: Seen) -> None:
    page, watched = seen.page, seen.watched
    watched.expected = CUT_OFF
    page.evaluate("() => { window.mark = 'not loaded anew'; }")
    expect(page.locator("#feed li").first).to_be_visible()
    before = page.evaluate("async () => (await (await fetch('/api/status')).json()).started_at")
    assert stop(fleet.process) == 0
    expect(page.get_by_role("alert")).to_contain_text("Live data stopped")
    expect(page.locator("#link")).to_have_text("cut off")
    fleet.start()
    expect(page.locator("#link")).to_have_text("live")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert page.evaluate("async () => (await (await fetch('/api/status')).json()).started_at") > before
    until(page, lambda: names(page) == seen.exchange.accounts)
    expect(page.get_by_role("button", name="6 ok")).to_be_visible()
    expect(page.locator("#feed li").filter(has_text="→").first).to_be_visible()
    assert page.evaluate("window.mark") == "not loaded anew"
