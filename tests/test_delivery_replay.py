"""What an operator does while a sink is being written to: cursors moved, backlogs dropped, dead letters again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from poller.delivery import DeliverySettings
from poller.errors import BatchRejected, SinkBroken, SinkError, SinkUnavailable
from poller.model import Record
from poller.outbox import DeadLetter
from poller.outbox.values import Discard, Revive, Rewind, Rewound, Skip
from poller.testing.sink_contract import ids, make_records
from tests.test_delivery import Bench, ScriptedSink, bench, refuse, running

LARGE = DeliverySettings(batch_records=100)


def written(sink: ScriptedSink) -> list[list[int]]:
    return [sequences for _, sequences in sink.calls]


async def dead(made: Bench) -> list[tuple[int, str, bool]]:
    letters = await made.outbox.dead_letters("test")
    return [(letter.record.sequence, letter.reason, letter.again) for letter in letters]


async def bury(made: Bench, *sequences: int) -> None:
    """Have everything acknowledged but for some records, which are refused."""
    batch = await made.outbox.next_batch("test", max_records=1000, max_bytes=1 << 30)
    letters = [DeadLetter(one, f"old {one.sequence}") for one in batch if one.sequence in sequences]
    await made.outbox.acknowledge("test", batch[-1].position, letters)


async def revive(made: Bench, *sequences: int) -> int:
    wanted = tuple(ids([make_records(1, first=sequence)[0] for sequence in sequences])) or None
    count: int = await made.outbox.write(Revive("test", wanted))
    return count


async def conserved(made: Bench, acknowledged: int) -> None:
    """What was accepted or came back was acknowledged, is dead, was dropped, or waits."""
    cursor = made.outbox.ledger.cursors["test"]
    letters = made.outbox.ledger.letters.get("test", 0)
    accepted = made.outbox.last_position
    backlog = made.outbox.backlog("test")
    assert accepted + cursor.replayed == acknowledged + letters + cursor.dropped + backlog


def while_writing(do: Callable[[], Any]) -> Callable[[Sequence[Record]], Any]:
    """A step of a sink in which something else happens before it succeeds."""

    async def step() -> None:
        await do()

    return lambda _: step()


# A cursor that is moved while a batch is under way ------------------------------------------------


async def test_a_batch_in_flight_does_not_undo_that_the_cursor_was_moved_back(tmp_path: Path) -> None:
    rewound: list[Rewound] = []

    async def rewind() -> None:
        rewound.append(await made.outbox.write(Rewind("test", 0)))

    sink = ScriptedSink(0.0, while_writing(rewind))
    async with bench(tmp_path, sink, make_records(5)) as made, running(made):
        await asyncio.sleep(1)
        assert rewound == [Rewound(before=2, after=0, records=2, letters=0)]
        assert written(sink) == [[1, 2], [3, 4], [1, 2], [3, 4], [5]]
        assert made.outbox.cursor("test") == 5
        await conserved(made, acknowledged=7)  # 3 and 4 were written twice, and acknowledged once


async def test_what_was_refused_in_flight_is_judged_when_it_comes_again(tmp_path: Path) -> None:
    async def rewind_and_refuse(batch: Sequence[Record]) -> None:
        await made.outbox.write(Rewind("test", 0))
        refuse(4)(batch)

    sink = ScriptedSink(0.0, rewind_and_refuse, 0.0, refuse(3))
    async with bench(tmp_path, sink, make_records(4)) as made, running(made):
        await asyncio.sleep(1)
        assert written(sink) == [[1, 2], [3, 4], [1, 2], [3, 4]]
        assert await dead(made) == [(3, "no 3", False)]
        await conserved(made, acknowledged=5)


@pytest.mark.parametrize(
    "error", [SinkUnavailable("down"), SinkBroken("no such table")], ids=["unavailable", "broken"]
)
@pytest.mark.parametrize("back", [True, False], ids=["moved back", "skipped"])
async def test_a_batch_that_fails_is_let_go_when_the_cursor_was_moved(
    tmp_path: Path, error: SinkError, back: bool
) -> None:
    sink = ScriptedSink(0.0, *[error] * 3)
    async with bench(tmp_path, sink, make_records(4)) as made, running(made):
        await asyncio.sleep(0.1)
        assert written(sink) == [[1, 2], [3, 4]]
        await made.outbox.write(Rewind("test", 0) if back else Skip("test"))
        await asyncio.sleep(600)
        if back:
            assert written(sink)[2] == [1, 2]
            assert made.outbox.cursor("test") == 4
            await conserved(made, acknowledged=6)
        else:
            assert written(sink) == [[1, 2], [3, 4]]
            await conserved(made, acknowledged=2)
            await made.accept(make_records(1, first=5))
            await asyncio.sleep(600)
            assert written(sink)[2:] == [[5]] * 3  # two failures of the script were left


async def test_a_sink_that_refuses_everything_is_let_go_when_its_backlog_is_dropped(tmp_path: Path) -> None:
    """Twenty refusals in a row put nothing aside; the way out is an operator's."""
    refusing = refuse()
    sink = ScriptedSink(*[refusing] * 3)
    async with bench(tmp_path, sink, make_records(30), LARGE) as made, running(made):
        await asyncio.sleep(1)
        assert await dead(made) == []
        assert await made.outbox.write(Skip("test")) == 30
        calls = len(sink.calls)
        await asyncio.sleep(3600)
        assert len(sink.calls) == calls
        await made.accept(make_records(1, first=31))
        sink.script.clear()
        await asyncio.sleep(1)
        assert written(sink)[-1] == [31]
        await conserved(made, acknowledged=1)


