"""Sends traces to an OpenTelemetry collector, as OTLP over HTTP, from a thread of its own.

The queue to that thread is bounded, and what does not fit or does not arrive is dropped and counted. This module is
imported only where traces are wanted: it needs ``poller[otel]``.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode

from poller import __version__
from poller.clock import Clock
from poller.metrics import Metrics
from poller.secrets import Secret
from poller.tracing import DeliveryTrace, PollTrace, Tracer

logger = logging.getLogger(__name__)

EXPORT_TIMEOUT_S: Final = 5.0
CLOSING_S: Final = 3.0
COMPLAIN_EVERY_S: Final = 600.0
QUEUE_SPANS: Final = 2048
SEND_EVERY_S: Final = 5.0

# No parent, whatever somebody in this process may trace: a poll is nobody's part.
_NO_PARENT: Final = Context()


@asynccontextmanager
async def traces_to(
    endpoint: str, *, headers: Mapping[str, Secret], sample: float, clock: Clock, metrics: Metrics
) -> AsyncIterator[Tracer]:
    """Send traces to a collector while the context lasts; what is left goes at its end."""
    tracer = OtlpTracer(endpoint, headers=headers, sample=sample, clock=clock, metrics=metrics)
    try:
        yield tracer
    finally:
        await tracer.close()


class OtlpTracer:
    """Turns traces into spans without parents.

    Args:
        endpoint: of the collector, without ``/v1/traces``.
        headers: further ones for it.
        sample: the share of traces that is sent, more than 0 and at most 1.
    """

    def __init__(
        self, endpoint: str, *, headers: Mapping[str, Secret], sample: float, clock: Clock, metrics: Metrics
    ) -> None:
        self._exporter = _Watched(endpoint, headers, clock, metrics)
        self._provider = TracerProvider(
            sampler=TraceIdRatioBased(sample),
            resource=Resource({"service.name": "poller", "service.version": __version__}),
            shutdown_on_exit=False,
        )
        # Its own words would come with every batch that fails; ours come every ten minutes.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=QUEUE_SPANS,
            schedule_delay_millis=SEND_EVERY_S * 1000,
            max_export_batch_size=512,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("poller", __version__)

    def poll(self, trace: PollTrace) -> None:
        """Take a poll."""
        self._span(
            "poll",
            {
                "poller.account": trace.account,
                "poller.egress": trace.egress,
                "poller.outcome": trace.outcome,
                "poller.scope": trace.scope,
                "poller.lateness_s": trace.lateness_s,
                "poller.latency_s": trace.latency_s,
                "poller.weight": trace.weight,
            },
            trace.outcome,
            trace.began_ns,
            trace.ended_ns,
        )

    def delivery(self, trace: DeliveryTrace) -> None:
        """Take a delivery."""
        self._span(
            "deliver",
            {"poller.sink": trace.sink, "poller.records": trace.records, "poller.outcome": trace.outcome},
            trace.outcome,
            trace.began_ns,
            trace.ended_ns,
        )

    async def close(self) -> None:
        """Send what is left, within a bound; a collector that is down costs no more than that."""
        closing = asyncio.create_task(asyncio.to_thread(self._provider.shutdown))
        await asyncio.wait([closing], timeout=CLOSING_S)
        if not closing.done():
            self._exporter.give_up()
            await closing

    def _span(
        self,
        name: str,
        attributes: Mapping[str, str | int | float],
        outcome: str,
        began_ns: int,
        ended_ns: int,
    ) -> None:
        span = self._tracer.start_span(
            name, context=_NO_PARENT, kind=SpanKind.CLIENT, attributes=dict(attributes), start_time=began_ns
        )
        if outcome != "ok":
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=max(began_ns, ended_ns))  # the clock may have been set back meanwhile


class _Watched(SpanExporter):
    """The exporter, with its failures counted and told about now and then."""

    def __init__(self, endpoint: str, headers: Mapping[str, Secret], clock: Clock, metrics: Metrics) -> None:
        session = requests.Session()
        session.trust_env = False  # neither a proxy nor a password that somebody else is meant to use
        session.max_redirects = 0  # headers are for this collector
        self._endpoint = endpoint
        self._session = session
        self._exporter = OTLPSpanExporter(
            endpoint=f"{endpoint}/v1/traces",
            headers={name: value.reveal() for name, value in headers.items()},
            timeout=EXPORT_TIMEOUT_S,
            session=session,
        )
        self._clock = clock
        self._spans = metrics.trace_spans
        self._complained_s = -math.inf

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; never raise."""
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001  # the thread must go on, and there is nothing to repair here
            result = SpanExportResult.FAILURE
        is_sent = result is SpanExportResult.SUCCESS
        self._spans.labels("sent" if is_sent else "lost").inc(len(spans))
        if not is_sent:
            self._complain(len(spans))
        return result

    def shutdown(self) -> None:
        """Send nothing more."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the package's own
        self._session.close()

    def give_up(self) -> None:
        """End an export that is under way."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the package's own

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return True

    def _complain(self, count: int) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._complained_s >= COMPLAIN_EVERY_S:
            self._complained_s = now_s
            logger.warning(
                "traces do not reach their collector", extra={"endpoint": self._endpoint, "spans": count}
            )
