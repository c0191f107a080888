"""What becomes a record, and that nothing is lost or told twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.acceptance import Acceptance, reason_for
from poller.changes import changes
from poller.errors import OutboxFull
from poller.metrics import Metrics
from poller.model import Account, Balance, Baseline, Reason, Record, Snapshot, State
from poller.testing.virtual_time import START_UTC_S, VirtualClock, VirtualTimeLoop
from tests.strategies import holdings

ACCOUNT = Account("alice", 60.0, labels={"desk": "mm"})
ONE_BTC = (Balance("BTC", Decimal(1)),)
TWO_BTC = (Balance("BTC", Decimal(2)),)


class MemoryOutbox:
    """Keeps what was accepted; can be full."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.baselines: dict[str, Baseline] = {}
        self.full = False

    async def accept(self, baseline: Baseline, records: Sequence[Record]) -> None:
        await asyncio.sleep(0.001)
        if self.full:
            raise OutboxFull("no space left on device")
        self.baselines[baseline.account] = baseline
        self.records.extend(records)


@pytest.fixture
def outbox() -> MemoryOutbox:
    return MemoryOutbox()


@pytest.fixture
def acceptance(outbox: MemoryOutbox, clock: VirtualClock) -> Acceptance:
    return Acceptance(outbox, clock, metrics=Metrics())


def snapshot(balances: tuple[Balance, ...], account: str = "alice") -> Snapshot:
    return Snapshot(account, balances, START_UTC_S * 10**9, 10.0, 20.0)


def told(outbox: MemoryOutbox) -> list[tuple[int, str]]:
    return [(record.sequence, record.reason) for record in outbox.records]


async def test_the_first_answer_is_a_record_without_changes(
    acceptance: Acceptance, outbox: MemoryOutbox
) -> None:
    await acceptance.snapshot(ACCOUNT, snapshot(ONE_BTC))
    assert told(outbox) == [(1, "first")]
    assert outbox.records[0].document["changes"] == []


async def test_only_what_changed_is_a_record(acceptance: Acceptance, outbox: MemoryOutbox) -> None:
    for held in (ONE_BTC, ONE_BTC, TWO_BTC, TWO_BTC, ()):
        await acceptance.snapshot(ACCOUNT, snapshot(held))
    assert told(outbox) == [(1, "first"), (2, "changed"), (3, "changed")]
    assert outbox.records[2].document["changes"] == [
        {"asset": "BTC", "field": "free", "before": "2", "after": "0"}
    ]


async def test_where_a_sink_wants_every_snapshot_the_sequence_is_still_the_version(
    outbox: MemoryOutbox, clock: VirtualClock
) -> None:
    acceptance = Acceptance(outbox, clock, metrics=Metrics(), every=True)
    for held in (ONE_BTC, ONE_BTC, TWO_BTC):
        await acceptance.snapshot(ACCOUNT, snapshot(held))
    assert told(outbox) == [(1, "first"), (1, "every"), (2, "changed")]
    assert len({record.id for record in outbox.records}) == 3


async def test_a_quiet_account_has_a_heartbeat(acceptance: Acceptance, outbox: MemoryOutbox) -> None:
    for _ in range(30):
        await acceptance.snapshot(ACCOUNT, snapshot(ONE_BTC))
        await asyncio.sleep(60)
    assert told(outbox) == [(1, "first"), (1, "heartbeat")]


async def test_a_restart_continues_where_it_was(
    acceptance: Acceptance, outbox: MemoryOutbox, clock: VirtualClock
) -> None:
    await acceptance.snapshot(ACCOUNT, snapshot(ONE_BTC))
    restarted = Acceptance(outbox, clock, metrics=Metrics())
    restarted.restore(outbox.baselines)
    await restarted.snapshot(ACCOUNT, snapshot(ONE_BTC))
    await restarted.snapshot(ACCOUNT, snapshot(TWO_BTC))
    assert told(outbox) == [(1, "first"), (2, "changed")]