async def test_a_batch_that_lingers_is_let_go_when_it_is_dropped(tmp_path: Path) -> None:
    sink = ScriptedSink()
    settings = DeliverySettings(linger_s=10.0)
    async with bench(tmp_path, sink, make_records(3), settings) as made, running(made):
        await asyncio.sleep(5)
        assert await made.outbox.write(Skip("test")) == 3
        await asyncio.sleep(6)
        await made.delivery.drained(3)
        assert sink.calls == []
        await conserved(made, acknowledged=0)


async def test_the_end_does_not_wait_for_a_backlog_that_was_dropped(tmp_path: Path) -> None:
    sink = ScriptedSink(*[SinkUnavailable("down")] * 100)
    async with bench(tmp_path, sink, make_records(4)) as made, running(made):
        await asyncio.sleep(100)
        draining = asyncio.create_task(made.delivery.drained(4))
        await made.outbox.write(Skip("test"))
        async with asyncio.timeout(120):
            await draining


# Dead letters again -------------------------------------------------------------------------------


async def test_dead_letters_that_are_taken_now_are_dead_no_more(tmp_path: Path) -> None:
    sink = ScriptedSink()
    async with bench(tmp_path, sink, make_records(7)) as made:
        await bury(made, 2, 3, 5, 7)
        async with running(made):
            await asyncio.sleep(1)
            assert sink.calls == []
            assert await revive(made, 7, 2, 5) == 3
            await asyncio.sleep(1)
            assert written(sink) == [[2, 5], [7]]  # in order, whatever the order they were named in
            assert await dead(made) == [(3, "old 3", False)]
            await conserved(made, acknowledged=6)
            assert made.delivery.status().delivered == 3


async def test_a_dead_letter_carries_the_same_bytes(tmp_path: Path) -> None:
    batches: list[Sequence[Record]] = []
    sink = ScriptedSink(batches.append)
    async with bench(tmp_path, sink, make_records(2)) as made:
        await bury(made, 2)
        await revive(made)
        async with running(made):
            await asyncio.sleep(1)
    [[again]] = batches
    first = make_records(1, first=2)[0]
    assert (again.id, again.payload, again.position) == (first.id, first.payload, 2)


async def test_what_is_refused_again_is_kept_with_the_new_reason_and_not_tried_again(tmp_path: Path) -> None:
    sink = ScriptedSink(refuse(2))
    async with bench(tmp_path, sink, make_records(4)) as made:
        await bury(made, 2, 3)
        await revive(made)
        async with running(made):
            await asyncio.sleep(3600)
            assert written(sink) == [[2, 3]]
            assert await dead(made) == [(2, "no 2", False)]
            await conserved(made, acknowledged=3)
            await revive(made)
            await asyncio.sleep(1)
            assert await dead(made) == []
            await conserved(made, acknowledged=4)


async def test_a_refusal_that_names_nobody_is_found_by_halves_there_too(tmp_path: Path) -> None:
    def choke_on_3(batch: Sequence[Record]) -> None:
        if any(record.sequence == 3 for record in batch):
            raise BatchRejected("too large")

    sink = ScriptedSink(*[choke_on_3] * 10)
    async with bench(tmp_path, sink, make_records(4), LARGE) as made:
        await bury(made, 1, 2, 3, 4)
        await revive(made)
        async with running(made):
            await asyncio.sleep(1)
            assert await dead(made) == [(3, "too large", False)]
            assert [record.sequence for record in make_records(4) if record.id in sink.accepted] == [1, 2, 4]


