"""Amounts as whole numbers of a hundred-millionth: exact, whatever the size, and printed as the exchange does."""

from __future__ import annotations

from random import Random

DECIMALS = 8
UNIT = 10**DECIMALS  # 1 of an asset


def plain(units: int) -> str:
    """Return the amount without exponent and without trailing zeros: ``0.9``, ``1``, ``50300000001.44911105``."""
    whole, fraction = divmod(units, UNIT)
    return f"{whole}.{fraction:08d}".rstrip("0") if fraction else str(whole)


def padded(units: int) -> str:
    """Return the amount with all eight decimals, as valuations are printed."""
    whole, fraction = divmod(units, UNIT)
    return f"{whole}.{fraction:08d}"


def part_of(units: int, random: Random) -> int:
    """Return some of a positive amount: at times all of it, mostly with few decimals, never nothing."""
    if random.random() < 0.1:
        return units
    part = random.randrange(1, units + 1)
    step: int = 10 ** random.randrange(DECIMALS + 1)
    return part - part % step or part
