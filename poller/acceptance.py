"""From a good answer to the outbox: compare, decide whether it is worth a record, commit, remember.

The baseline in memory changes only after the commit that holds both the record and the baseline
has returned. So whatever fails on the way, the next answer is compared with what sinks were really
told, and a change is neither lost nor told twice under two ids.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from poller.changes import changes
from poller.clock import NS_PER_MS, Clock
from poller.metrics import Metrics
from poller.model import Account, Baseline, Change, Kind, Reason, Record, Snapshot, State
from poller.records import record_id, snapshot_record, status_record

Told = Callable[[Record, Sequence[Change]], object]


class Accepts(Protocol):
    """What is needed of the outbox."""

    async def accept(self, baseline: Baseline, records: Sequence[Record]) -> None:
        """Commit both in one transaction; to return is to promise that they are durable."""
        ...


def reason_for(
    baseline: Baseline, account: Account, *, changed: bool, heartbeat: bool, every: bool
) -> Reason | None:
    """Return why a snapshot is worth a record, ``None`` if it is not.

    Args:
        baseline: what was last accepted.
        account: as configured now: asked another question than before, it starts anew.
        changed: a balance differs from the baseline.
        heartbeat: the account's last record is older than the heartbeat.
        every: a sink wants every snapshot.
    """
    if baseline.balances is None or baseline.asset != account.asset:
        return Reason.FIRST
    if changed:
        return Reason.CHANGED
    if heartbeat:
        return Reason.HEARTBEAT
    return Reason.EVERY if every else None


class Acceptance:
    """The baselines of all accounts, and the only writer of records.

    Args:
        outbox: where records become durable.
        clock: time.
        every: a sink wants every snapshot, changed or not.
        heartbeat_s: an account without a record for this long gets one at its next good answer.
        entropy: returns that many random bytes, for ids.
        told: called after every commit with what sinks will get, for those who watch.
    """

    def __init__(
        self,
        outbox: Accepts,
        clock: Clock,
        *,
        metrics: Metrics,
        every: bool = False,
        heartbeat_s: float = 900.0,
        entropy: Callable[[int], bytes] = os.urandom,
        told: Told | None = None,
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._metrics = metrics
        self._every = every
        self._heartbeat_s = heartbeat_s
        self._told = told
        self._entropy = entropy
        self._baselines: dict[str, Baseline] = {}
        self._recorded_s: dict[str, float] = {}
        # A poll's result and the clock's verdict "stale" may meet: one at a time for each account.
        self._locks: dict[str, asyncio.Lock] = {}

    def set_terms(self, *, every: bool, heartbeat_s: float) -> None:
        """Let other things be worth a record from now on: the sinks are others."""
        self._every = every
        self._heartbeat_s = heartbeat_s

    def baselines(self) -> list[Baseline]:
        """Return what was last accepted of every account that is not forgotten."""
        return list(self._baselines.values())

    def restore(self, baselines: Mapping[str, Baseline]) -> None:
        """Take up where accounts were left: by the last process, or when they went. Call before their first poll."""
        self._baselines.update(baselines)

    def forget(self, account: str) -> None:
        """Keep nothing in memory of an account that went: the outbox has it. Nothing of it may be under way."""
        self._baselines.pop(account, None)
        self._recorded_s.pop(account, None)
        self._locks.pop(account, None)

    def baseline(self, account: str) -> Baseline:
        """Return what was last accepted of an account; an empty baseline if nothing was."""
        return self._baselines.get(account) or Baseline(account)

    def held_something(self, account: Account) -> bool:
        """Say whether the last accepted answer to the same question listed anything."""
        baseline = self.baseline(account.name)
        return bool(baseline.balances) and baseline.asset == account.asset

    async def snapshot(self, account: Account, snapshot: Snapshot) -> Record | None:
        """Accept a good answer; return its record once that is durable, ``None`` if it was worth none.

        An account that was stale or quarantined turns ``ok`` in the same commit.

        Raises:
            OutboxFull: nothing was accepted, and the next answer will be compared anew.
            OutboxFailed: the process must stop.
        """
        async with self._lock(account.name):
            baseline = self.baseline(account.name)
            same_question = baseline.asset == account.asset
            found = changes(baseline.balances or (), snapshot.balances) if same_question else ()
            reason = reason_for(
                baseline,
                account,
                changed=bool(found),
                heartbeat=self._is_heartbeat_due(account.name),
                every=self._every,
            )
            if reason is Reason.FIRST:
                found = ()  # against nothing, everything would be a change
            records: list[Record] = []
            after = baseline
            if reason is not None:
                sequence = baseline.sequence + (reason in {Reason.FIRST, Reason.CHANGED})
                records.append(
                    snapshot_record(
                        account, snapshot, id=self._id(), sequence=sequence, reason=reason, changes=found
                    )
                )
                after = replace(baseline, sequence=sequence, balances=snapshot.balances, asset=account.asset)
            if baseline.state is not State.OK:
                again = (
                    "it is configured again" if baseline.state is State.REMOVED else "answers are good again"
                )
                after, record = self._turned(account, after, State.OK, again)
                records.append(record)
            if not records:
                return None
            await self._commit(after, records, found)
            self._metrics.changes.inc(len(found))
            return records[0] if reason is not None else None

    async def turned(self, account: Account, state: State, reason: str) -> None:
        """Accept that an account's state changed; nothing happens if it is in that state already.

        Raises:
            OutboxFull: nothing was accepted; say it again later.
            OutboxFailed: the process must stop.
        """
        async with self._lock(account.name):
            baseline = self.baseline(account.name)
            if baseline.state is state:
                return
            after, record = self._turned(account, baseline, state, reason)
            await self._commit(after, [record])

    def _turned(
        self, account: Account, baseline: Baseline, state: State, reason: str
    ) -> tuple[Baseline, Record]:
        since_ns = self._clock.utc_ns()
        record = status_record(
            account, id=self._id(), sequence=baseline.sequence, state=state, reason=reason, since_ns=since_ns
        )
        return replace(baseline, state=state, since_ns=since_ns), record

    async def _commit(
        self, baseline: Baseline, records: Sequence[Record], found: Sequence[Change] = ()
    ) -> None:
        await self._outbox.accept(baseline, records)
        self._baselines[baseline.account] = baseline
        self._recorded_s[baseline.account] = self._clock.monotonic_s()
        if self._told is not None:
            for record in records:
                self._told(record, found if record.kind is Kind.SNAPSHOT else ())

    def _is_heartbeat_due(self, account: str) -> bool:
        # After a restart the age of the last record is unknown: the clock starts with us.
        recorded_s = self._recorded_s.setdefault(account, self._clock.monotonic_s())
        return self._clock.monotonic_s() - recorded_s >= self._heartbeat_s

    def _id(self) -> str:
        return record_id(self._clock.utc_ns() // NS_PER_MS, self._entropy(10))

    def _lock(self, account: str) -> asyncio.Lock:
        return self._locks.setdefault(account, asyncio.Lock())
