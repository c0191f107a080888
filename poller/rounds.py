"""A single round without a daemon: poll everybody once, or ask about every key; nothing is accepted or delivered.

The weight and the pauses in the outbox hold all the same: a round cannot overspend what a daemon spent a
moment ago, and does not start beside a running one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from poller.assembly import Assembly, Foundation
from poller.budget import WeightBudget
from poller.checking import Checkup, ClockReading, Finding, KeyChecker
from poller.clock import NS_PER_S, Clock, SystemClock
from poller.config import Config, Secrets
from poller.discovery import DiscoveryWatch
from poller.errors import OutboxFailed, PollError, first_in
from poller.metrics import Metrics
from poller.model import Account, Snapshot
from poller.parts import RoundEgress, RoundParts
from poller.polling import Dispatcher, Observer
from poller.schedule import Sweep
from poller.timekeeping import TimeKeeper


class _Round:
    """Collects one outcome per account, and knows when all are there."""

    def __init__(self, accounts: Iterable[str]) -> None:
        self.outcomes: dict[str, Snapshot | PollError | None] = dict.fromkeys(accounts)
        self.finished = asyncio.Event()
        self._missing = set(self.outcomes)

    def note(self, account: Account, outcome: Snapshot | PollError) -> None:
        self.outcomes[account.name] = outcome
        self._missing.discard(account.name)
        if not self._missing:
            self.finished.set()


class Rounds:
    """Single rounds of a configuration.

    Args:
        config: whom to ask; everything that it refers to has to be in ``secrets``.
        observer: called with every poll's outcome.
    """

    def __init__(
        self,
        config: Config,
        secrets: Secrets,
        *,
        clock: Clock | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._metrics = Metrics()
        self._assembly = Assembly(config, secrets, self._clock, self._metrics)
        self._observer = observer

    async def check(self, *, timeout_s: float, checked: Callable[[], object]) -> Checkup:
        """Ask the exchange for its time, its status, what every key may do and which sub-accounts exist.

        All within the budget. Nothing is polled. During a pause nothing is asked; what is not answered in
        time stays unknown.

        Args:
            timeout_s: for everything together.
            checked: called after each key.

        Raises:
            OutboxLocked, EgressLocked: a daemon is running on this outbox, or from one of the addresses.
            OutboxError: the outbox cannot be used.
        """
        checkup = Checkup(
            dict.fromkeys(self._config.accounts),
            dict.fromkeys(self._config.egress),
            dict.fromkeys(self._config.discover),
        )

        async def found(account: Account, finding: Finding) -> None:
            checkup.keys[account.name] = finding
            checked()

        async def ask(parts: RoundParts, name: str, address: RoundEgress) -> None:
            checkup.systems[name] = await address.checker.system(parts.client.system_status)
            await address.checker.check(address.accounts, found)

        async def discover(watch: DiscoveryWatch) -> None:
            checkup.discoveries[watch.name] = await watch.ask()

        async with self._open(None) as parts:
            try:
                async with asyncio.timeout(timeout_s):
                    if await parts.timekeeper.refresh():
                        offset_s = (parts.server_time.now_ns() - self._clock.utc_ns()) / NS_PER_S
                        checkup.clock = ClockReading(offset_s, parts.server_time.uncertainty_ms)
                    async with asyncio.TaskGroup() as tasks:
                        for name, address in parts.egress.items():
                            tasks.create_task(ask(parts, name, address), name=f"checks from {name}")
                        for name, watch in parts.discoveries.items():
                            tasks.create_task(discover(watch), name=f"sub-accounts of {name}")
            except* TimeoutError:
                pass
            except* OutboxFailed as failed:
                raise first_in(failed) from None
        return checkup

    async def sweep(self, *, timeout_s: float) -> dict[str, Snapshot | PollError | None]:
        """Poll every account once; return each one's outcome, ``None`` if there was no time for it.

        Nothing is accepted or delivered. The weight and the pauses in the outbox hold all the same: a
        round cannot overspend what a daemon spent a moment ago, and does not start beside a running one.

        Raises:
            OutboxLocked: a daemon is running on this outbox.
            OutboxError: the outbox cannot be used.
        """
        found = _Round(self._config.accounts)

        def note(account: Account, outcome: Snapshot | PollError, lateness_s: float) -> None:
            found.note(account, outcome)
            if self._observer is not None:
                self._observer(account, outcome, lateness_s)

        async with self._open(note) as parts:
            try:
                await _poll(parts, found.finished, timeout_s)
            except* OutboxFailed as failed:
                raise first_in(failed) from None
        return found.outcomes

    @asynccontextmanager
    async def _open(self, observer: Observer | None) -> AsyncIterator[RoundParts]:
        """Prepare to poll everybody once, accepting and delivering nothing.

        Raises:
            OutboxError, EgressLocked: as from ``check``.
        """
        async with self._assembly.foundation() as base:
            egress: dict[str, RoundEgress] = {}
            timekeeper = self._assembly.timekeeper(base.client, egress)
            for name in self._config.egress:
                budget = self._assembly.budget(name, base.outbox, base.states.get(name))
                egress[name] = self._egress(budget, base, timekeeper, observer)
            yield RoundParts(
                base.client,
                base.server_time,
                timekeeper,
                egress,
                self._assembly.discoveries(base.client, egress),
            )

    def _egress(
        self, budget: WeightBudget, base: Foundation, timekeeper: TimeKeeper, observer: Observer | None
    ) -> RoundEgress:
        accounts = self._assembly.accounts(budget.egress)
        outcomes = self._assembly.outcomes(budget, base.client, base.server_time, None)
        dispatcher = Dispatcher(
            budget.egress,
            Sweep(accounts, now_s=self._clock.monotonic_s()),
            budget,
            base.client,
            outcomes,
            timekeeper,
            room=None,
            clock=self._clock,
            metrics=self._metrics,
            observer=observer,
        )
        checker = KeyChecker(budget, base.client.api_restrictions, outcomes.blame)
        return RoundEgress(accounts, budget, outcomes, dispatcher, checker)


async def _poll(parts: RoundParts, finished: asyncio.Event, timeout_s: float) -> None:
    async with asyncio.TaskGroup() as tasks:
        background = [tasks.create_task(parts.timekeeper.run(), name="clock")]
        background += [
            tasks.create_task(address.dispatcher.run(), name=f"polls from {name}")
            for name, address in parts.egress.items()
        ]
        try:
            async with asyncio.timeout(timeout_s):
                await finished.wait()
        except TimeoutError:
            pass
        for task in background:
            task.cancel()
