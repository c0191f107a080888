"""How long the oldest record that waits for each sink has been waiting, looked up every few seconds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from functools import partial

from poller.clock import NS_PER_S, Clock
from poller.errors import OutboxError
from poller.outbox.inspection import accepted_after
from poller.outbox.outbox import Outbox

LOOK_EVERY_S = 2.0


class Ages:
    """The age of the oldest record behind each sink's cursor.

    When a record was accepted stands in the file alone, and nobody who asks for its age may wait for that. So
    it is looked up beforehand, by one indexed read a sink. In between, an age is at most what it was plus what
    passed: a sink that went on meanwhile looks a little worse than it is, never better.
    """

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._accepted_ns: dict[str, int] = {}  # of the oldest that waits, by sink

    async def run(self) -> None:
        """Look until cancelled, or until the outbox can be read no more: whoever writes says so."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_EVERY_S)
        except OutboxError:
            return

    async def look(self) -> None:
        """Look up what waits now.

        Raises:
            OutboxError: the outbox is closed, or failed.
        """
        waiting = {
            sink: self._outbox.cursor(sink)
            for sink, backlog in self._outbox.stats().backlogs.items()
            if backlog
        }
        self._accepted_ns = await self._outbox.read(partial(_accepted, waiting)) if waiting else {}

    def waits_s(self, sink: str) -> float:
        """Return for how many seconds the sink's oldest record has waited; 0.0 if none waits."""
        accepted_ns = self._accepted_ns.get(sink)
        if accepted_ns is None or not self._outbox.stats().backlogs.get(sink):
            return 0.0
        return max(0.0, (self._clock.utc_ns() - accepted_ns) / NS_PER_S)


def _accepted(waiting: Mapping[str, int], db: sqlite3.Connection) -> dict[str, int]:
    """Return when the first record behind each position was accepted, where there is one."""
    found = {sink: accepted_after(db, position) for sink, position in waiting.items()}
    return {sink: accepted_ns for sink, accepted_ns in found.items() if accepted_ns is not None}
