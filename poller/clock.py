"""The only reader of time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class Clock(Protocol):
    """What the poller asks about time. Virtual in tests."""

    def monotonic_s(self) -> float:
        """Seconds on the event loop's own scale: never steps, stands still in a suspended machine."""
        ...

    def utc_ns(self) -> int:
        """This machine's wall clock, nanoseconds since the epoch: may step at any moment."""
        ...

    def uptime_s(self) -> float:
        """Seconds since boot, counted through suspension; comparable only within one ``boot_id``."""
        ...

    def boot_id(self) -> str:
        """Name of this boot of this machine; empty where the system has none."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._boot_id = _boot_id()

    def monotonic_s(self) -> float:
        """Seconds on the scale of ``asyncio``'s ``loop.time()``."""
        return time.monotonic()

    def utc_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns()

    def uptime_s(self) -> float:
        """Seconds since boot, suspension included where the system can tell (Linux)."""
        boottime = getattr(time, "CLOCK_BOOTTIME", None)
        return time.monotonic() if boottime is None else time.clock_gettime(boottime)

    def boot_id(self) -> str:
        """Read once at start: it cannot change while we live."""
        return self._boot_id


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def rfc3339(utc_ns: int) -> str:
    """Return the instant as RFC 3339 in UTC with microseconds, such as ``2026-01-01T00:00:00.000000Z``."""
    seconds, ns = divmod(utc_ns, NS_PER_S)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{ns // 1000:06d}Z"
