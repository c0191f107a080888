"""Which sub-accounts exist: asked with a master key, and held against those that are configured.

Sub-accounts are known by their e-mails, which are personal data: they are in the documents for operators,
and neither in the log nor in metrics, where only counts are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from poller.budget.questions import Questions
from poller.clock import Clock, rfc3339
from poller.errors import BadAnswer, OutboxFull, PollError
from poller.exchange.client import PAGE_ROWS, SubAccount
from poller.metrics import Metrics
from poller.overview import Discovery

logger = logging.getLogger(__name__)

WEIGHT: Final = 1  # of one page
PAGES_MOST: Final = 100  # twenty thousand sub-accounts; the exchange's own limit is a tenth of that
RETRY_FIRST_S: Final = 60.0  # after a failure, doubled with each further one, up to the interval

AskPage = Callable[[int], Awaitable[list[SubAccount]]]


def same(email: str) -> str:
    """Return what two spellings of one e-mail have in common: the exchange does not tell capitals apart."""
    return email.strip().casefold()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What there is, held against what is configured. Everything sorted.

    Attributes:
        found: how many sub-accounts there are.
        matched: how many of them a configured account is matched with.
        missing: e-mails of those that none is matched with.
        frozen: e-mails of those that the exchange has frozen, whether matched or not.
        gone: names of the configured accounts whose sub-account does not exist any more.
    """

    found: int
    matched: int
    missing: tuple[str, ...]
    frozen: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def is_as_configured(self) -> bool:
        """There is nothing to say."""
        return not (self.missing or self.frozen or self.gone)


def compare(
    found: Iterable[SubAccount], configured: Mapping[str, str], elsewhere: Collection[str] | None = ()
) -> Comparison:
    """Hold the sub-accounts of one master account against the configured ones.

    Args:
        found: what the master account lists.
        configured: e-mails by the name of the account.
        elsewhere: e-mails that other master accounts list, as ``same`` gives them: those are not gone.
            ``None`` if that is not known yet; then nobody is called gone.
    """
    listed = {same(one.email): one for one in found}
    wanted = {same(email) for email in configured.values()}
    gone = (
        []
        if elsewhere is None
        else [
            name
            for name, email in configured.items()
            if same(email) not in listed and same(email) not in elsewhere
        ]
    )
    return Comparison(
        found=len(listed),
        matched=len(listed.keys() & wanted),
        missing=tuple(sorted(one.email for key, one in listed.items() if key not in wanted)),
        frozen=tuple(sorted(one.email for one in listed.values() if one.is_frozen)),
        gone=tuple(sorted(gone)),
    )


class Roster:
    """What all master accounts list, and what is configured.

    Nobody says which master account a configured sub-account belongs to. So it is gone only if none of
    them lists it, and all have answered; it is then said with each.

    Args:
        masters: names of the ``discover`` entries.
        configured: e-mails by the name of the account.
    """

    def __init__(self, masters: Iterable[str], configured: Mapping[str, str]) -> None:
        self.configured = configured
        self._listed: dict[str, list[SubAccount] | None] = dict.fromkeys(masters)

    def answered(self, master: str, found: list[SubAccount]) -> None:
        """Take note of what a master account lists now."""
        self._listed[master] = found

    def listed(self, master: str) -> list[SubAccount] | None:
        """Return what a master account listed last; ``None`` before its first answer."""
        return self._listed[master]

    def comparison(self, master: str) -> Comparison | None:
        """Return how its sub-accounts stand; ``None`` before its first answer."""
        found = self._listed[master]
        if found is None:
            return None
        others = [listed for name, listed in self._listed.items() if name != master]
        elsewhere = {same(one.email) for listed in others for one in listed or ()}
        return compare(found, self.configured, None if None in others else elsewhere)


