"""Deliveries while somebody moves their cursor, drops what waits, or wants dead letters delivered again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from poller.delivery import DeliverySettings
from poller.errors import SinkUnavailable
from poller.outbox.values import Discard, Revive, Rewind, Skip
from poller.testing.sink_contract import ids, make_records
from tests.test_delivery import ScriptedSink, bench, refuse, running

ONE_BY_ONE = DeliverySettings(batch_records=1)


async def test_a_cursor_moved_back_brings_the_same_records_again_under_their_ids(tmp_path: Path) -> None:
    sink = ScriptedSink()
    async with bench(tmp_path, sink, make_records(5)) as made, running(made):
        await made.delivery.drained(5)
        await made.outbox.write(Rewind("test", 2))
        await made.delivery.drained(5)
    assert sink.accepted == ids(make_records(5)) + ids(make_records(5)[2:])


async def test_a_batch_under_way_does_not_move_the_cursor_forward_again(tmp_path: Path) -> None:
    sink = ScriptedSink(0.0, 0.0, 10.0)  # the third write takes a while
    async with bench(tmp_path, sink, make_records(3), ONE_BY_ONE) as made, running(made):
        await asyncio.sleep(5)
        assert made.outbox.cursor("test") == 2
        await made.outbox.write(Rewind("test", 0))
        await asyncio.sleep(6)  # now that write has returned, and speaks of another place
        await made.delivery.drained(3)
    assert [sequences for _, sequences in sink.calls] == [[1], [2], [3], [1], [2], [3]]


async def test_what_fails_is_read_anew_after_the_cursor_was_moved(tmp_path: Path) -> None:
    sink = ScriptedSink(*[SinkUnavailable("down")] * 3)
    async with bench(tmp_path, sink, make_records(4), ONE_BY_ONE) as made, running(made):
        await asyncio.sleep(1)
        await made.outbox.write(Skip("test"))
        await made.accept(make_records(1, first=5))
        await made.delivery.drained(5)
        assert made.outbox.stats().dropped == {"test": 4}
    assert sink.accepted == ids(make_records(1, first=5))


async def test_a_dead_letter_that_is_taken_now_is_removed(tmp_path: Path) -> None:
    sink = ScriptedSink(refuse(2))
    async with bench(tmp_path, sink, make_records(4)) as made, running(made):
        await made.delivery.drained(4)
        assert [letter.record.sequence for letter in await made.outbox.dead_letters("test")] == [2]
        await made.outbox.write(Revive("test", None))
        await asyncio.sleep(300)
        assert await made.outbox.dead_letters("test") == []
    second = make_records(2)[1].id
    assert sink.accepted.count(second) == 1
    assert sorted(sink.accepted) == sorted(ids(make_records(4)))


async def test_a_dead_letter_that_is_refused_again_is_kept_with_the_new_reason(tmp_path: Path) -> None:
    sink = ScriptedSink(refuse(1), 0.0, refuse(1))
    async with bench(tmp_path, sink, make_records(4)) as made, running(made):
        await made.delivery.drained(4)
        [before] = await made.outbox.dead_letters("test")
        await asyncio.sleep(100)
        await made.outbox.write(Revive("test", (before.record.id,)))
        await asyncio.sleep(300)
        [after] = await made.outbox.dead_letters("test")
    assert (after.record, after.reason) == (before.record, "no 1")
    assert after.at_ns > before.at_ns


async def test_a_sink_that_is_down_gets_its_dead_letters_when_it_is_back(tmp_path: Path) -> None:
    sink = ScriptedSink(refuse(1))
    async with bench(tmp_path, sink, make_records(2)) as made, running(made):
        await made.delivery.drained(2)
        sink.script = [SinkUnavailable("down")] * 3
        await made.outbox.write(Revive("test", None))
        await asyncio.sleep(300)
        assert await made.outbox.dead_letters("test") == []
    assert sink.accepted == [make_records(2)[1].id, make_records(1)[0].id]


async def test_what_was_not_settled_before_the_end_is_delivered_after_the_next_start(tmp_path: Path) -> None:
    first = ScriptedSink(refuse(1))
    async with bench(tmp_path, first, make_records(2)) as made:
        async with running(made):
            await made.delivery.drained(2)
        await made.outbox.write(Revive("test", None))
    second = ScriptedSink()
    async with bench(tmp_path, second) as made, running(made):
        await asyncio.sleep(300)
        assert await made.outbox.dead_letters("test") == []
    assert second.accepted == [make_records(1)[0].id]


async def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    sink = ScriptedSink(refuse(1, 2))
    async with bench(tmp_path, sink, make_records(2), DeliverySettings()) as made, running(made):
        await made.delivery.drained(2)
        assert await made.outbox.write(Discard("test", (make_records(1)[0].id,))) == 1
        assert [letter.record.sequence for letter in await made.outbox.dead_letters("test")] == [2]
        assert made.outbox.stats().dropped == {"test": 1}
