"""What is said about records that are dropped: a line when it begins, and at most one a minute after it."""

from __future__ import annotations

import logging
from collections import Counter

from poller.clock import NS_PER_S

logger = logging.getLogger(__name__)

SAY_EVERY_S = 60


class Losses:
    """Counts what is dropped to make room until it is said."""

    def __init__(self) -> None:
        self._unsaid: Counter[str] = Counter()
        self._policy = ""
        self._said_ns: int | None = None

    def note(self, policy: str, by_sink: Counter[str], now_ns: int) -> None:
        """Note records that sinks will not get, and say so if it is time."""
        self._policy = policy
        self._unsaid += by_sink
        self.say(now_ns)

    def say(self, now_ns: int) -> None:
        """Say what has not been said yet, if the last line is a minute old; the clock may step."""
        if not self._unsaid:
            return
        if self._said_ns is not None and abs(now_ns - self._said_ns) < SAY_EVERY_S * NS_PER_S:
            return
        logger.error(
            "the outbox is at its size limit: records are dropped to make room",
            extra={"policy": self._policy, "dropped": dict(self._unsaid)},
        )
        self._said_ns = now_ns
        self._unsaid.clear()
