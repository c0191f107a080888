"""What differs between an account's baseline and a new snapshot. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from poller.model import AMOUNT_FIELDS, Balance, Change

ZERO = Decimal(0)


def changes(before: Sequence[Balance], after: Sequence[Balance]) -> tuple[Change, ...]:
    """Return every amount that differs, by asset, then in the order of the exchange's fields.

    The exchange lists only what is held, so an asset that is missing on one side is zero there: a
    balance, not a gap. The valuation in BTC is no balance and never a change.
    """
    old = {balance.asset: balance for balance in before}
    new = {balance.asset: balance for balance in after}
    return tuple(
        Change(asset, field, was, now)
        for asset in sorted(old.keys() | new.keys())
        for field in AMOUNT_FIELDS
        if (was := _amount(old.get(asset), field)) != (now := _amount(new.get(asset), field))
    )


def _amount(balance: Balance | None, field: str) -> Decimal:
    if balance is None:
        return ZERO
    amount: Decimal = getattr(balance, field)
    return amount
