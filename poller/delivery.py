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
from typing import Literal, Protocol

from poller.clock import Clock
from poller.errors import OutboxFull, SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.metrics import Metrics
from poller.model import Reason, Record
from poller.outbox import DeadLetter
from poller.secrets import redact
from poller.sinks import Sink

logger = logging.getLogger(__name__)

COMPLAIN_EVERY_S = 60.0  # a sink that fails at every write must not fill the log
CANCEL_PATIENCE_S = 5.0  # for a write that was cancelled to end
RETRY_AFTER_LONGEST_S = 3600.0  # a destination may ask for a delay, not for its removal
# So many refusals in a row, with nothing accepted between, are not the records' fault.
REFUSED_IN_A_ROW = 20
SHOWN_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """What every sink can be given, whatever its kind.

    Attributes:
        emit: ``changed`` leaves out snapshots that differ in nothing, ``every`` takes them too.
        heartbeat_s: an account without a record for this long gets one.
        batch_records: most records in one write.
        batch_bytes: most bytes of payload in one write; a single larger record goes alone.
        write_timeout_s: a write that takes longer has failed.
        retry_min_s: shortest delay before a batch is tried again.
        retry_max_s: longest delay.
    """

    emit: Literal["changed", "every"] = "changed"
    heartbeat_s: float = 900.0
    batch_records: int = 500
    batch_bytes: int = 4 * 1024 * 1024
    write_timeout_s: float = 30.0
    retry_min_s: float = 0.5
    retry_max_s: float = 60.0

    def wants(self, record: Record) -> bool:
        """Say whether the record is for this sink."""
        return self.emit == "every" or record.reason != Reason.EVERY


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """One sink at a glance.

    Attributes:
        backlog: records accepted and not yet acknowledged.
        delivered: records acknowledged since the start.
        dead_letters: records refused for good since the start.
        failing_s: seconds since the first failure after the last success; 0.0 if it works.
        error: what the last attempt failed with, without secrets; empty if it did not.
    """

    name: str
    backlog: int
    delivered: int
    dead_letters: int
    failing_s: float
    error: str


