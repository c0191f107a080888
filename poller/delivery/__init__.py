"""Carry records from the outbox to one sink: in order, at least once, whatever the sink does.

Each sink has its own loop and its own cursor, so a slow, dead or broken one delays nobody. A sink is
foreign code: it may hang, raise anything, or swallow its cancellation. All of that ends here, as a
batch that comes again later.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from poller.clock import Clock
from poller.delivery.calls import CANCEL_PATIENCE_S, Calls, first_of, text
from poller.delivery.settings import DeliverySettings
from poller.delivery.trouble import Refusals, Trouble
from poller.errors import BatchRejected, OutboxFull, SinkBroken, SinkError, SinkRejected
from poller.metrics import Metrics
from poller.model import Record
from poller.outbox import DeadLetter
from poller.sinks import Sink

__all__ = ["Delivery", "DeliverySettings", "DeliveryStatus"]

logger = logging.getLogger(__name__)

# So many refusals in a row, with nothing accepted between, are not the records' fault.
REFUSED_IN_A_ROW = 20

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

    async def wait_for_work(self, sink: str) -> None:
        """Wait until records are behind the cursor, or dead letters are to be delivered again."""
        ...

    def is_current(self, sink: str) -> bool:
        """Say whether the batch read last is still what the sink is to get."""
        ...

    async def gathered(self, sink: str, records: int) -> None:
        """Wait until so many records are behind the cursor."""
        ...

    def again(self, sink: str) -> int:
        """Count the dead letters that are to be delivered again."""
        ...

    async def letters_again(
        self, sink: str, *, after: int, max_records: int, max_bytes: int
    ) -> list[DeadLetter]:
        """Return the first of them behind a position."""
        ...

    async def settle(self, sink: str, taken: Sequence[str], refused: Sequence[DeadLetter]) -> None:
        """Remove the dead letters that the sink took now, and keep those that it refused again."""
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
        self._settings = settings
        self._metrics = metrics
        self._calls = Calls(name)
        self._is_opened = False
        self._moved = asyncio.Event()
        self._draining = asyncio.Event()
        self._ending = asyncio.Event()
        # The dice spread retries; nobody must not guess them.
        self._trouble = Trouble(name, settings, clock, metrics, dice or random.Random())  # noqa: S311
        self._refusals = Refusals(name, clock)
        self._delivered = 0
        self._dead_letters = 0
        self._refused_in_a_row = 0
        for counted in (metrics.records_delivered, metrics.dead_letters):
            counted.labels(name)  # from 0 on, or the first ones would be no increase
        self._again = 0  # dead letters to be delivered again, when they were read

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
            while not self._is_opened and not self._ending.is_set():
                # Nobody who waits for the end has to wait for this: it writes nothing.
                await first_of(self._works(self.open), self._ending.wait())
            if self._is_opened:
                self._trouble.succeeded()
            while not self._ending.is_set():
                if not self._outbox.backlog(self.name) and not self._outbox.again(self.name):
                    await first_of(self._outbox.wait_for_work(self.name), self._ending.wait())
                    continue
                if self._outbox.again(self.name):
                    await self._deliver_again()
                if self._outbox.backlog(self.name):
                    batch = await self._gather()
                    dead = await self._deliver([record for record in batch if self._settings.wants(record)])
                    if batch and dead is not None:
                        await self._acknowledge(batch[-1].position, dead)
                self._moved.set()  # also if somebody else moved the cursor
        finally:
            await self.close()

    async def _deliver_again(self) -> None:
        """Write the dead letters that somebody wants delivered again, each part settled before the next."""
        after = 0
        self._again = self._outbox.again(self.name)
        while letters := await self._outbox.letters_again(
            self.name,
            after=after,
            max_records=self._settings.batch_records,
            max_bytes=self._settings.batch_bytes,
        ):
            after = letters[-1].record.position
            records = [letter.record for letter in letters]
            refused = await self._deliver(records, is_replay=True)
            if refused is None:
                return
            dead = {letter.record.id for letter in refused}
            taken = [record.id for record in records if record.id not in dead]
            await self._commit(partial(self._outbox.settle, self.name, taken, refused))
            self._again = self._outbox.again(self.name)

    async def _gather(self) -> list[Record]:
        batch = await self._next_batch()
        # What is behind a batch did not fit into it.
        if self._settings.linger_s and self._outbox.backlog(self.name) <= len(batch):
            await self._linger()
            batch = await self._next_batch() if self._outbox.backlog(self.name) else []
        return batch

    async def _next_batch(self) -> list[Record]:
        return await self._outbox.next_batch(
            self.name, max_records=self._settings.batch_records, max_bytes=self._settings.batch_bytes
        )

    async def _linger(self) -> None:
        """Wait for a full batch, for its time, or for the end."""
        gathered = self._outbox.gathered(self.name, self._settings.batch_records)
        await first_of(gathered, self._draining.wait(), timeout_s=self._settings.linger_s)

    async def _acknowledge(self, position: int, dead: Sequence[DeadLetter]) -> None:
        await self._commit(lambda: self._outbox.acknowledge(self.name, position, dead))

    async def _commit(self, note: Callable[[], Awaitable[None]]) -> None:
        """Note what became of a batch. On a full disk that waits: to write the batch again would not help."""
        while True:
            try:
                await note()
            except OutboxFull as error:
                await asyncio.sleep(self._failed_s(error))
            else:
                break
        self._trouble.succeeded()
        self._moved.set()

    async def drained(self, position: int) -> None:
        """Wait until the sink has acknowledged everything up to a position; no batch waits for more then."""
        self._draining.set()
        while self._outbox.cursor(self.name) < position:
            self._moved.clear()
            await self._moved.wait()

    def end(self) -> None:
        """Let ``run`` return once the batch that is being written is acknowledged, and read no other.

        What failed is not tried again: it stays in the outbox.
        """
        self._draining.set()
        self._ending.set()

    def status(self) -> DeliveryStatus:
        """Return how the sink is doing."""
        return DeliveryStatus(
            name=self.name,
            backlog=self._outbox.backlog(self.name),
            delivered=self._delivered,
            dead_letters=self._dead_letters,
            failing_s=self._trouble.lasting_s,
            is_open=self._trouble.is_open,
            error=self._trouble.error,
        )

    async def _deliver(self, batch: Sequence[Record], *, is_replay: bool = False) -> list[DeadLetter] | None:
        """Write until the batch is safe; return what the sink refused for good.

        ``None``: it failed, and meanwhile somebody moved the cursor, or what waits was dropped, or the end was
        asked for. Then what is to be delivered is read anew, if anything.
        """
        if not batch:
            return []
        records = tuple(batch)  # foreign code cannot change what it is held against
        while True:
            before = self._refused_in_a_row
            try:
                dead = await self._write(records, is_replay=is_replay)
            except SinkBroken as error:
                # So much was refused that it is the sink's fault: none of it is put aside.
                self._refused_in_a_row = before
                await self._back_off(error)
                if not self._is_current(is_replay=is_replay):
                    return None
            else:
                break
        if dead is None:
            return None
        self._delivered += len(records) - len(dead)
        self._dead_letters += len(dead)
        self._metrics.records_delivered.labels(self.name).inc(len(records) - len(dead))
        self._metrics.dead_letters.labels(self.name).inc(len(dead))
        self._refusals.note(dead)
        return dead

    async def _write(self, records: tuple[Record, ...], *, is_replay: bool) -> list[DeadLetter] | None:
        """Write the records in order, in parts where that is needed; return the refused ones.

        ``None``: a part failed, and they are not what the sink is to get any more, or not from here.

        Raises:
            SinkBroken: too much is refused, or in a way that cannot be.
        """
        dead: list[DeadLetter] = []
        parts = [records]  # what is left to do, the next part last
        while parts:
            part = parts.pop()
            if self._trouble.is_open and len(part) > 1:
                parts.append(part[1:])
                part = part[:1]
            verdicts: list[Verdict] = []
            if not await self._works(lambda part=part, verdicts=verdicts: self._offer(part, verdicts)):  # type: ignore[misc]  # bound here
                if not self._is_current(is_replay=is_replay):
                    return None
                parts.append(part)
                continue
            verdict = verdicts[-1]
            if verdict is None:
                self._refused_in_a_row = 0
                self._trouble.succeeded()
            elif isinstance(verdict, SinkRejected):
                dead += self._refused(part, verdict, is_replay=is_replay)
            elif len(part) == 1:
                reason = text(verdict)
                rejected = SinkRejected(reason, rejected={part[0].id: reason})
                dead += self._refused(part, rejected, is_replay=is_replay)
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

    def _is_current(self, *, is_replay: bool) -> bool:
        """Whether what is being delivered is still what the sink is to get from here."""
        if self._ending.is_set():
            return False
        if is_replay:
            return self._outbox.again(self.name) == self._again
        return self._outbox.is_current(self.name)

    def _refused(self, batch: Sequence[Record], error: SinkRejected, *, is_replay: bool) -> list[DeadLetter]:
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
        # What is dead already can be refused as often as it may be: nothing is put aside for it.
        for record in () if is_replay else batch:
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

    async def _back_off(self, error: SinkError) -> None:
        await first_of(self._ending.wait(), timeout_s=self._failed_s(error))

    def _failed_s(self, error: SinkError | OutboxFull) -> float:
        return self._trouble.failed(error, backlog=self._outbox.backlog(self.name))

    async def close(self) -> None:
        """Close the sink, within a bound; ``run`` does it by itself at its end."""
        try:
            await self._calls.make(self._sink.close, CANCEL_PATIENCE_S)
        except SinkError as error:
            logger.warning("a sink did not close", extra={"sink": self.name, "error": text(error)})
