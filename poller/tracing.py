"""What a poll and a delivery tell to whoever traces them. By default nobody does, and nothing is imported for it.

Traces are told after the fact, with their times: nothing of a trace is carried along, so nothing that is
traced depends on it. They hold configured names, fixed words and numbers; never a secret, a balance or the
text of an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PollTrace:
    """One poll that has ended.

    Attributes:
        outcome: ``ok``, or the error's kind.
        scope: who has to wait for it; ``none`` if it was good.
        lateness_s: from due to granted.
        latency_s: from sending to the end of the answer, of the last request if there were several.
        weight: what its requests cost together.
        began_ns: when it was granted, nanoseconds since the epoch.
        ended_ns: when what followed from it was done, a commit included.
    """

    account: str
    egress: str
    outcome: str
    scope: str
    lateness_s: float
    latency_s: float
    weight: int
    began_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True)
class DeliveryTrace:
    """One batch that a sink was given.

    Attributes:
        outcome: ``ok``, ``rejected`` (records are refused for good), ``cancelled`` (its time was up), or
            ``failed``.
        began_ns: nanoseconds since the epoch.
    """

    sink: str
    records: int
    outcome: str
    began_ns: int
    ended_ns: int


class Tracer(Protocol):
    """Takes traces. It neither waits nor raises."""

    def poll(self, trace: PollTrace) -> None:
        """Take a poll."""
        ...

    def delivery(self, trace: DeliveryTrace) -> None:
        """Take a delivery."""
        ...


class NoTracer:
    """Takes nothing."""

    def poll(self, trace: PollTrace) -> None:
        """Do nothing."""

    def delivery(self, trace: DeliveryTrace) -> None:
        """Do nothing."""
