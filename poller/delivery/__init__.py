"""Carry records from the outbox to one sink: in order, at least once, whatever the sink does.

Each sink has its own loop and its own cursor, so a slow, dead or broken one delays nobody. A sink is
foreign code: it may hang, raise anything, or swallow its cancellation. All of that ends here, as a
batch that comes again later.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from poller.clock import Clock
from poller.delivery.calls import CANCEL_PATIENCE_S, Calls, Raised, kind, text
from poller.delivery.settings import DeliverySettings
from poller.errors import BatchRejected, OutboxFull, SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.metrics import Metrics
from poller.model import Record
from poller.outbox import DeadLetter
from poller.sinks import Sink

__all__ = ["Delivery", "DeliverySettings", "DeliveryStatus"]

logger = logging.getLogger(__name__)

COMPLAIN_EVERY_S = 60.0  # a sink that fails at every write must not fill the log
RETRY_AFTER_LONGEST_S = 3600.0  # a destination may ask for a delay, not for its removal
# So many refusals in a row, with nothing accepted between, are not the records' fault.
REFUSED_IN_A_ROW = 20
# After so many failures in a row single records are tried, not batches, until one passes.
FAILURES_UNTIL_OPEN = 5

Verdict = SinkRejected | BatchRejected | None


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """One sink at a glance.

    Attributes:
        backlog: records accepted and not yet acknowledged.
        delivered: records acknowledged since the start.
        dead_letters: records refused for good since the start.
        failing_s: seconds since the first failure after the last success; 0.0 if it works.
        is_open: its breaker is open: it failed so often in a row that single records are tried.
        error: what the last attempt failed with, without secrets; empty if it did not.
    """

    name: str
    backlog: int
    delivered: int
    dead_letters: int
    failing_s: float
    is_open: bool
    error: str


class Source(Protocol):
    """What is needed of the outbox."""

    async def next_batch(self, sink: str, *, max_records: int, max_bytes: int) -> list[Record]:
        """Wait for records behind the sink's cursor."""
        ...

    async def gathered(self, sink: str, records: int) -> None:
        """Wait until so many records are behind the cursor."""
        ...

    async def acknowledge(self, sink: str, position: int, dead: Sequence[DeadLetter] = ()) -> None:
        """Move the sink's cursor, and put refused records aside, in one commit."""
        ...

    def backlog(self, sink: str) -> int:
        """Count the records behind the cursor."""
        ...

    def cursor(self, sink: str) -> int:
        """Return the last position that the sink acknowledged."""
        ...


