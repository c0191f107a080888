"""How others come and go on an address whose exchange counts the last so many seconds. Pure.

Where the window rolls, every answer shows what others have in it at that moment: it leaves when it is a
window old, and what came at once may come at once again. Where windows are aligned to the clock neither
holds; an answer betrays them by lacking what came less than a window ago, ours or theirs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

WATCHED_WINDOWS = 2  # without a sign of an aligned one; then they are taken to roll
REMEMBERED_WINDOWS = 3  # for which a burst is remembered; it counts only while anybody is expected at all


class Maxima:
    """The largest of what was noted and has not run out. Ends must be noted in their order."""

    def __init__(self, noted: Iterable[tuple[float, int]] = ()) -> None:
        self._falling = deque(noted)  # (until when, weight): each weighs more than all after it

    def note(self, until_s: float, weight: int) -> None:
        """Add a weight that runs out at that moment."""
        while self._falling and self._falling[-1][1] <= weight:
            self._falling.pop()
        self._falling.append((until_s, weight))

    def largest(self, now_s: float) -> int:
        """Return the largest weight that has not run out; 0 if all have."""
        self._expire(now_s)
        return self._falling[0][1] if self._falling else 0

    def next_end_s(self, now_s: float) -> float:
        """Return when the largest runs out; infinity if there is none."""
        self._expire(now_s)
        return self._falling[0][0] if self._falling else math.inf

    def prolonged(self, by_s: float) -> Maxima:
        """Return the same with every end so much later."""
        return Maxima((until_s + by_s, weight) for until_s, weight in self._falling)

    def _expire(self, now_s: float) -> None:
        while self._falling and self._falling[0][0] <= now_s:
            self._falling.popleft()


class RollingUse:
    """What others have in a window that rolls, if it does, and the burst to be ready for.

    Args:
        window_s: length of the exchange's window.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._came: deque[tuple[float, int]] = deque()  # (when it has left at the latest, weight)
        self._present = 0  # their sum
        self._unsure = 0  # and what may be theirs or ours
        self._bursts = Maxima()
        self._certain = (math.inf, -math.inf, 0)  # (from when, until when, weight): must be seen if it rolls
        self._reports: deque[tuple[float, float, int]] = deque()  # (granted, answered, most of others' in it)
        self._looked_s = -math.inf  # the exchange has told us what it had counted by then
        self._calm_s = math.inf  # nothing has spoken against a rolling window since
        self.refuted = False  # something has, at some time

    @property
    def rolls(self) -> bool:
        """Whether answers over some windows showed no sign of an aligned one."""
        return self._looked_s >= self._calm_s + WATCHED_WINDOWS * self._window_s

    def blind_s(self, now_s: float) -> float:
        """Return seconds since the moment that the newest report speaks of, at least."""
        return now_s - self._looked_s

    def burst(self, now_s: float) -> int:
        """Return the largest weight that came at once, as far as it is remembered."""
        return self._bursts.largest(now_s)

    def learn(self, least: int, most: int, *, granted_s: float, now_s: float, rate: float) -> None:
        """Note what an answer shows.

        Args:
            least: weight that must be others', if the window rolls.
            most: and that may be; below zero some of ours is missing: the window does not roll.
            granted_s: the exchange counted at a moment between this and ``now_s``.
            rate: weight a second that is expected of others anyway, so that it is no burst.
        """
        self._judge(most, granted_s, now_s)
        least, most = max(0, least), max(0, most)
        if (before := self._report_before(granted_s)) is not None:
            before_s, _, most_before = before
            self._note_rise(least - most_before, before_s, now_s, rate)
        self._reports.append((granted_s, now_s, most))
        if granted_s >= self._looked_s:
            self._looked_s = granted_s
            self._count(least, most, now_s)
        else:  # counted later than a newer one, maybe: it can only show more
            self._unsure = max(self._unsure, most - self._present)

    def expected(self, now_s: float, rate: float) -> int:
        """Return what others may have in the window by the time that a request sent now is counted.

        What the newest report showed and has not left, what came since at that rate, and one burst. What comes
        takes the place of what leaves: without a burst there is no more than a whole window at that rate.
        """
        self._expire(now_s)
        shown = self._present + self._unsure
        unseen = math.ceil(rate * self.blind_s(now_s)) if rate else 0
        return max(shown, min(shown + unseen, math.ceil(rate * self._window_s))) + self.burst(now_s)

    def next_end_s(self, now_s: float) -> float:
        """Return when some of it leaves; infinity if there is nothing."""
        self._expire(now_s)
        return self._came[0][0] if self._came else math.inf

    def _judge(self, most: int, granted_s: float, now_s: float) -> None:
        from_s, until_s, weight = self._certain
        if most < 0 or (granted_s >= from_s and now_s < until_s and most < weight):
            self._calm_s, self.refuted = now_s, True
            self._certain = (math.inf, -math.inf, 0)
        elif math.isinf(self._calm_s):
            self._calm_s = now_s

    def _report_before(self, granted_s: float) -> tuple[float, float, int] | None:
        """Return the newest report that was counted before one granted then: its answer was already here."""
        while len(self._reports) > 1 and self._reports[1][1] <= granted_s:
            self._reports.popleft()
        return self._reports[0] if self._reports and self._reports[0][1] <= granted_s else None

    def _note_rise(self, rise: int, since_s: float, now_s: float, rate: float) -> None:
        if rise > 0 and (rise >= self._certain[2] or now_s >= self._certain[1]):
            self._certain = (now_s, since_s + self._window_s, rise)
        burst = math.ceil(rise - rate * (now_s - since_s))
        if burst > 0:
            self._bursts.note(now_s + REMEMBERED_WINDOWS * self._window_s, burst)

    def _count(self, least: int, most: int, now_s: float) -> None:
        self._expire(now_s)
        if least > self._present:
            self._came.append((now_s + self._window_s, least - self._present))
            self._present = least
        while self._present > most:  # the oldest has left sooner than at the latest
            until_s, weight = self._came.popleft()
            kept = max(0, weight - (self._present - most))
            self._present -= weight - kept
            if kept:
                self._came.appendleft((until_s, kept))
        self._unsure = most - self._present

    def _expire(self, now_s: float) -> None:
        while self._came and self._came[0][0] <= now_s:
            self._present -= self._came.popleft()[1]