async def test_what_was_not_accepted_is_compared_again(acceptance: Acceptance, outbox: MemoryOutbox) -> None:
    await acceptance.snapshot(ACCOUNT, snapshot(ONE_BTC))
    outbox.full = True
    with pytest.raises(OutboxFull):
        await acceptance.snapshot(ACCOUNT, snapshot(TWO_BTC))
    outbox.full = False
    await acceptance.snapshot(ACCOUNT, snapshot(()))
    assert told(outbox) == [(1, "first"), (2, "changed")]
    assert outbox.records[1].document["changes"][0]["before"] == "1"


async def test_another_question_starts_anew_instead_of_calling_assets_vanished(
    acceptance: Acceptance, outbox: MemoryOutbox
) -> None:
    await acceptance.snapshot(ACCOUNT, snapshot((*ONE_BTC, Balance("ETH", Decimal(3)))))
    only_btc = Account("alice", 60.0, asset="BTC")
    assert not acceptance.held_something(only_btc)
    await acceptance.snapshot(only_btc, snapshot(ONE_BTC))
    assert told(outbox) == [(1, "first"), (2, "first")]
    assert outbox.records[1].document["changes"] == []


async def test_a_state_is_told_once_and_a_good_answer_ends_it_in_the_same_commit(
    acceptance: Acceptance, outbox: MemoryOutbox
) -> None:
    await acceptance.snapshot(ACCOUNT, snapshot(ONE_BTC))
    await acceptance.turned(ACCOUNT, State.STALE, "no good answer for 180 s")
    await acceptance.turned(ACCOUNT, State.STALE, "no good answer for 240 s")
    await acceptance.snapshot(ACCOUNT, snapshot(TWO_BTC))
    assert told(outbox) == [(1, "first"), (1, "stale"), (2, "changed"), (2, "ok")]
    assert outbox.baselines["alice"].state is State.OK


async def test_an_account_that_recovers_without_a_change_only_says_so(
    acceptance: Acceptance, outbox: MemoryOutbox
) -> None:
    await acceptance.snapshot(ACCOUNT, snapshot(ONE_BTC))
    await acceptance.turned(ACCOUNT, State.QUARANTINED, "key refused")
    assert await acceptance.snapshot(ACCOUNT, snapshot(ONE_BTC)) is None
    assert told(outbox) == [(1, "first"), (1, "quarantined"), (1, "ok")]


async def test_a_poll_and_a_verdict_at_the_same_moment_do_not_overwrite_each_other(
    acceptance: Acceptance, outbox: MemoryOutbox
) -> None:
    await acceptance.snapshot(ACCOUNT, snapshot(ONE_BTC))
    await asyncio.gather(
        acceptance.turned(ACCOUNT, State.STALE, "late"), acceptance.snapshot(ACCOUNT, snapshot(TWO_BTC))
    )
    assert told(outbox) == [(1, "first"), (1, "stale"), (2, "changed"), (2, "ok")]
    assert acceptance.baseline("alice").sequence == 2


def test_reasons_in_their_order() -> None:
    seen = Baseline("alice", 3, ONE_BTC)
    assert reason_for(Baseline("alice"), ACCOUNT, changed=True, heartbeat=True, every=True) is Reason.FIRST
    assert reason_for(seen, ACCOUNT, changed=True, heartbeat=True, every=True) is Reason.CHANGED
    assert reason_for(seen, ACCOUNT, changed=False, heartbeat=True, every=True) is Reason.HEARTBEAT
    assert reason_for(seen, ACCOUNT, changed=False, heartbeat=False, every=True) is Reason.EVERY
    assert reason_for(seen, ACCOUNT, changed=False, heartbeat=False, every=False) is None


@given(st.lists(holdings, min_size=1, max_size=8), st.booleans())
def test_sequences_have_no_gap_and_changes_add_up(seen: list[tuple[Balance, ...]], every: bool) -> None:
    outbox = MemoryOutbox()

    async def run() -> None:
        acceptance = Acceptance(outbox, VirtualClock(), metrics=Metrics(), every=every)
        for held in seen:
            await acceptance.snapshot(ACCOUNT, snapshot(held))

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())
    versions = [record for record in outbox.records if record.reason in {"first", "changed"}]
    assert [record.sequence for record in versions] == list(range(1, len(versions) + 1))
    distinct = [seen[0]] + [now for before, now in itertools.pairwise(seen) if changes(before, now)]
    assert len(versions) == len(distinct)
    assert len(outbox.records) == (len(seen) if every else len(versions))
