"""An asyncio event loop on virtual time: waiting becomes a jump of the clock.

What runs on it is exact and instant: ``await asyncio.sleep(86_400)`` takes no time and ends at
86,400.0. Two things it cannot pretend: a peer in another process (every time-out would fire at once,
so such tests run on a real loop), and work in a thread (time stands still until it is done).
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from poller.clock import NS_PER_S

STUCK_AFTER_S = 5.0  # real seconds without a timer, a socket or a thread to wait for
START_UTC_S = 1_767_225_600  # 2026-01-01 00:00:00

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _JumpingSelector(selectors.SelectSelector):
    """Selector that advances a clock instead of sleeping."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.busy_threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.busy_threads and (timeout is None or timeout > 0):
            return super().select(None)  # a thread is at work: only its end may wake us
        if timeout is None:
            ready = super().select(STUCK_AFTER_S)
            if not ready:
                raise RuntimeError("virtual time is stuck: every task waits and no timer is set")
            return ready
        ready = super().select(0)
        if not ready and timeout > 0:
            # At least 1 ns, so that a rounded-down timeout cannot spin forever.
            self.now_ns += max(1, round(timeout * NS_PER_S))
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time moves only when everybody waits."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # Timers closer than this count as due; the default, the real clock's resolution, is as good.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._jumping.now_ns / NS_PER_S

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run in a thread; time stands still meanwhile, or the result would depend on its speed."""
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self._jumping.busy_threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Join the threads in real time: a virtual time-out would run out before they end."""
        self._jumping.busy_threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._jumping.busy_threads -= 1

    def _thread_done(self, _future: asyncio.Future[Any]) -> None:
        self._jumping.busy_threads -= 1


class VirtualClock:
    """A clock that moves with the running virtual loop; its wall time starts at a fixed date.

    ``wall_step_s`` may be changed by a test: what an NTP step or an operator's ``date`` does.
    ``suspended_s`` is time that passed while the machine slept: wall and uptime saw it, the loop did not.
    """

    def __init__(self, start_utc_s: float = START_UTC_S, boot: str = "boot-1") -> None:
        self._start_utc_ns = round(start_utc_s * NS_PER_S)
        self._boot = boot
        self.wall_step_s = 0.0
        self.suspended_s = 0.0

    def monotonic_s(self) -> float:
        """Seconds of the running loop."""
        return asyncio.get_running_loop().time()

    def utc_ns(self) -> int:
        """Nanoseconds since the epoch: the start date, plus what passed, plus what was stepped."""
        passed_s = self.monotonic_s() + self.suspended_s + self.wall_step_s
        return self._start_utc_ns + round(passed_s * NS_PER_S)

    def uptime_s(self) -> float:
        """Seconds since the virtual boot."""
        return self.monotonic_s() + self.suspended_s

    def boot_id(self) -> str:
        """The name given at construction."""
        return self._boot
