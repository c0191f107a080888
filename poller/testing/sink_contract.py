"""What every sink must do, as tests to inherit: give ``SinkContract`` a sink, and a way to look behind it.

::

    class TestMySink(SinkContract):
        def make_sink(self, tmp_path: Path) -> MySink:
            return MySink(MyOptions(path=tmp_path / "records"))

        def written(self, tmp_path: Path) -> list[str]:
            return [line.split()[0] for line in (tmp_path / "records").read_text().splitlines()]

The tests are asynchronous: run them with pytest-asyncio in its ``auto`` mode.
"""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Sequence
from decimal import Decimal
from pathlib import Path

import orjson

from poller.model import Account, Balance, Change, Kind, Reason, Record, Snapshot, State
from poller.records import record_id, snapshot_record, status_record
from poller.sinks import Sink

BIG_BATCH = 5000
# What breaks quoting, framing, encodings and parsers, where text may stand.
HOSTILE = (
    "line\nbreak\r\n\u2028\u2029\x85",
    "nul\0 and escape \x1b[31m",
    "quote \" ' ` \\ ; -- DROP TABLE",
    "emoji \U0001f4b0, combining e\u0301, right to left \u202e, zero \u200b width",
    "{} {0} %s %n ${HOME} $(id) <script>",
    "x" * 10_000,
)
START_NS = 1_767_225_600_000_000_000  # 2026-01-01


def make_records(count: int, *, account: str = "treasury", first: int = 1) -> list[Record]:
    """Return snapshots of one account, sequences and positions from ``first`` on; the same on every call."""
    return [_snapshot(number, account, {"desk": "mm"}) for number in range(first, first + count)]


def hostile_records() -> list[Record]:
    """Return valid records of both kinds with the worst that may stand in them."""
    snapshots = [
        _snapshot(number, f"account-{number}", {"label": text}) for number, text in enumerate(HOSTILE, 1)
    ]
    statuses = [
        status_record(
            Account(f"account-{number}", 60.0),
            id=_id(number),
            sequence=1,
            state=State.STALE,
            reason=text,
            since_ns=START_NS,
        )
        for number, text in enumerate(HOSTILE, 101)
    ]
    return _placed([*snapshots, *statuses])


