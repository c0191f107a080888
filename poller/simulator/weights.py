"""Who has used how much weight: the counting windows, the warnings, the bans.

Pure: time is an argument, microseconds on the exchange's clock, never falling except by ``step_clock``.

Weight is counted per source address and pool; a request over the limit gets a 429 and counts all the
same, as it does at the exchange; who goes on asking after that is banned with all pools, each time for
twice as long. Both ways to cut a window are always counted, one of them is enforced: so a test can
tell whether a client would have been safe under the other one, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Literal

US_PER_S: Final = 1_000_000

WindowKind = Literal["fixed", "rolling"]
NeighbourMode = Literal["even", "bursts"]


class FixedWindow:
    """Windows that begin at the multiples of their length, as clock minutes do."""

    def __init__(self, length_us: int) -> None:
        self._length_us = length_us
        self._number = 0
        self._used = 0

    def used(self, now_us: int) -> int:
        """Return the weight counted in the window of that moment."""
        return self._used if now_us // self._length_us == self._number else 0

    def add(self, now_us: int, weight: int) -> int:
        """Count weight and return what is used with it."""
        self._used = self.used(now_us) + weight
        self._number = now_us // self._length_us
        return self._used

    def fits_at_us(self, now_us: int, weight: int, limit: int) -> int:
        """Return when so much more would fit, if nothing else came."""
        fits = self.used(now_us) + weight <= limit
        return now_us if fits else (now_us // self._length_us + 1) * self._length_us

    def step_clock(self, by_us: int) -> None:
        """Nothing to do: which window it is, the clock alone decides."""


class RollingWindow:
    """The last so many microseconds, at any moment."""

    def __init__(self, length_us: int) -> None:
        self._length_us = length_us
        self._counted: deque[tuple[int, int]] = deque()  # (when, weight), the oldest first
        self._used = 0

    def used(self, now_us: int) -> int:
        """Return the weight counted in the window that ends at that moment."""
        while self._counted and self._counted[0][0] <= now_us - self._length_us:
            self._used -= self._counted.popleft()[1]
        return self._used

    def add(self, now_us: int, weight: int) -> int:
        """Count weight and return what is used with it."""
        self._used = self.used(now_us) + weight
        self._counted.append((now_us, weight))
        return self._used

    def fits_at_us(self, now_us: int, weight: int, limit: int) -> int:
        """Return when so much more would fit, if nothing else came; of too much, when all has left."""
        excess = self.used(now_us) + weight - limit
        at_us = now_us
        for counted_us, counted in self._counted:
            if excess <= 0:
                break
            excess -= counted
            at_us = counted_us + self._length_us
        return at_us

    def step_clock(self, by_us: int) -> None:
        """What was counted stays as long ago as it is."""
        self._counted = deque((counted_us + by_us, weight) for counted_us, weight in self._counted)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Somebody else behind the same address.

    Attributes:
        share: part of the limit that it uses in each window, 0 to 1 or more.
        mode: ``even`` in sixty portions a window; ``bursts``: at random moments of each window.
        seed: same seed, same moments.
        bursts: how many there are in each clock-aligned window, of equal weight, each at a moment of its own.
    """

    share: float = 0.0
    mode: NeighbourMode = "even"
    seed: int = 1
    bursts: int = 1

    def uses(self, after_us: int, until_us: int, limit: int, length_us: int) -> Iterator[tuple[int, int]]:
        """Yield (when, weight) of its requests after the first moment and not after the second."""
        per_window = round(self.share * limit)
        if per_window <= 0:
            return
        for number in range(after_us // length_us, until_us // length_us + 1):
            for at_us, weight in self._in_window(number, per_window, length_us):
                if weight and after_us < at_us <= until_us:
                    yield at_us, weight

    def _in_window(self, number: int, per_window: int, length_us: int) -> Iterator[tuple[int, int]]:
        start_us = number * length_us
        if self.mode == "bursts":
            moments = sorted(self._moment(number, burst, length_us) for burst in range(self.bursts))
        else:
            moments = [length_us * portion // 60 for portion in range(60)]
        count = len(moments)
        for place, moment_us in enumerate(moments):
            yield start_us + moment_us, per_window * (place + 1) // count - per_window * place // count

    def _moment(self, number: int, burst: int, length_us: int) -> int:
        name = f"{self.seed}/{number}/{burst}" if burst else f"{self.seed}/{number}"
        return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) % length_us


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a request's weight means for its answer.

    Attributes:
        status: 200, 429 or 418.
        used: weight used in the enforced window, this request included; during a ban, without it.
        retry_after_s: whole seconds to wait, rounded up; 0 with status 200.
        banned_until_us: end of the ban; 0 without one.
    """

    status: int
    used: int
    retry_after_s: int = 0
    banned_until_us: int = 0


@dataclass(slots=True)
class _Meter:
    """One pool of one address."""

    enforced: FixedWindow | RollingWindow
    other: FixedWindow | RollingWindow
    neighbour_us: int
    told_until_us: int = 0
    told_since_us: int = 0
    ignored: int = 0


@dataclass(slots=True)
class _Ban:
    since_us: int = 0
    until_us: int = 0
    count: int = 0


@dataclass(slots=True)
class Record:
    """What tests want to know afterwards.

    Attributes:
        worst_fixed: the highest weight ever counted in one clock-aligned window of one pool and address.
        worst_rolling: the same of all windows of that length, wherever they begin.
        warnings: 429s given.
        bans: bans given, each with a 418; every request that came meanwhile got one, too.
        during_warning: requests that came before the time a 429 had named. Those that were on their way
            when it was given are among them: ``longest_into_warning_us`` tells how late the last one came.
        during_ban: requests that came during a ban; ``longest_into_ban_us`` likewise.
    """

    worst_fixed: int = 0
    worst_rolling: int = 0
    warnings: int = 0
    bans: int = 0
    during_warning: int = 0
    longest_into_warning_us: int = 0
    during_ban: int = 0
    longest_into_ban_us: int = 0


@dataclass(frozen=True, slots=True)
class WeightRules:
    """How weight is counted.

    Attributes:
        window: which of the two windows is enforced.
        length_us: of both.
        ban_after: so many requests may come before the time that a 429 named; the next one is banned.
        ban_min_us: length of an address's first ban; each further one is twice as long.
        ban_max_us: but never longer.
    """

    window: WindowKind = "fixed"
    length_us: int = 60 * US_PER_S
    ban_after: int = 10
    ban_min_us: int = 120 * US_PER_S
    ban_max_us: int = 3 * 86_400 * US_PER_S


@dataclass(slots=True)
class Weights:
    """The weight of all addresses.

    Attributes:
        neighbour: uses weight of ``neighbour_pool`` at every address.
        record: what happened so far.
    """

    rules: WeightRules
    neighbour_pool: str = ""
    neighbour: Neighbour = Neighbour()
    record: Record = field(default_factory=Record)
    _meters: dict[tuple[str, str], _Meter] = field(default_factory=dict)
    _bans: dict[str, _Ban] = field(default_factory=dict)

    def charge(self, address: str, pool: str, weight: int, limit: int, now_us: int) -> Verdict:
        """Count a request that arrives now and say how it is to be answered."""
        meter = self._meter(address, pool, now_us)
        self._let_neighbour_in(meter, pool, limit, now_us)
        ban = self._bans.setdefault(address, _Ban())
        if now_us < ban.until_us:
            self.record.during_ban += 1
            self.record.longest_into_ban_us = max(self.record.longest_into_ban_us, now_us - ban.since_us)
            return _banned(ban, meter.enforced.used(now_us), now_us)
        used = self._count(meter, now_us, weight)
        if now_us < meter.told_until_us:
            self.record.during_warning += 1
            into_us = now_us - meter.told_since_us
            self.record.longest_into_warning_us = max(self.record.longest_into_warning_us, into_us)
            meter.ignored += 1
        else:
            meter.ignored = 0
        if used <= limit:
            return Verdict(200, used)
        if meter.ignored > self.rules.ban_after:
            meter.ignored = 0
            self._ban(ban, now_us)
            return _banned(ban, used, now_us)
        return self._warned(meter, used, weight, limit, now_us)

    def used(self, pool: str, now_us: int) -> dict[str, int]:
        """Return the weight used in the enforced window, by address."""
        return {
            address: meter.enforced.used(now_us)
            for (address, name), meter in self._meters.items()
            if name == pool
        }

    def banned_until_us(self, now_us: int) -> dict[str, int]:
        """Return the ends of the bans in force, by address."""
        return {address: ban.until_us for address, ban in self._bans.items() if now_us < ban.until_us}

    def step_clock(self, by_us: int) -> None:
        """Take note that the exchange's clock jumps: what lies ahead stays as far ahead."""
        for meter in self._meters.values():
            meter.enforced.step_clock(by_us)
            meter.other.step_clock(by_us)
            meter.neighbour_us += by_us
            meter.told_until_us += by_us
            meter.told_since_us += by_us
        for ban in self._bans.values():
            ban.since_us += by_us
            ban.until_us += by_us

    def _meter(self, address: str, pool: str, now_us: int) -> _Meter:
        meter = self._meters.get((address, pool))
        if meter is None:
            fixed, rolling = FixedWindow(self.rules.length_us), RollingWindow(self.rules.length_us)
            enforced, other = (fixed, rolling) if self.rules.window == "fixed" else (rolling, fixed)
            meter = _Meter(enforced, other, neighbour_us=now_us - self.rules.length_us)
            self._meters[address, pool] = meter
        return meter

    def _let_neighbour_in(self, meter: _Meter, pool: str, limit: int, now_us: int) -> None:
        if pool == self.neighbour_pool:
            # What is older than a window no longer matters, however long nobody asked.
            after_us = max(meter.neighbour_us, now_us - self.rules.length_us)
            for at_us, weight in self.neighbour.uses(after_us, now_us, limit, self.rules.length_us):
                self._count(meter, at_us, weight)
            meter.neighbour_us = now_us

    def _count(self, meter: _Meter, now_us: int, weight: int) -> int:
        used, other = meter.enforced.add(now_us, weight), meter.other.add(now_us, weight)
        fixed, rolling = (used, other) if self.rules.window == "fixed" else (other, used)
        self.record.worst_fixed = max(self.record.worst_fixed, fixed)
        self.record.worst_rolling = max(self.record.worst_rolling, rolling)
        return used

    def _warned(self, meter: _Meter, used: int, weight: int, limit: int, now_us: int) -> Verdict:
        if now_us >= meter.told_until_us:
            meter.told_since_us = now_us
        meter.told_until_us = meter.enforced.fits_at_us(now_us, weight, limit)
        self.record.warnings += 1
        return Verdict(429, used, retry_after_s=_seconds_up(meter.told_until_us - now_us))

    def _ban(self, ban: _Ban, now_us: int) -> None:
        length_us = min(self.rules.ban_max_us, self.rules.ban_min_us * 2**ban.count)
        ban.since_us, ban.until_us, ban.count = now_us, now_us + length_us, ban.count + 1
        self.record.bans += 1


def _banned(ban: _Ban, used: int, now_us: int) -> Verdict:
    return Verdict(418, used, _seconds_up(ban.until_us - now_us), ban.until_us)


def _seconds_up(duration_us: int) -> int:
    return max(1, -(-duration_us // US_PER_S))
