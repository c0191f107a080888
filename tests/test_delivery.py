"""Deliveries against scripted sinks and a real outbox, at exact virtual times."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.delivery import Delivery, DeliverySettings
from poller.errors import BatchRejected, OutboxFailed, OutboxFull, SinkBroken, SinkRejected, SinkUnavailable
from poller.metrics import Metrics
from poller.model import Account, Kind, Record, State
from poller.outbox import DeadLetter, Outbox
from poller.records import status_record
from poller.secrets import Secret
from poller.sinks import SinkOptions
from poller.testing.sink_contract import ids, make_records
from poller.testing.virtual_time import VirtualClock

Step = float | BaseException | Callable[[Sequence[Record]], object]
SMALL = DeliverySettings(batch_records=2)


class ScriptedSink:
    """A sink that does what it is told: an error is raised, a number is a delay in seconds, a function is called."""

    Options: ClassVar[type[SinkOptions]] = SinkOptions

    def __init__(self, *script: Step, opens: Sequence[Step] = (), close_s: float = 0.0) -> None:
        self.script = list(script)
        self.opens = list(opens)
        self.close_s = close_s
        self.calls: list[tuple[float, list[int]]] = []  # (virtual time, sequences)
        self.events: list[str] = []
        self.accepted: list[str] = []

    async def open(self) -> None:
        self.events.append("open")
        await self._do(self.opens.pop(0) if self.opens else 0.0, ())

    async def write(self, batch: Sequence[Record]) -> None:
        self.events.append("write")
        self.calls.append((now(), [record.sequence for record in batch]))
        try:
            await self._do(self.script.pop(0) if self.script else 0.0, batch)
        except SinkRejected as error:
            self.accepted += [record.id for record in batch if record.id not in error.rejected]
            raise
        self.accepted += ids(batch)

    async def close(self) -> None:
        self.events.append("close")
        await asyncio.sleep(self.close_s)

    async def _do(self, step: Step, batch: Sequence[Record]) -> None:
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            step = step(batch)  # type: ignore[assignment]  # may be a coroutine
            if asyncio.iscoroutine(step):
                await step
            return
        if step:
            await asyncio.sleep(step)


class HighestDice(random.Random):
    """Throws the upper bound every time: delays are exact."""

    def uniform(self, a: float, b: float) -> float:
        return b


def now() -> float:
    return asyncio.get_running_loop().time()


def choke(*sequences: int) -> Callable[[Sequence[Record]], object]:
    """Refuse the whole batch without naming anybody if one of the sequences is in it."""

    def step(batch: Sequence[Record]) -> None:
        if any(record.sequence in sequences for record in batch):
            raise BatchRejected("something in it is too large")

    return step


def refuse(*sequences: int) -> Callable[[Sequence[Record]], object]:
    """Refuse those of the batch that have one of the sequences; all of it if none is named."""

    def step(batch: Sequence[Record]) -> None:
        bad = {r.id: f"no {r.sequence}" for r in batch if not sequences or r.sequence in sequences}
        if bad:
            raise SinkRejected("refused", rejected=bad)

    return step


@dataclass
class Bench:
    """One delivery on one outbox."""

    outbox: Outbox
    delivery: Delivery
    metrics: Metrics

    async def accept(self, records: Sequence[Record]) -> None:
        await self.outbox.accept(None, records)


@asynccontextmanager
async def bench(
    tmp_path: Path,
    sink: Any,
    records: Sequence[Record] = (),
    settings: DeliverySettings = SMALL,
    *,
    dice: random.Random | None = None,
) -> AsyncIterator[Bench]:
    metrics = Metrics()
    outbox = await Outbox.open(tmp_path / "outbox.db", VirtualClock(), metrics=metrics)
    await outbox.register({"test": "oldest"})
    await outbox.accept(None, records)
    delivery = Delivery(
        "test", sink, outbox, VirtualClock(), settings, metrics=metrics, dice=dice or HighestDice()
    )
    try:
        yield Bench(outbox, delivery, metrics)
    finally:
        await outbox.close()


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[None]:
    task = asyncio.create_task(bench.delivery.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def deliver(
    tmp_path: Path,
    sink: Any,
    records: Sequence[Record],
    settings: DeliverySettings = SMALL,
    *,
    for_s: float = 3600.0,
) -> None:
    async with bench(tmp_path, sink, records, settings) as made, running(made):
        await asyncio.sleep(for_s)


# What arrives -------------------------------------------------------------------------------------


async def test_records_arrive_in_order_and_in_batches(tmp_path: Path) -> None:
    sink = ScriptedSink()
    await deliver(tmp_path, sink, make_records(5))
    assert sink.calls == [(0.0, [1, 2]), (0.0, [3, 4]), (0.0, [5])]


async def test_a_batch_is_bounded_by_bytes_but_a_larger_record_goes_alone(tmp_path: Path) -> None:
    records = make_records(4)
    large = replace(records[1], payload=records[1].payload + b" " * 10_000)
    sink = ScriptedSink()
    bytes_of_two = len(records[2].payload) + len(records[3].payload)
    await deliver(
        tmp_path,
        sink,
        [records[0], large, *records[2:]],
        DeliverySettings(batch_records=100, batch_bytes=bytes_of_two),
    )
    assert [sequences for _, sequences in sink.calls] == [[1], [2], [3, 4]]


async def test_what_comes_later_is_delivered_when_it_comes(tmp_path: Path) -> None:
    sink = ScriptedSink()
    async with bench(tmp_path, sink) as made, running(made):
        await asyncio.sleep(12.5)
        await made.accept(make_records(1))
        await made.delivery.drained(1)
    assert sink.calls == [(12.5, [1])]


@pytest.mark.parametrize(
    ("emit", "arriving"), [("changed", [1, 3, 4, 5]), ("every", [1, 2, 3, 4, 5])], ids=["changed", "every"]
)
async def test_a_sink_gets_what_it_chose(tmp_path: Path, emit: Any, arriving: list[int]) -> None:
    reasons = ["first", "every", "changed", "heartbeat", "stale"]
    records = [replace(r, reason=reason) for r, reason in zip(make_records(5), reasons, strict=True)]
    sink = ScriptedSink()
    await deliver(tmp_path, sink, records, DeliverySettings(emit=emit))
    assert sink.calls == [(0.0, arriving)]


async def test_the_cursor_passes_what_a_sink_did_not_choose_without_a_write(tmp_path: Path) -> None:
    sink = ScriptedSink()
    records = [replace(record, reason="every") for record in make_records(5)]
    async with bench(tmp_path, sink, records) as made, running(made):
        await made.delivery.drained(5)
        assert made.outbox.backlog("test") == 0
        assert made.delivery.status().delivered == 0
    assert sink.calls == []


async def test_a_restart_continues_behind_the_last_acknowledged_batch(tmp_path: Path) -> None:
    records = make_records(4)
    hanging = ScriptedSink(0.0, 1e9)
    await deliver(tmp_path, hanging, records, for_s=10)
    assert [sequences for _, sequences in hanging.calls] == [[1, 2], [3, 4]]
    again = ScriptedSink()
    await deliver(tmp_path, again, [])
    assert [sequences for _, sequences in again.calls] == [[3, 4]]


async def test_what_a_sink_does_to_its_batch_changes_nothing(tmp_path: Path) -> None:
    def tamper(batch: Any) -> None:
        with pytest.raises(AttributeError):
            batch.clear()

    sink = ScriptedSink(tamper)
    async with bench(tmp_path, sink, make_records(1)) as made, running(made):
        await made.delivery.drained(1)
        assert made.delivery.status().delivered == 1


# Retries ------------------------------------------------------------------------------------------


async def test_an_unavailable_sink_is_retried_with_growing_delays(tmp_path: Path) -> None:
    sink = ScriptedSink(*[SinkUnavailable("down")] * 9)
    await deliver(tmp_path, sink, make_records(1))
    assert [at for at, _ in sink.calls] == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5, 123.5, 183.5]


@pytest.mark.parametrize("seed", range(20))
async def test_the_jitter_stays_between_its_bounds(tmp_path: Path, seed: int) -> None:
    sink = ScriptedSink(*[SinkUnavailable("down")] * 10)
    async with (
        bench(tmp_path, sink, make_records(1), dice=random.Random(seed)) as made,
        running(made),
    ):
        await asyncio.sleep(3600)
    times = [at for at, _ in sink.calls]
    delays = [after - before for before, after in pairwise(times)]
    ceilings = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert all(0.5 <= delay <= ceiling for delay, ceiling in zip(delays, ceilings, strict=True)), delays
    assert len(set(delays)) > 5


async def test_a_success_starts_the_delays_anew(tmp_path: Path) -> None:
    down = SinkUnavailable("down")
    sink = ScriptedSink(down, down, 0.0, down)
    await deliver(tmp_path, sink, make_records(4))
    assert sink.calls == [
        (0.0, [1, 2]),
        (0.5, [1, 2]),
        (1.5, [1, 2]),
        (1.5, [3, 4]),
        (2.0, [3, 4]),
    ]


@pytest.mark.parametrize(
    ("asked_s", "second_at_s"),
    [(42.0, 42.0), (0.0, 0.5), (-5.0, 0.5), (1e12, 3600.0), (float("inf"), 0.5), (float("nan"), 0.5)],
)
async def test_a_sink_may_name_the_delay_within_reason(
    tmp_path: Path, asked_s: float, second_at_s: float
) -> None:
    sink = ScriptedSink(SinkUnavailable("busy", retry_after_s=asked_s))
    await deliver(tmp_path, sink, make_records(1), for_s=4000)
    assert [at for at, _ in sink.calls] == [0.0, second_at_s]


async def test_a_sink_that_hangs_is_timed_out_and_retried(tmp_path: Path) -> None:
    sink = ScriptedSink(1e9)
    await deliver(tmp_path, sink, make_records(1))
    assert [at for at, _ in sink.calls] == [0.0, 30.5]


async def test_a_broken_sink_is_asked_rarely_keeps_everything_and_goes_on_when_repaired(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = ScriptedSink(SinkBroken("no such table"), SinkBroken("no such table"))
    await deliver(tmp_path, sink, make_records(1))
    assert sink.calls == [(0.0, [1]), (60.0, [1]), (120.0, [1])]
    assert [r.levelno for r in caplog.records if "does not take" in r.message] == [logging.ERROR] * 2


async def test_opening_is_retried_as_writing_is(tmp_path: Path) -> None:
    sink = ScriptedSink(opens=[SinkUnavailable("down"), 1e9])
    await deliver(tmp_path, sink, make_records(1))
    assert sink.calls == [(0.5 + 30.0 + 1.0, [1])]
    assert sink.events == ["open", "open", "open", "write", "close"]


async def test_a_sink_that_opened_at_last_is_well_also_without_records(tmp_path: Path) -> None:
    sink = ScriptedSink(opens=[SinkUnavailable("down")])
    async with bench(tmp_path, sink) as made, running(made):
        await asyncio.sleep(0.25)
        assert (made.delivery.status().error, made.delivery.status().failing_s) == ("down", 0.25)
        await asyncio.sleep(1)
        assert (made.delivery.status().error, made.delivery.status().failing_s) == ("", 0.0)


# Foreign code that misbehaves ---------------------------------------------------------------------


class OddError(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


async def cancel_itself() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "step",
    [ValueError("bug"), OddError(), SystemExit(3), lambda batch: cancel_itself(), GeneratorExit()],
    ids=["ValueError", "BaseException without text", "SystemExit", "CancelledError", "GeneratorExit"],
)
async def test_whatever_a_sink_raises_its_batch_comes_again(tmp_path: Path, step: Step) -> None:
    sink = ScriptedSink(step)
    async with bench(tmp_path, sink, make_records(1)) as made, running(made):
        await made.delivery.drained(1)
        assert made.metrics.value("delivery_failures_total", sink="test", error="raised") == 1.0
    assert sink.calls == [(0.0, [1]), (0.5, [1])]


async def test_a_bug_is_logged_once_with_its_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = ScriptedSink(*[ValueError("bug")] * 5)
    await deliver(tmp_path, sink, make_records(1), for_s=20)
    (record,) = [r for r in caplog.records if "does not take" in r.message]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_a_write_that_swallows_its_cancellation_is_not_believed(tmp_path: Path) -> None:
    async def pretend() -> None:
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError:
            return  # as if it had been written

    sink = ScriptedSink(lambda batch: pretend())
    async with bench(tmp_path, sink, make_records(1)) as made, running(made):
        await asyncio.sleep(30.25)
        assert made.outbox.backlog("test") == 1
        await made.delivery.drained(1)
    assert sink.calls == [(0.0, [1]), (30.5, [1])]


async def test_a_write_that_never_ends_holds_only_its_sink_and_is_never_joined_by_a_second(
    tmp_path: Path,
) -> None:
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    sink = ScriptedSink(lambda batch: stubborn())
    async with bench(tmp_path, sink, make_records(2)) as made, running(made):
        await asyncio.sleep(300)
        assert len(sink.calls) == 1
        assert made.delivery.status().error == "an earlier call has still not ended"
        released.set()
        await made.delivery.drained(2)
        # So many failures in a row have opened the breaker: a single record goes first.
        assert sink.calls == [(0.0, [1, 2]), (300.0, [1]), (300.0, [2])]
    assert sink.accepted == ids(make_records(2)) * 2  # the first was written after all; the ids are the same


async def test_a_sink_that_will_not_let_go_delays_the_end_by_seconds_only(tmp_path: Path) -> None:
    async def stubborn() -> None:
        for _ in range(100):
            try:
                await asyncio.sleep(1e9)
            except asyncio.CancelledError:
                continue

    sink = ScriptedSink(lambda batch: stubborn())
    async with bench(tmp_path, sink, make_records(1)) as made:
        async with running(made):
            await asyncio.sleep(1)
        assert now() == 1 + 5 + 5  # patience with the write, then with the close
        assert made.outbox.backlog("test") == 1
        abandoned = made.delivery._calls._abandoned
        assert abandoned is not None
        while not abandoned.done():
            abandoned.cancel()
            await asyncio.sleep(0)


async def test_a_close_that_hangs_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = ScriptedSink(close_s=1e9)
    async with bench(tmp_path, sink) as made:
        async with running(made):
            await asyncio.sleep(1)
        assert now() == 6.0
    assert "a sink did not close" in caplog.messages


async def test_a_sink_is_closed_once_also_if_it_never_opened(tmp_path: Path) -> None:
    sink = ScriptedSink(opens=[SinkBroken("no such host")] * 100)
    await deliver(tmp_path, sink, [])
    assert sink.events.count("close") == 1
    assert sink.events[-1] == "close"


async def test_a_write_cut_off_by_the_end_comes_again(tmp_path: Path) -> None:
    first, second = ScriptedSink(10.0), ScriptedSink()
    await deliver(tmp_path, first, make_records(1), for_s=5)
    await deliver(tmp_path, second, [], for_s=5)
    assert [sequences for _, sequences in first.calls + second.calls] == [[1], [1]]
    assert first.accepted == []


@pytest.mark.parametrize(
    "sink",
    [
        ScriptedSink(opens=[SinkUnavailable("down")] * 9),
        ScriptedSink(opens=[1e9]),
        ScriptedSink(*[SinkUnavailable("down", retry_after_s=60.0)] * 9),
        ScriptedSink(*[SinkBroken("moved")] * 9),
        ScriptedSink(*[refuse()] * 99),
    ],
    ids=["cannot be opened", "hangs while it opens", "is down", "is broken", "refuses everything"],
)
async def test_a_sink_that_fails_is_not_waited_for_at_the_end(tmp_path: Path, sink: ScriptedSink) -> None:
    async with bench(tmp_path, sink, make_records(60), DeliverySettings(batch_records=50)) as made:
        run = asyncio.create_task(made.delivery.run())
        await asyncio.sleep(10)
        calls, began_s = list(sink.events), now()
        made.delivery.end()
        await run
        assert (now(), sink.events) == (began_s, [*calls, "close"])
        assert made.outbox.backlog("test") == 60


async def test_a_batch_that_is_being_written_is_acknowledged_at_the_end(tmp_path: Path) -> None:
    sink = ScriptedSink(3.0)
    async with bench(tmp_path, sink, make_records(5)) as made:
        run = asyncio.create_task(made.delivery.run())
        await asyncio.sleep(1)
        made.delivery.end()
        await run
        assert (now(), made.outbox.backlog("test")) == (3.0, 3)


async def test_one_dead_sink_delays_no_other(tmp_path: Path) -> None:
    dead, well = ScriptedSink(*[SinkBroken("gone")] * 1000), ScriptedSink()
    metrics = Metrics()
    outbox = await Outbox.open(tmp_path / "outbox.db", VirtualClock(), metrics=metrics)
    await outbox.register({"dead": "oldest", "well": "oldest"})
    deliveries = [
        Delivery(name, sink, outbox, VirtualClock(), SMALL, metrics=metrics)
        for name, sink in (("dead", dead), ("well", well))
    ]
    tasks = [asyncio.create_task(delivery.run()) for delivery in deliveries]
    for number in range(1, 6):
        await outbox.accept(None, make_records(1, first=number))
        await asyncio.sleep(100)
    assert well.calls == [(0.0, [1]), (100.0, [2]), (200.0, [3]), (300.0, [4]), (400.0, [5])]
    assert (outbox.backlog("dead"), outbox.backlog("well")) == (5, 0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await outbox.close()


# Refusals -----------------------------------------------------------------------------------------


async def test_a_refused_record_is_put_aside_with_the_reason_and_the_others_count_as_written(
    tmp_path: Path,
) -> None:
    records = make_records(5)
    sink = ScriptedSink(refuse(2, 4))
    async with bench(tmp_path, sink, records, DeliverySettings()) as made, running(made):
        await made.delivery.drained(5)
        dead = await made.outbox.dead_letters("test")
        status = made.delivery.status()
        assert made.metrics.value("dead_letters_total", sink="test") == 2.0
        assert made.metrics.value("records_delivered_total", sink="test") == 3.0
    assert sink.calls == [(0.0, [1, 2, 3, 4, 5])]
    assert [(letter.record.payload, letter.reason) for letter in dead] == [
        (records[1].payload, "no 2"),
        (records[3].payload, "no 4"),
    ]
    assert (status.delivered, status.dead_letters, status.backlog, status.error) == (3, 2, 0, "")


async def test_the_reason_of_a_dead_letter_holds_no_secret(tmp_path: Path) -> None:
    secret = Secret("correct-horse-battery-staple")

    def leak(batch: Sequence[Record]) -> None:
        raise SinkRejected("no", rejected={batch[0].id: f"bad password {secret.reveal()} " + "x" * 1000})

    sink = ScriptedSink(leak)
    async with bench(tmp_path, sink, make_records(1)) as made, running(made):
        await made.delivery.drained(1)
        (letter,) = await made.outbox.dead_letters("test")
    assert letter.reason.startswith("bad password *** xxx")
    assert len(letter.reason) == 500


@pytest.mark.parametrize(
    ("rejected", "error"),
    [
        ({"not-given": "why"}, "it refuses records that it was not given: not-given"),
        ({}, "it refuses records without naming them"),
    ],
)
async def test_a_sink_that_refuses_what_it_was_not_given_is_broken(
    tmp_path: Path, rejected: dict[str, str], error: str
) -> None:
    sink = ScriptedSink(SinkRejected("no", rejected=rejected))
    async with bench(tmp_path, sink, make_records(2)) as made, running(made):
        await asyncio.sleep(59)
        assert made.delivery.status().error == error
        assert made.outbox.backlog("test") == 2
        await made.delivery.drained(2)
        assert await made.outbox.dead_letters("test") == []
    assert sink.calls == [(0.0, [1, 2]), (60.0, [1, 2])]


@pytest.mark.parametrize("batch_records", [1, 7, 19, 20, 500])
async def test_a_sink_that_refuses_everything_is_broken_and_the_outbox_is_not_drained(
    tmp_path: Path, batch_records: int
) -> None:
    sink = ScriptedSink(*[refuse()] * 5000)
    async with (
        bench(tmp_path, sink, make_records(100), DeliverySettings(batch_records=batch_records)) as made,
        running(made),
    ):
        await asyncio.sleep(7200)
        dead = await made.outbox.dead_letters("test")
        assert len(dead) < 20
        assert len(dead) + made.outbox.backlog("test") == 100
        assert "records refused in a row, the last: no " in made.delivery.status().error


async def test_after_it_was_repaired_the_records_that_were_held_back_arrive(tmp_path: Path) -> None:
    sink = ScriptedSink(refuse())
    async with bench(tmp_path, sink, make_records(30), DeliverySettings()) as made, running(made):
        await made.delivery.drained(30)
        assert await made.outbox.dead_letters("test") == []
    assert sink.accepted == ids(make_records(30))
    assert [at for at, _ in sink.calls] == [0.0, 60.0]


async def test_scattered_refusals_never_add_up_to_a_broken_sink(tmp_path: Path) -> None:
    sink = ScriptedSink(*[refuse(*range(1, 101, 2))] * 1000)
    async with bench(tmp_path, sink, make_records(100), SMALL) as made, running(made):
        await made.delivery.drained(100)
        assert len(await made.outbox.dead_letters("test")) == 50
    assert now() == 0.0


# What is said -------------------------------------------------------------------------------------


async def test_a_failing_sink_complains_once_a_minute_and_its_recovery_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = DeliverySettings(retry_min_s=1.0, retry_max_s=1.0)
    sink = ScriptedSink(*[SinkUnavailable("down")] * 150)
    await deliver(tmp_path, sink, make_records(1), settings)
    said = [
        (r.levelname, r.message, vars(r).get("failures"))
        for r in caplog.records
        if r.name.startswith("poller.delivery")
    ]
    complaint = "a sink does not take its records; they are kept"
    assert said == [
        ("WARNING", complaint, 1),
        ("WARNING", complaint, 61),
        ("WARNING", complaint, 121),
        ("INFO", "a sink takes its records again", None),
    ]


async def test_a_sink_that_fails_every_other_time_is_no_flood(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    down = SinkUnavailable("down")
    script: list[Step] = [down, 0.0]
    sink = ScriptedSink(*script * 40)
    await deliver(tmp_path, sink, make_records(40), DeliverySettings(batch_records=1))
    assert sink.calls[-1][0] == 20.0
    assert [r.message for r in caplog.records if r.name.startswith("poller.delivery")] == [
        "a sink does not take its records; they are kept",
        "a sink takes its records again",
    ]


async def test_no_secret_is_in_what_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret("hunter2-hunter2-hunter2")
    sink = ScriptedSink(*[SinkUnavailable(f"cannot log in with {secret.reveal()}")] * 3)
    async with bench(tmp_path, sink, make_records(1)) as made, running(made):
        await asyncio.sleep(1)
        assert made.delivery.status().error == "cannot log in with ***"
    assert secret.reveal() not in "".join(str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(
    ("step", "word"),
    [
        (SinkUnavailable("down"), "unavailable"),
        (SinkBroken("gone"), "broken"),
        (1e9, "timeout"),
        (type("OwnError", (SinkUnavailable,), {})("down"), "unavailable"),
    ],
)
async def test_failures_are_counted_by_fixed_words(tmp_path: Path, step: Step, word: str) -> None:
    sink = ScriptedSink(step)
    async with bench(tmp_path, sink, make_records(1)) as made, running(made):
        await made.delivery.drained(1)
        assert made.metrics.total("delivery_failures_total") == 1.0
        assert made.metrics.value("delivery_failures_total", sink="test", error=word) == 1.0


# A failing outbox ---------------------------------------------------------------------------------


class _FailingOutbox:
    """An outbox whose acknowledgements fail as scripted."""

    def __init__(self, outbox: Outbox, *script: BaseException) -> None:
        self._outbox = outbox
        self._script = list(script)

    async def acknowledge(self, sink: str, position: int, dead: Sequence[DeadLetter] = ()) -> None:
        if self._script:
            raise self._script.pop(0)
        await self._outbox.acknowledge(sink, position, dead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outbox, name)


async def test_a_full_disk_delays_the_acknowledgement_and_repeats_no_write(tmp_path: Path) -> None:
    sink = ScriptedSink(refuse(2))
    async with bench(tmp_path, sink, make_records(2)) as made:
        made.delivery._outbox = _FailingOutbox(made.outbox, *[OutboxFull("no room")] * 3)
        async with running(made):
            await made.delivery.drained(2)
            assert now() == 0.5 + 1.0 + 2.0
            assert len(await made.outbox.dead_letters("test")) == 1
    assert sink.calls == [(0.0, [1, 2])]


async def test_an_outbox_that_failed_ends_the_delivery_and_closes_the_sink(tmp_path: Path) -> None:
    sink = ScriptedSink()
    async with bench(tmp_path, sink, make_records(2)) as made:
        made.delivery._outbox = _FailingOutbox(made.outbox, OutboxFailed("the disk is gone"))
        with pytest.raises(OutboxFailed, match="the disk is gone"):
            await made.delivery.run()
    assert sink.events == ["open", "write", "close"]


# A poison record that nobody names ----------------------------------------------------------------


async def test_it_is_found_by_halves_and_the_rest_goes_on_in_order(tmp_path: Path) -> None:
    sink = ScriptedSink(*[choke(5)] * 100)
    async with bench(tmp_path, sink, make_records(8), DeliverySettings()) as made, running(made):
        await made.delivery.drained(8)
        [letter] = await made.outbox.dead_letters("test")
    assert (letter.record.sequence, letter.reason) == (5, "something in it is too large")
    assert [sequences for _, sequences in sink.calls] == [
        [1, 2, 3, 4, 5, 6, 7, 8],
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [5, 6],
        [5],
        [6],
        [7, 8],
    ]
    assert sink.accepted == ids([record for record in make_records(8) if record.sequence != 5])
    assert {at for at, _ in sink.calls} == {0.0}, "a refusal is an answer: nobody waits"


async def test_a_sink_that_chokes_on_everything_is_broken_and_nothing_is_put_aside(tmp_path: Path) -> None:
    sink = ScriptedSink(*[choke(*range(1, 101))] * 5000)
    async with bench(tmp_path, sink, make_records(100), DeliverySettings()) as made, running(made):
        await asyncio.sleep(3590)  # between two tries
        assert await made.outbox.dead_letters("test") == []
        assert made.outbox.backlog("test") == 100
        sink.script.clear()  # somebody repaired it
        await made.delivery.drained(100)
        assert await made.outbox.dead_letters("test") == []
    assert list(dict.fromkeys(sink.accepted)) == ids(make_records(100))


# The breaker --------------------------------------------------------------------------------------


async def test_after_five_failures_single_records_are_tried_until_one_passes(tmp_path: Path) -> None:
    sink = ScriptedSink(*[SinkUnavailable("down")] * 7)
    async with bench(tmp_path, sink, make_records(6), DeliverySettings(batch_records=4)) as made:
        async with running(made):
            await asyncio.sleep(7)
            assert made.delivery.status().is_open is False
            await asyncio.sleep(20)
            assert made.delivery.status().is_open is True
            await made.delivery.drained(6)
        assert made.delivery.status().is_open is False
    assert [sequences for _, sequences in sink.calls] == (
        [[1, 2, 3, 4]] * 5 + [[1]] * 3 + [[2, 3, 4], [5, 6]]
    )


# Which records, and how many at once ----------------------------------------------------------------


def status_of(account: str, position: int) -> Record:
    record = status_record(
        Account(account, 60.0, labels={"desk": "otc"}),
        id=f"status-{position}",
        sequence=1,
        state=State.STALE,
        reason="r",
        since_ns=0,
    )
    return replace(record, position=position)


@pytest.mark.parametrize(
    ("chosen", "positions"),
    [
        (DeliverySettings(), [1, 2, 3, 4]),
        (DeliverySettings(only=frozenset({Kind.STATUS})), [3, 4]),
        (DeliverySettings(only=frozenset({Kind.SNAPSHOT})), [1, 2]),
        (DeliverySettings(accounts=("treasury",)), [1, 3]),
        (DeliverySettings(accounts=("sub-?", "nobody")), [2, 4]),
        (DeliverySettings(accounts=("*",)), [1, 2, 3, 4]),
        (DeliverySettings(labels={"desk": "otc"}), [3, 4]),
        (DeliverySettings(labels={"desk": "mm"}, accounts=("sub-*",)), [2]),
        (DeliverySettings(labels={"desk": "mm", "more": "x"}), []),
    ],
)
async def test_a_sink_gets_what_it_asked_for_and_moves_past_the_rest(
    tmp_path: Path, chosen: DeliverySettings, positions: list[int]
) -> None:
    records = [
        *make_records(1),
        *make_records(1, account="sub-1", first=2),
        status_of("treasury", 3),
        status_of("sub-1", 4),
    ]
    sink = ScriptedSink()
    async with bench(tmp_path, sink, records, chosen) as made, running(made):
        await made.delivery.drained(4)
    assert sink.accepted == [records[position - 1].id for position in positions]


async def test_a_batch_that_is_not_full_waits_for_more(tmp_path: Path) -> None:
    sink = ScriptedSink()
    lingering = DeliverySettings(batch_records=3, linger_s=10.0)
    async with bench(tmp_path, sink, make_records(1), lingering) as made, running(made):
        await asyncio.sleep(4)
        await made.accept(make_records(1, first=2))
        await asyncio.sleep(26)
        await made.accept(make_records(1, first=3))
        await asyncio.sleep(1)
        await made.accept(make_records(3, first=4))
        await asyncio.sleep(20)
    # When its time was up; as soon as it was full; when its time was up again.
    assert sink.calls == [(10.0, [1, 2]), (31.0, [3, 4, 5]), (41.0, [6])]


async def test_what_lingers_goes_out_at_the_end(tmp_path: Path) -> None:
    sink = ScriptedSink()
    lingering = DeliverySettings(linger_s=3600.0)
    async with bench(tmp_path, sink, make_records(2), lingering) as made, running(made):
        await asyncio.sleep(5)
        assert sink.calls == []
        await made.delivery.drained(2)
    assert sink.calls == [(5.0, [1, 2])]


async def test_a_full_batch_does_not_linger(tmp_path: Path) -> None:
    sink = ScriptedSink()
    lingering = DeliverySettings(batch_records=2, linger_s=3600.0)
    async with bench(tmp_path, sink, make_records(5), lingering) as made, running(made):
        await asyncio.sleep(1)
    assert sink.calls == [(0.0, [1, 2]), (0.0, [3, 4])]


async def test_opening_by_hand_is_tried_once_and_run_goes_on_from_there(tmp_path: Path) -> None:
    sink = ScriptedSink(opens=[SinkUnavailable("down")])
    async with bench(tmp_path, sink, make_records(1)) as made:
        with pytest.raises(SinkUnavailable, match="down"):
            await made.delivery.open()
        assert now() == 0.0
        await made.delivery.open()
        async with running(made):
            await made.delivery.drained(1)
    assert sink.events == ["open", "open", "write", "close"]


# Conservation -------------------------------------------------------------------------------------

steps = st.one_of(
    st.just(0.0),
    st.floats(0.0, 100.0),
    st.builds(SinkUnavailable, st.just("down")),
    st.builds(SinkBroken, st.just("gone")),
    st.builds(ValueError, st.just("bug")),
    st.builds(lambda sequences: refuse(*sequences), st.sets(st.integers(1, 30), min_size=1)),
    st.builds(lambda sequences: choke(*sequences), st.sets(st.integers(1, 30), min_size=1)),
)


@settings(max_examples=40)
@given(
    script=st.lists(steps, max_size=12),
    batch_records=st.integers(1, 8),
    count=st.integers(0, 30),
    stop_s=st.floats(0.0, 500.0),
)
async def test_every_record_is_delivered_put_aside_or_waiting(
    script: list[Step],
    batch_records: int,
    count: int,
    stop_s: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tmp_path = tmp_path_factory.mktemp("conservation")
    records = make_records(count)
    sink = ScriptedSink(*script)
    chosen = DeliverySettings(batch_records=batch_records)
    async with bench(tmp_path, sink, records, chosen) as made, running(made):
        await asyncio.sleep(stop_s)
    # A restart, and all the time in the world.
    again = ScriptedSink(*sink.script)
    async with bench(tmp_path, again, [], chosen) as made, running(made):
        await made.delivery.drained(count)
        dead = [letter.record.id for letter in await made.outbox.dead_letters("test")]
        assert made.outbox.backlog("test") == 0
    arrived = sink.accepted + again.accepted
    assert set(arrived) | set(dead) == set(ids(records))
    assert list(dict.fromkeys(arrived)) == [record.id for record in records if record.id in set(arrived)]
