"""What a running daemon has seen: each account's last polls, its value over time, and what sinks were told.

In memory only, bounded for each account, and never read by anything that decides.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

from poller.clock import NS_PER_MS, Clock, rfc3339
from poller.errors import PollError
from poller.model import Account, Baseline, Change, Kind, Reason, Record, Snapshot, plain
from poller.overview import AmountChange, Happening, PollSeen
from poller.polling import Observer
from poller.records import total_btc

POLLS_KEPT: Final = 20
POINTS_KEPT: Final = 48
POINT_FIRST_MS: Final = 15_000
POINT_LAST_MS: Final = 128 * POINT_FIRST_MS
HAPPENINGS_KEPT: Final = 500


class Line:
    """A value over time in at most 48 points: close together at first, later half an hour apart.

    Floats are enough: it is drawn, never computed with.
    """

    __slots__ = ("_at_ms", "_points", "_spacing_ms")

    def __init__(self) -> None:
        self._points = array("d")
        self._spacing_ms = POINT_FIRST_MS
        self._at_ms = -POINT_LAST_MS

    def add(self, value: Decimal, at_ms: int) -> None:
        """Note a value; the last point follows it until the next one is due."""
        if self._points and at_ms - self._at_ms < self._spacing_ms:
            self._points[-1] = float(value)
            return
        if len(self._points) == POINTS_KEPT:
            if self._spacing_ms * 2 <= POINT_LAST_MS:
                self._spacing_ms *= 2
                self._points = self._points[1::2]
            else:
                self._points = self._points[1:]
        self._points.append(float(value))
        self._at_ms = at_ms

    def points(self) -> list[float]:
        """Return the values, oldest first."""
        return self._points.tolist()


class _Poll(NamedTuple):
    at_ms: int
    outcome: str
    text: str
    lateness_s: float
    latency_ms: float | None
    sequence: int


@dataclass(slots=True)
class Seen:
    """What was seen of one account.

    Attributes:
        good_ns: when it last answered well; ``None`` before the first time.
        lateness_s: of the last poll; ``None`` before the first.
        total_btc: value of the last good answer, of before the start if need be; ``None`` if it is not known.
        error, error_kind: of the last poll; empty if it was good.
        failures: polls that failed in a row.
        sequence: of the last record.
        position: not before that of the last record; 0 if there was none since the start.
        reason: why it is in its state, as sinks were told since the start.
        number: of the last thing that was seen, of all accounts.
    """

    good_ns: int | None = None
    lateness_s: float | None = None
    total_btc: Decimal | None = None
    error: str = ""
    error_kind: str = ""
    failures: int = 0
    sequence: int = 0
    position: int = 0
    reason: str = ""
    number: int = 0
    line: Line = field(default_factory=Line)
    _polls: deque[_Poll] = field(default_factory=lambda: deque(maxlen=POLLS_KEPT))

    def polls(self) -> list[PollSeen]:
        """Return the last polls, the newest first."""
        return [
            PollSeen(
                rfc3339(poll.at_ms * NS_PER_MS),
                poll.outcome,
                poll.text,
                poll.lateness_s,
                poll.latency_ms,
                poll.sequence,
            )
            for poll in reversed(self._polls)
        ]

    def add(self, poll: _Poll) -> None:
        """Keep a poll, and forget the oldest if there are too many."""
        self._polls.append(poll)


class Observations:
    """Collects what is seen.

    Args:
        clock: time.
        observer: called with every poll's outcome as well, for others who watch.
        position: the outbox's last one, to know up to where a sink has to be.
    """

    def __init__(
        self, clock: Clock, observer: Observer | None = None, *, position: Callable[[], int] = lambda: 0
    ) -> None:
        self._clock = clock
        self._position = position
        self._observer = observer
        self._seen: OrderedDict[str, Seen] = OrderedDict()  # the last to change is the last
        self._happenings: deque[Happening] = deque(maxlen=HAPPENINGS_KEPT)
        # Higher than whatever the last process counted up to: who knows a number of then misses nothing of now.
        self._happened = clock.utc_ns() // NS_PER_MS
        self.number = 1
        self.polls = 0

    def restore(self, baselines: Iterable[Baseline]) -> None:
        """Take what accounts were worth when they were last accepted: until they are polled it is the best there is."""
        for baseline in baselines:
            if baseline.balances is not None:
                self.touch(baseline.account).total_btc = total_btc(baseline.balances)

    def polled(self, account: Account, outcome: Snapshot | PollError, lateness_s: float) -> None:
        """Take note of a poll that has ended."""
        now_ns = self._clock.utc_ns()
        seen = self.touch(account.name)
        seen.lateness_s = round(lateness_s, 3)
        self.polls += 1
        latency_ms = None
        if isinstance(outcome, Snapshot):
            kind, text, latency_ms = "ok", "", round(outcome.latency_ms, 1)
            seen.good_ns, seen.failures = now_ns, 0
            seen.total_btc = total_btc(outcome.balances) if account.btc_valuation else None
            if seen.total_btc is not None:
                seen.line.add(seen.total_btc, now_ns // NS_PER_MS)
        else:
            kind, text = outcome.kind, str(outcome)
            seen.failures += 1
        seen.error, seen.error_kind = text, "" if kind == "ok" else kind
        seen.add(_Poll(now_ns // NS_PER_MS, kind, text, seen.lateness_s, latency_ms, seen.sequence))
        if self._observer is not None:
            self._observer(account, outcome, lateness_s)

    def told(self, record: Record, changes: Sequence[Change]) -> None:
        """Take note of what sinks will get."""
        seen = self.touch(record.account)
        seen.sequence, seen.position = record.sequence, self._position()
        text = ""
        if record.kind is Kind.STATUS:
            text = seen.reason = record.document["reason"]
        elif record.reason not in {Reason.FIRST, Reason.CHANGED}:
            return
        self._happened += 1
        self._happenings.append(
            Happening(
                self._happened,
                rfc3339(self._clock.utc_ns()),
                record.kind.value,
                record.account,
                record.sequence,
                record.reason,
                text,
                [AmountChange(c.asset, c.field, plain(c.before), plain(c.after)) for c in changes],
            )
        )

    def touch(self, name: str) -> Seen:
        """Return what was seen of an account, as something that changes now."""
        seen = self._seen.setdefault(name, Seen())
        self._seen.move_to_end(name)
        self.number += 1
        seen.number = self.number
        return seen

    def of(self, name: str) -> Seen | None:
        """Return what was seen of an account; ``None`` if nothing was."""
        return self._seen.get(name)

    def changed(self, after: int) -> list[str]:
        """Return the accounts of which something was seen since that number, the last one first."""
        names = []
        for name, seen in reversed(self._seen.items()):
            if seen.number <= after:
                break
            names.append(name)
        return names

    def forget(self, name: str) -> None:
        """Forget an account that was removed."""
        self._seen.pop(name, None)

    def happenings(self, after: int = 0) -> list[Happening]:
        """Return what happened after that number, oldest first; at most the last 500."""
        new = min(self._happened - after, len(self._happenings))
        return list(self._happenings)[len(self._happenings) - new :] if new > 0 else []