class Source(Protocol):
    """What is needed of the outbox."""

    async def next_batch(self, sink: str, *, max_records: int, max_bytes: int) -> list[Record]:
        """Wait for records behind the sink's cursor."""
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
        self._moved = asyncio.Event()
        self._abandoned: asyncio.Task[None] | None = None  # a call that would not end
        self._failures = 0  # in a row
        self._failing_since_s: float | None = None
        self._complained_s = -math.inf
        self._is_recovery_news = False  # somebody was told that it fails
        self._error = ""
        self._delivered = 0
        self._dead_letters = 0
        self._refused_in_a_row = 0

    async def run(self) -> None:
        """Deliver until cancelled. Records that were not acknowledged come again at the next start.

        Raises:
            OutboxError: the cursor cannot be moved any more.
        """
        try:
            await self._until_it_works(self._sink.open)
            self._succeeded()
            while True:
                batch = await self._outbox.next_batch(
                    self.name,
                    max_records=self._settings.batch_records,
                    max_bytes=self._settings.batch_bytes,
                )
                dead = await self._deliver([record for record in batch if self._settings.wants(record)])
                await self._acknowledge(batch[-1].position, dead)
        finally:
            await self._close()

    async def _acknowledge(self, position: int, dead: Sequence[DeadLetter]) -> None:
        """Move the cursor. On a full disk that waits for room: to write the batch again would not help."""
        while True:
            try:
                await self._outbox.acknowledge(self.name, position, dead)
            except OutboxFull as error:
                delay_s = self._delay_s(None)
                self._failed(error, "outbox_full", delay_s)
                await asyncio.sleep(delay_s)
            else:
                break
        self._succeeded()
        self._metrics.backlog.labels(self.name).set(self._outbox.backlog(self.name))
        self._moved.set()

    async def drained(self, position: int) -> None:
        """Wait until the sink has acknowledged everything up to a position."""
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
            error=self._error,
        )

    async def _deliver(self, batch: Sequence[Record]) -> list[DeadLetter]:
        """Write until the batch is safe; return what the sink refused for good."""
        if not batch:
            return []
        dead: list[DeadLetter] = []
        records = tuple(batch)  # foreign code cannot change what it is held against

        async def write() -> None:
            try:
                await self._sink.write(records)
            except SinkRejected as error:
                dead[:] = self._refused(records, error)
            else:
                self._refused_in_a_row = 0

        await self._until_it_works(write)
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
            DeadLetter(record, _text(error.rejected[record.id]))
            for record in batch
            if record.id in error.rejected
        ]

    async def _until_it_works(self, call: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await self._call(call, self._settings.write_timeout_s)
            except SinkError as error:
                delay_s = self._delay_s(error)
                self._failed(error, _kind(error), delay_s)
                await asyncio.sleep(delay_s)
            else:
                return

    async def _call(self, call: Callable[[], Awaitable[None]], timeout_s: float) -> None:
        """Call foreign code; whatever it does, this returns in time or raises a ``SinkError``."""
        if self._abandoned is not None:
            # One call at a time is promised to sinks, also to one that would not end its last one.
            await asyncio.wait([self._abandoned], timeout=timeout_s)
            if not self._abandoned.done():
                raise _TimedOut("an earlier call has still not ended")
            self._abandoned = None
        task = asyncio.create_task(_contained(call), name=f"a call of sink {self.name}")
        try:
            await asyncio.wait([task], timeout=timeout_s)
        finally:
            is_in_time = task.done()
            if not is_in_time:
                await self._end(task)
        # What comes after a cancellation is not believed: code that swallows one returns as if all were well.
        if not is_in_time:
            raise _TimedOut(f"no answer within {timeout_s:g} s")
        task.result()

    async def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        task.add_done_callback(_look_at)
        self._abandoned = task
        await asyncio.wait([task], timeout=CANCEL_PATIENCE_S)
        if task.done():
            self._abandoned = None

    async def _close(self) -> None:
        try:
            await self._call(self._sink.close, CANCEL_PATIENCE_S)
        except SinkError as error:
            logger.warning("a sink did not close", extra={"sink": self.name, "error": _text(error)})

    def _delay_s(self, error: SinkError | None) -> float:
        if isinstance(error, SinkBroken):
            return self._settings.retry_max_s
        asked_s = error.retry_after_s if isinstance(error, SinkUnavailable) else None
        shortest_s = self._settings.retry_min_s
        if asked_s is not None and math.isfinite(asked_s):
            return min(max(asked_s, shortest_s), RETRY_AFTER_LONGEST_S)
        longest_s = min(shortest_s * 2.0 ** min(self._failures, 30), self._settings.retry_max_s)
        return self._dice.uniform(shortest_s, max(longest_s, shortest_s))

    def _failed(self, error: SinkError | OutboxFull, kind: str, delay_s: float) -> None:
        now_s = self._clock.monotonic_s()
        self._failures += 1
        self._failing_since_s = now_s if self._failing_since_s is None else self._failing_since_s
        self._error = _text(error)
        self._metrics.delivery_failures.labels(self.name, kind).inc()
        if now_s - self._complained_s < COMPLAIN_EVERY_S:
            return
        self._complained_s = now_s
        self._is_recovery_news = True
        logger.log(
            # Broken: it does not pass by itself, somebody has to come.
            logging.ERROR if isinstance(error, SinkBroken | _Raised) else logging.WARNING,
            "a sink does not take its records; they are kept",
            extra={
                "sink": self.name,
                "error": self._error,
                "failures": self._failures,
                "backlog": self._outbox.backlog(self.name),
                "retry_s": round(delay_s, 1),
            },
            exc_info=error.__cause__ if isinstance(error, _Raised) else None,
        )

    def _succeeded(self) -> None:
        if self._failing_since_s is not None and self._is_recovery_news:
            down_s = round(self._clock.monotonic_s() - self._failing_since_s, 1)
            logger.info("a sink takes its records again", extra={"sink": self.name, "down_s": down_s})
            self._is_recovery_news = False
        self._failures = 0
        self._failing_since_s = None
        self._error = ""


class _TimedOut(SinkUnavailable):
    """A call did not end in time."""


class _Raised(SinkUnavailable):
    """Foreign code raised what the protocol does not know; its cause says what."""


async def _contained(call: Callable[[], Awaitable[None]]) -> None:
    """Await foreign code, and turn whatever it raises into a ``SinkError``."""
    try:
        await call()
    except (SinkError, KeyboardInterrupt):
        raise
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise  # we asked for it
        raise _Raised("the sink cancelled itself") from error
    except BaseException as error:
        # SystemExit too: a sink does not decide when the daemon ends.
        raise _Raised(f"the sink raised {type(error).__name__}: {_text(error)}") from error


def _kind(error: SinkError) -> str:
    """A fixed word for the metric: plug-ins may have error classes of their own."""
    if isinstance(error, SinkBroken):
        return "broken"
    if isinstance(error, _TimedOut):
        return "timeout"
    return "raised" if isinstance(error, _Raised) else "unavailable"


def _look_at(task: asyncio.Task[None]) -> None:
    """Take note of how an abandoned call ended, or asyncio would report it as lost."""
    if not task.cancelled():
        task.exception()


def _text(said: object) -> str:
    """What foreign code said, without secrets and not too long; it may even fail to say it."""
    try:
        text = str(said)
    except Exception:  # noqa: BLE001  # whatever it is, it is not worth losing the loop
        text = f"<{type(said).__name__} that cannot be shown>"
    return redact(text)[:SHOWN_CHARACTERS]
