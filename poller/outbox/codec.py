"""Baselines as bytes. Pure."""

from __future__ import annotations

from decimal import Decimal

import orjson

from poller.model import Balance, Baseline, State, plain


def encode_baseline(baseline: Baseline) -> bytes:
    """Return everything but the account's name, as JSON with exact amounts."""
    rows = None if baseline.balances is None else [_encode_balance(balance) for balance in baseline.balances]
    return orjson.dumps(
        {
            "sequence": baseline.sequence,
            "balances": rows,
            "asset": baseline.asset,
            "state": baseline.state.value,
            "since_ns": baseline.since_ns,
        }
    )


def decode_baseline(account: str, encoded: bytes) -> Baseline:
    """Return the baseline that ``encode_baseline`` was given.

    Raises:
        ValueError: the bytes are not such a baseline.
    """
    try:
        fields = orjson.loads(encoded)
        rows = fields["balances"]
        return Baseline(
            account,
            sequence=int(fields["sequence"]),
            balances=None if rows is None else tuple(_decode_balance(*row) for row in rows),
            asset=fields["asset"],
            state=State(fields["state"]),
            since_ns=int(fields["since_ns"]),
        )
    except (KeyError, TypeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"damaged baseline of account {account!r}") from error


def _encode_balance(balance: Balance) -> list[str | None]:
    amounts = (balance.free, balance.locked, balance.freeze, balance.withdrawing, balance.ipoable)
    value = balance.btc_valuation
    return [balance.asset, *map(plain, amounts), None if value is None else plain(value)]


def _decode_balance(asset: str, *amounts: str | None) -> Balance:
    free, locked, freeze, withdrawing, ipoable, value = amounts
    return Balance(
        asset,
        Decimal(free or ""),
        Decimal(locked or ""),
        Decimal(freeze or ""),
        Decimal(withdrawing or ""),
        Decimal(ipoable or ""),
        None if value is None else Decimal(value),
    )
