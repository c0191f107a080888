"""How accounts are doing: stale, refused, quarantined, and when it is not the accounts at all. Pure.

One code stands for a wrong key, a wrong address and a missing permission, and has been seen during
bans. So a refusal is confirmed before an account is called quarantined, and if most accounts of an
address are refused alike, the address is to blame and no account is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from poller.model import Account, State

REFUSALS_TO_CONFIRM = 3
CONFIRM_AFTER_S = 60.0
PROBE_FIRST_S = 900.0
PROBE_LONGEST_S = 6 * 3600.0
# Below this many refused accounts nobody can tell a bad address from bad keys.
ALIKE_AT_LEAST = 5


@dataclass(frozen=True, slots=True)
class AccountHealth:
    """One account at a glance.

    Attributes:
        state: a ``State``, or ``keyless`` of an account that cannot be asked: nobody reaches its keys.
        silent_s: seconds since its last good answer, or since we look.
    """

    account: Account
    state: str
    silent_s: float


@dataclass(slots=True)
class _Health:
    account: Account
    state: State
    good_s: float  # of the last good answer, or since we look
    refusals: int = 0
    answered: bool = False  # the exchange has said something about this account, good or bad
    was_good: bool = False  # it answered well since we look


class Health:
    """The accounts of one egress address."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Health] = {}
        self._stretch: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def add(self, account: Account, state: State, now_s: float) -> None:
        """Begin to watch an account, in the state that was last told to sinks."""
        # A quarantined account is probed once soon after a restart: somebody may have repaired its key.
        refusals = REFUSALS_TO_CONFIRM - 1 if state is State.QUARANTINED else 0
        self._accounts[account.name] = _Health(account, state, now_s, refusals)

    def remove(self, name: str) -> None:
        """Stop watching an account."""
        self._accounts.pop(name, None)

    def change(self, account: Account) -> None:
        """Take an account's new settings over."""
        self._accounts[account.name].account = account

    def renewed(self, name: str) -> None:
        """Note that the account has another key: what was refused was the old one."""
        health = self._accounts[name]
        # If the new one is refused as well, a quarantine needs no second confirmation.
        health.refusals = REFUSALS_TO_CONFIRM - 1 if health.state is State.QUARANTINED else 0

    def __contains__(self, name: str) -> bool:
        return name in self._accounts

    def state(self, name: str) -> State:
        """Return the account's state."""
        return self._accounts[name].state

    def states(self) -> Iterable[State]:
        """Return the state of every account."""
        return (health.state for health in self._accounts.values())

    def standings(self) -> Iterable[tuple[Account, State, float]]:
        """Yield every account with its state, and when it last answered well or watching it began."""
        return ((health.account, health.state, health.good_s) for health in self._accounts.values())

    def each(self, now_s: float) -> list[AccountHealth]:
        """Return how every account is doing."""
        return [
            AccountHealth(health.account, health.state, now_s - health.good_s)
            for health in self._accounts.values()
        ]

    def good_s(self, name: str) -> float:
        """Return when the account last answered well, or when watching it began."""
        return self._accounts[name].good_s

    def good(self, name: str, now_s: float) -> float | None:
        """Note a good answer; return how many seconds the one before it was old, ``None`` if it is the first."""
        health = self._accounts[name]
        age_s = now_s - health.good_s if health.was_good else None
        health.good_s = now_s
        health.was_good = True
        health.refusals = 0
        health.answered = True
        return age_s

    def refused(self, name: str) -> float:
        """Note that the account's key was refused; return for how many seconds not to ask again.

        After the last confirmation ``is_quarantined`` tells, and the wait grows from 15 minutes to 6 hours.
        """
        health = self._accounts[name]
        health.answered = True
        health.refusals += 1
        beyond = health.refusals - REFUSALS_TO_CONFIRM
        if beyond < 0:
            return CONFIRM_AFTER_S
        return min(PROBE_FIRST_S * 2.0 ** min(beyond, 16), PROBE_LONGEST_S)

    def is_quarantined(self, name: str) -> bool:
        """Say whether the refusals of this account are confirmed, and its own."""
        return self._accounts[name].refusals >= REFUSALS_TO_CONFIRM

    def alike(self) -> bool:
        """Say whether so many accounts are refused that it must be the address or the endpoint."""
        answered = refused = 0
        for health in self._accounts.values():
            answered += health.answered
            refused += health.refusals > 0
        return refused >= ALIKE_AT_LEAST and refused * 2 >= answered

    def forgive(self) -> None:
        """Take every unconfirmed refusal back: it was not the accounts' fault."""
        for health in self._accounts.values():
            if health.state is not State.QUARANTINED:
                health.refusals = min(health.refusals, 1)

    def turn(self, name: str, state: State) -> None:
        """Note that the account's state was told to sinks."""
        self._accounts[name].state = state

    def set_stretch(self, factors: Mapping[int, float]) -> None:
        """Judge staleness by intervals as they are now, by priority: what must wait is late, not stale."""
        self._stretch = dict(factors)

    def stretch(self, priority: int) -> float:
        """Return how many times as long as configured the intervals of a priority are now."""
        return max(1.0, self._stretch.get(priority, 1.0))

    def _stale_s(self, health: _Health) -> float:
        return health.good_s + health.account.stale_after_s * self.stretch(health.account.priority)

    def stale(self, now_s: float) -> list[Account]:
        """Return the accounts that have become stale and were not yet called so."""
        return [
            health.account
            for health in self._accounts.values()
            if health.state is State.OK and now_s >= self._stale_s(health)
        ]

    def is_stale(self, name: str, now_s: float) -> bool:
        """Say whether ``stale`` would return the account; not if it is not watched any more."""
        health = self._accounts.get(name)
        return health is not None and health.state is State.OK and now_s >= self._stale_s(health)

    def next_stale_s(self) -> float:
        """Return when the next account becomes stale if nothing happens; infinity if none can."""
        return min(
            (self._stale_s(health) for health in self._accounts.values() if health.state is State.OK),
            default=math.inf,
        )
