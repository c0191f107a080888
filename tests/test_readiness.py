"""Ready or not, and why: exact thresholds and exact words."""

from __future__ import annotations

from typing import Any

import pytest

from poller.overview import Check, SinkSeen
from poller.readiness import readiness

GOOD = {"fresh": 95, "pollable": 100, "accounts": 102, "pauses": {}, "is_full": False, "sinks": []}


def sink(name: str, **fields: Any) -> SinkSeen:
    values: dict[str, Any] = {
        "kind": "redis",
        "backlog": 0,
        "lag_s": 0.0,
        "rate_per_s": 1.0,
        "delivered": 1,
        "dead_letters": 0,
        "dropped": 0,
        "failing_s": 0.0,
        "is_open": False,
        "error": "",
    }
    return SinkSeen(name, **{**values, **fields})


def checks(**fields: Any) -> dict[str, Check]:
    return {check.name: check for check in readiness(**{**GOOD, **fields})}


def test_all_is_well() -> None:
    assert list(checks(sinks=[sink("bus"), sink("log")]).values()) == [
        Check("polls", True, "95 of 102 accounts are fresh"),
        Check("outbox", True, "it accepts records"),
        Check("sinks", True, "2 of 2 move"),
    ]


@pytest.mark.parametrize(
    ("fresh", "pollable", "is_ready"), [(90, 100, True), (89, 100, False), (0, 0, False), (1, 1, True)]
)
def test_nine_of_ten_accounts_that_can_be_polled_have_to_be_fresh(
    fresh: int, pollable: int, is_ready: bool
) -> None:
    assert checks(fresh=fresh, pollable=pollable)["polls"].ok is is_ready


def test_a_pause_is_named_beside_the_count() -> None:
    text = checks(fresh=3, pauses={"nat-b": ("banned", 125.0)})["polls"].text
    assert (
        text
        == "3 of 102 accounts are fresh; every request from egress nat-b pauses for 2 min 5 s more (banned)"
    )


def test_a_full_outbox_is_not_ready() -> None:
    assert checks(is_full=True)["outbox"] == Check("outbox", False, "it is full: nothing is accepted")


def test_a_sink_that_has_records_and_fails_for_a_minute_is_named() -> None:
    stuck = sink("bus", backlog=7, failing_s=60.0, error="connection refused")
    found = checks(sinks=[sink("log"), stuck])["sinks"]
    assert found == Check("sinks", False, "bus has not moved for 60 s (connection refused)")
    assert checks(sinks=[sink("bus", backlog=7, failing_s=59.9, error="x")])["sinks"].ok
    assert checks(sinks=[sink("bus", backlog=0, failing_s=600.0, error="x")])["sinks"].ok


def test_a_fleet_of_which_nobody_can_be_polled_says_why() -> None:
    found = checks(fresh=0, pollable=0, accounts=7)["polls"]
    assert not found.ok
    assert (
        found.text
        == "0 of 7 accounts are fresh; none can be polled, for all are quarantined or without a key"
    )
    assert checks(fresh=0, pollable=0, accounts=0)["polls"].text == "0 of 0 accounts are fresh"
