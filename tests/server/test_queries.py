"""Which accounts a question selects, in which order, and which questions make no sense."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.overview import AccountSummary
from poller.server.answers import Refused
from poller.server.queries import AGE, SORTS, AccountQuery, read_account_query, select, since_s, whole
from poller.testing.overview import account_summary

FLEET = [
    account_summary("treasury", labels={"desk": "MM", "region": "eu"}, total_btc="10", lateness_s=0.5, priority=9),
    account_summary("sub-2", state="stale", total_btc="9.5", lateness_s=None, good_at="2026-01-01T00:00:05.000000Z"),
    account_summary("sub-10", state="quarantined", total_btc=None, good_at=None, lateness_s=0.1, failures=4),
    account_summary("cold", egress="nat", labels={"desk": "otc"}, total_btc="0.00000001", lateness_s=3.0,
                    good_at="2025-12-31T23:59:59.000000Z", next_due_s=-4.0, interval_s=10.0, stretch=2.5, assets=0),
]  # fmt: skip
NAMES = [account.account for account in FLEET]


def selected(**values: Any) -> list[str]:
    return [account.account for account in select(FLEET, NAMES, AccountQuery(**values))[1]]


def read(query: str) -> AccountQuery:
    from urllib.parse import parse_qs

    return read_account_query(parse_qs(query, keep_blank_values=True))


def test_without_a_question_all_come_in_the_configurations_order() -> None:
    assert read("") == AccountQuery()
    assert selected() == NAMES
    backwards = select(FLEET[::-1], NAMES, AccountQuery())[1]
    assert [account.account for account in backwards] == NAMES


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=ok", ["treasury", "cold"]),
        ("state=keyless", []),
        ("egress=nat", ["cold"]),
        ("label=desk=MM", ["treasury"]),
        ("label=desk=MM&label=region=eu", ["treasury"]),
        ("label=desk=MM&label=region=us", []),
        ("label=desk=", []),
        ("q=sub", ["sub-2", "sub-10"]),
        ("q=mm", ["treasury"]),
        ("q=DESK", ["treasury", "cold"]),
        ("q=sub&state=stale", ["sub-2"]),
        ("sort=name", ["cold", "sub-10", "sub-2", "treasury"]),
        ("sort=-name", ["treasury", "sub-2", "sub-10", "cold"]),
        ("sort=value", ["cold", "sub-2", "treasury", "sub-10"]),
        ("sort=-value", ["treasury", "sub-2", "cold", "sub-10"]),
        ("sort=lateness", ["sub-10", "treasury", "cold", "sub-2"]),
        ("sort=-lateness", ["cold", "treasury", "sub-10", "sub-2"]),
        ("sort=age", ["sub-2", "treasury", "cold", "sub-10"]),
        ("sort=-age", ["sub-10", "cold", "treasury", "sub-2"]),
        ("sort=state", ["sub-10", "sub-2", "treasury", "cold"]),
        ("sort=-priority", ["treasury", "sub-2", "sub-10", "cold"]),
        ("sort=due", ["cold", "treasury", "sub-2", "sub-10"]),
        ("sort=interval", ["cold", "treasury", "sub-2", "sub-10"]),
        ("sort=-failures", ["sub-10", "treasury", "sub-2", "cold"]),
        ("sort=assets", ["cold", "treasury", "sub-2", "sub-10"]),
        ("sort=egress", ["treasury", "sub-2", "sub-10", "cold"]),
        ("sort=name&limit=2", ["cold", "sub-10"]),
        ("sort=name&limit=2&offset=3", ["treasury"]),
        ("offset=99", []),
    ],
)
def test_questions_and_their_answers(query: str, expected: list[str]) -> None:
    assert [account.account for account in select(FLEET, NAMES, read(query))[1]] == expected


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("state=OK", "state: write one of ok, stale, quarantined, keyless"),
        ("state=ok&state=stale", "state: write it once"),
        ("label=desk", "label: write label=NAME=TEXT"),
        ("label==x", "label: write label=NAME=TEXT"),
        ("limit=0", "limit: write a whole number from 1 to 5000"),
        ("limit=5001", "limit: write a whole number from 1 to 5000"),
        ("limit=1e3", "limit: write a whole number from 1 to 5000"),
        ("limit=%D9%A3", "limit: write a whole number from 1 to 5000"),
        ("offset=-1", "offset: write a whole number from 0 to 1000000000"),
        ("sort=-", "sort: write one of "),
        ("sort=--name", "sort: write one of "),
        ("sort=secret", "sort: write one of "),
        ("colour=red", "unknown parameter; known here: state, egress, label, q, sort, limit, offset"),
        (f"q={'x' * 201}", "q: at most 200 characters"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(query: str, error: str) -> None:
    with pytest.raises(Refused) as caught:
        read(query)
    assert caught.value.status == 400
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e99", "week"])
def test_a_history_goes_back_a_number_of_seconds(text: str) -> None:
    assert since_s({}) == 604_800.0
    assert since_s({"since_s": ["0.5"]}) == 0.5
    with pytest.raises(Refused, match=r"since_s: write a number of seconds"):
        since_s({"since_s": [text]})


ACCOUNTS = st.lists(
    st.builds(
        account_summary,
        st.sampled_from([f"a{number}" for number in range(30)]),
        state=st.sampled_from(["ok", "stale", "quarantined", "keyless"]),
        total_btc=st.none() | st.integers(0, 5).map(str),
        lateness_s=st.none() | st.floats(0, 5),
    ),
    unique_by=lambda account: account.account,
    max_size=20,
)


@given(ACCOUNTS, st.sampled_from(["", *SORTS, AGE]), st.booleans(), st.integers(1, 5), st.integers(0, 8))
def test_pages_put_together_are_the_whole_and_nothing_twice(
    accounts: Sequence[AccountSummary], sort: str, is_descending: bool, limit: int, offset: int
) -> None:
    names = [account.account for account in accounts]
    query = AccountQuery(sort=sort, is_descending=is_descending, limit=5_000)
    total, everything = select(accounts, names, query)
    assert total == len(everything) == len(accounts)
    page = AccountQuery(sort=sort, is_descending=is_descending, limit=limit, offset=offset)
    assert select(accounts, names, page) == (total, everything[offset : offset + limit])
    if sort == "value":
        known = [Decimal(account.total_btc) for account in everything if account.total_btc is not None]
        assert known == sorted(known, reverse=is_descending)
        assert all(account.total_btc is None for account in everything[len(known) :])


@given(st.text(max_size=25))
def test_any_text_is_a_number_within_its_bounds_or_refused(text: str) -> None:
    is_good = text == "" or (text.isascii() and text.isdigit() and len(text) < 18 and 1 <= int(text) <= 5_000)
    if is_good:
        assert whole({"limit": [text]}, "limit", 7, 1, 5_000) == int(text or 7)
    else:
        with pytest.raises(Refused, match=r"^limit: write a whole number from 1 to 5000$"):
            whole({"limit": [text]}, "limit", 7, 1, 5_000)