class Delivery:
    """One sink's reader of the outbox.

    Args:
        name: the sink's name in the configuration, and of its cursor.
        sink: where records go.
        outbox: where they come from.
        clock: time.
        settings: what this sink takes, how much at once, how it is retried.
        dice: for the jitter of retries.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        outbox: Source,
        clock: Clock,
        settings: DeliverySettings,
        *,
        metrics: Metrics,
        dice: random.Random | None = None,
    ) -> None:
        self.name = name
        self._sink = sink
        self._outbox = outbox
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._dice = dice or random.Random()  # noqa: S311  # spreads retries; nobody must not guess it
        self._calls = Calls(name)
        self._is_opened = False
        self._moved = asyncio.Event()
        self._draining = asyncio.Event()
        self._failures = 0  # in a row
        self._failing_since_s: float | None = None
        self._complained_s = -math.inf
        self._is_recovery_news = False  # somebody was told that it fails
        self._error = ""
        self._delivered = 0
        self._dead_letters = 0
        self._refused_in_a_row = 0

    async def open(self) -> None:
        """Open the sink, with a single try; ``run`` does it by itself, again and again.

        Raises:
            SinkError: it cannot be opened now.
        """
        await self._calls.make(self._sink.open, self._settings.write_timeout_s)
        self._is_opened = True

    async def run(self) -> None:
        """Deliver until cancelled. Records that were not acknowledged come again at the next start.

        Raises:
            OutboxError: the cursor cannot be moved any more.
        """
        try:
            while not self._is_opened:
                await self._works(self.open)
            self._succeeded()
            while True:
                batch = await self._gather()
                dead = await self._deliver([record for record in batch if self._settings.wants(record)])
                await self._acknowledge(batch[-1].position, dead)
        finally:
            await self.close()

    async def _gather(self) -> list[Record]:
        batch = await self._next_batch()
        # What is behind a batch did not fit into it.
        if self._settings.linger_s and self._outbox.backlog(self.name) <= len(batch):
            await self._linger()
            batch = await self._next_batch()
        return batch

    async def _next_batch(self) -> list[Record]:
        return await self._outbox.next_batch(
            self.name, max_records=self._settings.batch_records, max_bytes=self._settings.batch_bytes
        )

    async def _linger(self) -> None:
        """Wait for a full batch, for its time, or for the end."""
        waiting = [
            asyncio.create_task(self._outbox.gathered(self.name, self._settings.batch_records)),
            asyncio.create_task(self._draining.wait()),
        ]
        try:
            await asyncio.wait(waiting, timeout=self._settings.linger_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _acknowledge(self, position: int, dead: Sequence[DeadLetter]) -> None:
        """Move the cursor. On a full disk that waits for room: to write the batch again would not help."""
        while True:
            try:
                await self._outbox.acknowledge(self.name, position, dead)
            except OutboxFull as error:
                await self._back_off(error)
            else:
                break
        self._succeeded()
        self._metrics.backlog.labels(self.name).set(self._outbox.backlog(self.name))
        self._moved.set()

    async def drained(self, position: int) -> None:
        """Wait until the sink has acknowledged everything up to a position; no batch waits for more then."""
        self._draining.set()
        while self._outbox.cursor(self.name) < position:
            self._moved.clear()
            await self._moved.wait()

    def status(self) -> DeliveryStatus:
        """Return how the sink is doing."""
        since_s = self._failing_since_s
        return DeliveryStatus(
            name=self.name,
            backlog=self._outbox.backlog(self.name),
            delivered=self._delivered,
            dead_letters=self._dead_letters,
            failing_s=0.0 if since_s is None else self._clock.monotonic_s() - since_s,
            is_open=self._is_open,
            error=self._error,
        )

    @property
    def _is_open(self) -> bool:
        return self._failures >= FAILURES_UNTIL_OPEN

    async def _deliver(self, batch: Sequence[Record]) -> list[DeadLetter]:
        """Write until the batch is safe; return what the sink refused for good."""
        if not batch:
            return []
        records = tuple(batch)  # foreign code cannot change what it is held against
        while True:
            before = self._refused_in_a_row
            try:
                dead = await self._write(records)
            except SinkBroken as error:
                # So much was refused that it is the sink's fault: none of it is put aside.
                self._refused_in_a_row = before
                await self._back_off(error)
            else:
                break
        self._delivered += len(records) - len(dead)
        self._dead_letters += len(dead)
        self._metrics.records_delivered.labels(self.name).inc(len(records) - len(dead))
        self._metrics.dead_letters.labels(self.name).inc(len(dead))
        if dead:
            logger.error(
                "records were refused for good and put aside",
                extra={
                    "sink": self.name,
                    "records": len(dead),
                    "first": dead[0].record.id,
                    "account": dead[0].record.account,
                    "reason": dead[0].reason,
                },
            )
        return dead

    async def _write(self, records: tuple[Record, ...]) -> list[DeadLetter]:
        """Write the records in order, in parts where that is needed; return the refused ones.

        Raises:
            SinkBroken: too much is refused, or in a way that cannot be.
        """
        dead: list[DeadLetter] = []
        parts = [records]  # what is left to do, the next part last
        while parts:
            part = parts.pop()
            if self._is_open and len(part) > 1:
                parts.append(part[1:])
                part = part[:1]
            verdicts: list[Verdict] = []
            if not await self._works(lambda part=part, verdicts=verdicts: self._offer(part, verdicts)):  # type: ignore[misc]  # bound here
                parts.append(part)
                continue
            verdict = verdicts[-1]
            if verdict is None:
                self._refused_in_a_row = 0
                self._succeeded()
            elif isinstance(verdict, SinkRejected):
                dead += self._refused(part, verdict)
            elif len(part) == 1:
                reason = text(verdict)
                dead += self._refused(part, SinkRejected(reason, rejected={part[0].id: reason}))
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
        return dead

    async def _offer(self, part: tuple[Record, ...], verdicts: list[Verdict]) -> None:
        """Write; a refusal is an answer, not a failure."""
        try:
            await self._sink.write(part)
        except (SinkRejected, BatchRejected) as error:
            verdicts.append(error)
        else:
            verdicts.append(None)

    def _refused(self, batch: Sequence[Record], error: SinkRejected) -> list[DeadLetter]:
        """Return the dead letters of a batch.

        Raises:
            SinkBroken: so much is refused, or in such a way, that it is the sink's fault: nothing of the
                batch is put aside.
        """
        # A sink that is wrong about these may be wrong about the others being written.
        if not error.rejected:
            raise SinkBroken("it refuses records without naming them")
        if unknown := error.rejected.keys() - {record.id for record in batch}:
            named = ", ".join(sorted(map(str, unknown))[:3])
            raise SinkBroken(f"it refuses records that it was not given: {named}")
        in_a_row = self._refused_in_a_row
        for record in batch:
            in_a_row = in_a_row + 1 if record.id in error.rejected else 0
            if in_a_row >= REFUSED_IN_A_ROW:
                raise SinkBroken(
                    f"{in_a_row} records refused in a row, the last: {error.rejected[record.id]}"
                )
        self._refused_in_a_row = in_a_row
        return [
            DeadLetter(record, text(error.rejected[record.id]))
            for record in batch
            if record.id in error.rejected
        ]

    async def _works(self, call: Callable[[], Awaitable[None]]) -> bool:
        """Call the sink; if that fails, say so and wait until it is time for the next try."""
        try:
            await self._calls.make(call, self._settings.write_timeout_s)
        except SinkError as error:
            await self._back_off(error)
            return False
        return True

    async def _back_off(self, error: SinkError | OutboxFull) -> None:
        delay_s = self._delay_s(error)
        self._failed(error, delay_s)
        await asyncio.sleep(delay_s)

    async def close(self) -> None:
        """Close the sink, within a bound; ``run`` does it by itself at its end."""
        try:
            await self._calls.make(self._sink.close, CANCEL_PATIENCE_S)
        except SinkError as error:
            logger.warning("a sink did not close", extra={"sink": self.name, "error": text(error)})

    def _delay_s(self, error: SinkError | OutboxFull) -> float:
        if isinstance(error, SinkBroken):
            return self._settings.retry_max_s
        asked_s = error.retry_after_s if isinstance(error, SinkUnavailable) else None
        shortest_s = self._settings.retry_min_s
        if asked_s is not None and math.isfinite(asked_s):
            return min(max(asked_s, shortest_s), RETRY_AFTER_LONGEST_S)
        longest_s = min(shortest_s * 2.0 ** min(self._failures, 30), self._settings.retry_max_s)
        return self._dice.uniform(shortest_s, max(longest_s, shortest_s))

    def _failed(self, error: SinkError | OutboxFull, delay_s: float) -> None:
        now_s = self._clock.monotonic_s()
        self._failures += 1
        self._failing_since_s = now_s if self._failing_since_s is None else self._failing_since_s
        self._error = text(error)
        self._metrics.delivery_failures.labels(self.name, kind(error)).inc()
        if now_s - self._complained_s < COMPLAIN_EVERY_S:
            return
        self._complained_s = now_s
        self._is_recovery_news = True
        logger.log(
            # Broken: it does not pass by itself, somebody has to come.
            logging.ERROR if isinstance(error, SinkBroken | Raised) else logging.WARNING,
            "a sink does not take its records; they are kept",
            extra={
                "sink": self.name,
                "error": self._error,
                "failures": self._failures,
                "backlog": self._outbox.backlog(self.name),
                "retry_s": round(delay_s, 1),
            },
            exc_info=error.__cause__ if isinstance(error, Raised) else None,
        )

    def _succeeded(self) -> None:
        if self._failing_since_s is not None and self._is_recovery_news:
            down_s = round(self._clock.monotonic_s() - self._failing_since_s, 1)
            logger.info("a sink takes its records again", extra={"sink": self.name, "down_s": down_s})
            self._is_recovery_news = False
        self._failures = 0
        self._failing_since_s = None
        self._error = ""
