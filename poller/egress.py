"""One egress address while a daemon runs: its budget, its dispatcher, and the accounts polled from it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

from poller.acceptance import Acceptance
from poller.budget import WeightBudget
from poller.checking import KeyChecker, KeyPolicy, KeyWatch
from poller.clock import Clock
from poller.errors import OutboxFull
from poller.health import AccountHealth
from poller.model import Account, State
from poller.outcomes import Outcomes
from poller.polling import Dispatcher
from poller.schedule import Schedule

logger = logging.getLogger(__name__)


class Egress:
    """The accounts of one address, which may come, change and go while they are polled.

    Args:
        accounts: the first ones.
        budget: the address's weight.
        outcomes: what follows from polls; it knows the accounts already.
        schedule: who is due when; still empty.
        dispatcher: polls.
        checker: asks what keys may do.
        acceptance: where it is said that an account was removed.
        key_policy: see ``poller.checking.KeyWatch``.
    """

    def __init__(
        self,
        accounts: Sequence[Account],
        budget: WeightBudget,
        outcomes: Outcomes,
        schedule: Schedule,
        dispatcher: Dispatcher,
        checker: KeyChecker,
        acceptance: Acceptance,
        *,
        key_policy: KeyPolicy,
        clock: Clock,
    ) -> None:
        self.name = budget.egress
        self.budget = budget
        self.outcomes = outcomes
        self.schedule = schedule
        self.dispatcher = dispatcher
        self.accounts = {account.name: account for account in accounts}
        self._checker = checker
        self._acceptance = acceptance
        self._policy = key_policy
        self._clock = clock
        self._keyless: set[str] = set()
        self._watch = self._watching()
        self._unchecked: set[str] = set()  # accounts whose keys came since the last round
        self._called = asyncio.Event()

    def start(self, keyless: Collection[str] = ()) -> None:
        """Let polls begin, but for accounts whose key cannot be had yet."""
        self._keyless = {name for name in keyless if name in self.accounts}
        for account in self.accounts.values():
            self._let_in(account)

    def healths(self) -> list[AccountHealth]:
        """Return how every account is doing; ``keyless``, and for ever silent, are those without a key."""
        return [
            replace(health, state="keyless", silent_s=math.inf)
            if health.account.name in self._keyless
            else health
            for health in self.outcomes.healths()
        ]

    async def watch_keys(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Check keys now and once a day, by the policy that is in force, until cancelled.

        Args:
            ready: awaited before the first question: requests have to be stamped.

        Raises:
            ExceptionGroup: of ``OutboxFailed``: the process must stop.
        """
        await ready()
        while True:
            watch = self._watch
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(watch.run(), name=f"keys of {self.name}")
                while watch is self._watch:
                    self._called.clear()
                    names, self._unchecked = self._unchecked, set()
                    accounts = [account for name, account in self.accounts.items() if name in names]
                    if accounts and self._policy != "off":
                        await watch.check(accounts)
                    else:
                        await self._called.wait()
                watching.cancel()

    def set_policy(self, policy: KeyPolicy) -> None:
        """Judge keys by another policy from now on."""
        if policy != self._policy:
            self._policy = policy
            self._watch = self._watching()
            self._called.set()
            for account in self.accounts.values():
                self._let_in(account)

    def add(self, account: Account, *, keyless: bool = False) -> None:
        """Poll an account more."""
        self.accounts[account.name] = account
        self.outcomes.add(account)
        if keyless:
            self._keyless.add(account.name)
            return
        self._let_in(account)
        self._check(account)

    def change(self, account: Account) -> None:
        """Take an account's new settings over; who keeps the interval keeps the place in it."""
        self.accounts[account.name] = account
        self.outcomes.change(account)
        if account.name in self.schedule:
            self.schedule.change(account, self._clock.monotonic_s())
            self.dispatcher.wake()

    def renewed(self, name: str) -> None:
        """Note that an account has another key than before, or has one at last."""
        account = self.accounts[name]
        self.outcomes.renewed(name)
        self._watch.forget(name)
        self._keyless.discard(name)
        if name in self.schedule:
            self.schedule.release(name, self._clock.monotonic_s())
            self.dispatcher.wake()
        else:
            self._let_in(account)
        self._check(account)

    async def leave(self, name: str) -> Account:
        """Poll an account no more; when this returns its last poll has ended."""
        account = self.accounts.pop(name)
        self._keyless.discard(name)
        self.schedule.remove(name)
        await self.dispatcher.finished(name)
        self.outcomes.remove(name)
        self._watch.forget(name)
        return account

    async def remove(self, name: str) -> None:
        """Poll an account no more, and tell sinks that it was removed."""
        account = await self.leave(name)
        try:
            await self._acceptance.turned(account, State.REMOVED, "removed from the configuration")
        except OutboxFull as error:
            # It is said after the next start: whoever is not configured then was removed.
            logger.warning(
                "states cannot be accepted",
                extra={"egress": self.name, "account": name, "error": str(error)},
            )
        else:
            self._acceptance.forget(name)

    def _watching(self) -> KeyWatch:
        return KeyWatch(
            self.name,
            self.accounts.values(),
            self._checker,
            self._policy,
            allow=self._allow,
            forbid=self._forbid,
        )

    def _check(self, account: Account) -> None:
        self._unchecked.add(account.name)
        self._called.set()

    def _let_in(self, account: Account) -> None:
        """Schedule an account, unless its key has to be checked first, or is not there."""
        if self._policy != "require_read_only":
            self._allow(account)

    def _allow(self, account: Account) -> None:
        if account.name not in self.accounts:  # removed while its key was checked
            return
        self.outcomes.allow(account)
        if account.name not in self.schedule and account.name not in self._keyless:
            self.schedule.add(self.accounts[account.name], self._clock.monotonic_s())
            self.dispatcher.wake()

    async def _forbid(self, account: Account, reason: str) -> None:
        if account.name in self.accounts:
            self.schedule.remove(account.name)
            await self.outcomes.forbid(account, reason)
