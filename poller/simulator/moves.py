"""What can happen to one account: each kind of move turns what is held into what is held afterwards.

Pure: a kind gets the holdings and a random generator, and returns the new state of the assets it
touches, or ``None`` where there is nothing to move. Time plays no part: when a move happens must not
change what it is, or one seed would give another market on another day.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from poller.simulator.amounts import UNIT, part_of
from poller.simulator.catalogue import CATALOGUE


@dataclass(frozen=True, slots=True)
class Holding:
    """What an account has of one asset, in hundred-millionths."""

    free: int = 0
    locked: int = 0
    freeze: int = 0
    withdrawing: int = 0
    ipoable: int = 0

    @property
    def total(self) -> int:
        """All that the account owns; ``ipoable`` is a figure about ``free``, not a further amount."""
        return self.free + self.locked + self.freeze + self.withdrawing

    @property
    def is_listed(self) -> bool:
        """Whether an answer has a row for it: one amount is positive."""
        return self.total > 0 or self.ipoable > 0


NOTHING: Final = Holding()

Held = Mapping[str, Holding]
Touched = dict[str, Holding]
Move = Callable[[Held, Random], Touched | None]


def opening(random: Random) -> Touched:
    """Return what an account holds at the beginning: three to twelve assets."""
    codes = random.sample(list(CATALOGUE), random.randrange(3, 13))
    held: Touched = {}
    for code in codes:
        held[code] = Holding(free=_usual_amount(code, random))
        for move in (place_order, freeze, start_withdrawal):
            if random.random() < 0.2:
                held |= move({code: held[code]}, random) or {}
    return held


def deposit(held: Held, random: Random) -> Touched:
    """Get some of an asset from outside, often of one that was not held."""
    code = random.choice(list(CATALOGUE))
    before = held.get(code, NOTHING)
    return {code: replace(before, free=before.free + _usual_amount(code, random))}


def trade(held: Held, random: Random) -> Touched | None:
    """Sell some of one asset for another, at their usual prices less a fee of 0.1 %."""
    sold = _one_with("free", held, random)
    if sold is None:
        return None
    bought = random.choice([code for code in CATALOGUE if code != sold])
    amount = part_of(held[sold].free, random)
    before = held.get(bought, NOTHING)
    return {
        sold: replace(held[sold], free=held[sold].free - amount),
        bought: replace(before, free=before.free + _proceeds(sold, amount, bought)),
    }


def finish_withdrawal(held: Held, random: Random) -> Touched | None:
    """Send off what was on its way out."""
    code = _one_with("withdrawing", held, random)
    return None if code is None else {code: replace(held[code], withdrawing=0)}


def fill_order(held: Held, random: Random) -> Touched | None:
    """Let an order be filled: what it had locked is gone, tethers come in."""
    code = _one_with("locked", held, random)
    if code is None or code == "USDT":
        return None
    amount = part_of(held[code].locked, random)
    before = held.get("USDT", NOTHING)
    return {
        code: replace(held[code], locked=held[code].locked - amount),
        "USDT": replace(before, free=before.free + _proceeds(code, amount, "USDT")),
    }


def empty(held: Held, random: Random) -> Touched | None:
    """Take everything away at once, as a sweep to the master account does."""
    return dict.fromkeys(held, NOTHING) or None


def invite(held: Held, random: Random) -> Touched | None:
    """Change the one figure that is not part of the total."""
    code = _one_with("free", held, random)
    if code is None:
        return None
    before = held[code]
    return {code: replace(before, ipoable=0 if before.ipoable else before.free)}


def _within(source: str, target: str) -> Move:
    """Return the move that shifts some of an asset between two of its amounts."""

    def move(held: Held, random: Random) -> Touched | None:
        code = _one_with(source, held, random)
        if code is None:
            return None
        before = held[code]
        amount = part_of(getattr(before, source), random)
        shifted = {source: getattr(before, source) - amount, target: getattr(before, target) + amount}
        return {code: replace(before, **shifted)}

    return move


place_order = _within("free", "locked")
cancel_order = _within("locked", "free")
freeze = _within("free", "freeze")
unfreeze = _within("freeze", "free")
start_withdrawal = _within("free", "withdrawing")

# How often each kind is tried, and what it is called in the books.
KINDS: Final[Mapping[str, tuple[int, Move]]] = {
    "trade": (30, trade),
    "order placed": (20, place_order),
    "order cancelled": (10, cancel_order),
    "order filled": (10, fill_order),
    "deposit": (10, deposit),
    "withdrawal started": (8, start_withdrawal),
    "withdrawal finished": (6, finish_withdrawal),
    "frozen": (3, freeze),
    "unfrozen": (3, unfreeze),
    "invited": (2, invite),
    "emptied": (1, empty),
}
INTERNAL: Final = frozenset(
    {"order placed", "order cancelled", "withdrawal started", "frozen", "unfrozen", "invited"}
)  # the total of every asset stays what it was

_NAMES = list(KINDS)
_WEIGHTS = [weight for weight, _ in KINDS.values()]


def make_move(held: Held, random: Random) -> tuple[str, Touched]:
    """Do one thing that changes something, and say what it was called."""
    [name] = random.choices(_NAMES, _WEIGHTS)
    touched = KINDS[name][1](held, random)
    if touched is None:
        name, touched = "deposit", deposit(held, random)
    # Nobody can be invited for more than is free.
    return name, {code: replace(new, ipoable=min(new.ipoable, new.free)) for code, new in touched.items()}


def _proceeds(sold: str, amount: int, bought: str) -> int:
    return max(1, amount * CATALOGUE[sold].price * 999 // (CATALOGUE[bought].price * 1000))


def _one_with(field: str, held: Held, random: Random) -> str | None:
    codes = [code for code, holding in held.items() if getattr(holding, field) > 0]
    return random.choice(codes) if codes else None


def _usual_amount(code: str, random: Random) -> int:
    digits = random.randrange(1, CATALOGUE[code].digits + 1)
    return part_of(random.randrange(1, 10**digits * UNIT), random)