async def test_many_dead_letters_that_are_refused_again_hold_nothing_up(tmp_path: Path) -> None:
    """Nothing is lost by believing it: they are dead already."""
    sink = ScriptedSink(refuse())
    async with bench(tmp_path, sink, make_records(50), LARGE) as made:
        await bury(made, *range(1, 51))
        await revive(made)
        async with running(made):
            await asyncio.sleep(1)
            await made.accept(make_records(1, first=51))
            await asyncio.sleep(1)
        assert [len(sequences) for sequences in written(sink)] == [50, 1]
        assert {(reason, again) for _, reason, again in await dead(made)} == {
            ("no " + str(n), False) for n in range(1, 51)
        }
        await conserved(made, acknowledged=1)


async def test_while_the_sink_is_down_they_wait(tmp_path: Path) -> None:
    sink = ScriptedSink(*[SinkUnavailable("down")] * 3)
    async with bench(tmp_path, sink, make_records(3)) as made:
        await bury(made, 1, 2)
        await revive(made)
        async with running(made):
            await asyncio.sleep(2)
            assert await dead(made) == [(1, "old 1", True), (2, "old 2", True)]
            await asyncio.sleep(600)
            assert sink.calls == [(0.0, [1, 2]), (0.5, [1, 2]), (1.5, [1, 2]), (3.5, [1, 2])]
            assert await dead(made) == []
            await conserved(made, acknowledged=3)


@pytest.mark.parametrize(
    "error", [SinkUnavailable("down"), SinkBroken("no such table")], ids=["unavailable", "broken"]
)
async def test_dead_letters_that_are_dropped_meanwhile_are_let_go(tmp_path: Path, error: SinkError) -> None:
    sink = ScriptedSink(*[error] * 2)
    async with bench(tmp_path, sink, make_records(3)) as made:
        await bury(made, 1, 2)
        await revive(made)
        async with running(made):
            await asyncio.sleep(0.1)
            assert await made.outbox.write(Discard("test", None)) == 2
            await asyncio.sleep(600)
            assert written(sink) == [[1, 2]]
            await conserved(made, acknowledged=1)
            await made.accept(make_records(1, first=4))
            await asyncio.sleep(600)
            assert written(sink) == [[1, 2], [4], [4]]


async def test_a_kill_between_the_write_and_its_note_lets_them_come_again(tmp_path: Path) -> None:
    first = ScriptedSink(1e9)  # the destination has them; we do not get to know
    async with bench(tmp_path, first, make_records(3)) as made:
        await bury(made, 1, 3)
        await revive(made)
        async with running(made):
            await asyncio.sleep(1)
        assert await dead(made) == [(1, "old 1", True), (3, "old 3", True)]
    second = ScriptedSink()
    async with bench(tmp_path, second) as made, running(made):
        await asyncio.sleep(1)
        assert (written(first), written(second)) == ([[1, 3]], [[1, 3]])
        assert await dead(made) == []
        await conserved(made, acknowledged=3)


async def test_dead_letters_in_flight_that_a_moved_cursor_brings_back_come_with_the_others(
    tmp_path: Path,
) -> None:
    async def rewind() -> None:
        assert await made.outbox.write(Rewind("test", 0)) == Rewound(before=3, after=0, records=3, letters=1)

    sink = ScriptedSink(while_writing(rewind))
    async with bench(tmp_path, sink, make_records(3), LARGE) as made:
        await bury(made, 2)
        await revive(made)
        async with running(made):
            await asyncio.sleep(1)
            assert written(sink) == [[2], [1, 2, 3]]
            assert await dead(made) == []
            await conserved(made, acknowledged=5)


async def test_dead_letters_do_not_hold_up_what_is_new_for_longer_than_they_take(tmp_path: Path) -> None:
    sink = ScriptedSink()
    async with bench(tmp_path, sink, make_records(4)) as made:
        await bury(made, 1, 2, 3)
        await made.accept(make_records(1, first=5))
        await revive(made)
        async with running(made):
            await asyncio.sleep(1)
        assert written(sink) == [[1, 2], [3], [5]]
