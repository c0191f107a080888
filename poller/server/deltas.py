"""What those who listen are told, as bytes of the event stream: everything at first, then what changed.

Each event is encoded once, however many listen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from poller.overview import SLICE, EgressSeen, Happening, Overview, SinkSeen, Status
from poller.server.answers import dumps


@dataclass(frozen=True, slots=True)
class Sample:
    """What there was to see at one moment, but for the accounts: of those, which are to be looked at.

    Attributes:
        number: of the accounts' state.
        changed: names of accounts that changed since the number that was asked with.
        happenings: after the number that was asked with.
    """

    number: int
    changed: Sequence[str]
    names: Sequence[str]
    egress: Sequence[EgressSeen]
    sinks: Sequence[SinkSeen]
    status: Status
    happenings: Sequence[Happening]


@dataclass(frozen=True, slots=True)
class Told:
    """What was told last, to compare with. ``status`` is so but for its time."""

    number: int = 0
    names: tuple[str, ...] | None = None
    egress: bytes = b""
    sinks: bytes = b""
    status: bytes = b""
    happening: int = 0


def take_sample(overview: Overview, told: Told) -> Sample:
    """Look once, for a delta to what was told."""
    number, changed = overview.changed(after=told.number)
    return Sample(
        number=number,
        changed=changed,
        names=overview.names(),
        egress=overview.egress(),
        sinks=overview.sinks(),
        status=overview.status(),
        happenings=overview.happenings(after=told.happening),
    )


class Delta:
    """The events that lead from what was told to a sample. Iterating yields them, encoded, one at a time.

    Accounts are looked at when their event is asked for, a few at a time. One that changes after the sample was
    taken is told as it is then, and once more with the next sample: nothing is lost between them.

    Attributes:
        told: what has been told once all of them are sent.
    """

    def __init__(self, told: Told, sample: Sample, overview: Overview) -> None:
        self._before = told
        self._sample = sample
        self._overview = overview
        self._egress = dumps(sample.egress)
        self._sinks = dumps(sample.sinks)
        # Its time differs every time; whoever knows the rest can go on counting.
        self._status = dumps(replace(sample.status, at=""))
        last = sample.happenings[-1].number if sample.happenings else told.happening
        self.told = Told(sample.number, tuple(sample.names), self._egress, self._sinks, self._status, last)

    def __iter__(self) -> Iterator[bytes]:
        yield from self.state()
        yield from map(happening_event, self._sample.happenings)

    def state(self) -> Iterator[bytes]:
        """Yield the events without the happenings."""
        sample, before = self._sample, self._before
        # The accounts last: meanwhile time goes on, and what is told must not be younger than what follows.
        if self._egress != before.egress:
            yield event("egress", self._egress)
        if self._sinks != before.sinks:
            yield event("sinks", self._sinks)
        if self._status != before.status:
            yield event("status", dumps(sample.status))
        names = None if self.told.names == before.names else sample.names
        yield from fleet_events(self._overview, sample.number, names, sample.changed)


def fleet_events(
    overview: Overview, number: int, names: Sequence[str] | None, changed: Sequence[str]
) -> Iterator[bytes]:
    """Yield accounts in parts that are small enough; the list of names, if there is one, with the first."""
    for start in range(0, len(changed), SLICE) or ([0] if names is not None else []):
        document: dict[str, object] = {"number": number, "at": overview.at()}
        if names is not None and start == 0:
            document["names"] = names
        document["accounts"] = overview.summaries(changed[start : start + SLICE])
        yield event("fleet", dumps(document))


def hello_event(status: Status, sample_s: float) -> bytes:
    """Return what every stream begins with: what this is, and when to come back after it ends."""
    document = {
        "version": status.version,
        "at": status.at,
        "started_at": status.started_at,
        "interval_s": sample_s,
    }
    return b"retry: 2000\n" + event("hello", dumps(document))


def happening_event(happening: Happening) -> bytes:
    """Return what happened, under an id with which a reader can go on later."""
    return b"id: %d\n" % happening.number + event("happening", dumps(happening))


def event(name: str, data: bytes) -> bytes:
    """Return one event. ``data`` is JSON, which has no line break."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