class SinkContract:
    """Inherit it, and implement ``make_sink`` and ``written``; ``payloads`` if the bytes are kept as they are.

    Every test gets a new ``tmp_path``. Both ``make_sink`` and ``written`` may be called several times in
    one test and speak of the same destination.
    """

    def make_sink(self, tmp_path: Path) -> Sink:
        """Return a new sink that was not opened."""
        raise NotImplementedError

    def written(self, tmp_path: Path) -> list[str] | Awaitable[list[str]]:
        """Return the ids at the destination in the order of their arrival, read without the sink's help.

        May be a coroutine, and so may ``payloads``.
        """
        raise NotImplementedError

    def payloads(self, tmp_path: Path) -> list[bytes] | Awaitable[list[bytes] | None] | None:
        """Return the payloads at the destination; ``None`` if it keeps them in a form of its own."""
        return None

    async def test_a_returned_write_is_at_the_destination(self, tmp_path: Path) -> None:
        """While the sink is still open: nothing waits in a buffer."""
        batch = make_records(3)
        sink = await self._opened(tmp_path)
        await sink.write(batch)
        assert await self._written(tmp_path) == ids(batch)
        await sink.close()

    async def test_batches_arrive_in_order(self, tmp_path: Path) -> None:
        """Within a batch and from one to the next."""
        records = make_records(30)
        sink = await self._opened(tmp_path)
        for start in range(0, 30, 7):
            await sink.write(records[start : start + 7])
        assert await self._written(tmp_path) == ids(records)
        await sink.close()

    async def test_the_same_batch_twice_loses_nothing_and_invents_nothing(self, tmp_path: Path) -> None:
        """Twice at the destination or once, as it can; the ids are the same."""
        batch = make_records(5)
        sink = await self._opened(tmp_path)
        await sink.write(batch)
        await sink.write(batch)
        found = await self._written(tmp_path)
        assert list(dict.fromkeys(found)) == ids(batch)
        assert len(found) in {len(batch), 2 * len(batch)}
        await sink.close()

    async def test_a_batch_that_overlaps_the_last_one_loses_nothing(self, tmp_path: Path) -> None:
        """What comes after a crash between writing and acknowledging."""
        records = make_records(8)
        sink = await self._opened(tmp_path)
        await sink.write(records[:5])
        await sink.write(records[3:])
        assert list(dict.fromkeys(await self._written(tmp_path))) == ids(records)
        await sink.close()

    async def test_a_big_batch_arrives_whole(self, tmp_path: Path) -> None:
        """More than fits one buffer, packet or statement."""
        batch = make_records(BIG_BATCH)
        sink = await self._opened(tmp_path)
        await sink.write(batch)
        assert await self._written(tmp_path) == ids(batch)
        await sink.close()

    async def test_hostile_texts_arrive_as_they_are(self, tmp_path: Path) -> None:
        """Names, labels and reasons of statuses are data, whatever they look like."""
        batch = hostile_records()
        sink = await self._opened(tmp_path)
        await sink.write(batch)
        assert sorted(await self._written(tmp_path)) == sorted(ids(batch))
        payloads = self.payloads(tmp_path)
        found = await payloads if inspect.isawaitable(payloads) else payloads
        assert found is None or found == [record.payload for record in batch]
        await sink.close()

    async def test_an_opened_sink_continues_where_the_one_before_ended(self, tmp_path: Path) -> None:
        """A restart neither loses nor repeats what was there."""
        records = make_records(6)
        for batch in (records[:4], records[4:]):
            sink = await self._opened(tmp_path)
            await sink.write(batch)
            await sink.close()
        assert await self._written(tmp_path) == ids(records)

    async def test_close_without_open_is_harmless(self, tmp_path: Path) -> None:
        """It is what happens when a daemon is stopped before its sinks are up."""
        await self.make_sink(tmp_path).close()
        batch = make_records(1)
        sink = await self._opened(tmp_path)
        await sink.write(batch)
        assert await self._written(tmp_path) == ids(batch)
        await sink.close()

    async def test_close_twice_is_harmless(self, tmp_path: Path) -> None:
        """And leaves what was written."""
        batch = make_records(1)
        sink = await self._opened(tmp_path)
        await sink.write(batch)
        await sink.close()
        await sink.close()
        assert await self._written(tmp_path) == ids(batch)

    async def test_a_second_open_is_harmless(self, tmp_path: Path) -> None:
        """An open that failed half-way comes again."""
        batch = make_records(2)
        sink = await self._opened(tmp_path)
        await sink.open()
        await sink.write(batch)
        assert await self._written(tmp_path) == ids(batch)
        await sink.close()

    async def _written(self, tmp_path: Path) -> list[str]:
        found = self.written(tmp_path)
        return await found if inspect.isawaitable(found) else found

    async def _opened(self, tmp_path: Path) -> Sink:
        sink = self.make_sink(tmp_path)
        await sink.open()
        return sink


def ids(records: Sequence[Record]) -> list[str]:
    """Return the ids, in order."""
    return [record.id for record in records]


def ids_of_lines(lines: bytes) -> list[str]:
    """Return the ids of records written one a line."""
    return [orjson.loads(line)["id"] for line in lines.split(b"\n") if line]


def _snapshot(number: int, account: str, labels: dict[str, str]) -> Record:
    before, after = Decimal(number - 1), Decimal(number)
    record = snapshot_record(
        Account(account, 60.0, labels=labels),
        Snapshot(
            account,
            (Balance("BTC", after, btc_valuation=after), Balance("ETH", Decimal("0.000000000000000001"))),
            observed_ns=START_NS + number * 1_000_000_000,
            uncertainty_ms=12.5,
            latency_ms=25.0,
        ),
        id=_id(number),
        sequence=number,
        reason=Reason.CHANGED,
        changes=[Change("BTC", "free", before, after)],
    )
    return _placed([record], number)[0]


def _placed(records: Sequence[Record], first: int = 1) -> list[Record]:
    return [
        Record(r.id, Kind(r.kind), r.account, r.sequence, r.reason, r.payload, position)
        for position, r in enumerate(records, first)
    ]


def _id(number: int) -> str:
    return record_id(START_NS // 1_000_000, number.to_bytes(10))
