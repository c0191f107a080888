"""What follows from the outcome of a poll: a record, a state, silence, or nothing at all.

An error says who has to wait, and only they do: this poll (its account's next one is the retry),
this account, or everybody on this address.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping

from poller.acceptance import Acceptance
from poller.budget import WeightBudget
from poller.clock import NS_PER_MS, Clock
from poller.errors import (
    BadAnswer,
    BadRequest,
    Maintenance,
    OutboxFull,
    Overloaded,
    PollError,
    Scope,
    Unavailable,
)
from poller.health import ALIKE_AT_LEAST, AccountHealth, Health
from poller.maintenance import MaintenanceWatch
from poller.metrics import Metrics
from poller.model import Account, Baseline, Snapshot, State
from poller.spells import Spells

logger = logging.getLogger(__name__)

COMPLAIN_EVERY_S = 60.0
# Requests that the exchange calls wrong are a bug of ours, or an endpoint that moved, if many have them.
BAD_REQUESTS_ALIKE = 5


class Outcomes:
    """The consequences for the accounts of one egress address.

    Args:
        egress: name of the address.
        accounts: whose polls end here.
        budget: silenced where an error demands it.
        acceptance: where good answers and states go; ``None`` if they go nowhere.
        exchange_ns: the exchange's clock, nanoseconds since the epoch.
        maintenance: asked before anybody is blamed; ``None`` if nobody can be asked.
    """

    def __init__(
        self,
        egress: str,
        accounts: Iterable[Account],
        budget: WeightBudget,
        acceptance: Acceptance | None,
        *,
        exchange_ns: Callable[[], int],
        clock: Clock,
        metrics: Metrics,
        maintenance: MaintenanceWatch | None = None,
    ) -> None:
        self._egress = egress
        self._budget = budget
        self._acceptance = acceptance
        self._exchange_ns = exchange_ns
        self._clock = clock
        self._metrics = metrics
        self._maintenance = maintenance
        self._health = Health()
        self._bad_requests: set[str] = set()
        self._unavailable: set[str] = set()  # accounts whose last answer was a failure of the exchange
        self._forbidden: set[str] = set()
        self._spells = Spells()
        self._complained_s: dict[str, float] = {}
        for account in accounts:
            self.add(account)

    def add(self, account: Account) -> None:
        """Watch an account more."""
        state = State.OK if self._acceptance is None else self._acceptance.baseline(account.name).state
        if state is State.REMOVED:  # configured again, it has to answer as one that always was
            state = State.OK
        self._health.add(account, state, self._clock.monotonic_s())

    def change(self, account: Account) -> None:
        """Take an account's new settings over."""
        self._health.change(account)

    def remove(self, name: str) -> None:
        """Watch an account no more; no poll of it may be under way."""
        self._health.remove(name)
        self._spells.good(name)
        for names in (self._bad_requests, self._unavailable, self._forbidden):
            names.discard(name)

    def renewed(self, name: str) -> None:
        """Note that an account has another key: what was said of the old one does not count."""
        self._health.renewed(name)

    def stretch(self, priority: int) -> float:
        """Return how many times as long as configured the intervals of a priority are now."""
        return self._health.stretch(priority)

    def state(self, name: str) -> State:
        """Return an account's state."""
        return self._health.state(name)

    def good_s(self, name: str) -> float:
        """Return when an account last answered well, or when watching it began; monotonic."""
        return self._health.good_s(name)

    def states(self) -> dict[State, int]:
        """Return how many accounts are in each state."""
        counts = dict.fromkeys((State.OK, State.STALE, State.QUARANTINED), 0)
        for state in self._health.states():
            counts[state] += 1
        return counts

    def standings(self) -> Iterable[tuple[Account, State, float]]:
        """Yield every account with its state, and ``good_s`` of it; quicker than to ask for each."""
        return self._health.standings()

    def healths(self) -> list[AccountHealth]:
        """Return how every account is doing, now."""
        return self._health.each(self._clock.monotonic_s())

    def baselines(self) -> list[Baseline]:
        """Return what was last accepted of every account."""
        if self._acceptance is None:
            return []
        return [self._acceptance.baseline(health.account.name) for health in self.healths()]

    def set_stretch(self, factors: Mapping[int, float]) -> None:
        """Let accounts be silent for so many times as long before they are stale, by priority."""
        self._health.set_stretch(factors)

    def held_something(self, account: Account) -> bool:
        """Say whether the account's last accepted answer listed anything."""
        return self._acceptance is not None and self._acceptance.held_something(account)

    async def settle(self, account: Account, outcome: Snapshot | PollError) -> float:
        """Do what the outcome demands; return for how many seconds this account is not asked again.

        Raises:
            OutboxFull: the answer was dropped; its change was not, for the baseline still stands.
            OutboxFailed: the process must stop.
        """
        if account.name in self._forbidden:  # it was under way when that was found
            return 0.0
        if isinstance(outcome, Snapshot):
            await self._good(account, outcome)
            return 0.0
        self._failed(account, outcome)
        if not isinstance(outcome, Unavailable):
            self._unavailable.discard(account.name)
        match outcome.scope:
            case Scope.EGRESS:
                await self._pause(outcome)
            case Scope.ENDPOINT:
                await self._blame_endpoint(account, outcome)
            case Scope.ACCOUNT:
                return await self._blame_account(account, outcome)
            case Scope.POLL:
                if isinstance(outcome, BadAnswer):
                    self._metrics.rejected_answers.labels(outcome.reason).inc()
                if isinstance(outcome, Unavailable):
                    await self._blame_exchange(account)
        return 0.0

    async def forbid(self, account: Account, reason: str) -> None:
        """Call an account quarantined whatever its polls say, until ``allow``.

        Raises:
            OutboxFull: it is forbidden, and nobody was told.
            OutboxFailed: the process must stop.
        """
        self._forbidden.add(account.name)
        await self._turn(account, State.QUARANTINED, reason)

    def allow(self, account: Account) -> None:
        """Let the account's polls speak for it again. Harmless if it was never forbidden."""
        self._forbidden.discard(account.name)

    async def blame(self, error: PollError) -> None:
        """Draw the conclusions from an error of something else on this address, such as the clock's."""
        if isinstance(error, Maintenance) and await self._is_maintenance():
            return
        if error.scope is Scope.EGRESS or isinstance(error, Overloaded):
            await self._pause(error)

    async def watch_maintenance(self) -> None:
        """Wait for the end of every maintenance that is met, until cancelled."""
        if self._maintenance is not None:
            await self._maintenance.watch()

    async def watch_staleness(self) -> None:
        """Tell sinks of accounts without a good answer for too long, until cancelled."""
        while True:
            await self._tell_stale(self._clock.monotonic_s())
            # Never in a rush: a verdict that waits a second is no worse.
            wait_s = max(1.0, self._health.next_stale_s() - self._clock.monotonic_s())
            await asyncio.sleep(min(wait_s, 3600.0))

    def complain(self, about: str, message: str, error: Exception, **fields: object) -> None:
        """Speak of one thing at most once a minute: an outage must not fill the log."""
        now_s = self._clock.monotonic_s()
        if now_s - self._complained_s.get(about, -math.inf) >= COMPLAIN_EVERY_S:
            self._complained_s[about] = now_s
            logger.warning(message, extra={"egress": self._egress, "error": str(error), **fields})

    async def _good(self, account: Account, snapshot: Snapshot) -> None:
        age_s = self._health.good(account.name, self._clock.monotonic_s())
        if age_s is not None:
            self._metrics.staleness.labels(self._egress, str(account.priority)).observe(age_s)
        self._bad_requests.discard(account.name)
        self._unavailable.discard(account.name)
        self._spells.good(account.name)
        self._tell_recovered()
        if self._acceptance is not None:
            await self._acceptance.snapshot(account, snapshot)
        if self._health.state(account.name) is not State.OK:
            self._health.turn(account.name, State.OK)
            logger.info(
                "account changed its state", extra={"account": account.name, "state": State.OK, "reason": ""}
            )

    def _failed(self, account: Account, error: PollError) -> None:
        if self._spells.failed(account.name, error.kind, self._clock.monotonic_s()):
            logger.warning(
                "polls fail",
                extra={
                    "egress": self._egress,
                    "error_kind": error.kind,
                    "error": str(error),
                    "account": account.name,
                },
            )
        self._tell_recovered()

    def _tell_recovered(self) -> None:
        for spell in self._spells.over(self._clock.monotonic_s()):
            logger.info(
                "polls are good again",
                extra={
                    "egress": self._egress,
                    "error_kind": spell.kind,
                    "lasted_s": round(spell.lasted_s, 1),
                    "polls": spell.failures,
                    "accounts": len(spell.accounts),
                },
            )

    async def _blame_account(self, account: Account, error: PollError) -> float:
        hold_s = self._health.refused(account.name)
        alike = self._health.alike()
        if (alike or self._health.is_quarantined(account.name)) and await self._is_maintenance():
            self._health.forgive()
            return 0.0
        if alike:
            self._health.forgive()
            self.complain("alike", "most accounts of this address are refused alike: not their keys", error)
            await self._pause(error)
            return 0.0
        if self._health.is_quarantined(account.name):
            await self._turn(account, State.QUARANTINED, f"the key is refused (code {error.code})")
        return hold_s

    async def _blame_exchange(self, account: Account) -> None:
        self._unavailable.add(account.name)
        failing, accounts = len(self._unavailable), len(self._health)
        if failing >= min(ALIKE_AT_LEAST, accounts) and failing * 2 >= accounts:
            await self._is_maintenance()

    async def _is_maintenance(self) -> bool:
        return self._maintenance is not None and await self._maintenance.explains_it()

    async def _blame_endpoint(self, account: Account, error: PollError) -> None:
        if isinstance(error, Maintenance) and await self._is_maintenance():
            return
        if isinstance(error, BadRequest):
            self._bad_requests.add(account.name)
            if len(self._bad_requests) < BAD_REQUESTS_ALIKE:
                return
        await self._pause(error)

    async def _pause(self, error: PollError) -> None:
        try:
            await self._budget.pause(error, exchange_ms=self._exchange_ns() / NS_PER_MS)
        except OutboxFull as full:
            self.complain("pause", "a pause is in force but not on disk", full)

    async def _tell_stale(self, now_s: float) -> None:
        for account in self._health.stale(now_s):
            if not self._health.is_stale(account.name, now_s):
                continue  # removed, or good again, while sinks were told of others
            silent_s = round(now_s - self._health.good_s(account.name))
            try:
                await self._turn(account, State.STALE, f"no good answer for {silent_s} s")
            except OutboxFull as error:
                self.complain("outbox", "states cannot be accepted", error, account=account.name)
                return

    async def _turn(self, account: Account, state: State, reason: str) -> None:
        if account.name not in self._health or self._health.state(account.name) is state:
            return
        if self._acceptance is not None:
            await self._acceptance.turned(account, state, reason)
        if account.name not in self._health:
            return  # removed meanwhile, which is told next
        self._health.turn(account.name, state)
        logger.warning(
            "account changed its state", extra={"account": account.name, "state": state, "reason": reason}
        )
