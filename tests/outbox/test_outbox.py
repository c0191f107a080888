"""What polls and deliveries rely on: one commit, one order, cursors, room, the end."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from poller.errors import OutboxError, OutboxFailed, OutboxFull
from poller.metrics import Metrics
from poller.model import Balance, Baseline, Record, State
from poller.outbox import DeadLetter, Outbox, OutboxStats
from poller.testing.sink_contract import make_records
from poller.testing.virtual_time import START_UTC_S, VirtualClock

ALL = {"max_records": 10_000, "max_bytes": 1 << 30}
DAY_S = 86_400


@asynccontextmanager
async def opened(path: Path, **settings: Any) -> AsyncIterator[Outbox]:
    settings.setdefault("metrics", Metrics())
    outbox = await Outbox.open(path, VirtualClock(), **settings)
    try:
        yield outbox
    finally:
        await outbox.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "outbox.db"


@pytest.fixture
def tended_hourly(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that last for weeks: every 30 s is often."""
    monkeypatch.setattr("poller.outbox.tending.TEND_EVERY_S", 3600.0)


@pytest.fixture
async def outbox(path: Path) -> AsyncIterator[Outbox]:
    async with opened(path) as outbox:
        await outbox.register({"sink": "oldest"})
        yield outbox


def sequences(records: list[Record]) -> list[int]:
    return [record.sequence for record in records]


async def pending(outbox: Outbox, sink: str = "sink") -> list[int]:
    """Sequences that wait for a sink."""
    return sequences(await outbox.next_batch(sink, **ALL)) if outbox.backlog(sink) else []


# Accepting ----------------------------------------------------------------------------------------


async def test_what_was_accepted_comes_back_byte_for_byte_in_order(outbox: Outbox) -> None:
    records = make_records(5)
    await outbox.accept(None, records[:3])
    await outbox.accept(None, records[3:])
    assert await outbox.next_batch("sink", **ALL) == [
        replace(record, position=position) for position, record in enumerate(records, 1)
    ]


async def test_a_baseline_survives_exactly(path: Path) -> None:
    baseline = Baseline(
        "alice",
        sequence=41,
        balances=(
            Balance("BTC", Decimal("12345678901234567890.123456789012345678"), btc_valuation=None),
            Balance(
                "币安人生", Decimal(0), Decimal("1E-8"), Decimal(1), Decimal(2), Decimal(3), Decimal("4.50")
            ),
        ),
        asset=None,
        state=State.STALE,
        since_ns=1_767_225_600_000_000_001,
    )
    bare = Baseline("bob", asset="BTC")
    async with opened(path) as outbox:
        await outbox.accept(baseline, make_records(1))
        await outbox.accept(bare, [])
        await outbox.accept(replace(baseline, sequence=42), [])
    async with opened(path) as outbox:
        assert await outbox.baselines() == {"alice": replace(baseline, sequence=42), "bob": bare}


async def test_records_accepted_at_once_share_a_commit(outbox: Outbox) -> None:
    before = outbox.stats().commits
    await asyncio.gather(*(outbox.accept(None, [record]) for record in make_records(100)))
    assert outbox.stats().commits == before + 1
    assert await pending(outbox) == list(range(1, 101))


async def test_what_comes_while_a_commit_runs_goes_into_the_next(outbox: Outbox) -> None:
    before = outbox.stats().commits
    first = asyncio.create_task(outbox.accept(None, make_records(1)))
    for _ in range(3):
        await asyncio.sleep(0)  # the first is on its way to the disk
    others = [asyncio.create_task(outbox.accept(None, make_records(1, first=n))) for n in range(2, 50)]
    await asyncio.gather(first, *others)
    assert outbox.stats().commits == before + 2


async def test_a_cancelled_accept_is_whole_and_disturbs_nobody(outbox: Outbox) -> None:
    tasks = [
        asyncio.create_task(
            outbox.accept(Baseline(f"account-{n}", sequence=n), make_records(2, first=2 * n - 1))
        )
        for n in range(1, 11)
    ]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [task.cancelled() for task in tasks] == [True, False] * 5
    # Here all ten: they were asked for before they were cancelled. What counts is that none is there in part.
    assert await pending(outbox) == list(range(1, 21))
    assert len(await outbox.baselines()) == 10


