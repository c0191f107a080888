"""What listeners are told: everything at first, then exactly what changed, in order, and nobody waits for others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.overview import SLICE, AccountSummary
from poller.server.deltas import Delta, Told, fleet_events, take_sample
from poller.server.events import COMMENT, Hub, Subscriber, stream
from poller.server.settings import ServerSettings
from poller.testing.overview import InMemoryOverview, account_summary, egress_seen, sink_seen
from poller.testing.virtual_time import VirtualTimeLoop
from tests.server.conftest import Client, until

Serve = Callable[..., Awaitable[Client]]
SETTINGS = ServerSettings()
PARTS = 5  # of a fleet that is told in more than one


@dataclass
class Event:
    name: str
    data: Any
    id: int | None = None


def parse(chunk: bytes) -> Event:
    """Read one event as a browser does."""
    assert chunk.endswith(b"\n\n")
    fields = dict(line.split(b": ", 1) for line in chunk[:-2].split(b"\n"))
    assert fields.pop(b"retry", b"2000") == b"2000"
    assert fields.keys() <= {b"id", b"event", b"data"}
    number = int(fields[b"id"]) if b"id" in fields else None
    return Event(fields[b"event"].decode(), orjson.loads(fields[b"data"]), number)


@dataclass
class Reader:
    """A browser: it keeps what it was told."""

    events: list[Event] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    comments: int = 0
    accounts: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)
    happenings: list[int] = field(default_factory=list)
    is_ended: bool = False

    async def write(self, chunk: bytes) -> None:
        if chunk == COMMENT:
            self.comments += 1
            return
        self.chunks.append(chunk)
        event = parse(chunk)
        self.events.append(event)
        if event.name == "fleet":
            self.names = event.data.get("names", self.names)
            self.accounts.update({account["account"]: account for account in event.data["accounts"]})
            self.accounts = {name: account for name, account in self.accounts.items() if name in self.names}
        elif event.name == "happening":
            assert event.id == event.data["number"]
            self.happenings.append(event.data["number"])
        else:
            self.parts[event.name] = event.data

    def take(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def knows(self, overview: InMemoryOverview) -> bool:
        """Whether it has the whole picture."""
        shown = orjson.loads(orjson.dumps(overview.accounts()))
        return (
            self.names == overview.names()
            and self.accounts == {account["account"]: account for account in shown}
            and self.parts["egress"] == orjson.loads(orjson.dumps(overview.egress()))
            and self.parts["sinks"] == orjson.loads(orjson.dumps(overview.sinks()))
            and self.parts["status"] == orjson.loads(orjson.dumps(overview.status()))
        )


class Listening:
    """A hub and its readers."""

    def __init__(self, overview: InMemoryOverview, settings: ServerSettings) -> None:
        self.hub = Hub(overview, settings)
        self.settings = settings
        self.cut_off = 0
        self._tasks: dict[Subscriber, asyncio.Task[None]] = {}

    def listen(self, after: int | None = None) -> Reader:
        reader = Reader()
        subscriber = self.subscriber(after)

        async def read() -> None:
            await stream(subscriber, reader.write, self.settings)
            reader.is_ended = True

        self._tasks[subscriber] = asyncio.create_task(read())
        return reader

    def subscriber(self, after: int | None = None) -> Subscriber:
        def cut() -> None:
            self.cut_off += 1

        subscriber = self.hub.subscribe(after, cut)
        assert subscriber is not None
        return subscriber

    def leave(self) -> None:
        """Let every reader go, as browsers do."""
        for subscriber, task in self._tasks.items():
            self.hub.leave(subscriber)
            task.cancel()
        self._tasks.clear()

    async def close(self) -> None:
        self.hub.close()
        await asyncio.gather(*self._tasks.values())


@asynccontextmanager
async def listening(
    overview: InMemoryOverview, settings: ServerSettings = SETTINGS
) -> AsyncIterator[Listening]:
    found = Listening(overview, settings)
    running = asyncio.create_task(found.hub.run())
    try:
        yield found
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await found.close()


def fleet(count: int) -> InMemoryOverview:
    return InMemoryOverview([account_summary(f"sub-{number:04}") for number in range(count)])


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


# ---- what is told


async def test_while_nobody_listens_nothing_is_looked_at() -> None:
    overview = fleet(2)
    async with listening(overview) as found:
        await asyncio.sleep(100)
        assert overview.asked == {}
        reader = found.listen()
        await asyncio.sleep(10)
        assert reader.events
        found.leave()
        await asyncio.sleep(5)
        asked = dict(overview.asked)
        await asyncio.sleep(100)
        assert overview.asked == asked


async def test_a_reader_is_told_everything_at_first_in_parts() -> None:
    overview = fleet(234)
    async with listening(overview) as found:
        reader = found.listen()
        await asyncio.sleep(0.5)
        events = reader.take()
    assert names(events) == ["hello", "egress", "sinks", "status", "fleet", "fleet", "fleet"]
    status = overview.status()
    assert events[0].data == {
        "version": status.version,
        "at": status.at,
        "started_at": status.started_at,
        "interval_s": 1.0,
    }
    assert [len(event.data["accounts"]) for event in events[4:]] == [100, 100, 34]
    assert [sorted(event.data) for event in events[4:]] == [
        ["accounts", "at", "names", "number"],
        ["accounts", "at", "number"],
        ["accounts", "at", "number"],
    ]
    assert {event.data["number"] for event in events[4:]} == {234}
    assert events[4].data["names"] == overview.names()
    assert reader.knows(overview)


async def test_afterwards_only_what_changed_is_told() -> None:
    overview = fleet(60)
    async with listening(overview) as found:
        reader = found.listen()
        await asyncio.sleep(0.5)
        reader.take()
        await asyncio.sleep(14)
        assert (reader.take(), reader.comments) == ([], 0)
        overview.change("sub-0007", state="stale")
        overview.change("sub-0050", failures=3)
        await asyncio.sleep(1)
        [told] = reader.take()
        assert told.data == {
            "number": 62,
            "at": overview.status().at,
            "accounts": [
                orjson.loads(orjson.dumps(account_summary("sub-0007", state="stale"))),
                orjson.loads(orjson.dumps(account_summary("sub-0050", failures=3))),
            ],
        }
        overview.remove("sub-0007")
        await asyncio.sleep(1)
        status, told = reader.take()
        assert (told.data["names"], told.data["accounts"]) == (overview.names(), [])
        assert (status.name, status.data["accounts"]) == ("status", 59)
        overview.put(account_summary("another"))
        await asyncio.sleep(1)
        _, told = reader.take()
        assert told.data["names"] == overview.names()
        assert [account["account"] for account in told.data["accounts"]] == ["another"]
        overview.set_egress(egress_seen(own=1))
        overview.set_sinks(sink_seen(backlog=7), sink_seen(sink="other"))
        overview.set_status(overdue=2)
        await asyncio.sleep(1)
        assert [(event.name, event.data) for event in reader.take()] == [
            ("egress", orjson.loads(orjson.dumps(overview.egress()))),
            ("sinks", orjson.loads(orjson.dumps(overview.sinks()))),
            ("status", orjson.loads(orjson.dumps(overview.status()))),
        ]


async def test_time_going_on_is_no_change_of_the_status() -> None:
    overview = fleet(1)
    async with listening(overview) as found:
        reader = found.listen()
        await asyncio.sleep(0.5)
        reader.take()
        overview.set_status(at="2026-01-01T00:00:01.000000Z")
        await asyncio.sleep(3)
        assert reader.take() == []


async def test_silence_is_broken_by_a_comment_every_fifteen_seconds() -> None:
    overview = fleet(1)
    async with listening(overview) as found:
        reader = found.listen()
        await asyncio.sleep(46)
        assert (reader.comments, names(reader.take())[0]) == (3, "hello")


async def test_an_empty_fleet_is_told_as_such() -> None:
    async with listening(InMemoryOverview()) as found:
        reader = found.listen()
        await asyncio.sleep(0.5)
        fleet_event = reader.take()[-1]
        assert (fleet_event.data["names"], fleet_event.data["accounts"]) == ([], [])


async def test_twenty_readers_cost_one_encoding() -> None:
    async def encoded(readers: int) -> tuple[int, int]:
        overview = fleet(1_000)
        async with listening(overview) as found:
            readers_ = [found.listen() for _ in range(readers)]
            await asyncio.sleep(0.5)
            for step in range(5):
                overview.change("sub-0001", failures=step)
                overview.happen("sub-0001")
                await asyncio.sleep(1)
            # Not only alike: the very same bytes.
            for chunks in zip(*(reader.chunks for reader in readers_), strict=True):
                assert all(chunk is chunks[0] for chunk in chunks)
            return found.hub.samples, found.hub.encoded

    assert await encoded(20) == await encoded(1)


async def test_a_newcomer_is_told_everything_and_the_others_are_not_told_again() -> None:
    overview = fleet(3)
    async with listening(overview) as found:
        first = found.listen()
        await asyncio.sleep(0.5)
        first.take()
        overview.change("sub-0001", failures=1)
        second = found.listen()
        await asyncio.sleep(0.5)
        [told] = first.take()
        assert [account["account"] for account in told.data["accounts"]] == ["sub-0001"]
        assert names(second.take()) == ["hello", "egress", "sinks", "status", "fleet"]
        assert first.knows(overview)
        assert second.knows(overview)
        overview.change("sub-0002", failures=1)
        await asyncio.sleep(1)
        assert first.take() == second.take() != []


# ---- happenings


async def test_what_happens_comes_under_its_number_and_nothing_of_before() -> None:
    overview = fleet(1)
    for _ in range(3):
        overview.happen("sub-0000")
    async with listening(overview) as found:
        reader = found.listen()
        await asyncio.sleep(0.5)
        assert "happening" not in names(reader.take())
        happened = overview.happen("sub-0000", kind="status", reason="stale", text="no good answer")
        overview.happen("sub-0000")
        await asyncio.sleep(1)
        told = reader.take()
        assert [event.id for event in told] == [4, 5]
        assert told[0].data == orjson.loads(orjson.dumps(happened))


async def test_whoever_comes_back_is_told_what_it_missed_and_nothing_twice() -> None:
    overview = fleet(1)
    for _ in range(10):
        overview.happen("sub-0000")
    async with listening(overview) as found:
        other = found.listen()
        await asyncio.sleep(0.5)
        overview.happen("sub-0000")
        reader = found.listen(after=7)
        await asyncio.sleep(0.5)
        overview.happen("sub-0000")
        await asyncio.sleep(1)
        assert reader.happenings == [8, 9, 10, 11, 12]
        assert other.happenings == [11, 12]


async def test_a_number_of_an_earlier_life_of_the_daemon_stands_for_none() -> None:
    overview = fleet(1)
    for _ in range(3):
        overview.happen("sub-0000")
    async with listening(overview) as found:
        reader = found.listen(after=4_711)
        await asyncio.sleep(0.5)
        overview.happen("sub-0000")
        await asyncio.sleep(1)
        assert reader.happenings == [1, 2, 3, 4]


# ---- readers that are slow, and hubs that fail


async def test_a_reader_that_does_not_read_is_cut_off_and_delays_nobody() -> None:
    overview = fleet(600)
    async with listening(overview, replace(SETTINGS, queue_bytes=100_000)) as found:
        reader = found.listen()
        lazy = found.subscriber()
        await asyncio.sleep(0.5)
        first = lazy.waiting_bytes
        assert first > 100_000  # what it is told at first does not count
        sizes = []
        for step in range(20):
            for number in range(50):
                overview.change(f"sub-{number:04}", failures=step + 1)
            await asyncio.sleep(1)
            sizes.append(lazy.waiting_bytes)
        assert found.cut_off == 1
        assert max(sizes) <= first + 100_000
        assert sizes[-1] == 0  # what waited for it is dropped
        assert len(found.hub) == 1
        assert await lazy.next(15) is None
        assert reader.knows(overview)
        assert names(reader.events).count("fleet") == 6 + 20


async def test_there_are_only_so_many_streams() -> None:
    async with listening(fleet(1), replace(SETTINGS, most_streams=2)) as found:
        readers = [found.listen(), found.listen()]
        assert found.hub.subscribe(None, lambda: None) is None
        found.hub.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [reader.is_ended for reader in readers] == [True, True]
        assert found.hub.subscribe(None, lambda: None) is None


async def test_an_overview_that_fails_ends_the_streams_and_not_the_hub() -> None:
    overview = fleet(2)
    async with listening(overview) as found:
        reader = found.listen()
        await asyncio.sleep(0.5)
        good = overview.sinks
        overview.sinks = lambda: 1 // 0  # type: ignore[method-assign, assignment, return-value]
        await asyncio.sleep(1)
        assert reader.is_ended
        overview.sinks = good  # type: ignore[method-assign]
        again = found.listen()
        await asyncio.sleep(0.5)
        assert again.knows(overview)


# ---- what goes on while accounts are looked at


class Restless(InMemoryOverview):
    """Goes on while it is looked at: after each part of the accounts one of these is done, as long as there are any."""

    def __init__(self, accounts: int) -> None:
        super().__init__([account_summary(f"sub-{number:04}") for number in range(accounts)])
        self.to_do: deque[Callable[[], object]] = deque()
        self.turns = 0
        self.turns_seen: list[int] = []

    def summaries(self, names: Sequence[str]) -> Sequence[AccountSummary]:
        found = super().summaries(names)
        self.turns_seen.append(self.turns)
        if self.to_do:
            self.to_do.popleft()()
        return found


async def test_others_go_on_between_two_parts_of_the_accounts() -> None:
    overview = Restless(10 * SLICE)
    async with listening(overview) as found:

        async def others() -> None:
            while True:
                overview.turns += 1
                await asyncio.sleep(0)

        tasks: list[asyncio.Task[None]] = []
        # From the first part on, for time stands still while somebody is busy.
        overview.to_do.append(lambda: tasks.append(asyncio.create_task(others())))
        overview.to_do.extend([lambda: None] * 8)
        overview.to_do.append(lambda: [task.cancel() for task in tasks])
        found.listen()
        await asyncio.sleep(1)
    turns = overview.turns_seen
    assert len(turns) == 10
    assert sorted(set(turns)) == turns


HAPPEN_MEANWHILE = st.lists(
    st.tuples(st.sampled_from(["change", "put", "remove", "happen", "listen", "nothing"]), st.integers(0, 3 * SLICE)),
    max_size=20,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(HAPPEN_MEANWHILE)
def test_what_changes_while_a_newcomer_is_told_is_neither_lost_nor_told_twice(
    steps: list[tuple[str, int]],
) -> None:
    async def live() -> None:
        overview = Restless(3 * SLICE)
        async with listening(overview) as found:
            readers = [found.listen(after=0)]

            def do(counter: int, step: str, name: str) -> None:
                there = name in overview.names()
                if step == "put" or (step == "change" and not there):
                    overview.put(account_summary(name, failures=counter))
                elif step == "change":
                    overview.change(name, lateness_s=float(counter))
                elif step == "remove" and there:
                    overview.remove(name)
                elif step == "happen":
                    overview.happen(name)
                elif step == "listen":
                    readers.append(found.listen(after=0))

            for counter, (step, number) in enumerate(steps):
                overview.to_do.append(partial(do, counter, step, f"sub-{number:04}"))
            await asyncio.sleep(0.5)
            while overview.to_do:
                overview.to_do.popleft()()
            await asyncio.sleep(3)
            every = [seen.number for seen in overview.happenings()]
            for reader in readers:
                assert reader.knows(overview)
                assert reader.happenings == every

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(live())


# ---- as properties

STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "change", "remove", "happen", "status", "egress", "listen", "wait"]), st.integers(0, 4)),
    max_size=25,
)  # fmt: skip


@settings(max_examples=60)
@given(STEPS)
def test_whatever_happens_every_reader_ends_up_with_the_whole_picture(steps: list[tuple[str, int]]) -> None:
    async def live() -> None:
        overview = fleet(2)
        async with listening(overview) as found:
            readers = [found.listen(after=0)]
            for counter, (step, number) in enumerate(steps):
                name = f"sub-{number:04}"
                if step == "put" or (step in {"change", "remove"} and name not in overview.names()):
                    overview.put(account_summary(name, failures=counter))
                elif step == "change":
                    overview.change(name, lateness_s=float(counter))
                elif step == "remove":
                    overview.remove(name)
                elif step == "happen":
                    overview.happen(name)
                elif step == "status":
                    overview.set_status(overdue=counter)
                elif step == "egress":
                    overview.set_egress(egress_seen(own=counter))
                elif step == "listen":
                    readers.append(found.listen(after=0))
                else:
                    await asyncio.sleep(number * 0.3)
            await asyncio.sleep(3)
            every = [seen.number for seen in overview.happenings()]
            for reader in readers:
                assert reader.knows(overview)
                assert reader.happenings == every

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(live())


@given(st.integers(0, 3 * SLICE), st.booleans())
def test_no_event_has_more_than_so_many_accounts_and_none_is_left_out(count: int, with_names: bool) -> None:
    overview = fleet(count)
    listed = overview.names()
    events = [parse(chunk) for chunk in fleet_events(overview, 5, listed if with_names else None, listed)]
    assert [account["account"] for event in events for account in event.data["accounts"]] == listed
    assert all(len(event.data["accounts"]) <= SLICE for event in events)
    assert [event.data["names"] for event in events if "names" in event.data] == [listed] * with_names


def test_a_delta_to_itself_is_nothing() -> None:
    overview = fleet(3)
    overview.happen("sub-0000")
    told = Delta(Told(), take_sample(overview, Told()), overview).told
    assert list(Delta(told, take_sample(overview, told), overview)) == []


# ---- on real sockets


async def events_of(reader: asyncio.StreamReader, count: int) -> list[Event]:
    """Read so many events from an answer in chunks, whose sizes are lines of their own."""
    found: list[Event] = []
    while len(found) < count:
        size = int(await reader.readline(), 16)
        chunk = await reader.readexactly(size + 2)
        if chunk[:-2] != COMMENT:
            found.append(parse(chunk[:-2]))
    return found


async def open_stream(
    client: Client, *headers: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await client.connect()
    lines = ["GET /api/events HTTP/1.1", f"Host: {client.host}", "Accept-Encoding: gzip", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    return reader, writer, await reader.readuntil(b"\r\n\r\n")


@pytest.mark.real_time
async def test_a_stream_over_http(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview, settings=ServerSettings(listen_port=0, sample_s=0.1))
    overview.happen("treasury")
    reader, writer, head = await open_stream(client, "Last-Event-ID: 1")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/event-stream\r\n" in head
    assert b"Cache-Control: no-store\r\n" in head
    assert b"Content-Encoding" not in head
    events = await events_of(reader, 6)
    assert names(events) == ["hello", "egress", "sinks", "status", "fleet", "happening"]
    assert events[-1].id == 2
    overview.change("treasury", failures=1)
    overview.happen("treasury")
    assert names(await events_of(reader, 2)) == ["fleet", "happening"]
    writer.close()
    await writer.wait_closed()
    await until(lambda: len(client.server.hub) == 0)


@pytest.mark.real_time
async def test_one_stream_too_many_is_told_to_come_later(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview, settings=ServerSettings(listen_port=0, most_streams=2))
    streams = [await open_stream(client) for _ in range(2)]
    refused = await client.get("/api/events")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    assert refused.json() == {"error": "too many are listening already"}
    assert (await client.ask("HEAD", "/api/events")).headers["Content-Type"] == "text/event-stream"
    for _, writer, _ in streams:
        writer.close()
        await writer.wait_closed()


@pytest.mark.real_time
async def test_a_browser_that_does_not_read_loses_its_connection_and_others_notice_nothing(
    serve: Serve,
) -> None:
    overview = fleet(PARTS * SLICE)
    bounds = ServerSettings(listen_port=0, sample_s=0.06, queue_bytes=300_000)
    client = await serve(overview, settings=bounds)
    _, lazy, _ = await open_stream(client)
    lazy.transport.pause_reading()  # type: ignore[attr-defined]  # every transport of a socket has it
    reader, writer, _ = await open_stream(client)
    await until(lambda: len(client.server.hub) == 2)
    told = [event async for event in until_alone(client, overview, reader)]
    assert len(client.server.hub) == 1
    await until(lambda: len(client.server.connections) == 1)
    # Nothing was left out or changed places for the one that reads.
    numbers = [event.data["number"] for event in told if event.name == "fleet"]
    assert numbers == sorted(numbers)
    counters = [event.data["accounts"][0]["failures"] for event in told if event.name == "fleet"]
    assert counters == [number // PARTS for number in range(len(counters))]
    for stream_ in (lazy, writer):
        stream_.transport.abort()
    await asyncio.sleep(0)


async def until_alone(
    client: Client, overview: InMemoryOverview, reader: asyncio.StreamReader
) -> AsyncIterator[Event]:
    """Change every account, read about it, and again, until the other listener is gone."""
    for event in await events_of(reader, 4 + PARTS):
        yield event
    counter = 0
    while len(client.server.hub) > 1:
        counter += 1
        for name in overview.names():
            overview.change(name, failures=counter, error="x" * 200)
        for event in await events_of(reader, PARTS):
            yield event


@pytest.mark.real_time
async def test_closing_ends_streams_at_once(overview: InMemoryOverview) -> None:
    from tests.server.conftest import serving

    # Were they waited for, this would take longer than a test may.
    patient = ServerSettings(listen_port=0, closing_s=1_000.0, silence_s=1_000.0)
    async with serving(overview, settings=patient) as client:
        streams = [await open_stream(client) for _ in range(5)]
        for reader, _, _ in streams:
            await events_of(reader, 5)
    for reader, writer, _ in streams:
        assert await reader.read() == b"0\r\n\r\n"
        writer.close()
        await writer.wait_closed()
