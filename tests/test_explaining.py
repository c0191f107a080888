"""Why an account's balances may be old: each cause has its sentence, the most important first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from poller.explaining import explain
from poller.overview import AccountSummary, EgressSeen, SinkSeen

ACCOUNT = AccountSummary(
    account="alice",
    state="ok",
    since=None,
    reason="",
    interval_s=60.0,
    stretch=1.0,
    priority=0,
    egress="default",
    labels={},
    good_at="2026-01-01T00:00:00.000000Z",
    lateness_s=0.01,
    next_due_s=18.4,
    total_btc="1",
    line=[],
    sequence=3,
    assets=2,
    error="",
    error_kind="",
    failures=0,
)
EGRESS = EgressSeen(
    egress="default",
    limit=12_000,
    allowed=10_800,
    capacity=10_800,
    own=500,
    foreign=0,
    reported=500,
    window_s=60.0,
    in_flight=1,
    accounts=10,
    pause_s=0.0,
    pause_until=None,
    pause_cause="",
    stretch={"0": 1.0},
    seconds=[],
)
BEHIND = SinkSeen("bus", "redis", 120, 95.0, 0.0, 4, 0, 0, 90.0, False, "connection refused")


def why(
    account: dict[str, Any] | None = None, egress: dict[str, Any] | None = None, **rest: Any
) -> list[str]:
    given: dict[str, Any] = {"behind": [], "good_age_s": 12.0, "is_polling": False, "is_full": False, **rest}
    return explain(
        replace(ACCOUNT, **account or {}), replace(EGRESS, **egress or {}), given.pop("behind"), **given
    )


def test_of_an_account_that_is_well_there_is_little_to_say() -> None:
    assert why() == [
        "Its last good answer is 12 s old; it is asked every 60 s.",
        "Its next poll is due in 18 s.",
    ]


@pytest.mark.parametrize(
    ("account", "egress", "rest", "sentence"),
    [
        ({}, {}, {"good_age_s": None}, "It has not answered well since the start."),
        ({}, {}, {"is_polling": True}, "A poll of it is under way."),
        ({"next_due_s": -3.0}, {}, {}, "It has been due for 3 s and waits for its turn."),
        (
            {"next_due_s": None},
            {},
            {},
            "No poll of it is planned: its key has to be checked first, or is forbidden by the policy.",
        ),
        ({"lateness_s": 9.0}, {}, {}, "Its last poll went 9 s late."),
        ({"failures": 1, "error": "HTTP 502"}, {}, {}, "Its last poll failed: HTTP 502."),
        ({"failures": 1, "error": "no such key."}, {}, {}, "Its last poll failed: no such key."),
        ({"failures": 4, "error": "HTTP 502"}, {}, {}, "Its last 4 polls failed: HTTP 502."),
        (
            {},
            {"pause_s": 80.0, "pause_cause": "banned"},
            {},
            "Every request from egress default pauses for 80 s more: the exchange has banned this address (418).",
        ),
        (
            {"stretch": 2.5, "priority": 3},
            {},
            {},
            "Intervals of priority 3 take 2.50 times as long as configured: "  # noqa: ISC004  # one sentence
            "the fleet wants more weight than egress default has.",
        ),
        (
            {},
            {"foreign": 4000, "capacity": 8000},
            {},
            "Somebody else uses 4000 of the weight of egress default; 8000 of 10800 are left to us.",
        ),
        ({}, {}, {"is_full": True}, "Nothing is accepted: the outbox is full, so nobody is polled."),
        (
            {},
            {},
            {"behind": [BEHIND]},
            "Sink bus may not have its last record yet: 120 wait, the oldest for 1 min 35 s; "  # noqa: ISC004
            "it fails for 1 min 30 s: connection refused.",
        ),
    ],
)
def test_each_cause_has_its_sentence(
    account: dict[str, Any], egress: dict[str, Any], rest: dict[str, Any], sentence: str
) -> None:
    assert sentence in why(account, egress, **rest)


@pytest.mark.parametrize(
    ("state", "begin"),
    [
        ("keyless", "It is not polled: vault is sealed. That is tried again by itself."),
        ("quarantined", "It is quarantined: vault is sealed. It is asked rarely until that ends."),
        ("stale", "It is stale: vault is sealed. Its last good answer is 12 s old"),
    ],
)
def test_a_state_that_is_not_well_comes_first(state: str, begin: str) -> None:
    sentences = why({"state": state, "reason": "vault is sealed"}, {"pause_s": 5.0, "pause_cause": "banned"})
    assert sentences[0].startswith(begin)


def test_without_a_key_nothing_is_said_of_the_next_poll() -> None:
    assert len(why({"state": "keyless", "next_due_s": None})) == 1