async def test_what_cannot_be_stored_is_refused_alone(outbox: Outbox) -> None:
    good, bad, huge = make_records(3)
    results = await asyncio.gather(
        outbox.accept(None, [good]),
        outbox.accept(None, [replace(bad, account="\ud800")]),
        outbox.accept(None, [replace(huge, sequence=1 << 63)]),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), UnicodeEncodeError, ValueError]
    assert await pending(outbox) == [1]


async def test_accepting_nothing_is_no_commit(outbox: Outbox) -> None:
    before = outbox.stats()
    await outbox.accept(None, [])
    assert outbox.stats() == before


async def test_accepted_records_are_counted_by_kind(path: Path) -> None:
    metrics = Metrics()
    async with opened(path, metrics=metrics) as outbox:
        await outbox.accept(None, make_records(3))
        await outbox.accept(None, make_records(1))
    assert metrics.value("records_accepted_total", kind="snapshot") == 4.0
    assert metrics.value("outbox_commits_total") == 2.0


# Cursors ------------------------------------------------------------------------------------------


async def test_each_sink_has_its_own_cursor(outbox: Outbox) -> None:
    await outbox.register({"sink": "oldest", "other": "oldest"})
    await outbox.accept(None, make_records(5))
    await outbox.acknowledge("sink", 3)
    assert await pending(outbox, "sink") == [4, 5]
    assert await pending(outbox, "other") == [1, 2, 3, 4, 5]
    assert (outbox.backlog("sink"), outbox.backlog("other")) == (2, 5)
    assert (outbox.cursor("sink"), outbox.cursor("other"), outbox.last_position) == (3, 0, 5)


async def test_a_cursor_never_moves_back(outbox: Outbox) -> None:
    await outbox.accept(None, make_records(5))
    await asyncio.gather(*(outbox.acknowledge("sink", position) for position in (2, 4, 1, 3)))
    assert outbox.cursor("sink") == 4
    await outbox.acknowledge("sink", 0)
    assert outbox.cursor("sink") == 4


async def test_what_was_never_accepted_cannot_be_acknowledged(outbox: Outbox) -> None:
    await outbox.accept(None, make_records(2))
    with pytest.raises(ValueError, match="position 3 is beyond the last one, 2"):
        await outbox.acknowledge("sink", 3)


@pytest.mark.parametrize(
    "use",
    [
        lambda outbox: outbox.next_batch("stranger", **ALL),
        lambda outbox: outbox.acknowledge("stranger", 0),
    ],
)
async def test_a_sink_that_was_never_registered_is_refused(
    outbox: Outbox, use: Callable[[Outbox], Any]
) -> None:
    with pytest.raises(LookupError, match="sink 'stranger' is not registered"):
        await use(outbox)


async def test_next_batch_waits_for_the_first_record(outbox: Outbox) -> None:
    loop = asyncio.get_running_loop()
    reading = asyncio.create_task(outbox.next_batch("sink", **ALL))
    await asyncio.sleep(1000)
    assert not reading.done()
    await outbox.accept(None, make_records(1))
    assert sequences(await reading) == [1]
    assert loop.time() == 1000.0


@pytest.mark.parametrize(
    ("max_records", "payloads_that_fit", "expected"),
    [(10, 3.0, [1, 2, 3]), (10, 2.99, [1, 2]), (2, 100.0, [1, 2]), (10, 0.01, [1])],
)
async def test_a_batch_is_bounded_by_records_and_bytes_but_never_empty(
    outbox: Outbox, max_records: int, payloads_that_fit: float, expected: list[int]
) -> None:
    records = [replace(record, payload=b"x" * 1000) for record in make_records(9)]
    await outbox.accept(None, records)
    batch = await outbox.next_batch(
        "sink", max_records=max_records, max_bytes=round(payloads_that_fit * 1000)
    )
    assert sequences(batch) == expected


async def test_cursors_sequences_and_positions_survive_a_restart(path: Path) -> None:
    async with opened(path) as outbox:
        await outbox.register({"sink": "oldest"})
        await outbox.accept(None, make_records(5))
        await outbox.acknowledge("sink", 2)
    async with opened(path) as outbox:
        await outbox.register({"sink": "now"})  # only a new sink begins where it says
        assert await pending(outbox) == [3, 4, 5]
        await outbox.accept(None, make_records(1, first=6))
        assert outbox.last_position == 6


