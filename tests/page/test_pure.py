"""What the page computes without a page: texts, orders, words and paths, run in the browser that runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser

from tests.page.browser import opened
from tests.page.made_up import MadeUpFleet
from tests.page.served import ServedFleet

pytestmark = pytest.mark.real_time

Run = Callable[..., Any]
THIN = "\u202f"
DASH = "\u2013"


@pytest.fixture(scope="module")
def run(browser: Browser) -> Iterator[Run]:
    """Call a function of one of the page's modules; with ``each`` once for each tuple of arguments."""
    server = ServedFleet(MadeUpFleet())
    server.start()
    with opened(browser, server.url) as (page, _):
        page.goto(server.url)

        def call(name: str, *arguments: object, each: bool = False) -> object:
            module, function = name.split(".")
            calls = [list(argument) for argument in arguments] if each else [list(arguments)]  # type: ignore[call-overload]
            found = page.evaluate(
                "async ([path, name, calls]) => { const module = await import(path);"
                " return calls.map((values) => module[name](...values)); }",
                [f"/static/{module}.js", function, calls],
            )
            return found if each else found[0]

        yield call
    server.stop()


@pytest.mark.parametrize(
    ("function", "given_", "text"),
    [
        ("amount", ["1234567.50012345"], f"1{THIN}234{THIN}567.50012345"),
        ("amount", ["0.00000001"], "0.00000001"),
        ("amount", ["123"], "123"),
        ("amount", ["-1234"], f"-1{THIN}234"),
        ("amount", [None], DASH),
        ("count", [5000], f"5{THIN}000"),
        ("figure", [38.7], "38.7"),
        ("figure", [0.25], "0.25"),
        ("figure", [2.0], "2"),
        ("figure", [100.0], "100"),
        ("figure", [10.0], "10"),
        ("bytes", [1_073_741_824], "1 GiB"),
        ("bytes", [1536], "1.5 KiB"),
        ("age", [0.4], "0 s"),
        ("age", [119.9], "119 s"),
        ("age", [120], "2 min"),
        ("age", [7200], "2 h"),
        ("age", [200_000], "2 d"),
        ("age", [None], DASH),
        ("interval", [60], "60 s"),
        ("interval", [0.5], "0.5 s"),
        ("interval", [90], "90 s"),
        ("interval", [130], "130 s"),
        ("interval", [300], "5 min"),
        ("interval", [7200], "2 h"),
        ("span", [0], "0 s"),
        ("span", [200], "3 min 20 s"),
        ("span", [7500], "2 h 5 min"),
        ("span", [3600], "1 h"),
        ("span", [3601], "1 h"),
        ("span", [270_000], "3 d 3 h"),
        ("short", [0.0041], "4 ms"),
        ("short", [-0.012], "-12 ms"),
        ("short", [0.5], "0.50 s"),
        ("short", [12.4], "12 s"),
        ("countdown", [41.2], "0:42"),
        ("countdown", [725], "12:05"),
        ("countdown", [3723], "1:02:03"),
        ("countdown", [-3], "0:00"),
        ("timeOfDay", ["2026-11-25T12:03:05.123456Z"], "12:03:05"),
        ("dayAndTime", ["2026-11-25T12:03:05.123456Z"], "2026-11-25 12:03:05"),
        ("percent", [0, 10], "0 %"),
        ("percent", [1, 1000], "< 1 %"),
        ("percent", [999, 1000], "99 %"),
        ("plural", [1, "account"], "1 account"),
        ("plural", [2000, "account"], f"2{THIN}000 accounts"),
        ("visible", ["a\u202eb\u0000c"], "a⟨202E⟩b⟨0⟩c"),
        ("visible", ["日本 🙂 é"], "日本 🙂 é"),
    ],
)
def test_texts(run: Run, function: str, given_: list[object], text: str) -> None:
    assert run(f"format.{function}", *given_) == text


amounts = st.decimals(
    allow_nan=False, allow_infinity=False, places=18, min_value=-(10**22), max_value=10**22
).map(lambda value: f"{value.normalize():f}" if value else "0")


@settings(max_examples=30)
@given(pairs=st.lists(st.tuples(amounts, amounts), min_size=20, max_size=40))
def test_amounts_are_compared_as_exactly_as_decimals_are(run: Run, pairs: list[tuple[str, str]]) -> None:
    asked = [*pairs, *((left, left) for left, _ in pairs[:3])]
    for (left, right), found in zip(asked, run("order.compareAmounts", *asked, each=True), strict=True):
        expected = (Decimal(left) > Decimal(right)) - (Decimal(left) < Decimal(right))
        assert (found > 0) - (found < 0) == expected, (left, right)


