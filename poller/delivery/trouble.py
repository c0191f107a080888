"""How one sink fails: how often, since when, how long to wait, and whom to tell."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence

from poller.clock import Clock
from poller.delivery.calls import Raised, kind, text
from poller.delivery.settings import DeliverySettings
from poller.errors import OutboxFull, SinkBroken, SinkError, SinkUnavailable
from poller.metrics import Metrics
from poller.outbox import DeadLetter

logger = logging.getLogger(__name__)

COMPLAIN_EVERY_S = 60.0  # a sink that fails at every write must not fill the log
RETRY_AFTER_LONGEST_S = 3600.0  # a destination may ask for a delay, not for its removal
# After so many failures in a row single records are tried, not batches, until one passes.
FAILURES_UNTIL_OPEN = 5


class Trouble:
    """One sink's failures in a row.

    Attributes:
        error: what the last attempt failed with, without secrets; empty if it did not.
    """

    def __init__(
        self, sink: str, settings: DeliverySettings, clock: Clock, metrics: Metrics, dice: random.Random
    ) -> None:
        self.error = ""
        self._sink = sink
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._dice = dice
        self._failures = 0
        self._since_s: float | None = None
        self._complained_s = -math.inf
        self._is_recovery_news = False  # somebody was told that it fails

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open: it failed so often that single records are tried."""
        return self._failures >= FAILURES_UNTIL_OPEN

    @property
    def lasting_s(self) -> float:
        """Seconds since the first failure after the last success; 0.0 if it works."""
        return 0.0 if self._since_s is None else self._clock.monotonic_s() - self._since_s

    def failed(self, error: SinkError | OutboxFull, *, backlog: int) -> float:
        """Take note of a failure and return the seconds to wait before the next try."""
        delay_s = self._delay_s(error)
        now_s = self._clock.monotonic_s()
        self._failures += 1
        self._since_s = now_s if self._since_s is None else self._since_s
        self.error = text(error)
        self._metrics.delivery_failures.labels(self._sink, kind(error)).inc()
        if now_s - self._complained_s >= COMPLAIN_EVERY_S:
            self._complained_s = now_s
            self._is_recovery_news = True
            self._complain(error, delay_s, backlog)
        return delay_s

    def succeeded(self) -> None:
        """Take note that it works."""
        if self._since_s is not None and self._is_recovery_news:
            logger.info(
                "a sink takes its records again",
                extra={"sink": self._sink, "lasted_s": round(self.lasting_s, 1)},
            )
            self._is_recovery_news = False
        self._failures = 0
        self._since_s = None
        self.error = ""

    def _delay_s(self, error: SinkError | OutboxFull) -> float:
        if isinstance(error, SinkBroken):
            return self._settings.retry_max_s
        asked_s = error.retry_after_s if isinstance(error, SinkUnavailable) else None
        shortest_s = self._settings.retry_min_s
        if asked_s is not None and math.isfinite(asked_s):
            return min(max(asked_s, shortest_s), RETRY_AFTER_LONGEST_S)
        longest_s = min(shortest_s * 2.0 ** min(self._failures, 30), self._settings.retry_max_s)
        return self._dice.uniform(shortest_s, max(longest_s, shortest_s))

    def _complain(self, error: SinkError | OutboxFull, delay_s: float, backlog: int) -> None:
        logger.log(
            # Broken: it does not pass by itself, somebody has to come.
            logging.ERROR if isinstance(error, SinkBroken | Raised) else logging.WARNING,
            "a sink does not take its records; they are kept",
            extra={
                "sink": self._sink,
                "error": self.error,
                "failures": self._failures,
                "backlog": backlog,
                "retry_s": round(delay_s, 1),
            },
            exc_info=error.__cause__ if isinstance(error, Raised) else None,
        )


class Refusals:
    """Says which records one sink refused for good: the first at once, further ones at most once a minute."""

    def __init__(self, sink: str, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self._unsaid = 0
        self._first: DeadLetter | None = None  # of those not said yet
        self._said_s = -math.inf

    def note(self, dead: Sequence[DeadLetter]) -> None:
        """Note the dead letters of one write; call it for writes without any, too."""
        if dead:
            self._unsaid += len(dead)
            self._first = self._first or dead[0]
        now_s = self._clock.monotonic_s()
        if self._first is None or now_s - self._said_s < COMPLAIN_EVERY_S:
            return
        logger.error(
            "records were refused for good and put aside",
            extra={
                "sink": self._sink,
                "records": self._unsaid,
                "record": self._first.record.id,
                "account": self._first.record.account,
                "error": self._first.reason,
            },
        )
        self._unsaid, self._first, self._said_s = 0, None, now_s