async def test_a_new_sink_begins_where_it_says(outbox: Outbox) -> None:
    await outbox.accept(None, make_records(3))
    await outbox.register({"sink": "oldest", "replaying": "oldest", "fresh": "now"})
    assert await pending(outbox, "replaying") == [1, 2, 3]
    assert await pending(outbox, "fresh") == []
    await outbox.accept(None, make_records(1, first=4))
    assert await pending(outbox, "fresh") == [4]


@pytest.mark.usefixtures("tended_hourly")
async def test_a_sink_that_is_absent_keeps_its_place_for_a_week(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    await outbox.register({"sink": "oldest", "leaving": "oldest"})
    await outbox.accept(None, make_records(3))
    await asyncio.sleep(30 * DAY_S)  # configured all the time, and slow
    await outbox.acknowledge("leaving", 1)
    await outbox.register({"sink": "oldest"})
    assert outbox.stats().backlogs == {"sink": 3}
    await asyncio.sleep(6 * DAY_S)
    await outbox.register({"sink": "oldest", "leaving": "now"})
    assert outbox.backlog("leaving") == 2
    await outbox.register({"sink": "oldest"})
    await asyncio.sleep(6 * DAY_S)
    assert outbox.backlog("leaving") == 2
    await asyncio.sleep(DAY_S + 3700)
    with pytest.raises(LookupError):
        outbox.backlog("leaving")
    (record,) = [r for r in caplog.records if "forgotten" in r.message]
    assert (vars(record)["sink"], vars(record)["records"]) == ("leaving", 2)


# Dead letters and egress --------------------------------------------------------------------------


async def test_dead_letters_are_kept_with_the_cursor(path: Path) -> None:
    async with opened(path) as outbox:
        await outbox.register({"sink": "oldest", "other": "oldest"})
        await outbox.accept(None, make_records(3))
        first, second, _ = await outbox.next_batch("sink", **ALL)
        await asyncio.sleep(5)
        await outbox.acknowledge("sink", 2, [DeadLetter(first, "too large"), DeadLetter(second, "too odd")])
        await outbox.acknowledge("sink", 2, [DeadLetter(first, "again")])  # redelivered, refused again
    async with opened(path) as outbox:
        at_ns = round((START_UTC_S + 5) * 1e9)
        assert await outbox.dead_letters("sink") == [
            DeadLetter(first, "too large", at_ns),
            DeadLetter(second, "too odd", at_ns),
        ]
        assert await outbox.dead_letters("sink", limit=1) == [DeadLetter(first, "too large", at_ns)]
        assert await outbox.dead_letters("other") == []
        assert (outbox.cursor("sink"), outbox.stats().dead_letters) == (2, 2)


@pytest.mark.usefixtures("tended_hourly")
async def test_dead_letters_are_dropped_after_a_month(outbox: Outbox) -> None:
    await outbox.accept(None, make_records(2))
    first, second = await outbox.next_batch("sink", **ALL)
    await outbox.acknowledge("sink", 1, [DeadLetter(first, "no")])
    await asyncio.sleep(29 * DAY_S)
    await outbox.acknowledge("sink", 2, [DeadLetter(second, "no")])
    await asyncio.sleep(2 * DAY_S)
    assert [letter.record.sequence for letter in await outbox.dead_letters("sink")] == [2]
    assert outbox.stats().dead_letters == 1


async def test_the_state_of_an_egress_address_survives(path: Path) -> None:
    async with opened(path) as outbox:
        await outbox.put_egress("default", b"banned")
        await outbox.put_egress("nat-b", b"")
        await outbox.put_egress("default", b"\0\xff")
    async with opened(path) as outbox:
        assert await outbox.egress() == {"default": b"\0\xff", "nat-b": b""}


# Retention ----------------------------------------------------------------------------------------


async def test_records_go_when_they_are_old_and_everybody_has_them(path: Path) -> None:
    async with opened(path, retain_s=3600) as outbox:
        await outbox.register({"a": "oldest", "b": "oldest"})
        await outbox.accept(None, make_records(3))
        await asyncio.sleep(1800)
        await outbox.accept(None, make_records(2, first=4))
        await outbox.acknowledge("a", 5)
        await outbox.acknowledge("b", 2)
        await asyncio.sleep(1700)  # 58 minutes old
        assert outbox.stats().first_position == 1
        await asyncio.sleep(200)  # 63 minutes: two are old and everywhere, the third waits for b
        assert outbox.stats().first_position == 3
        assert await pending(outbox, "b") == [3, 4, 5]
        await outbox.acknowledge("b", 5)
        await asyncio.sleep(60)
        assert outbox.stats().first_position == 4
        await asyncio.sleep(3600)
        assert (outbox.stats().first_position, outbox.last_position) == (6, 5)
        await outbox.accept(None, make_records(1, first=6))
        assert [record.position for record in await outbox.next_batch("a", **ALL)] == [6]


async def test_a_position_is_never_given_twice_also_when_all_records_are_gone(path: Path) -> None:
    async with opened(path, retain_s=0) as outbox:
        await outbox.register({"sink": "oldest"})
        await outbox.accept(None, make_records(3))
        await outbox.acknowledge("sink", 3)
        await asyncio.sleep(60)
        assert outbox.stats().first_position == 4
    async with opened(path, retain_s=0) as outbox:
        await outbox.accept(None, make_records(1, first=4))
        assert outbox.last_position == 4


async def test_deleted_records_give_their_space_back(path: Path) -> None:
    records = [replace(record, payload=b"x" * 10_000) for record in make_records(2000)]
    async with opened(path, retain_s=60) as outbox:
        await outbox.register({"sink": "oldest"})
        await outbox.accept(None, records)
        await outbox.acknowledge("sink", 2000)
        await asyncio.sleep(30)
        before_bytes = path.stat().st_size
        await asyncio.sleep(120)
        after_bytes = path.stat().st_size
    assert before_bytes > 20_000_000
    assert after_bytes < 5_000_000  # 4 MiB of it are kept for the next ones


async def test_a_clock_that_is_set_back_deletes_nothing_early(path: Path) -> None:
    clock = VirtualClock()
    outbox = await Outbox.open(path, clock, metrics=Metrics(), retain_s=3600)
    await outbox.register({"sink": "oldest"})
    clock.wall_step_s = -7200.0
    await outbox.accept(None, make_records(1))
    await outbox.acknowledge("sink", 1)
    clock.wall_step_s = -7200.0 * 10
    await asyncio.sleep(3000)
    assert outbox.stats().first_position == 1
    await outbox.close()


# Size ---------------------------------------------------------------------------------------------

LIMIT_BYTES = 400_000


async def fill(outbox: Outbox) -> int:
    """Accept until there is no room; return how many were accepted."""
    for number in range(1, 10_000):
        record = replace(make_records(1, first=number)[0], payload=b"x" * 1000)
        try:
            await outbox.accept(Baseline("alice", sequence=number), [record])
        except OutboxFull:
            return number - 1
    raise AssertionError("it never became full")


async def test_at_its_size_limit_nothing_is_accepted_and_nothing_is_half_accepted(path: Path) -> None:
    async with opened(path, max_size_bytes=LIMIT_BYTES) as outbox:
        await outbox.register({"sink": "oldest"})
        accepted = await fill(outbox)
        assert 200 < accepted < 400
        assert outbox.is_full
        assert outbox.stats().is_full
        assert outbox.last_position == accepted
        assert (await outbox.baselines())["alice"].sequence == accepted
        assert path.stat().st_size <= LIMIT_BYTES + 65_536


async def test_when_sinks_move_on_there_is_room_again_within_seconds(path: Path) -> None:
    async with opened(path, max_size_bytes=LIMIT_BYTES) as outbox:
        await outbox.register({"sink": "oldest"})
        accepted = await fill(outbox)
        started = asyncio.get_running_loop().time()
        waiting = asyncio.create_task(outbox.wait_for_room())
        await asyncio.sleep(100)
        assert not waiting.done()
        await outbox.acknowledge("sink", accepted - 10)
        await asyncio.wait_for(waiting, 10)
        assert asyncio.get_running_loop().time() <= started + 105
        assert not outbox.is_full
        await outbox.accept(None, make_records(1, first=accepted + 1))
        assert len(await pending(outbox)) == 11


async def test_cursors_dead_letters_and_pauses_are_kept_also_when_it_is_full(path: Path) -> None:
    async with opened(path, max_size_bytes=LIMIT_BYTES) as outbox:
        await outbox.register({"sink": "oldest"})
        await fill(outbox)
        (record, *_) = await outbox.next_batch("sink", **ALL)
        await outbox.put_egress("default", b"banned")
        await outbox.acknowledge("sink", 1, [DeadLetter(record, "no")])
        assert (outbox.cursor("sink"), outbox.stats().dead_letters) == (1, 1)
        assert await outbox.egress() == {"default": b"banned"}


async def test_a_full_outbox_refuses_of_a_group_only_what_was_to_be_accepted(path: Path) -> None:
    async with opened(path, max_size_bytes=LIMIT_BYTES) as outbox:
        await outbox.register({"sink": "oldest"})
        accepted = await fill(outbox)
        before = outbox.stats().commits
        refused, *others = await asyncio.gather(
            outbox.accept(None, make_records(1)),
            outbox.put_egress("default", b"banned"),
            outbox.acknowledge("sink", 1),
            return_exceptions=True,
        )
        assert outbox.stats().commits == before + 1  # they did share one
        assert isinstance(refused, OutboxFull)
        assert others == [None, None]
        assert await outbox.egress() == {"default": b"banned"}
        assert (outbox.cursor("sink"), outbox.last_position) == (1, accepted)


async def test_delivered_records_give_way_before_polls_have_to_wait(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To keep history for a replay is a wish, to accept what is new a promise."""
    async with opened(path, max_size_bytes=LIMIT_BYTES, retain_s=DAY_S) as outbox:
        await outbox.register({"sink": "oldest"})
        for number in range(1, 800):
            record = replace(make_records(1, first=number)[0], payload=b"x" * 1000)
            await outbox.accept(None, [record])
            await outbox.acknowledge("sink", number)
        assert not outbox.is_full
        assert outbox.stats().used_bytes <= LIMIT_BYTES
    said = [record.message for record in caplog.records if "before their time" in record.message]
    assert len(said) == 1


async def test_a_sink_that_was_removed_does_not_fill_the_outbox_for_a_week(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path, max_size_bytes=LIMIT_BYTES) as outbox:
        await outbox.register({"sink": "oldest", "removed": "oldest"})
        await outbox.register({"sink": "oldest"})
        for number in range(1, 1000):
            record = replace(make_records(1, first=number)[0], payload=b"x" * 1000)
            await outbox.accept(None, [record])
            await outbox.acknowledge("sink", number)
        kept = outbox.last_position - outbox.stats().first_position + 1
        await outbox.register({"sink": "oldest", "removed": "oldest"})
        assert outbox.backlog("removed") == kept
    (said,) = [record for record in caplog.records if "it will not get them" in record.message]
    assert vars(said)["records"] == 999 - kept


# The end ------------------------------------------------------------------------------------------


async def test_close_waits_for_what_was_asked_for(path: Path) -> None:
    outbox = await Outbox.open(path, VirtualClock(), metrics=Metrics())
    accepting = [asyncio.create_task(outbox.accept(None, [record])) for record in make_records(50)]
    await asyncio.sleep(0)
    await outbox.close()
    await asyncio.gather(*accepting)
    async with opened(path) as again:
        assert again.last_position == 50


async def test_close_wakes_those_who_wait(path: Path) -> None:
    outbox = await Outbox.open(path, VirtualClock(), metrics=Metrics())
    await outbox.register({"sink": "oldest"})
    reading = asyncio.create_task(outbox.next_batch("sink", **ALL))
    await asyncio.sleep(1)
    await outbox.close()
    with pytest.raises(OutboxError, match="the outbox is closed"):
        await reading


async def test_after_close_nothing_works_and_a_second_close_is_harmless(path: Path) -> None:
    outbox = await Outbox.open(path, VirtualClock(), metrics=Metrics())
    await outbox.close()
    await outbox.close()
    with pytest.raises(OutboxError, match="the outbox is closed"):
        await outbox.accept(None, make_records(1))


async def test_a_clean_end_leaves_one_file_and_no_log(path: Path) -> None:
    async with opened(path) as outbox:
        await outbox.accept(None, make_records(10))
        names = {entry.name for entry in path.parent.iterdir()}
        assert names == {"outbox.db", "outbox.db-wal", "outbox.db.lock", "outbox.db.reserve"}
    assert {entry.name for entry in path.parent.iterdir()} == names - {"outbox.db-wal"}


async def test_an_opening_that_was_cancelled_leaves_no_lock(path: Path) -> None:
    opening = asyncio.create_task(Outbox.open(path, VirtualClock(), metrics=Metrics()))
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await asyncio.sleep(1)  # time stands still while its thread cleans up
    async with opened(path) as outbox:
        assert outbox.last_position == 0


# Failure ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [Path.unlink, lambda path: path.rename(path.with_suffix(".moved"))])
async def test_a_file_that_is_moved_or_removed_fails_the_outbox_for_good(
    path: Path, gone: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as outbox:
        await outbox.register({"sink": "oldest"})
        await outbox.accept(None, make_records(1))
        reading = asyncio.create_task(outbox.next_batch("sink", **ALL))
        await reading
        await outbox.acknowledge("sink", 1)
        waiting = asyncio.create_task(outbox.next_batch("sink", **ALL))
        await asyncio.sleep(0)
        gone(path)
        with pytest.raises(OutboxFailed, match="was moved or removed while in use"):
            await outbox.accept(None, make_records(1, first=2))
        for use in (
            lambda: outbox.accept(None, make_records(1)),
            lambda: outbox.acknowledge("sink", 1),
            lambda: outbox.put_egress("default", b""),
            outbox.wait_for_room,
            outbox.baselines,
            lambda: waiting,
        ):
            with pytest.raises(OutboxFailed, match="was moved or removed while in use"):
                await use()
    assert [r.message for r in caplog.records if r.levelname == "CRITICAL"] == ["the outbox has failed"]
    moved = path.with_suffix(".moved")
    if moved.exists():
        async with opened(moved) as found:
            assert (found.last_position, found.cursor("sink")) == (1, 1)


class _Failing:
    """A connection whose ``COMMIT`` fails as told; everything else is the real one's."""

    def __init__(self, db: sqlite3.Connection, code: int, name: str) -> None:
        self._db, self._code, self._name = db, code, name

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode, error.sqlite_errorname = self._code, self._name
            raise error
        return self._db.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.mark.parametrize(
    "name", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE", "SQLITE_READONLY", "SQLITE_CANTOPEN"]
)
async def test_a_failed_sync_or_write_is_never_tried_again(path: Path, name: str) -> None:
    """After a failed sync the kernel calls the pages clean: a second one would succeed and mean nothing."""
    async with opened(path) as outbox:
        await outbox.register({"sink": "oldest"})
        store = outbox._engine.store
        real = store._db
        store._db = _Failing(real, getattr(sqlite3, name), name)  # type: ignore[assignment]  # a stand-in
        results = await asyncio.gather(
            outbox.accept(None, make_records(1)), outbox.put_egress("default", b""), return_exceptions=True
        )
        assert [type(result) for result in results] == [OutboxFailed, OutboxFailed]
        assert name in str(results[0])
        store._db = real  # the disk pretends to be well again
        with pytest.raises(OutboxFailed, match=name):
            await outbox.accept(None, make_records(1))
    async with opened(path) as outbox:
        assert outbox.last_position == 0


async def test_a_quota_is_no_room_and_no_failure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite reports a quota as a failed write; the file system, asked again, says what it is."""
    async with opened(path) as outbox:
        real = outbox._engine.store._db
        with monkeypatch.context() as full:
            full.setattr("poller.outbox.place.has_room", lambda path: False)
            failing: Any = _Failing(real, sqlite3.SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE")
            outbox._engine.store._db = failing
            with pytest.raises(OutboxFull, match="no room on the disk"):
                await outbox.accept(None, make_records(1))
            outbox._engine.store._db = real
        assert outbox.is_full
        await outbox.wait_for_room()
        await outbox.accept(None, make_records(1))
        assert outbox.last_position == 1


@pytest.mark.real_time
async def test_a_forked_child_cannot_use_it_and_takes_no_lock_along(path: Path) -> None:
    async with opened(path) as outbox:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                outbox._engine.check()
            except OutboxError as error:
                os.write(writing, str(error).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)  # noqa: ASYNC222  # it ends at once
        with os.fdopen(reading) as said:
            assert said.read() == "the outbox belongs to the process that opened it"
        await outbox.accept(None, make_records(1))


async def test_stats_say_how_it_stands(outbox: Outbox) -> None:
    await outbox.accept(None, make_records(3))
    await outbox.acknowledge("sink", 1)
    stats = outbox.stats()
    assert stats == OutboxStats(
        first_position=1,
        last_position=3,
        backlogs={"sink": 2},
        records=3,
        letters={"sink": 0},
        dead_letters=0,
        dropped={"sink": 0},
        used_bytes=stats.used_bytes,
        max_bytes=1 << 30,
        is_full=False,
        commits=3,
        set_aside=None,
    )
    assert 4096 <= stats.used_bytes < 200_000
