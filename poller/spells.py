"""Failing polls as spells of one kind of error, so that an outage is two lines in the log. Pure.

A spell begins with the first poll that fails so, whoever's it is, and is over when nobody fails so any more
and nobody has for a while: what comes and goes is one spell, and not a line for each poll.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

QUIET_S: Final = 300.0  # without a failure of its kind, until a spell is over


@dataclass(slots=True)
class Spell:
    """Failures of one kind.

    Attributes:
        kind: of the error.
        began_s: when the first poll failed so.
        last_s: when the last one did.
        failures: polls that failed so.
        accounts: names of all whose polls did.
    """

    kind: str
    began_s: float
    last_s: float
    failures: int = 0
    accounts: set[str] = field(default_factory=set)

    @property
    def lasted_s(self) -> float:
        """Seconds from the first failure to the last."""
        return self.last_s - self.began_s


class Spells:
    """The spells of one egress address that are not over."""

    def __init__(self) -> None:
        self._spells: dict[str, Spell] = {}
        self._failing: dict[str, str] = {}  # account -> kind of the error of its last poll

    def failed(self, account: str, kind: str, now_s: float) -> bool:
        """Note a poll that failed; say whether a spell begins with it."""
        self._failing[account] = kind
        begins = kind not in self._spells
        spell = self._spells.setdefault(kind, Spell(kind, now_s, now_s))
        spell.last_s = now_s
        spell.failures += 1
        spell.accounts.add(account)
        return begins

    def good(self, account: str) -> None:
        """Note a good poll, or that there is no such account any more."""
        self._failing.pop(account, None)

    def over(self, now_s: float) -> list[Spell]:
        """Return the spells that are over since the last time this was asked."""
        if not self._spells:
            return []
        failing = set(self._failing.values())
        ended = [
            spell
            for spell in self._spells.values()
            if spell.kind not in failing and now_s - spell.last_s >= QUIET_S
        ]
        for spell in ended:
            del self._spells[spell.kind]
        return ended
