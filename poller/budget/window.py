"""The weight that may still count against an address. Pure: time is an argument, monotonic seconds.

How the exchange cuts its minute is not documented for this family of endpoints: clock-aligned, or
the last sixty seconds. So the window is safe under both. A request is counted by the exchange at
some moment between its grant and its answer; its weight therefore occupies the window from the
grant until a whole window after the answer. If all that is occupied never exceeds the limit, then
no stretch of one window's length can hold more than the limit, wherever it begins. The price is
latency times rate: at 50 ms one part in a thousand.

Weight is spent when granted and never given back: a request that failed, timed out or was refused
may have been counted.

What the exchange reports beyond all that may be ours is somebody else's use of the address. It can
only shrink our part, never raise it. Answers come late and out of order, so each is read with what
was ours at its own moment: what must be in its figure, and what may be.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from dataclasses import dataclass

from poller.budget.others import Maxima, RollingUse
from poller.budget.terms import Terms

GUARD_S = 0.01  # timers fire early by a clock tick, and two machines' seconds differ a little
CATCH_UP = 1 / 20  # of a window: how far grants may run ahead of an even pace after a hiccup
RAMP_FROM = 0.1  # of the full pace, right after a pause
# Windows for which foreign use is expected to come again. One is too few: whoever uses the address once
# a minute, at any moment of it, leaves up to two minutes between two of their moments. Every 429 shows
# that it was still too few, and doubles it for a while.
EXPECTED_WINDOWS = 2
EXPECTED_WINDOWS_MOST = 16
UNSEEN_AT_MOST = 0.1  # of what others use, added for what they use between two answers
# Grants that may run ahead of an even pace while others are expected: on top of those under way already, so
# many would all meet a limit that was reached unseen, and too many 429s at once are a ban.
CATCH_UP_BESIDE_OTHERS = 4
LEFT_AT_LEAST = 0.1  # of our share, against others who are only expected


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission for one request, already paid for. Hand it back with ``answered``, whatever happened."""

    number: int
    weight: int
    granted_s: float
    reported: bool = True  # it is in the exchange's figure, which is kept for each endpoint


