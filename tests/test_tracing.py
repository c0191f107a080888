"""Traces: what is told of polls and deliveries, and what a real OTLP receiver gets of it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from poller import otlp
from poller.clock import SystemClock
from poller.delivery.traced import traced
from poller.errors import SinkRejected, SinkUnavailable
from poller.metrics import Metrics
from poller.model import Record
from poller.otlp import traces_to
from poller.secrets import Secret
from poller.sinks.stdout import StdoutSink
from poller.testing.sink_contract import make_records
from poller.testing.virtual_time import START_UTC_S, VirtualClock
from poller.tracing import DeliveryTrace, NoTracer, PollTrace

SECRET = "made-up-token-0123456789abcdef"
POLL = PollTrace("alice", "default", "ok", "none", 0.25, 0.05, 5, 1_000, 2_000)


class Collected:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.polls: list[PollTrace] = []
        self.deliveries: list[DeliveryTrace] = []

    def poll(self, trace: PollTrace) -> None:
        self.polls.append(trace)

    def delivery(self, trace: DeliveryTrace) -> None:
        self.deliveries.append(trace)


class Receiver:
    """A collector on this machine."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.location = ""
        self.came = asyncio.Event()
        self.hangs: asyncio.Event | None = None

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append(
            (request.path, {name.lower(): value for name, value in request.headers.items()}, body)
        )
        self.came.set()
        if self.hangs is not None:
            await self.hangs.wait()
        return web.Response(status=self.status, headers={"Location": self.location} if self.location else {})

    def spans(self) -> list[Any]:
        return [
            span
            for _, headers, body in self.requests
            for resource in ExportTraceServiceRequest.FromString(
                gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            ).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield receiver, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


@pytest.mark.real_time
async def test_a_receiver_gets_polls_and_deliveries_as_spans_without_parents() -> None:
    metrics = Metrics()
    async with receiving() as (receiver, endpoint):
        headers = {"authorization": Secret(f"Bearer {SECRET}")}
        async with traces_to(
            endpoint, headers=headers, sample=1.0, clock=SystemClock(), metrics=metrics
        ) as tracer:
            tracer.poll(POLL)
            tracer.delivery(DeliveryTrace("bus", 7, "failed", 3_000, 4_000))
    [(path, sent, body)] = receiver.requests
    assert path == "/v1/traces"
    assert sent["authorization"] == f"Bearer {SECRET}"
    assert SECRET.encode() not in body
    poll, delivery = receiver.spans()
    assert (poll.name, poll.start_time_unix_nano, poll.end_time_unix_nano) == ("poll", 1_000, 2_000)
    assert attributes(poll) == {
        "poller.account": "alice",
        "poller.egress": "default",
        "poller.outcome": "ok",
        "poller.scope": "none",
        "poller.lateness_s": 0.25,
        "poller.latency_s": 0.05,
        "poller.weight": 5,
    }
    assert attributes(delivery) == {"poller.sink": "bus", "poller.records": 7, "poller.outcome": "failed"}
    assert (poll.status.code, delivery.status.code) == (0, 2)
    assert poll.parent_span_id == delivery.parent_span_id == b""
    assert poll.trace_id != delivery.trace_id
    assert metrics.value("trace_spans_total", result="sent") == 2


@pytest.mark.real_time
async def test_a_share_is_sent() -> None:
    async with receiving() as (receiver, endpoint):
        async with traces_to(
            endpoint, headers={}, sample=0.1, clock=SystemClock(), metrics=Metrics()
        ) as tracer:
            for _ in range(1_500):
                tracer.poll(POLL)
        # 150 are expected; to be off by 90 happens once in 10^13 runs.
        assert 60 < len(receiver.spans()) < 240


@pytest.mark.real_time
@pytest.mark.parametrize("status", [400, 307])
async def test_a_collector_that_refuses_costs_spans_and_nothing_else(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    async with receiving() as (elsewhere, other), receiving() as (receiver, endpoint):
        receiver.status, receiver.location = status, f"{other}/v1/traces" if status == 307 else ""
        headers = {"x-token": Secret(SECRET)}
        async with traces_to(
            endpoint, headers=headers, sample=1.0, clock=SystemClock(), metrics=metrics
        ) as tracer:
            tracer.poll(POLL)
    assert metrics.value("trace_spans_total", result="lost") == 1
    assert metrics.value("trace_spans_total", result="sent") == 0
    assert elsewhere.requests == [], "headers are for this collector"
    assert "traces do not reach their collector" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.real_time
async def test_nobody_waits_for_a_collector_that_is_not_there_or_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp, "EXPORT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(otlp, "CLOSING_S", 0.1)
    metrics = Metrics()
    async with receiving() as (receiver, endpoint):
        receiver.hangs = asyncio.Event()
        async with traces_to(
            endpoint, headers={}, sample=1.0, clock=SystemClock(), metrics=metrics
        ) as tracer:
            for _ in range(
                10_000
            ):  # more than the queue holds: what does not fit is dropped, and nobody waits
                tracer.poll(POLL)
        receiver.hangs.set()
    async with traces_to(endpoint, headers={}, sample=1.0, clock=SystemClock(), metrics=metrics) as tracer:
        tracer.poll(POLL)
    assert metrics.value("trace_spans_total", result="sent") == 0
    assert metrics.value("trace_spans_total", result="lost") > 1


# What is told ---------------------------------------------------------------------------------------


class ScriptedSink(StdoutSink):
    def __init__(self, *steps: Exception | float) -> None:
        self._steps = list(steps)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def write(self, batch: Sequence[Record]) -> None:
        step = self._steps.pop(0) if self._steps else 0.0
        if isinstance(step, float):
            await asyncio.sleep(step)
        else:
            raise step


async def test_each_batch_is_told_with_its_outcome_and_times(clock: VirtualClock) -> None:
    collected = Collected()
    records = make_records(3)
    refused = SinkRejected("no", rejected={records[0].id: "no"})
    sink = traced(ScriptedSink(1.5, SinkUnavailable("down"), refused, 60.0), "bus", collected, clock)
    await sink.open()
    await sink.write(records)
    for error in (SinkUnavailable, SinkRejected):
        with pytest.raises(error):
            await sink.write(records)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await sink.write(records[:1])
    await sink.close()
    assert [(trace.records, trace.outcome) for trace in collected.deliveries] == [
        (3, "ok"), (3, "failed"), (3, "rejected"), (1, "cancelled")
    ]  # fmt: skip
    first, last = collected.deliveries[0], collected.deliveries[-1]
    assert first == DeliveryTrace("bus", 3, "ok", START_UTC_S * 10**9, START_UTC_S * 10**9 + 1_500_000_000)
    assert last.ended_ns - last.began_ns == 5 * 10**9


def test_where_nobody_traces_nothing_stands_between(clock: VirtualClock) -> None:
    sink = ScriptedSink()
    assert traced(sink, "bus", NoTracer(), clock) is sink
    NoTracer().poll(POLL)
    NoTracer().delivery(DeliveryTrace("bus", 1, "ok", 0, 0))
