"""Plug-ins in loops of their own: blocking, raising, cancelled, closed. Real threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from poller.clock import SystemClock
from poller.delivery import Delivery, DeliverySettings
from poller.delivery.isolation import Isolated, isolated
from poller.errors import SinkRejected
from poller.metrics import Metrics
from poller.model import Record
from poller.outbox import Outbox
from poller.sinks import SinkOptions
from poller.sinks.stdout import StdoutOptions, StdoutSink
from poller.testing.sink_contract import SinkContract, ids, make_records

pytestmark = pytest.mark.real_time


class PlugIn:
    """Somebody else's sink: blocks its thread until it is released."""

    Options: ClassVar[type[SinkOptions]] = SinkOptions

    def __init__(self) -> None:
        self.released = threading.Event()
        self.released.set()
        self.began = threading.Event()
        self.threads: set[int] = set()
        self.written: list[str] = []
        self.calls = 0
        self.raises: BaseException | None = None

    async def open(self) -> None:
        self.threads.add(threading.get_ident())

    async def write(self, batch: Sequence[Record]) -> None:
        self.calls += 1
        self.began.set()
        self.threads.add(threading.get_ident())
        self.released.wait()
        if self.raises is not None:
            raise self.raises
        self.written += ids(batch)

    async def close(self) -> None:
        self.threads.add(threading.get_ident())


class TestIsolated(SinkContract):
    plug_in: ClassVar[PlugIn]

    @pytest.fixture(autouse=True)
    def _new(self) -> None:
        type(self).plug_in = PlugIn()

    def make_sink(self, tmp_path: Path) -> Isolated:
        return Isolated(self.plug_in, "test")

    def written(self, tmp_path: Path) -> list[str]:
        return self.plug_in.written


def test_only_what_is_not_ours_is_isolated() -> None:
    ours = StdoutSink(StdoutOptions())
    assert isolated(ours, "out") is ours
    assert isinstance(isolated(PlugIn(), "theirs"), Isolated)


async def test_every_call_is_made_in_one_thread_which_is_not_ours_and_ends() -> None:
    plug_in = PlugIn()
    sink = Isolated(plug_in, "test")
    await sink.open()
    await sink.write(make_records(1))
    [thread] = plug_in.threads
    assert thread != threading.get_ident()
    running = [found for found in threading.enumerate() if found.ident == thread]
    await sink.close()
    await sink.close()
    for found in running:
        await asyncio.to_thread(found.join, 10)
        assert not found.is_alive()


@pytest.mark.parametrize(
    "error", [SinkRejected("no", rejected={"a": "b"}), ValueError("bug"), SystemExit(3), KeyboardInterrupt()]
)
async def test_what_it_raises_is_raised_here_and_its_thread_goes_on(error: BaseException) -> None:
    plug_in = PlugIn()
    sink = Isolated(plug_in, "test")
    plug_in.raises = error
    caught: list[BaseException] = []

    async def write() -> None:
        try:
            await sink.write(make_records(1))
        except BaseException as raised:  # noqa: BLE001  # whatever it is, it is looked at
            caught.append(raised)

    await write()
    assert caught == [error]
    plug_in.raises = None
    await sink.write(make_records(1))
    assert plug_in.written == ids(make_records(1))
    await sink.close()


async def test_a_cancelled_call_ends_here_only_when_it_has_ended_there() -> None:
    plug_in = PlugIn()
    sink = Isolated(plug_in, "test")
    plug_in.released.clear()
    call = asyncio.create_task(sink.write(make_records(1)))
    assert await asyncio.to_thread(plug_in.began.wait, 10)
    call.cancel()
    await asyncio.wait([call], timeout=0.05)
    assert not call.done(), "a second call could have begun beside it"
    plug_in.released.set()
    await asyncio.wait([call])
    await sink.close()


async def test_a_plug_in_that_blocks_stops_alone(tmp_path: Path) -> None:
    blocking, well = PlugIn(), PlugIn()
    blocking.released.clear()
    metrics = Metrics()
    outbox = await Outbox.open(tmp_path / "outbox.db", SystemClock(), metrics=metrics)
    await outbox.register({"blocking": "oldest", "well": "oldest"})
    settings = replace(DeliverySettings(), write_timeout_s=0.1, retry_min_s=0.01, retry_max_s=0.01)
    deliveries = [
        Delivery(name, isolated(sink, name), outbox, SystemClock(), settings, metrics=metrics)
        for name, sink in (("blocking", blocking), ("well", well))
    ]
    tasks = [asyncio.create_task(delivery.run()) for delivery in deliveries]
    try:
        await outbox.accept(None, make_records(3))
        await deliveries[1].drained(3)
        while not deliveries[0].status().error:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
        await outbox.accept(None, make_records(2, first=4))
        await deliveries[1].drained(5)
        assert blocking.calls == 1
        assert outbox.backlog("blocking") == 5
        blocking.released.set()
        await deliveries[0].drained(5)
    finally:
        blocking.released.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await outbox.close()
    assert well.written == ids(make_records(5))
    assert list(dict.fromkeys(blocking.written)) == ids(make_records(5))