@settings(max_examples=30)
@given(
    query=st.fixed_dictionaries(
        {
            "q": st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n"), max_size=20),
            "state": st.sampled_from(["", "ok", "stale", "quarantined", "keyless"]),
            "egress": st.sampled_from(["", "default", "nat b&c"]),
            "label": st.sampled_from(["", "desk=mm", "k=a=b&c"]),
            "sort": st.sampled_from(["trouble", "account", "age", "value"]),
            "turned": st.booleans(),
        }
    )
)
def test_an_address_says_all_of_a_query(run: Run, query: dict[str, object]) -> None:
    assert run("order.readQuery", run("order.writeQuery", query)) == query


def test_what_an_address_cannot_mean_is_passed_over(run: Run) -> None:
    assert run("order.readQuery", "?state=nonsense&sort=__proto__&turned=yes") == {
        "q": "",
        "state": "",
        "egress": "",
        "label": "",
        "sort": "trouble",
        "turned": False,
    }


@pytest.mark.parametrize(
    ("age_s", "period_s", "fresh"),
    [
        (None, 60, "none"),
        (0, 60, "good"),
        (60, 60, "good"),
        (65, 60, "good"),
        (66, 60, "late"),
        (122, 60, "late"),
        (123, 60, "old"),
    ],
)
def test_freshness_is_judged_by_the_interval(
    run: Run, age_s: float | None, period_s: float, fresh: str
) -> None:
    assert run("order.freshness", age_s, period_s) == fresh


def test_words(run: Run) -> None:
    assert (
        run("words.pauseCause", "rate_limited")
        == "the exchange answered 429: the address used too much weight"
    )
    assert run("words.pauseCause", "something_new") == "something new"
    assert run("words.pauseCause", "constructor") == "constructor"
    assert run("words.verdict", {"ready": [{"name": "a", "ok": True, "text": ""}]}) == {
        "word": "Ready",
        "ok": True,
        "wrong": [],
    }
    assert run(
        "words.verdict",
        {
            "ready": [
                {"name": "outbox", "ok": False, "text": "is full"},
                {"name": "b", "ok": False, "text": ""},
            ]
        },
    ) == {"word": "Not ready", "ok": False, "wrong": ["is full", "b"]}
    findings = run(
        "words.discoveryFindings",
        {"error": "", "missing": [f"m{i}" for i in range(8)], "frozen": ["f"], "gone": []},
    )
    assert findings == [
        "8 sub-accounts without an account here: m0, m1, m2, m3, m4, m5 and 2 more",
        "1 frozen by the exchange: f",
    ]
    changes = [{"asset": "BTC", "field": "free", "before": "1.2", "after": "1.5"}] * 5
    assert (
        run("words.happeningText", {"kind": "snapshot", "reason": "changed", "changes": changes[:1]})
        == "BTC free 1.2 → 1.5"
    )
    assert run("words.happeningText", {"kind": "snapshot", "reason": "changed", "changes": changes}).endswith(
        "and 2 more"
    )
    assert (
        run("words.happeningText", {"kind": "status", "reason": "stale", "text": "silent", "changes": []})
        == "is stale: silent"
    )


def test_ticks_are_round_and_lie_within(run: Run) -> None:
    assert run("charts.ticks", 0, 1, 4) == [0, 0.5, 1]
    assert run("charts.ticks", 1.24, 1.57, 4) == [1.3, 1.4, 1.5]


def test_paths(run: Run) -> None:
    assert run("charts.linePath", [[0, 1], [2, 3.26]]) == "M0 1L2 3.3"
    assert run("charts.stepPath", [[0, 1], [2, 3]]) == "M0 1H2V3"
    assert run("charts.areaPath", [[0, 1], [2, 1]], [[0, 5], [2, 5]]) == "M0 1L2 1L2 5L0 5Z"
    assert run("charts.areaPath", [], []) == ""
    assert run("charts.sparkPath", [3], 84, 22) == ""
    assert run("charts.sparkPath", [3, 3], 84, 22) == "M1 11L83 11"


def test_balances_sort_exactly_with_the_unknown_last(run: Run) -> None:
    balances = [
        {"asset": "A", "total": "9007199254740993", "btc_valuation": None},
        {"asset": "B", "total": "9007199254740992", "btc_valuation": "1"},
    ]
    assert [each["asset"] for each in run("balances.sortBalances", balances, "total", True)] == ["A", "B"]
    assert [each["asset"] for each in run("balances.sortBalances", balances, "btc_valuation", True)] == [
        "B",
        "A",
    ]
    assert [each["asset"] for each in run("balances.sortBalances", balances, "btc_valuation", False)] == [
        "B",
        "A",
    ]
