"""What happens at the size limit: nothing is accepted, the oldest go, or what newer records supersede."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poller.errors import OutboxFull
from poller.metrics import Metrics
from poller.model import Kind, Record
from poller.outbox import DeadLetter, Outbox, WhenFull
from poller.testing.sink_contract import make_records
from poller.testing.virtual_time import VirtualClock

ALL = {"max_records": 1_000_000, "max_bytes": 1 << 30}
LIMIT_BYTES = 400_000
DROPPING: list[WhenFull] = ["drop_oldest", "conflate"]
SAID = "the outbox is at its size limit: records are dropped to make room"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@asynccontextmanager
async def opened(path: Path, when_full: WhenFull, **settings: Any) -> AsyncIterator[Outbox]:
    settings = {"metrics": Metrics(), "max_size_bytes": LIMIT_BYTES, **settings}
    outbox = await Outbox.open(path, VirtualClock(), when_full=when_full, **settings)
    try:
        yield outbox
    finally:
        await outbox.close()


def record(number: int, **fields: Any) -> Record:
    """A record of 1 kB; ten accounts take turns."""
    account = fields.pop("account", f"account-{number % 10}")
    return replace(make_records(1, account=account, first=number)[0], payload=b"x" * 1000, **fields)


async def accept(outbox: Outbox, first: int, last: int, **fields: Any) -> None:
    for number in range(first, last + 1):
        await outbox.accept(None, [record(number, **fields)])


async def waiting(outbox: Outbox, sink: str = "sink") -> list[int]:
    """The positions that wait for a sink, read from the file."""
    if not outbox.backlog(sink):
        return []
    return [record.position for record in await outbox.next_batch(sink, **ALL)]


async def test_drop_oldest_goes_on_accepting_and_deletes_no_more_than_it_must(path: Path) -> None:
    async with opened(path, "drop_oldest") as outbox:
        await outbox.register({"sink": "oldest"})
        await accept(outbox, 1, 2000)
        assert not outbox.is_full
        assert outbox.stats().used_bytes <= LIMIT_BYTES
        left = await waiting(outbox)
        assert left == list(range(left[0], 2001))
        assert len(left) >= 100
        assert outbox.stats().dropped == {"sink": left[0] - 1}


@pytest.mark.parametrize("when_full", DROPPING)
async def test_what_was_accepted_is_delivered_dead_dropped_or_waits(path: Path, when_full: WhenFull) -> None:
    metrics = Metrics()
    sinks = {"fast": 1.0, "slow": 0.3, "dead": 0.0}
    delivered: dict[str, set[int]] = {sink: set() for sink in sinks}
    dead: dict[str, set[int]] = {sink: set() for sink in sinks}
    async with opened(path, when_full, metrics=metrics) as outbox:
        await outbox.register(dict.fromkeys(sinks, "oldest"))
        for number in range(1, 1501):
            await outbox.accept(None, [record(number)])
            for sink, share in sinks.items():
                if number % 10 == 0 and (count := round(10 * share)):
                    batch = await outbox.next_batch(sink, max_records=count, max_bytes=1 << 30)
                    refused = [DeadLetter(one, "no") for one in batch if one.position % 50 == 0]
                    await outbox.acknowledge(sink, batch[-1].position, refused)
                    dead[sink] |= {letter.record.position for letter in refused}
                    delivered[sink] |= {one.position for one in batch} - dead[sink]
        for _ in ("now", "after a restart"):
            for sink in sinks:
                assert (
                    len(delivered[sink])
                    + len(dead[sink])
                    + outbox.stats().dropped[sink]
                    + outbox.backlog(sink)
                    == 1500
                )
                assert outbox.backlog(sink) == len(await waiting(outbox, sink))
                if sink in {"slow", "dead"}:
                    assert outbox.stats().dropped[sink] > 0
                counted = metrics.value("records_dropped_total", sink=sink, policy=when_full)
                assert counted == outbox.stats().dropped[sink]
            before = outbox.stats()
        await outbox.close()
    async with opened(path, when_full) as again:
        assert (again.stats().first_position, again.stats().backlogs) == (
            before.first_position,
            before.backlogs,
        )
    assert outbox.stats().dropped["fast"] == 0


async def test_what_is_delivered_goes_before_what_is_not(path: Path) -> None:
    async with opened(path, "drop_oldest") as outbox:
        await outbox.register({"sink": "oldest"})
        for number in range(1, 1001):
            await outbox.accept(None, [record(number)])
            await outbox.acknowledge("sink", number)
        assert outbox.stats().dropped == {"sink": 0}


async def test_conflate_keeps_the_newest_of_each_account_and_kind(path: Path) -> None:
    async with opened(path, "conflate") as outbox:
        await outbox.register({"sink": "oldest"})
        # Quiet accounts at the very beginning, and in the middle of what will go.
        await accept(outbox, 1, 3, account="quiet", reason="changed")
        await accept(outbox, 4, 4, account="quiet", kind=Kind.STATUS, reason="stale")
        await accept(outbox, 5, 6, account="polled", reason="changed")
        await accept(outbox, 7, 9, account="polled", reason="every")
        await accept(outbox, 10, 1500, account="busy", reason="changed")
        assert not outbox.is_full
        kept = await outbox.next_batch("sink", **ALL)
        positions = {one.position for one in kept}
        # Of "polled" both: a sink that wants changes only does not get the poll that found none.
        assert positions & set(range(1, 10)) == {3, 4, 6, 9}
        assert 1500 in positions
        assert outbox.backlog("sink") == len(kept)
        assert outbox.stats().dropped["sink"] == 1500 - len(kept)


async def test_when_every_record_is_the_newest_conflate_blocks_until_sinks_move_on(path: Path) -> None:
    async with opened(path, "conflate") as outbox:
        await outbox.register({"sink": "oldest"})
        with pytest.raises(OutboxFull, match="has grown to its limit"):  # noqa: PT012  # at one of them
            for number in range(1, 1000):
                await outbox.accept(None, [record(number, account=f"account-{number}")])
        assert outbox.is_full
        assert outbox.stats().dropped == {"sink": 0}
        last = outbox.last_position
        await outbox.acknowledge("sink", last - 50)
        await asyncio.wait_for(outbox.wait_for_room(), 10)
        await outbox.accept(None, [record(last + 1)])
        assert outbox.backlog("sink") == 51


async def test_a_backlog_over_many_holes_is_exact_for_every_cursor(path: Path) -> None:
    async with opened(path, "conflate") as outbox:
        await outbox.register({"sink": "oldest"})
        for number in range(1, 900):
            # Every seventh is an account's only record: it stays, and leaves a hole on both sides.
            name = f"once-{number}" if number % 7 == 0 and number < 600 else "busy"
            await outbox.accept(None, [record(number, account=name)])
        assert len(outbox.ledger.gaps.ranges) > 20
        kept = await waiting(outbox)
        for number in range(0, 900, 13):
            await outbox.acknowledge("sink", number)
            assert outbox.backlog("sink") == sum(position > number for position in kept)
    async with opened(path, "conflate") as outbox:
        assert outbox.backlog("sink") == len(await waiting(outbox))


@pytest.mark.parametrize("when_full", DROPPING)
async def test_it_is_said_when_dropping_begins_and_then_once_a_minute(
    path: Path, when_full: WhenFull, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path, when_full) as outbox:
        await outbox.register({"sink": "oldest"})
        number = 0
        while asyncio.get_running_loop().time() < 600:
            number += 1
            await outbox.accept(None, [record(number)])
            await asyncio.sleep(0.5)
        dropped = outbox.stats().dropped["sink"]
        await asyncio.sleep(120)  # what is left to say is said
    said = [r for r in caplog.records if r.message == SAID]
    assert {r.levelno for r in said} == {logging.ERROR}
    assert 5 <= len(said) <= 10
    assert {vars(r)["policy"] for r in said} == {when_full}
    assert sum(vars(r)["dropped"]["sink"] for r in said) == dropped > 0


async def test_a_sink_that_is_not_configured_is_counted_too(path: Path) -> None:
    async with opened(path, "block") as outbox:
        await outbox.register({"sink": "oldest", "removed": "oldest"})
        await outbox.register({"sink": "oldest"})
        for number in range(1, 1001):
            await outbox.accept(None, [record(number)])
            await outbox.acknowledge("sink", number)
        ledger = outbox.ledger
        assert ledger.backlog("removed") + ledger.cursors["removed"].dropped == 1000
        assert ledger.cursors["removed"].dropped > 0


async def test_a_batch_in_flight_that_was_dropped_is_not_counted_twice(path: Path) -> None:
    async with opened(path, "drop_oldest") as outbox:
        await outbox.register({"sink": "oldest"})
        await accept(outbox, 1, 200)
        batch = await outbox.next_batch("sink", max_records=150, max_bytes=1 << 30)
        assert outbox.is_current("sink")
        await accept(outbox, 201, 400)
        assert not outbox.is_current("sink")
        dropped = outbox.stats().dropped["sink"]
        assert 0 < dropped < 400
        # Two of them are refused: one is dropped already, the other may not be.
        await outbox.acknowledge("sink", 150, [DeadLetter(batch[0], "no"), DeadLetter(batch[-1], "no")])
        acknowledged = max(0, 150 - dropped)
        dead = outbox.stats().dead_letters
        assert dead == (1 if dropped < 150 else 0)
        assert (acknowledged - dead) + dead + dropped + outbox.backlog("sink") == 400