class DiscoveryWatch:
    """Asks one master account for its sub-accounts, at the start and every interval.

    Args:
        name: of the ``discover`` entry.
        roster: what is configured, and what other master accounts list.
        questions: pays for every page; nothing is asked during a pause.
        ask: asks for a page, counted from 1; raises ``PollError`` if the exchange does not say.
        interval_s: seconds between an answer and the next question.
    """

    def __init__(
        self,
        name: str,
        roster: Roster,
        questions: Questions,
        ask: AskPage,
        *,
        interval_s: float,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self._roster = roster
        self._questions = questions
        self._ask = ask
        self._interval_s = interval_s
        self._clock = clock
        self._metrics = metrics
        self._at: str | None = None
        self._error = ""
        self._told: Comparison | None = None
        self._told_failing = ""

    def take_over(self, before: DiscoveryWatch) -> None:
        """Know what was known of the same master account before, until it answers again."""
        known = before._roster.listed(self.name)  # our own kind
        if known is not None:
            self._roster.answered(self.name, known)
        self._at, self._error = before._at, before._error
        self._told, self._told_failing = before._told, before._told_failing

    async def run(self) -> None:
        """Ask until cancelled.

        Raises:
            OutboxFailed: the process must stop.
        """
        failures = 0
        while True:
            await self.ask()
            failures = failures + 1 if self._error else 0
            retry_s = RETRY_FIRST_S * 2 ** min(failures - 1, 30) if failures else self._interval_s
            await asyncio.sleep(min(self._interval_s, retry_s))

    async def ask(self) -> Discovery:
        """Ask once; return what there is to see afterwards.

        Raises:
            OutboxFailed: the process must stop.
        """
        answer = await self._all()
        if isinstance(answer, list):
            self._at = rfc3339(self._clock.utc_ns())
            self._error = ""
            self._roster.answered(self.name, answer)
        else:
            self._error = str(answer)
        self._tell(answer)
        return self.seen()

    def seen(self) -> Discovery:
        """Return what is known now. After a failure it is what was known before, with the error."""
        known = self._roster.comparison(self.name) or Comparison(0, 0, (), (), ())
        return Discovery(
            name=self.name,
            at=self._at,
            error=self._error,
            found=known.found,
            missing=known.missing,
            frozen=known.frozen,
            gone=known.gone,
        )

    async def _all(self) -> list[SubAccount] | PollError | OutboxFull:
        """Return every page's sub-accounts; one page that fails fails the whole."""
        found: dict[str, SubAccount] = {}
        for page in range(1, PAGES_MOST + 1):
            answer = await self._questions.ask(partial(self._ask, page), weight=WEIGHT)
            if not isinstance(answer, list):
                return answer
            before = len(found)
            # One that is created or deleted meanwhile moves others over the pages' edges: not twice here.
            found.update((same(one.email), one) for one in answer)
            if len(answer) < PAGE_ROWS:
                return list(found.values())
            if len(found) == before:
                return BadAnswer(f"page {page} of the sub-accounts repeats others", reason="sub_accounts")
        return BadAnswer(f"the sub-accounts have no end after {PAGES_MOST} pages", reason="sub_accounts")

    def _tell(self, answer: list[SubAccount] | PollError | OutboxFull) -> None:
        """Speak when something is other than it was. Counts alone: e-mails are not for the log."""
        if not isinstance(answer, list):
            kind = answer.kind if isinstance(answer, PollError) else "outbox_full"
            if self._told_failing != kind:
                self._told_failing = kind
                logger.warning(
                    "sub-accounts could not be listed",
                    extra={"discover": self.name, "error_kind": kind, "error": str(answer)},
                )
            return
        if self._told_failing:
            logger.info(
                "sub-accounts can be listed again",
                extra={"discover": self.name, "error_kind": self._told_failing},
            )
            self._told_failing = ""
        now = self._roster.comparison(self.name)
        assert now is not None  # noqa: S101  # it has just answered
        counts = {
            "matched": now.matched,
            "missing": len(now.missing),
            "frozen": len(now.frozen),
            "gone": len(now.gone),
        }
        for state, count in counts.items():
            self._metrics.discovered_sub_accounts.labels(self.name, state).set(count)
        was_right = self._told is None or self._told.is_as_configured
        if now.is_as_configured and not was_right:
            logger.info(
                "sub-accounts are as configured again",
                extra={"discover": self.name, "found": now.found, "matched": now.matched},
            )
        elif not now.is_as_configured and _findings(now) != _findings(self._told):
            logger.warning(
                "sub-accounts are not as configured",
                extra={
                    "discover": self.name,
                    "found": now.found,
                    "matched": now.matched,
                    "missing": len(now.missing),
                    "frozen": len(now.frozen),
                    "gone": len(now.gone),
                },
            )
        self._told = now


def _findings(told: Comparison | None) -> object:
    return told and (told.missing, told.frozen, told.gone)