class _Tally:
    """How much weight had come together by a moment. Moments are added in their order."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._sums: list[int] = []
        self._forgotten = 0

    def add(self, at_s: float, weight: int) -> None:
        self._times.append(at_s)
        self._sums.append((self._sums[-1] if self._sums else self._forgotten) + weight)

    def by(self, at_s: float) -> int:
        place = bisect_right(self._times, at_s)
        return self._sums[place - 1] if place else self._forgotten

    def forget(self, before_s: float) -> None:
        place = bisect_right(self._times, before_s)
        if place > len(self._times) // 2:  # in large pieces: each costs a copy of the rest
            self._forgotten = self._sums[place - 1]
            del self._times[:place], self._sums[:place]


class WeightWindow:
    """Own weight in flight and in the last window, foreign weight as reported, and the pace of grants.

    Args:
        limit: weight the exchange allows per window and address.
        share: part of it that we may use, 0 to 1.
        window_s: length of the exchange's window.
    """

    def __init__(self, *, limit: int, share: float = 1.0, window_s: float = 60.0) -> None:
        self.terms = Terms(limit)
        self.window_s = window_s
        self._share = share
        self.reported: int | None = None
        self._number = 0
        self._in_flight: dict[int, Grant] = {}
        self._leaving: list[tuple[float, int]] = []  # heap of (when it no longer counts, weight)
        self._grants = _Tally()
        self._answers = _Tally()
        self._held: list[tuple[float, int]] = []  # (when it no longer counts, weight), from before us
        self._occupied = 0
        self._seen = Maxima()  # foreign use that may be in the exchange's window now
        self._expected = Maxima()  # and that we expect to come again
        self._first: tuple[float, int] | None = (
            None  # when the first report came, and what it showed of others
        )
        self._rolling = RollingUse(window_s)
        self._rising_to = 0  # what others will have used a window after it, if they go on as since then
        self._expected_windows = EXPECTED_WINDOWS
        self._overrun_s = -math.inf  # when we last met the limit all the same
        self._even_s = -math.inf  # when the next grant is due at an even pace
        self._ramp_s: float | None = None  # when the current ramp began
        self._lone = False  # only one request at a time until a good answer arrives

    def reconfigure(self, *, limit: int, share: float) -> None:
        """Allow another share of another limit from now on; what was spent stays spent."""
        self.terms.reconfigure(limit)
        self._share = share

    @property
    def limit(self) -> int:
        """Weight the exchange allows per window, as configured or, if that is less, as learned."""
        return self.terms.limit

    @property
    def allowed(self) -> int:
        """Our share of the limit."""
        return math.floor(self.limit * self._share + 1e-9)  # 12000 x 0.9 is 10800, not 10799

    @property
    def in_flight(self) -> int:
        """Requests granted and not yet answered."""
        return len(self._in_flight)

    def own(self, now_s: float) -> int:
        """Return the own weight that may be in the exchange's window."""
        self._expire(now_s)
        return self._occupied

    def foreign(self, now_s: float) -> int:
        """Return the weight that others are to be expected to use in a window."""
        expected = self._expected.largest(now_s)
        if self._first is not None and now_s < self._first[0] + self.window_s:
            expected = max(expected, self._rising_to)
        if not expected:
            return 0
        if self._rolling.rolls:
            return self._rolling.expected(now_s, self._rate(now_s))
        if self._rolling.refuted:
            return expected
        # As long as nobody knows how it counts, what leaves us less; the rate is in the first already.
        return max(expected, self._rolling.expected(now_s, 0.0))

    def capacity(self, now_s: float) -> int:
        """Return the weight we may occupy: our share, or less where others leave less.

        What others use now is theirs. What they used a while ago, and may use again, leaves us a little
        all the same: a neighbour in bursts would silence us for good, and to ask now and then costs at
        worst one 429.
        """
        left: float = self.limit - self.foreign(now_s)
        if left < self.allowed * LEFT_AT_LEAST:
            left = min(self.allowed * LEFT_AT_LEAST, self.limit - self._seen.largest(now_s))
        return max(0, min(self.allowed, math.floor(left)))

    def wait_s(self, weight: int, now_s: float) -> float:
        """Return seconds until it is worth asking again; 0.0 if a grant fits now.

        Infinity means that only an answer can make room.
        """
        self._expire(now_s)
        if self._lone and self._in_flight:
            return math.inf
        capacity = self.capacity(now_s)
        if self._occupied + weight > capacity:
            # Whatever goes first makes room: own weight that leaves, or foreign use that is forgotten.
            leaves_s = self._leaving[0][0] if self._leaving else math.inf
            others = (self._seen, self._expected, self._rolling)
            return min(leaves_s, *(kept.next_end_s(now_s) for kept in others)) - now_s
        ahead_s = self.window_s * CATCH_UP
        if self._ramping(now_s):
            ahead_s = 0.0
        elif self._expected.largest(now_s):
            ahead_s = min(ahead_s, CATCH_UP_BESIDE_OTHERS * self._spacing_s(weight, now_s))
        return max(0.0, self._even_s - ahead_s - now_s)

    def grant(self, weight: int, now_s: float, *, reported: bool = True) -> Grant:
        """Spend the weight now. Ask ``wait_s`` first, and await nothing in between.

        ``reported`` is false for a request to another endpoint than the one whose figure we read: it
        occupies our window all the same, but is not taken for a part of that figure.
        """
        pace = self._pace(now_s)
        if not self._in_flight and self._is_blind(now_s):
            self._lone = True
        spacing_s = self._spacing_s(weight, now_s)
        self._even_s = max(now_s, self._even_s) + spacing_s / pace
        self._number += 1
        grant = Grant(self._number, weight, now_s, reported)
        self._in_flight[grant.number] = grant
        if reported:
            self._grants.add(now_s, weight)
        self._occupied += weight
        return grant

    def answered(self, grant: Grant, now_s: float, used_weight: int | None = None) -> None:
        """Note the end of a request: its answer, its failure, or that nobody waits for it any more.

        Args:
            grant: what the request was granted.
            now_s: the present; the exchange cannot have counted the request later than this.
            used_weight: the exchange's own count in its answer, ``None`` if it gave none that can be read.
        """
        if grant.number not in self._in_flight:
            return
        if used_weight is not None:
            self._learn(used_weight, grant, now_s)
        del self._in_flight[grant.number]
        if grant.reported:
            self._answers.add(now_s, grant.weight)
        oldest_s = next(iter(self._in_flight.values())).granted_s if self._in_flight else now_s
        for tally in (self._grants, self._answers):
            tally.forget(oldest_s - self.window_s)
        heapq.heappush(self._leaving, (now_s + self.window_s + GUARD_S, grant.weight))

    def overran(self, now_s: float) -> None:
        """Note that the limit was met all the same: what others use has to be expected for longer."""
        if now_s < self._overrun_s + self.window_s:
            return  # more answers of the same moment
        self._overrun_s = now_s
        before, self._expected_windows = (
            self._expected_windows,
            min(2 * self._expected_windows, EXPECTED_WINDOWS_MOST),
        )
        longer_s = (self._expected_windows - before) * self.window_s
        self._expected = self._expected.prolonged(longer_s)

    def hold(self, weight: int, until_s: float) -> None:
        """Count weight that was spent by somebody before us, such as this daemon before its restart."""
        if weight > 0:
            self._occupied += weight
            self._held.append((until_s, weight))
            heapq.heappush(self._leaving, (until_s, weight))

    def start_carefully(self) -> None:
        """Let one request go alone first: what its answer reports is all we know of the past minute."""
        self._lone = True

    def resume(self, now_s: float) -> None:
        """Begin again after a pause: one request alone, then a growing pace over one window."""
        self._lone = True
        self._ramp_s = now_s
        self._even_s = now_s

    def went_well(self) -> None:
        """Note a good answer: more than one request may be under way again."""
        self._lone = False

    def _learn(self, used_weight: int, grant: Grant, now_s: float) -> None:
        self.reported = used_weight
        begin_s, end_s = grant.granted_s, now_s  # the exchange counted up to a moment in between
        may = self._grants.by(end_s) - self._answers.by(begin_s - self.window_s)
        may += sum(weight for until_s, weight in self._held if until_s > begin_s)
        if self._first is None:
            self._first = now_s, max(0, used_weight - may)
        must = grant.weight + self._answers.by(begin_s) - self._grants.by(end_s - self.window_s)
        self._rolling.learn(
            used_weight - may,
            used_weight - max(grant.weight, must),
            granted_s=begin_s,
            now_s=now_s,
            rate=self._rate(now_s),
        )
        if used_weight <= may:
            return
        # Somebody else is here. What is surely not ours is theirs, and to be safe what may not be ours too.
        foreign = used_weight - max(grant.weight, must)
        # It may have been used this very moment and so counts for a whole window; then we expect it again.
        if now_s > self._overrun_s + 2 * self._expected_windows * self.window_s:
            self._expected_windows = EXPECTED_WINDOWS
        self._seen.note(now_s + self.window_s, foreign)
        # They go on while nobody tells us: until the next answers, at the rate that they had.
        unseen_s = now_s - grant.granted_s + 2 * self._spacing_s(grant.weight, now_s)
        more = math.ceil(foreign * min(unseen_s / self.window_s, UNSEEN_AT_MOST))
        self._expected.note(now_s + self._expected_windows * self.window_s, foreign + more)
        self._extrapolate(foreign, now_s)

    def _extrapolate(self, foreign: int, now_s: float) -> None:
        """In our first window nobody has seen a whole one yet: what rises is taken to go on rising."""
        assert self._first is not None  # noqa: S101  # set by whoever learns
        first_s, first_foreign = self._first
        watched_s = now_s - first_s
        if 0 < watched_s < self.window_s:
            rate = max(0, foreign - first_foreign) / watched_s
            self._rising_to = foreign + math.ceil(rate * (self.window_s - watched_s))

    def _spacing_s(self, weight: int, now_s: float) -> float:
        """Seconds between two grants at an even pace.

        By what others leave us, not by our share: a part that is used up early leaves us blind for the
        rest of the window, and it is the last report of a window that tells what others use.
        """
        # Where they come in bursts, room comes and goes: what is not taken while it is there is lost.
        in_bursts = self._rolling.rolls and self._rolling.burst(now_s) > 0
        even = self.allowed if in_bursts else self.capacity(now_s)
        return weight * self.window_s / max(weight, even)

    def _rate(self, now_s: float) -> float:
        """Weight a second that others are expected to use, on average."""
        return self._expected.largest(now_s) / self.window_s

    def _is_blind(self, now_s: float) -> bool:
        """Others are about, and what they did of late nobody has told us: one request goes and looks first."""
        return self._expected.largest(now_s) > 0 and self._rolling.blind_s(now_s) > self.window_s * CATCH_UP

    def _expire(self, now_s: float) -> None:
        while self._leaving and self._leaving[0][0] <= now_s:
            self._occupied -= heapq.heappop(self._leaving)[1]

    def _ramping(self, now_s: float) -> bool:
        if self._ramp_s is not None and now_s >= self._ramp_s + self.window_s:
            self._ramp_s = None
        return self._ramp_s is not None

    def _pace(self, now_s: float) -> float:
        if not self._ramping(now_s):
            return 1.0
        assert self._ramp_s is not None  # noqa: S101  # what _ramping just said
        return RAMP_FROM + (1 - RAMP_FROM) * max(0.0, now_s - self._ramp_s) / self.window_s
