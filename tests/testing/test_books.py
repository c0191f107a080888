"""The oracle finds what it is there to find."""

from __future__ import annotations

from typing import Any

from poller.testing.books import Version, holdings, last_states_differ, mismatches


def row(asset: str, free: str) -> dict[str, str]:
    return {"asset": asset, "free": free, "locked": "0", "freeze": "0", "withdrawing": "0", "ipoable": "0"}


def record(
    sequence: int, second: int, *rows: dict[str, str], changes: Any = (), unsure_ms: float = 5.0
) -> dict[str, Any]:
    return {
        "schema": "poller.snapshot/1",
        "account": "alice",
        "sequence": sequence,
        "observed_at": f"1970-01-01T00:00:{second:02d}.000000Z",
        "uncertainty_ms": unsure_ms,
        "balances": list(rows),
        "changes": list(changes),
    }


def change(before: str, after: str, asset: str = "BTC") -> dict[str, str]:
    return {"asset": asset, "field": "free", "before": before, "after": after}


BOOKS = {
    "alice": [
        Version(0, holdings([row("BTC", "1")])),
        Version(10_000_000, holdings([row("BTC", "2")])),
        Version(20_000_000, holdings([])),
    ]
}
RIGHT = [
    record(1, 5, row("BTC", "1")),
    record(2, 15, row("BTC", "2.0"), changes=[change("1", "2")]),
    record(3, 25, changes=[change("2", "0")]),
]


def test_what_is_right_is_found_right() -> None:
    assert mismatches(RIGHT, BOOKS) == []
    assert last_states_differ(RIGHT, BOOKS) == []


def test_a_balance_that_never_was_is_found() -> None:
    assert mismatches([record(1, 5, row("BTC", "1.00000001"))], BOOKS) != []


def test_a_balance_of_another_time_is_found_unless_the_record_is_that_unsure() -> None:
    assert mismatches([record(1, 12, row("BTC", "1"))], BOOKS) != []
    assert mismatches([record(1, 12, row("BTC", "1"), unsure_ms=2000)], BOOKS) == []


def test_an_asset_too_few_or_too_many_is_found() -> None:
    assert mismatches([record(1, 5)], BOOKS) != []
    assert mismatches([record(1, 5, row("BTC", "1"), row("ETH", "1"))], BOOKS) != []


def test_a_gap_a_repetition_and_a_late_beginning_are_found() -> None:
    assert mismatches([RIGHT[0], RIGHT[2]], BOOKS) != []
    assert mismatches([RIGHT[0], record(1, 15, row("BTC", "2"))], BOOKS) != []
    assert mismatches([RIGHT[1]], BOOKS) != []


def test_changes_that_do_not_add_up_are_found() -> None:
    for wrong in ([], [change("0", "2")], [change("1", "3")], [change("1", "2"), change("0", "1", "ETH")]):
        assert mismatches([RIGHT[0], record(2, 15, row("BTC", "2"), changes=wrong)], BOOKS) != []


def test_a_last_state_that_is_not_the_books_is_found() -> None:
    assert last_states_differ(RIGHT[:2], BOOKS) == ["alice"]
    assert last_states_differ([], BOOKS) == ["alice"]
