"""Which sub-accounts there are: compared, asked for page by page within the budget, and told once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.budget import WeightBudget, WeightWindow
from poller.budget.questions import Questions
from poller.discovery import PAGES_MOST, Comparison, DiscoveryWatch, Roster, compare, same
from poller.errors import AccessDenied, OutboxFull, PollError, RateLimited, Unavailable
from poller.exchange.client import PAGE_ROWS, SubAccount
from poller.metrics import Metrics
from poller.overview import Discovery
from poller.testing.virtual_time import VirtualClock

KNOWN_PAST = b'{"version":1,"boot_id":"boot-1","blocks":[],"pause":null,"strikes":0}'
REFUSED = AccessDenied("HTTP 400, code -2015", code=-2015, status=400)
HOUR_S = 3600.0

emails = st.sampled_from([f"{letter}@x" for letter in "abcdefABC"])


def sub(email: str, *, is_frozen: bool = False) -> SubAccount:
    return SubAccount(email, is_frozen)


def fleet(count: int) -> list[SubAccount]:
    return [sub(f"s{n:05d}@x") for n in range(count)]


def test_what_is_listed_is_held_against_what_is_configured() -> None:
    found = [sub("b@x"), sub("A@x", is_frozen=True), sub("new@x"), sub("old@x", is_frozen=True)]
    assert compare(found, {"one": "a@X", "two": "b@x", "three": "c@x"}) == Comparison(
        found=4, matched=2, missing=("new@x", "old@x"), frozen=("A@x", "old@x"), gone=("three",)
    )


def test_what_another_master_account_lists_is_not_gone_and_nobody_is_before_all_have_answered() -> None:
    configured = {"one": "a@x", "two": "b@x", "three": "c@x"}
    assert compare([sub("a@x")], configured, {"b@x"}).gone == ("three",)
    assert compare([sub("a@x")], configured, None).gone == ()


@given(
    st.lists(st.builds(SubAccount, emails, st.booleans())), st.dictionaries(st.sampled_from("pqrst"), emails)
)
def test_every_sub_account_is_matched_or_missing_and_every_account_matched_or_gone(
    found: list[SubAccount], configured: dict[str, str]
) -> None:
    told = compare(found, configured)
    listed, wanted = {same(one.email) for one in found}, {same(email) for email in configured.values()}
    assert told.matched + len(told.missing) == told.found == len(listed)
    assert {same(email) for email in told.missing} == listed - wanted
    assert {same(configured[name]) for name in told.gone} == wanted - listed
    assert {same(email) for email in told.frozen} <= listed
    assert told.is_as_configured is not any((told.missing, told.frozen, told.gone))


class World:
    """One address, and a master account that lists what it is told to."""

    def __init__(self, clock: VirtualClock, *, limit: int = 12_000) -> None:
        self.clock = clock
        self.metrics = Metrics()
        self.listed = fleet(3)
        self.error: PollError | None = None
        self.answer: Callable[[int], list[SubAccount]] = lambda page: self.listed[
            (page - 1) * PAGE_ROWS : page * PAGE_ROWS
        ]
        self.asked: list[tuple[float, int]] = []
        self.blamed: list[PollError] = []
        self.save_fails: OutboxFull | None = None
        window = WeightWindow(limit=limit)
        self.budget = WeightBudget("default", window, clock, self._save, metrics=self.metrics)
        self.budget.restore(KNOWN_PAST)
        self.configured = {"s0": "s00000@x", "s1": "s00001@x", "s2": "s00002@x"}
        self.roster = Roster(["main"], self.configured)
        self.watch = DiscoveryWatch(
            "main",
            self.roster,
            Questions(self.budget, self._blame),
            self._ask,
            interval_s=HOUR_S,
            clock=clock,
            metrics=self.metrics,
        )

    async def _save(self, _state: bytes) -> None:
        if self.save_fails is not None:
            raise self.save_fails

    async def _ask(self, page: int) -> list[SubAccount]:
        self.asked.append((self.clock.monotonic_s(), page))
        await asyncio.sleep(0.1)
        if self.error is not None:
            raise self.error
        return self.answer(page)

    async def _blame(self, error: PollError) -> None:
        self.blamed.append(error)
        if isinstance(error, RateLimited):
            await self.budget.pause(error, exchange_ms=0.0)

    def counts(self) -> dict[str, float]:
        return {
            state: self.metrics.value("discovered_sub_accounts", discover="main", state=state)
            for state in ("matched", "missing", "frozen", "gone")
        }


async def test_nothing_is_known_before_the_first_answer(clock: VirtualClock) -> None:
    assert World(clock).watch.seen() == Discovery("main", None, "", 0, (), (), ())


async def test_every_page_is_asked_for_and_paid_for(clock: VirtualClock) -> None:
    w = World(clock)
    w.listed = [*fleet(2 * PAGE_ROWS), sub("frozen@x", is_frozen=True)]
    w.configured["lost"] = "lost@x"
    seen = await w.watch.ask()
    assert [page for _, page in w.asked] == [1, 2, 3]
    assert (w.budget.status().granted, w.budget.status().in_flight) == (3, 0)
    assert (seen.found, len(seen.missing), seen.frozen, seen.gone) == (401, 398, ("frozen@x",), ("lost",))
    assert (seen.at, seen.error) == ("2026-01-01T00:00:00.300000Z", "")
    assert seen == w.watch.seen()
    assert w.counts() == {"matched": 3, "missing": 398, "frozen": 1, "gone": 1}


async def test_no_sub_accounts_at_all_are_an_answer(clock: VirtualClock) -> None:
    w = World(clock)
    w.listed = []
    seen = await w.watch.ask()
    assert (seen.found, seen.gone, seen.error) == (0, ("s0", "s1", "s2"), "")


async def test_pages_that_repeat_are_no_answer(clock: VirtualClock) -> None:
    w = World(clock)
    w.answer = lambda page: fleet(PAGE_ROWS)
    seen = await w.watch.ask()
    assert (seen.at, seen.error) == (None, "page 2 of the sub-accounts repeats others")
    assert len(w.asked) == 2


async def test_pages_without_an_end_are_no_answer(clock: VirtualClock) -> None:
    w = World(clock)
    w.answer = lambda page: [sub(f"p{page}-{n}@x") for n in range(PAGE_ROWS)]
    seen = await w.watch.ask()
    assert seen.error == "the sub-accounts have no end after 100 pages"
    assert len(w.asked) == PAGES_MOST == 100


async def test_one_that_moves_over_the_edge_of_a_page_is_counted_once(clock: VirtualClock) -> None:
    w = World(clock)
    listed = fleet(PAGE_ROWS + 5)
    w.answer = lambda page: listed[:PAGE_ROWS] if page == 1 else listed[PAGE_ROWS - 1 :]
    assert (await w.watch.ask()).found == PAGE_ROWS + 5


async def test_a_limit_that_is_met_is_told_and_waited_out(clock: VirtualClock) -> None:
    w = World(clock)
    w.error = RateLimited("HTTP 429", status=429, retry_after_s=45.0)
    assert (await w.watch.ask()).error == "HTTP 429"
    assert w.blamed == [w.error]
    w.error = None
    assert (await w.watch.ask()).error == ""
    assert w.asked[1][0] >= w.asked[0][0] + 45


async def test_it_is_asked_no_faster_than_the_budget_allows(clock: VirtualClock) -> None:
    w = World(clock, limit=10)
    w.listed = fleet(30 * PAGE_ROWS)
    assert (await w.watch.ask()).found == 30 * PAGE_ROWS
    times = [at_s for at_s, _ in w.asked]
    assert max(sum(at <= other < at + 60 for other in times) for at in times) <= 10


async def test_nothing_is_asked_while_no_weight_can_be_reserved(clock: VirtualClock) -> None:
    w = World(clock)
    w.save_fails = OutboxFull("no space left on device")
    seen = await w.watch.ask()
    assert (seen.error, w.asked, w.blamed) == ("no space left on device", [], [])


async def test_a_failure_keeps_what_was_known(clock: VirtualClock) -> None:
    w = World(clock)
    w.configured["lost"] = "lost@x"
    before = await w.watch.ask()
    w.error = Unavailable("HTTP 502", status=502)
    after = await w.watch.ask()
    assert after == Discovery("main", before.at, "HTTP 502", 3, (), (), ("lost",))
    assert w.counts()["gone"] == 1


async def test_what_was_known_is_held_against_another_configuration_until_it_answers_again(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "poller.discovery")
    before, after = World(clock), World(clock)
    del before.configured["s2"]
    told = await before.watch.ask()
    assert told.missing == ("s00002@x",)
    after.watch.take_over(before.watch)
    assert after.watch.seen() == Discovery("main", told.at, "", 3, (), (), ())
    caplog.clear()
    await after.watch.ask()
    assert caplog.messages == ["sub-accounts are as configured again"]


async def test_it_asks_at_the_start_and_every_interval_and_sooner_after_a_failure(
    clock: VirtualClock,
) -> None:
    w = World(clock)
    watching = asyncio.create_task(w.watch.run())
    await asyncio.sleep(2.5 * HOUR_S)
    assert [round(at_s / HOUR_S, 3) for at_s, _ in w.asked] == [0.0, 1.0, 2.0]
    w.asked.clear()
    w.error = REFUSED
    await asyncio.sleep(7 * HOUR_S)
    waits_s = [round(later - earlier) for (earlier, _), (later, _) in zip(w.asked, w.asked[1:], strict=False)]
    assert waits_s == [60, 120, 240, 480, 960, 1920, *[3600] * 5]
    w.error = None
    await asyncio.sleep(HOUR_S)
    assert w.watch.seen().error == ""
    watching.cancel()


async def test_one_line_when_something_changes_and_none_for_asking(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "poller.discovery")
    w = World(clock)

    async def told(times: int = 3) -> list[str]:
        caplog.clear()
        for _ in range(times):
            await w.watch.ask()
        return caplog.messages

    assert await told() == []
    w.listed = [*fleet(3), sub("new@x")]
    assert await told() == ["sub-accounts are not as configured"]
    assert {
        key: caplog.records[0].__dict__[key] for key in ("discover", "found", "missing", "frozen", "gone")
    } == {
        "discover": "main",
        "found": 4,
        "missing": 1,
        "frozen": 0,
        "gone": 0,
    }
    w.listed = [*fleet(3), sub("newer@x")]  # as many, and another
    assert await told() == ["sub-accounts are not as configured"]
    w.error = REFUSED
    assert await told() == ["sub-accounts could not be listed"]
    w.error = Unavailable("HTTP 502", status=502)
    assert await told() == ["sub-accounts could not be listed"]
    w.error = None
    assert await told() == ["sub-accounts can be listed again"]
    w.listed = fleet(3)
    assert await told() == ["sub-accounts are as configured again"]
    assert await told() == []


async def test_neither_the_log_nor_the_metrics_name_a_person(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    w = World(clock)
    w.configured["lost"] = "somebody@x"
    w.listed = [sub("s00000@x"), sub("somebody-else@x"), sub("cold@x", is_frozen=True)]
    seen = await w.watch.ask()
    assert (seen.missing, seen.frozen) == (("cold@x", "somebody-else@x"), ("cold@x",))
    lines = "".join(str(record.__dict__) for record in caplog.records)
    assert caplog.records
    assert "@x" not in lines
    labels = [sample.labels for metric in w.metrics.registry.collect() for sample in metric.samples]
    assert "@x" not in str(labels)
    assert "@x" not in repr(w.listed)


async def test_two_masters_share_what_is_configured(clock: VirtualClock) -> None:
    roster = Roster(["one", "two"], {"a": "a@x", "b": "b@x", "c": "c@x"})
    assert roster.comparison("one") is None
    roster.answered("one", [sub("a@x")])
    told = roster.comparison("one")
    assert told == Comparison(1, 1, (), (), ())
    roster.answered("two", [sub("b@x"), sub("d@x")])
    assert roster.comparison("one") == Comparison(1, 1, (), (), ("c",))
    assert roster.comparison("two") == Comparison(2, 1, ("d@x",), (), ("c",))
    roster.configured = {"a": "a@x", "b": "b@x", "d": "d@x"}
    assert roster.comparison("two") == Comparison(2, 2, (), (), ())
