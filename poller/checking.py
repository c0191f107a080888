"""What each key may do: asked within the budget, judged by the policy, and watched by the daemon."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final, Literal

from poller.budget import WeightBudget
from poller.budget.questions import Questions
from poller.errors import AccessDenied, OutboxFull, PollError
from poller.exchange.client import Restrictions, SystemStatus
from poller.health import ALIKE_AT_LEAST
from poller.model import Account
from poller.overview import Discovery

logger = logging.getLogger(__name__)

KeyPolicy = Literal["warn", "require_read_only", "off"]
# What a key may do; an error if the exchange did not say; ``None`` if nobody came to ask.
Finding = Restrictions | PollError | OutboxFull | None

WEIGHT: Final = 1
AT_ONCE: Final = 8  # keys asked about at the same time, of one address: polls hardly notice
CHECK_EVERY_S: Final = 86_400.0
NAMED_AT_MOST: Final = 5  # accounts in one log line


class Verdict(StrEnum):
    """What is to be done about a key."""

    REFUSED = "refused"  # it cannot be polled with
    FORBIDDEN = "forbidden"  # the policy does not let it be polled with
    UNKNOWN = "unknown"  # the exchange did not say
    WARNING = "warning"  # it works, and could be safer
    GOOD = "good"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its reasons, each fit to be read after the account's name."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The exchange's clock less this machine's, in seconds, and how far off that may be."""

    offset_s: float
    uncertainty_ms: float


@dataclass(slots=True)
class Checkup:
    """Everything that was asked at once, filled as answers come.

    Attributes:
        keys: by account, in the configuration's order.
        systems: how the exchange says it is doing, by egress address; ``None`` if nobody came to ask.
        discoveries: what master accounts say of their sub-accounts, by name; ``None`` if nobody came to ask.
        clock: ``None`` if it could not be measured.
    """

    keys: dict[str, Finding]
    systems: dict[str, SystemStatus | PollError | OutboxFull | None]
    discoveries: dict[str, Discovery | None]
    clock: ClockReading | None = None


def judge(finding: Finding, policy: KeyPolicy) -> Judgement:
    """Say what a finding means under a policy. Not to know is never a refusal."""
    if finding is None:
        return Judgement(Verdict.UNKNOWN, ("was not asked about in time",))
    if isinstance(finding, AccessDenied):
        return Judgement(Verdict.REFUSED, (f"the key is refused: {finding}",))
    if not isinstance(finding, Restrictions):
        return Judgement(Verdict.UNKNOWN, (f"not known what the key may do: {finding}",))
    reasons = []
    if finding.beyond_reading and policy != "off":
        reasons.append(f"the key can do more than read: {', '.join(finding.beyond_reading)}")
    if not finding.reading:
        reasons.append("reading is not enabled")
    if not finding.ip_restricted and policy != "off":
        reasons.append("the key works from any address")
    if policy == "require_read_only" and finding.beyond_reading:
        return Judgement(Verdict.FORBIDDEN, tuple(reasons))
    if not finding.reading:
        return Judgement(Verdict.REFUSED, tuple(reasons))
    return Judgement(Verdict.WARNING if reasons else Verdict.GOOD, tuple(reasons))


def refused_alike(accounts: Iterable[Account], findings: Mapping[str, Finding]) -> list[str]:
    """Return the egress addresses that most keys are refused from: that is the address, not the keys."""
    refused: dict[str, int] = {}
    answered: dict[str, int] = {}
    for account in accounts:
        finding = findings.get(account.name)
        if isinstance(finding, Restrictions | AccessDenied):
            answered[account.egress] = answered.get(account.egress, 0) + 1
            if isinstance(finding, AccessDenied):
                refused[account.egress] = refused.get(account.egress, 0) + 1
    return [
        egress
        for egress, count in refused.items()
        if count >= ALIKE_AT_LEAST and count * 2 >= answered[egress]
    ]


