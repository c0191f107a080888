"""Balances that move, and the books of every state they were ever in.

Pure: time is an argument, microseconds on the exchange's clock. Every move has its exact time before
anybody looks, and ``advance`` makes those that are due; so the books do not depend on who asked when,
and the same seed gives the same moves with the same pauses between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from poller.simulator.moves import Held, Holding, make_move, opening

Balances = tuple[tuple[str, Holding], ...]  # sorted by asset, only what is listed

EMPTY_EVERY = 20  # one account in so many is empty from the beginning and stays so


@dataclass(frozen=True, slots=True)
class Entry:
    """One state of one account.

    Attributes:
        time_us: since when it holds; until the next entry's time. Microseconds since the epoch on the
            exchange's clock as it was then.
        cause: ``opening``, or the kind of move that led here.
    """

    time_us: int
    cause: str
    balances: Balances


class Market:
    """All accounts' balances from a first moment on.

    Args:
        accounts: their names.
        seed: same seed and names, same moves.
        moves_per_s: of the whole fleet, on average; 0 for a market that never moves.
        start_us: the first moment.
    """

    def __init__(self, accounts: Sequence[str], *, seed: int, moves_per_s: float, start_us: int) -> None:
        self._random = Random(f"moves/{seed}")
        self._per_us = moves_per_s / 1e6
        self._movers = [name for place, name in enumerate(accounts) if place % EMPTY_EVERY != EMPTY_EVERY - 1]
        self._held: dict[str, dict[str, Holding]] = {name: {} for name in accounts}
        for name in self._movers:
            self._held[name] = opening(Random(f"opening/{seed}/{name}"))
        self._books = {name: [Entry(start_us, "opening", listed(held))] for name, held in self._held.items()}
        self._frozen_us: int | None = None
        self._next_us = start_us
        self._plan_next()
        self.moves = 0

    @property
    def is_frozen(self) -> bool:
        """Whether the market stands still."""
        return self._frozen_us is not None

    def advance(self, now_us: int) -> None:
        """Make the moves whose time has come."""
        if not self._per_us or self.is_frozen:
            return
        while self._next_us <= now_us:
            self._move(self._next_us)
            self._plan_next()

    def balances(self, account: str) -> Balances:
        """Return what the account holds since the last move. Raises ``KeyError`` for an unknown one."""
        return self._books[account][-1].balances

    def history(self, account: str) -> Sequence[Entry]:
        """Return every state of the account, the oldest first. Raises ``KeyError`` for an unknown one."""
        return self._books[account]

    def freeze(self, now_us: int) -> None:
        """Make what is due, then stand still until ``thaw``."""
        self.advance(now_us)
        if self._frozen_us is None:
            self._frozen_us = now_us

    def thaw(self, now_us: int) -> None:
        """Go on where ``freeze`` stopped: what lay ahead then lies as far ahead now."""
        if self._frozen_us is not None:
            self._next_us += now_us - self._frozen_us
            self._frozen_us = None

    def step_clock(self, by_us: int) -> None:
        """Take note that the exchange's clock jumps: what lies ahead stays as far ahead, the past keeps its times."""
        self._next_us += by_us
        if self._frozen_us is not None:
            self._frozen_us += by_us

    def _plan_next(self) -> None:
        if self._per_us:
            # At least a microsecond, so that no two states have the same time.
            self._next_us += max(1, round(self._random.expovariate(self._per_us)))

    def _move(self, at_us: int) -> None:
        name = self._random.choice(self._movers)
        held = self._held[name]
        cause, touched = make_move(held, self._random)
        held.update(touched)
        for code in touched:
            if not held[code].is_listed:
                del held[code]
        self._books[name].append(Entry(at_us, cause, listed(held)))
        self.moves += 1


def listed(held: Held) -> Balances:
    """Return the rows that an answer has, in their order."""
    return tuple(sorted((code, holding) for code, holding in held.items() if holding.is_listed))
