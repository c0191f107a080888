"""Rows of an answer to exact balances: all of them, or none. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from poller.errors import BadAnswer
from poller.exchange.payload import Number, Row
from poller.model import Balance

DIGITS_MOST: Final = 30  # before the point, and behind it
ASSET_LENGTH_MOST: Final = 64

# Plain, or with an exponent of at most two digits. ``Decimal`` itself takes far more: blanks,
# underscores, the digits of every script, and exponents whose plain form fills the memory.
_AMOUNT = re.compile(r"(?:0|[1-9][0-9]{0,29})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?")
_SHOWN = 24  # characters of a wrong amount that a message repeats

_OPTIONAL: Final = ("locked", "freeze", "withdrawing", "ipoable")
_VALUATION: Final = "btcValuation"
_KNOWN: Final = frozenset({"asset", "free", _VALUATION, *_OPTIONAL})

_ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What an answer says.

    Attributes:
        balances: sorted by asset; only assets of which there is something.
        unknown_fields: fields in all rows that are not documented.
        missing_fields: documented but absent, by name; the amount was taken as zero, a valuation as unknown.
    """

    balances: tuple[Balance, ...]
    unknown_fields: int
    missing_fields: Mapping[str, int]


def normalise(rows: Iterable[Row], *, btc_valuation: bool) -> Holdings:
    """Return the balances, exactly as written.

    Args:
        rows: what ``payload.rows`` returned.
        btc_valuation: valuations were asked for; else they are left out: the exchange sends "0" then.

    Raises:
        BadAnswer: one row is not as documented, so none is believed. ``reason`` is one of
            ``missing_field``, ``wrong_type``, ``number_amount``, ``negative_amount``,
            ``malformed_amount``, ``amount_bounds``, ``asset_name``, ``duplicate_asset``.
    """
    balances: list[Balance] = []
    seen: set[str] = set()
    unknown_fields = 0
    missing: dict[str, int] = {}
    expected = (*_OPTIONAL, _VALUATION) if btc_valuation else _OPTIONAL
    for row in rows:
        asset = _asset(row)
        if asset in seen:
            raise BadAnswer(f"asset {asset} is listed twice", reason="duplicate_asset")
        seen.add(asset)
        unknown_fields += len(row.keys() - _KNOWN)
        for name in expected:
            if name not in row:
                missing[name] = missing.get(name, 0) + 1
        balance = _balance(asset, row, btc_valuation=btc_valuation)
        if balance is not None:
            balances.append(balance)
    return Holdings(tuple(sorted(balances, key=lambda each: each.asset)), unknown_fields, missing)


def amount(text: str) -> Decimal:
    """Return the amount that a text is, every digit kept.

    Raises:
        BadAnswer: it is not 0 or a positive number within 30 digits on either side of the point.
    """
    if not _AMOUNT.fullmatch(text):
        negative = text.startswith("-") and _AMOUNT.fullmatch(text[1:]) is not None
        reason = "negative_amount" if negative else "malformed_amount"
        raise BadAnswer(f"not an amount: {text[:_SHOWN]!a}", reason=reason)
    value = Decimal(text)
    if not value:
        return _ZERO
    # Decimal digits as written: Binance's own sums would be off by what was cut.
    exponent = value.as_tuple().exponent
    if value.adjusted() >= DIGITS_MOST or (isinstance(exponent, int) and exponent < -DIGITS_MOST):
        raise BadAnswer(f"beyond {DIGITS_MOST} digits: {text[:_SHOWN]!a}", reason="amount_bounds")
    return value


def _balance(asset: str, row: Row, *, btc_valuation: bool) -> Balance | None:
    """Return the row's balance; ``None`` if there is nothing of it."""
    if "free" not in row:
        raise BadAnswer(f"{asset} has no free amount", reason="missing_field")
    free = _amount(asset, row, "free")
    locked, freeze, withdrawing, ipoable = (
        _amount(asset, row, name) if name in row else _ZERO for name in _OPTIONAL
    )
    valuation = _amount(asset, row, _VALUATION) if btc_valuation and _VALUATION in row else None
    if not (free or locked or freeze or withdrawing or ipoable):
        return None
    return Balance(asset, free, locked, freeze, withdrawing, ipoable, valuation)


def _amount(asset: str, row: Row, name: str) -> Decimal:
    value = _text(row, name, f"{asset}: {name}")
    try:
        return amount(value)
    except BadAnswer as error:
        raise BadAnswer(f"{asset}: {name}: {error}", reason=error.reason) from None


def _asset(row: Row) -> str:
    if "asset" not in row:
        raise BadAnswer("a row has no asset", reason="missing_field")
    asset = _text(row, "asset", "asset")
    if not 1 <= len(asset) <= ASSET_LENGTH_MOST:
        raise BadAnswer(f"an asset's name has {len(asset)} characters", reason="asset_name")
    # Names may be of any script; what cannot be seen or turns lines around has no place in one.
    if not asset.isalnum() and any(_is_invisible(sign) for sign in asset):
        raise BadAnswer(f"an asset's name has invisible characters: {asset!a}", reason="asset_name")
    return asset


def _is_invisible(sign: str) -> bool:
    return unicodedata.category(sign) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _text(row: Row, name: str, shown: str) -> str:
    value: Any = row[name]
    if isinstance(value, Number):
        # Whatever wrote it as a number may have rounded it before.
        raise BadAnswer(f"{shown} is a number, not a text", reason="number_amount")
    if not isinstance(value, str):
        raise BadAnswer(f"{shown} is not a text", reason="wrong_type")
    return value