class KeyChecker:
    """Asks what the keys of one egress address may do.

    Args:
        budget: pays for every question; none is asked during a pause.
        ask: asks about one account's key; raises ``PollError`` if the exchange does not say.
        blame: told of every error, so that a 429 here silences the address as any other does.
    """

    def __init__(
        self,
        budget: WeightBudget,
        ask: Callable[[Account], Awaitable[Restrictions]],
        blame: Callable[[PollError], Awaitable[None]],
    ) -> None:
        self._questions = Questions(budget, blame)
        self._ask = ask

    async def check(
        self, accounts: Iterable[Account], found: Callable[[Account, Finding], Awaitable[None]]
    ) -> None:
        """Ask about every account, in their order and several at once; ``found`` is told each answer.

        Raises:
            ExceptionGroup: of what ``found`` raised.
        """
        waiting = iter(accounts)
        async with asyncio.TaskGroup() as tasks:
            for number in range(AT_ONCE):
                tasks.create_task(
                    self._work(waiting, found), name=f"key check {number + 1} on {self._questions.egress}"
                )

    async def _work(
        self, waiting: Iterator[Account], found: Callable[[Account, Finding], Awaitable[None]]
    ) -> None:
        for account in waiting:
            await found(account, await self._finding(account))

    async def system(
        self, ask: Callable[[str], Awaitable[SystemStatus]]
    ) -> SystemStatus | PollError | OutboxFull:
        """Ask through this address how the exchange says it is doing."""
        return await self._questions.ask(partial(ask, self._questions.egress), weight=WEIGHT)

    async def _finding(self, account: Account) -> Finding:
        return await self._questions.ask(partial(self._ask, account), weight=WEIGHT)


class KeyWatch:
    """Checks the keys of one address when the daemon starts and once a day.

    Args:
        egress: name of the address.
        accounts: whose keys; looked at anew for every round.
        checker: asks.
        policy: ``warn`` speaks of keys that can do more than read; ``require_read_only`` also has them
            forbidden, and nobody polled before their first check; ``off`` checks nothing.
        allow: called when an account may be polled; again after every check.
        forbid: called with the reason when it may not.
    """

    def __init__(
        self,
        egress: str,
        accounts: Iterable[Account],
        checker: KeyChecker,
        policy: KeyPolicy,
        *,
        allow: Callable[[Account], None],
        forbid: Callable[[Account, str], Awaitable[None]],
    ) -> None:
        self._egress = egress
        self._accounts = accounts
        self._checker = checker
        self._policy = policy
        self._allow = allow
        self._forbid = forbid
        self._spoken: frozenset[str] = frozenset()
        self._forbidden: set[str] = set()

    async def run(self) -> None:
        """Check until cancelled.

        Raises:
            ExceptionGroup: of ``OutboxFailed``: the process must stop.
        """
        while self._policy != "off":
            beyond = await self.check(tuple(self._accounts))
            self._spoken &= beyond
            await asyncio.sleep(CHECK_EVERY_S)

    def forget(self, name: str) -> None:
        """Hold nothing against an account any more: it has another key, or went."""
        self._forbidden.discard(name)
        self._spoken -= {name}

    async def check(self, accounts: Sequence[Account]) -> frozenset[str]:
        """Check these now; return those whose keys can do more than read.

        Raises:
            ExceptionGroup: of ``OutboxFailed``: the process must stop.
        """
        beyond: list[str] = []

        async def found(account: Account, finding: Finding) -> None:
            if isinstance(finding, Restrictions) and finding.beyond_reading:
                beyond.append(account.name)
            await self._apply(account, judge(finding, self._policy))

        await self._checker.check(accounts, found)
        if not self._spoken.issuperset(beyond):
            logger.warning(
                "keys can do more than read",
                extra={
                    "egress": self._egress,
                    "accounts": len(beyond),
                    "names": sorted(beyond)[:NAMED_AT_MOST],
                    "polled": self._policy != "require_read_only",
                },
            )
        self._spoken |= frozenset(beyond)
        return frozenset(beyond)

    async def _apply(self, account: Account, judgement: Judgement) -> None:
        if judgement.verdict is Verdict.FORBIDDEN:
            self._forbidden.add(account.name)
            try:
                await self._forbid(account, judgement.reasons[0])
            except OutboxFull as error:
                logger.warning(
                    "states cannot be accepted",
                    extra={"egress": self._egress, "account": account.name, "error": str(error)},
                )
        elif judgement.verdict is not Verdict.UNKNOWN or account.name not in self._forbidden:
            # A key that was found to do too much is not trusted again because a later check failed.
            self._forbidden.discard(account.name)
            self._allow(account)
