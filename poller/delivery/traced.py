"""A sink whose batches are traced: which sink, how many records, how it ended, from when to when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from poller.clock import Clock
from poller.errors import BatchRejected, SinkRejected
from poller.model import Record
from poller.sinks import Sink, SinkOptions
from poller.tracing import DeliveryTrace, NoTracer, Tracer


def traced(sink: Sink, name: str, tracer: Tracer, clock: Clock) -> Sink:
    """Return the sink, with its batches told to the tracer if that is one that listens."""
    return sink if isinstance(tracer, NoTracer) else Traced(sink, name, tracer, clock)


class Traced:
    """Passes calls on, and tells how writes ended."""

    Options: ClassVar[type[SinkOptions]] = SinkOptions

    def __init__(self, sink: Sink, name: str, tracer: Tracer, clock: Clock) -> None:
        self._sink = sink
        self._name = name
        self._tracer = tracer
        self._clock = clock

    async def open(self) -> None:
        """As the sink's own."""
        await self._sink.open()

    async def write(self, batch: Sequence[Record]) -> None:
        """As the sink's own."""
        began_ns = self._clock.utc_ns()
        outcome = "failed"
        try:
            await self._sink.write(batch)
            outcome = "ok"
        except (SinkRejected, BatchRejected):
            outcome = "rejected"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._tracer.delivery(
                DeliveryTrace(self._name, len(batch), outcome, began_ns, self._clock.utc_ns())
            )

    async def close(self) -> None:
        """As the sink's own."""
        await self._sink.close()
