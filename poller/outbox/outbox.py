"""The outbox as the rest of the poller sees it: awaitable, safe to cancel, never blocking the loop."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from poller.clock import Clock
from poller.metrics import Metrics
from poller.model import Baseline, Record
from poller.outbox import letters
from poller.outbox.codec import encode_baseline
from poller.outbox.engine import Engine
from poller.outbox.ledger import Ledger
from poller.outbox.store import Store
from poller.outbox.values import (
    Accept,
    Acknowledge,
    DeadLetter,
    OutboxStats,
    PutEgress,
    Register,
    Settle,
    Start,
    WhenFull,
    Write,
)

ROW_BYTES = 200  # what a record takes beyond its payload, about

T = TypeVar("T")


class Outbox:
    """Records on their way to the sinks, and the baselines they were compared with. Make it with ``open``.

    Not safe to use from several threads or event loops, nor from a forked child.
    """

    def __init__(self, engine: Engine, *, max_size_bytes: int) -> None:
        self._engine = engine
        self._max_bytes = max_size_bytes
        # Epoch and drops of each sink's cursor when its last batch was read.
        self._read: dict[str, tuple[int, int]] = {}

    @classmethod
    async def open(
        cls,
        path: Path,
        clock: Clock,
        *,
        metrics: Metrics,
        retain_s: float = 86_400.0,
        max_size_bytes: int = 1 << 30,
        when_full: WhenFull = "block",
        begin_anew: bool = True,
    ) -> Outbox:
        """Open the outbox at a path, or make a new one.

        Args:
            retain_s: records that every sink has are kept this many seconds, so that they can be replayed,
                unless their room is needed.
            max_size_bytes: what the records may take on the disk; the write-ahead log (64 MiB after a
                burst) and the reserve (4 MiB) come on top.
            when_full: what happens at that size. On a full disk nothing is accepted, whatever this says.
            begin_anew: make one if there is none, and put one aside that cannot be read; or else that is an
                error, as it should be for whoever only looks.

        Raises:
            OutboxLocked: another process has it.
            OutboxError: it must not lie there, is not an outbox, or is one of a newer version.
        """
        opening = partial(
            Store.open,
            path,
            clock.utc_ns(),
            begin_anew=begin_anew,
            retain_s=retain_s,
            max_size_bytes=max_size_bytes,
            when_full=when_full,
        )
        return cls(await Engine.open(opening, clock, metrics), max_size_bytes=max_size_bytes)

    # What the polls use ---------------------------------------------------------------------------

    async def baselines(self, accounts: Collection[str] | None = None) -> dict[str, Baseline]:
        """Return what was last accepted of these accounts, or of all, where anything was."""
        return await self._engine.run(partial(self._engine.store.baselines, accounts))

    async def accept(self, baseline: Baseline | None, records: Sequence[Record]) -> None:
        """Take responsibility for records: to return is to promise that every registered sink gets them.

        Records and baseline are one transaction. If the call is cancelled they may or may not have been
        accepted, but never in part.

        Raises:
            OutboxFull: there is no room; nothing was accepted. Wait with ``wait_for_room``.
            OutboxFailed: it is unknown what was accepted; the process must stop.
            ValueError: a record or the baseline cannot be stored.
        """
        self._engine.check()
        if baseline is None and not records:
            return
        for record in records:
            _check_storable(record)  # here, so that it fails alone and not the group it would share
        encoded = None if baseline is None else encode_baseline(baseline)
        size_bytes = sum(len(record.payload) + ROW_BYTES for record in records) + len(encoded or b"")
        account = "" if baseline is None else baseline.account
        await self._engine.write(Accept(tuple(records), account, encoded, size_bytes))

    @property
    def is_full(self) -> bool:
        """Whether nothing is accepted at the moment."""
        return self._engine.standing.is_full

    async def wait_for_room(self) -> None:
        """Wait until records are accepted again; returns at once if they are.

        Raises:
            OutboxFailed: they never will be.
        """
        await self._engine.room()

    # What deliveries use --------------------------------------------------------------------------

    async def register(self, sinks: Mapping[str, Start]) -> None:
        """Say which sinks are configured, and where a new one begins.

        A sink that is not named any more keeps its place for seven days.
        """
        self._engine.check()
        await self._engine.write(Register(dict(sinks)))

    async def next_batch(self, sink: str, *, max_records: int, max_bytes: int) -> list[Record]:
        """Wait for records that the sink has not acknowledged, and return the first of them, in order.

        Args:
            max_bytes: of their payloads together; a single record may be larger.
        """
        while True:
            self._engine.check()
            position = self.cursor(sink)
            if position < self.last_position:
                cursor = self._engine.ledger.cursors[sink]
                self._read[sink] = (cursor.epoch, cursor.dropped)
                batch = await self._engine.run(
                    partial(self._engine.store.read, position, max_records, max_bytes)
                )
                if batch:  # or else everything was dropped meanwhile
                    return batch
            else:
                await self._engine.arrival()

    async def wait_for_work(self, sink: str) -> None:
        """Wait until records wait for a sink, or dead letters that it is to get again."""
        while True:
            self._engine.check()
            if self.backlog(sink) or self.again(sink):
                return
            await self._engine.arrival()

    def is_current(self, sink: str) -> bool:
        """Whether the batch that was read last is still what a sink is to get.

        It is not after its cursor was moved by an operator, or after some of what waits for it was dropped:
        then it is better read anew than tried again.
        """
        cursor = self._engine.ledger.cursors[sink]
        return self._read.get(sink) in {None, (cursor.epoch, cursor.dropped)}

    async def gathered(self, sink: str, records: int) -> None:
        """Wait until so many records wait for the sink."""
        while self.backlog(sink) < records:
            self._engine.check()
            await self._engine.arrival()

    async def acknowledge(self, sink: str, position: int, dead: Sequence[DeadLetter] = ()) -> None:
        """Note that a sink has everything up to a position, apart from dead letters, which are put aside.

        A position before the cursor does not move it back. If an operator moved the cursor since
        ``next_batch`` read what this is about, nothing is noted: that was about another place.

        Raises:
            OutboxFull: there is not even room for that; ask again.
            OutboxFailed: as from ``accept``.
            ValueError: nothing was ever accepted at that position.
        """
        self._engine.check()
        self.cursor(sink)
        if position > self.last_position:
            raise ValueError(f"position {position} is beyond the last one, {self.last_position}")
        epoch, _ = self._read.get(sink, (None, 0))
        await self._engine.write(Acknowledge(sink, position, tuple(dead), epoch))

    def cursor(self, sink: str) -> int:
        """Return the position up to which a sink has everything.

        Raises:
            LookupError: the sink was never registered.
        """
        if sink not in self._engine.ledger.cursors:
            raise LookupError(f"sink {sink!r} is not registered")
        return self._engine.ledger.position(sink)

    def backlog(self, sink: str) -> int:
        """Return how many records a sink has not acknowledged."""
        self.cursor(sink)
        return self._engine.ledger.backlog(sink)

    async def dead_letters(self, sink: str, *, limit: int = 1000) -> list[DeadLetter]:
        """Return the oldest records that a sink refused for good. They are kept for 30 days."""
        return await self.read(partial(letters.oldest, sink=sink, limit=limit))

    def again(self, sink: str) -> int:
        """Return how many dead letters a sink is to get again."""
        return self._engine.ledger.again.get(sink, 0)

    async def letters_again(
        self, sink: str, *, after: int, max_records: int, max_bytes: int
    ) -> list[DeadLetter]:
        """Return the first dead letters behind a position that a sink is to get again, as ``next_batch`` does.

        None if there are none.
        """
        return await self.read(
            partial(letters.again, sink=sink, after=after, max_records=max_records, max_bytes=max_bytes)
        )

    async def settle(self, sink: str, taken: Sequence[str], refused: Sequence[DeadLetter]) -> None:
        """Note what became of dead letters that were delivered again.

        Args:
            taken: ids of those that the sink has now: they are removed.
            refused: those that it refused again: they are kept, with the new reason.
        """
        await self.write(Settle(sink, tuple(taken), tuple(refused)))

    # What budgets use -----------------------------------------------------------------------------

    async def put_egress(self, name: str, state: bytes) -> None:
        """Keep the state of an egress address; on the disk when this returns."""
        self._engine.check()
        await self._engine.write(PutEgress(name, state))

    async def egress(self) -> dict[str, bytes]:
        """Return what was kept of every egress address."""
        return await self._engine.run(self._engine.store.egress)

    # What operators use ---------------------------------------------------------------------------

    async def write(self, write: Write) -> Any:
        """Do a write and return its result; on the disk when this returns.

        Raises:
            OutboxFull: there is no room; nothing was done.
            OutboxFailed: as from ``accept``.
        """
        return await self._engine.write(write)

    async def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Let a function read the file, in the outbox's thread: it must be quick, and write nothing."""
        return await self._engine.read(question)

    async def vacuum(self) -> int:
        """Give the file's free pages back to the disk, in steps between the commits; return how many bytes.

        Raises:
            OutboxFull: there is not even the room that this takes for a moment.
        """
        before_bytes = await self._engine.run(self._engine.store.size_bytes)
        while await self._engine.run(self._engine.store.vacuum):
            pass
        return max(0, before_bytes - await self._engine.run(self._engine.store.size_bytes))

    # About itself ---------------------------------------------------------------------------------

    @property
    def last_position(self) -> int:
        """Position of the newest record ever accepted; 0 before the first."""
        return self._engine.ledger.last

    @property
    def ledger(self) -> Ledger:
        """Positions, cursors and counts as they are on the disk. Not to be changed."""
        return self._engine.ledger

    @property
    def set_aside(self) -> Path | None:
        """Where an unreadable predecessor was put when this outbox was opened."""
        return self._engine.store.set_aside

    def stats(self) -> OutboxStats:
        """Return how the outbox stands."""
        ledger = self._engine.ledger
        present = [sink for sink, cursor in ledger.cursors.items() if cursor.absent_since_ns is None]
        return OutboxStats(
            first_position=ledger.first,
            last_position=ledger.last,
            backlogs={sink: ledger.backlog(sink) for sink in present},
            records=ledger.behind(0),
            letters={sink: ledger.letters.get(sink, 0) for sink in present},
            dead_letters=sum(ledger.letters.values()),
            dropped={sink: ledger.cursors[sink].dropped for sink in present},
            used_bytes=self._engine.standing.used_bytes,
            max_bytes=self._max_bytes,
            is_full=self._engine.standing.is_full,
            commits=self._engine.commits,
            set_aside=self.set_aside,
        )

    async def close(self) -> None:
        """Finish what is under way, then let go of the file. Harmless when called twice."""
        await self._engine.close()


def _check_storable(record: Record) -> None:
    for text in (record.id, record.account, record.reason):
        text.encode()  # UnicodeEncodeError is a ValueError
    if not 0 <= record.sequence < 1 << 63:
        raise ValueError(f"sequence {record.sequence} of record {record.id} cannot be stored")
