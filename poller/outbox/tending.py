"""When house-keeping is done: now and then, oftener while there is no room, and at once if there is more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from poller.outbox.values import Tended

TEND_EVERY_S = 30.0
TEND_EVERY_WHEN_FULL_S = 5.0  # how long polls wait, at most, after room has come back


class Tending:
    """Starts one step of house-keeping at a time, on callbacks of the loop, until it is stopped.

    Args:
        step: starts a step.
        finished: takes its end; returns its report, ``None`` if there is to be no further one.
    """

    def __init__(
        self,
        step: Callable[[], asyncio.Future[Tended]],
        finished: Callable[[asyncio.Future[Tended]], Tended | None],
    ) -> None:
        self._step = step
        self._finished = finished
        self._running: asyncio.Future[Tended] | None = None
        self._next: asyncio.TimerHandle | None = None
        self._is_stopped = False

    def later(self, *, is_full: bool) -> None:
        """Let the next step be the one that is due, also if one was due at another time."""
        if self._is_stopped:
            return
        if self._next is not None:
            self._next.cancel()
        delay_s = TEND_EVERY_WHEN_FULL_S if is_full else TEND_EVERY_S
        self._next = asyncio.get_running_loop().call_later(delay_s, self.now)

    def now(self) -> None:
        """Start a step, unless one is running."""
        if self._is_stopped or self._running is not None:
            return
        if self._next is not None:
            self._next.cancel()
        self._running = self._step()
        self._running.add_done_callback(self._finish)

    def stop(self) -> None:
        """Start no further one."""
        self._is_stopped = True
        if self._next is not None:
            self._next.cancel()

    def _finish(self, finished: asyncio.Future[Tended]) -> None:
        self._running = None
        tended = self._finished(finished)
        if tended is None or self._is_stopped:
            return
        if tended.more:
            self.now()  # behind the commits that have been asked for meanwhile
        else:
            self.later(is_full=tended.standing.is_full)
