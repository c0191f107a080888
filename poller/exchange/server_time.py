"""The exchange's clock, as known from samples of it. Estimating is pure; ``ServerTime`` keeps the result."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from poller.clock import NS_PER_MS, NS_PER_S, Clock

MS_PER_S: Final = 1000
SLOWEST_S: Final = 1.0  # a slower answer says too little about when it was written
# Of a clock that nobody measured: that of a machine without time synchronisation may be off by more,
# but then its first request is refused (-1021) and the clock measured.
UNMEASURED_MS: Final = 1000.0
# Clocks of machines run apart by some 10 ppm; 50 is what a bad one does.
DRIFT: Final = 50e-6
# The exchange allows 1,000 ms ahead and a whole window behind, so stamps keep behind: by what is
# uncertain, and no more than this.
BEHIND_MOST_MS: Final = 500.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One question and answer. Monotonic seconds; ``server_ms`` is the exchange's own time between them."""

    sent_s: float
    server_ms: int
    received_s: float

    @property
    def round_trip_s(self) -> float:
        """How long the answer took."""
        return self.received_s - self.sent_s


@dataclass(frozen=True, slots=True)
class Estimate:
    """Where the exchange's clock stood.

    Attributes:
        server_ns: its time at ``at_s``, nanoseconds since the epoch.
        at_s: monotonic seconds.
        uncertainty_ms: it was at most this far from ``server_ns``.
    """

    server_ns: int
    at_s: float
    uncertainty_ms: float


def estimate(samples: Iterable[Sample]) -> Estimate | None:
    """Return what the quickest sample tells; ``None`` if all were too slow.

    The exchange wrote its time somewhere between question and answer, so the middle is off by half
    the round trip at most, however unlike the two ways are.
    """
    usable = [sample for sample in samples if 0 <= sample.round_trip_s <= SLOWEST_S]
    if not usable:
        return None
    quickest = min(usable, key=lambda sample: sample.round_trip_s)
    # A clock that shows whole milliseconds stands half of one behind on average.
    return Estimate(
        server_ns=quickest.server_ms * NS_PER_MS + NS_PER_MS // 2,
        at_s=(quickest.sent_s + quickest.received_s) / 2,
        uncertainty_ms=quickest.round_trip_s / 2 * MS_PER_S + 0.5,
    )


class ServerTime:
    """Tells the exchange's time; this machine's wall clock is asked only until the first measurement.

    A step of the wall clock changes nothing after it, and time that the machine slept is counted.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._estimate: Estimate | None = None
        self._measured_uptime_s = 0.0
        self._offset_ns = 0  # exchange's clock less uptime

    def update(self, samples: Iterable[Sample]) -> bool:
        """Take a measurement over; return whether one sample was quick enough to tell something."""
        found = estimate(samples)
        if found is None:
            return False
        self._estimate = found
        self._measured_uptime_s = self._uptime_s(found.at_s)
        self._offset_ns = found.server_ns - round(self._measured_uptime_s * NS_PER_S)
        return True

    def now_ns(self) -> int:
        """Return the best guess, nanoseconds since the epoch: as likely ahead as behind."""
        return self.at_ns(self._clock.monotonic_s())

    def at_ns(self, monotonic_s: float) -> int:
        """Return the best guess of what the exchange's clock showed at a moment of the recent past."""
        if self._estimate is None:
            passed_s = self._clock.monotonic_s() - monotonic_s
            return self._clock.utc_ns() - round(passed_s * NS_PER_S)
        return self._offset_ns + round(self._uptime_s(monotonic_s) * NS_PER_S)

    def now_ms(self) -> int:
        """Return the time to stamp a request with, in milliseconds: behind the exchange's rather than ahead."""
        behind_ms = min(self.uncertainty_ms, BEHIND_MOST_MS)
        return (self.now_ns() - round(behind_ms * NS_PER_MS)) // NS_PER_MS

    @property
    def uncertainty_ms(self) -> float:
        """How far ``now_ns`` may be off; grows while nobody measures."""
        if self._estimate is None:
            return UNMEASURED_MS
        return self._estimate.uncertainty_ms + self.age_s * DRIFT * MS_PER_S

    @property
    def age_s(self) -> float:
        """Seconds since the last measurement; infinity before the first."""
        if self._estimate is None:
            return math.inf
        return max(0.0, self._clock.uptime_s() - self._measured_uptime_s)

    def _uptime_s(self, monotonic_s: float) -> float:
        """Return the uptime at a monotonic moment: unlike the loop's time it counts sleep of the machine."""
        return self._clock.uptime_s() - (self._clock.monotonic_s() - monotonic_s)
