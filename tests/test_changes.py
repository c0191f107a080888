"""What counts as a change."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given

from poller.changes import changes
from poller.model import AMOUNT_FIELDS, Balance, Change
from tests.strategies import holdings


def balance(asset: str, free: str, locked: str = "0", btc: str | None = None) -> Balance:
    return Balance(asset, Decimal(free), Decimal(locked), btc_valuation=None if btc is None else Decimal(btc))


def test_an_asset_that_vanished_went_to_zero_in_every_field_it_had() -> None:
    assert changes([balance("BTC", "1", "0.5")], []) == (
        Change("BTC", "free", Decimal(1), Decimal(0)),
        Change("BTC", "locked", Decimal("0.5"), Decimal(0)),
    )


def test_an_asset_that_appeared_came_from_zero() -> None:
    assert changes([], [balance("ETH", "2")]) == (Change("ETH", "free", Decimal(0), Decimal(2)),)


def test_the_same_amount_written_differently_is_no_change() -> None:
    assert changes([balance("BTC", "1.50")], [balance("BTC", "1.5")]) == ()


def test_a_new_valuation_alone_is_no_change() -> None:
    assert changes([balance("BNB", "1", btc="0.01")], [balance("BNB", "1", btc="0.02")]) == ()


def test_the_last_of_38_digits_is_seen() -> None:
    before = balance("PEPE", "123456789012345678901234567890.12345678")
    after = balance("PEPE", "123456789012345678901234567890.12345679")
    assert [change.after - change.before for change in changes([before], [after])] != []


@given(holdings)
def test_nothing_differs_from_itself(held: tuple[Balance, ...]) -> None:
    assert changes(held, held) == ()


@given(holdings, holdings)
def test_applying_the_changes_to_what_was_gives_what_is(
    before: tuple[Balance, ...], after: tuple[Balance, ...]
) -> None:
    book = {held.asset: {field: getattr(held, field) for field in AMOUNT_FIELDS} for held in before}
    for change in changes(before, after):
        fields = book.setdefault(change.asset, dict.fromkeys(AMOUNT_FIELDS, Decimal(0)))
        assert fields[change.field] == change.before
        fields[change.field] = change.after
    held = {asset: fields for asset, fields in book.items() if any(fields.values())}
    listed = {row.asset: {field: getattr(row, field) for field in AMOUNT_FIELDS} for row in after}
    assert held == {asset: fields for asset, fields in listed.items() if any(fields.values())}


@given(holdings, holdings)
def test_the_way_back_is_the_same_changes_turned_round(
    before: tuple[Balance, ...], after: tuple[Balance, ...]
) -> None:
    turned = tuple(replace(c, before=c.after, after=c.before) for c in changes(after, before))
    assert changes(before, after) == turned
