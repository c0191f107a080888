"""Whether every dispatcher still turns, so that somebody outside can be told while they do. Pure.

A dispatcher touches the beat each time it turns, and it turns every few seconds also while it waits for
somebody to be due. Where it must wait for something else, it says what for, and how to know whether there
still is a reason to: a wait whose reason is gone, and that goes on, is a hang like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

TURN_EVERY_S: Final = 5.0  # a dispatcher that waits turns at least so often
HANGS_AFTER_S: Final = 20.0


@dataclass(slots=True)
class _Turn:
    """One dispatcher's last sign of life; ``left_s`` only while it waits for a reason."""

    at_s: float
    doing: str
    left_s: Callable[[], float] | None = None


class Beat:
    """All dispatchers that exist.

    Args:
        limit_s: whoever has not turned for longer hangs; at least twice ``TURN_EVERY_S``.
    """

    def __init__(self, limit_s: float = HANGS_AFTER_S) -> None:
        if limit_s < 2 * TURN_EVERY_S:
            raise ValueError(f"a dispatcher turns every {TURN_EVERY_S:g} s: {limit_s:g} s is no limit for it")
        self._limit_s = limit_s
        self._turns: dict[str, _Turn] = {}

    def touch(self, name: str, now_s: float, doing: str = "") -> None:
        """Note that a dispatcher turns; from its first turn on it has to, until it is forgotten.

        Args:
            name: of its egress address.
            now_s: monotonic seconds.
            doing: what it is about to do, to be read after "it was last seen".
        """
        self._turns[name] = _Turn(now_s, doing)

    def waits(self, name: str, now_s: float, doing: str, left_s: Callable[[], float]) -> None:
        """Note that a dispatcher turns now, and then waits for as long as there is a reason to.

        Args:
            left_s: returns for how many seconds the reason will last; 0.0 if there is none any more,
                infinity if its end is not known. Asked by ``trouble``, until the next ``touch``.
        """
        self._turns[name] = _Turn(now_s, doing, left_s)

    def forget(self, name: str) -> None:
        """A dispatcher has come to its end. Harmless if there is none."""
        self._turns.pop(name, None)

    def trouble(self, now_s: float) -> str:
        """Return which dispatchers hang, in words; an empty text if all is well.

        To be asked every ``TURN_EVERY_S`` or so: a reason to wait is seen only when it is looked at.
        """
        told = []
        for name, turn in self._turns.items():
            if turn.left_s is not None and turn.left_s() > 0:
                turn.at_s = now_s
            if (silent_s := now_s - turn.at_s) > self._limit_s:
                seen = f"; it was last seen {turn.doing}" if turn.doing else ""
                told.append(f"the dispatcher of {name} has not turned for {silent_s:.0f} s{seen}")
        return ", and ".join(told)
