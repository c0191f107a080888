"""The assets of the simulated exchange, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

PRICE_UNIT: Final = 10**16  # prices are whole numbers of this part of a bitcoin: meme coins cost very little
PRICE_HOLDS_US: Final = 10_000_000  # prices move every ten seconds, whether or not balances do


@dataclass(frozen=True, slots=True)
class Asset:
    """One asset.

    Attributes:
        price: of 1, in bitcoin times ``PRICE_UNIT``; it wanders by a few per cent.
        digits: a usual holding has up to so many digits before the point.
    """

    code: str
    price: int
    digits: int


# Codes that look like wrappers, like numbers, or are no ASCII are all real, and have broken clients.
CATALOGUE: Final[Mapping[str, Asset]] = {
    asset.code: asset
    for asset in (
        Asset("BTC", 10**16, 2),
        Asset("ETH", 32 * 10**13, 3),
        Asset("BNB", 95 * 10**12, 3),
        Asset("USDT", 11 * 10**10, 7),
        Asset("USDC", 11 * 10**10, 7),
        Asset("FDUSD", 11 * 10**10, 6),
        Asset("EUR", 13 * 10**10, 6),
        Asset("SOL", 16 * 10**12, 4),
        Asset("XRP", 24 * 10**10, 6),
        Asset("ADA", 6 * 10**10, 6),
        Asset("DOGE", 17 * 10**9, 7),
        Asset("TRX", 33 * 10**9, 6),
        Asset("LINK", 15 * 10**11, 4),
        Asset("AVAX", 17 * 10**11, 4),
        Asset("DOT", 3 * 10**11, 5),
        Asset("LTC", 10**12, 4),
        Asset("BCH", 55 * 10**11, 3),
        Asset("ATOM", 3 * 10**11, 5),
        Asset("NEAR", 2 * 10**11, 5),
        Asset("ARB", 2 * 10**10, 6),
        Asset("LDO", 7 * 10**10, 5),
        Asset("1INCH", 2 * 10**10, 6),
        Asset("SHIB", 9 * 10**5, 11),
        Asset("PEPE", 5 * 10**5, 12),
        Asset("BONK", 10**6, 12),
        Asset("1000SATS", 2 * 10**6, 10),
        Asset("LDUSDT", 11 * 10**10, 6),
        Asset("LDBTC", 10**16, 1),
        Asset("456", 10**9, 5),
        Asset("币安人生", 10**10, 6),
    )
}


def price(code: str, now_us: int) -> int:
    """Return what 1 of the asset costs at that time, in bitcoin times ``PRICE_UNIT``; up to 3 % off its usual price."""
    usual = CATALOGUE[code].price
    if code in {"BTC", "LDBTC"}:
        return usual
    moment = f"{code}@{now_us // PRICE_HOLDS_US}"
    wander = int.from_bytes(blake2b(moment.encode(), digest_size=4).digest()) % 6001 - 3000
    return usual * (100_000 + wander) // 100_000


def worth(code: str, units: int, now_us: int) -> int:
    """Return what the amount is worth in bitcoin, in hundred-millionths, rounded down."""
    return units * price(code, now_us) // PRICE_UNIT
