"""The weight budget that all accounts behind one egress address share: the turn, the pause, the ledger.

``window`` says what fits, ``pause`` how long silence lasts; here is only who waits for them, and
what must be on disk before anybody is told.

What a restart must know is written ahead: before weight is granted, a block of it is reserved in
the ledger, good for a short while. After a crash every block that may still count is taken as
spent. So a hundred restarts in a row cannot spend more than one window's weight, at the cost of
one small commit a second.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from poller.budget.pause import Pause, pause_s
from poller.budget.state import State
from poller.budget.telling import ForeignTeller
from poller.budget.window import Grant, WeightWindow
from poller.clock import NS_PER_S, Clock
from poller.errors import PollError
from poller.metrics import Metrics

__all__ = ["BudgetStatus", "Grant", "WeightBudget", "WeightWindow"]

logger = logging.getLogger(__name__)

BLOCKS_PER_WINDOW = 60  # one reservation a second at Binance's window
LIMIT_KEPT_S = 86_400.0  # a lower limit that was learned is tried again after a day


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """One address at a glance.

    Attributes:
        allowed: our share of the limit, weight per window.
        capacity: what others leave us of it now.
        own: own weight that may be in the exchange's window.
        foreign: weight others used in the last window, at least.
        reported: the exchange's own last figure; ``None`` before the first.
        in_flight: requests without an answer yet.
        granted: weight granted since the start.
        pause_s: seconds of silence left; 0.0 if there is no pause.
        pause_cause: kind of error that began the pause; empty if there is none.
    """

    egress: str
    limit: int
    allowed: int
    capacity: int
    own: int
    foreign: int
    reported: int | None
    in_flight: int
    granted: int
    pause_s: float
    pause_cause: str


class WeightBudget:
    """First come, first served permission to send requests from one address.

    Args:
        egress: name of the address.
        window: what fits.
        clock: time.
        save: makes the given state durable; to return is to promise that it is.
        in_flight_s: the longest a request may be under way.
    """

    def __init__(
        self,
        egress: str,
        window: WeightWindow,
        clock: Clock,
        save: Callable[[bytes], Awaitable[None]],
        *,
        metrics: Metrics,
        in_flight_s: float = 15.0,
    ) -> None:
        self.egress = egress
        self._window = window
        self._clock = clock
        self._save = save
        self._metrics = metrics
        self._in_flight_s = in_flight_s
        self._turn = asyncio.Lock()  # its waiters are served in order, and leave no trace if cancelled
        self._changed = asyncio.Event()
        self._pause: Pause | None = None
        self._strikes = 0
        self._granted = 0
        self._limit_learned_ns: int | None = None
        self._foreign = ForeignTeller(egress, window)
        self._elsewhere_s = -math.inf  # since when requests leave from this address
        self._unknown = False  # nobody knows yet what was spent in the minute before the start
        # Reservations that may still count: (wall ns, uptime s, weight), and what is left of the newest.
        self._blocks: list[tuple[int, float, int]] = []
        self._block_left = 0
        self._block_until_s = -math.inf
        self._granted_metric = metrics.weight_granted.labels(egress)

    def reconfigure(self, *, limit: int, share: float, in_flight_s: float) -> None:
        """Allow another share of another limit, and requests to be under way for longer, from now on."""
        self._in_flight_s = in_flight_s
        if limit != self._window.terms.configured:
            self._limit_learned_ns = None
        self._window.reconfigure(limit=limit, share=share)
        self._changed.set()

    def leave_elsewhere(self) -> None:
        """Note that requests leave from another address now: nobody knows yet what was spent from it."""
        self._unknown = True
        self._elsewhere_s = self._clock.monotonic_s()
        self._window.start_carefully()
        self._changed.set()

    def restore(self, state: bytes | None, *, lost: bool = False) -> None:
        """Take up where the last process on this address ended. Call before the first ``acquire``.

        Args:
            state: what ``save`` was last given; ``None`` if there is none.
            lost: there was a state, and it cannot be read any more: the window is taken as full.
        """
        now_s = self._clock.monotonic_s()
        try:
            kept = None if state is None else State.decode(state)
        except ValueError:
            logger.exception(
                "the budget's state is unreadable; the window is taken as used up",
                extra={"egress": self.egress},
            )
            kept, lost = None, True
        if kept is None:
            # Whatever was spent from this address in the last minute, the first answer tells.
            self._unknown = True
            self._window.start_carefully()
            if lost:
                self._window.hold(self._window.limit, now_s + self._window.window_s + self._in_flight_s)
            return
        self._strikes = kept.strikes
        if kept.limit is not None and self._clock.utc_ns() - kept.limit[1] < LIMIT_KEPT_S * NS_PER_S:
            self._window.terms.restore(kept.limit[0])
            self._limit_learned_ns = kept.limit[1]
        for utc_ns, uptime_s, weight in kept.blocks:
            age_s = self._age_s(utc_ns, uptime_s, kept.boot_id)
            left_s = self._counts_for_s() - age_s
            if left_s > 0:
                self._window.hold(weight, now_s + left_s)
                # Kept under this boot's clocks, so that the next restart finds it as well.
                self._blocks.append(
                    (self._clock.utc_ns() - round(age_s * NS_PER_S), self._clock.uptime_s() - age_s, weight)
                )
        if kept.pause is not None:
            self._take_over(kept.pause)

    def _take_over(self, pause: Pause) -> None:
        """Keep a pause from before the restart, by this boot's clocks: those cannot be stepped any more."""
        left_s = pause.remaining_s(
            utc_ns=self._clock.utc_ns(), uptime_s=self._clock.uptime_s(), boot_id=self._clock.boot_id()
        )
        self._window.resume(self._clock.monotonic_s())
        if left_s > 0:
            self._pause = self._pause_of(pause.cause, left_s)
            logger.warning(
                "a pause from before the restart is still in force",
                extra={"egress": self.egress, "cause": pause.cause, "pause_s": round(left_s, 1)},
            )

    def _pause_of(self, cause: str, length_s: float) -> Pause:
        """Return a pause that begins now."""
        return Pause(
            cause=cause,
            length_s=length_s,
            until_ns=self._clock.utc_ns() + round(length_s * NS_PER_S),
            until_uptime_s=self._clock.uptime_s() + length_s,
            boot_id=self._clock.boot_id(),
        )

    def pause_left_s(self) -> float:
        """Return seconds until requests may leave again; 0.0 if they may now."""
        if self._pause is None:
            return 0.0
        left_s = self._pause.remaining_s(
            utc_ns=self._clock.utc_ns(), uptime_s=self._clock.uptime_s(), boot_id=self._clock.boot_id()
        )
        if left_s <= 0:
            self._end_pause()
        return left_s

    def fits_in_s(self, asked: int) -> float:
        """Return seconds until so much weight fits, pauses aside; infinity if only an answer can tell."""
        return self._window.wait_s(self._window.terms.charged(asked), self._clock.monotonic_s())

    async def resumed(self) -> None:
        """Wait until no pause is in force."""
        while (left_s := self.pause_left_s()) > 0:
            # In slices: while a machine is suspended the loop's clock stands still, the pause does not.
            await self._wait(min(left_s, 60.0))

    async def acquire(self, asked: int, *, reported: bool = True) -> Grant | None:
        """Wait for the turn and for room, and spend the weight.

        Returns ``None``, with nothing spent, if a pause is in force or begins meanwhile: whoever asked
        should think again instead of waiting out a ban.

        Args:
            asked: the documented weight of the request; more is spent if the exchange was seen to charge more.
            reported: its weight is in the figure that polls' answers carry; false for other endpoints.

        Raises:
            ValueError: the weight is above our share and could never fit.
            OutboxError: the reservation could not be made durable; nothing was spent.
        """
        async with self._turn:
            while self.pause_left_s() <= 0:
                weight = self._window.terms.charged(asked)
                if weight > self._window.allowed:
                    raise ValueError(f"weight {weight} can never fit a share of {self._window.allowed}")
                now_s = self._clock.monotonic_s()
                if (wait_s := self._window.wait_s(weight, now_s)) > 0:
                    await self._wait(wait_s)
                elif weight > self._block_left or self._clock.uptime_s() >= self._block_until_s:
                    await self._reserve(weight)
                else:
                    return self._spend(weight, now_s, reported=reported)
        return None

    def answered(
        self,
        grant: Grant,
        *,
        weight: int | None = None,
        used_weight: int | None = None,
        good: bool = False,
        limited: bool = False,
    ) -> None:
        """Note that a granted request ended, however it did.

        Args:
            grant: what it was granted.
            weight: what was asked for it, if the exchange's count is of the same endpoint.
            used_weight: the exchange's own count, if its answer had one.
            good: the exchange answered what was asked for.
            limited: it was a 429.
        """
        now_s = self._clock.monotonic_s()
        if grant.granted_s <= self._elsewhere_s:  # it tells of the address from before
            used_weight, good = None, False
        if weight is not None:
            self._learn(grant, weight, used_weight, now_s, limited=limited)
        self._window.answered(grant, now_s, used_weight)
        if limited:
            self._window.overran(now_s)
        self._foreign.look(now_s)
        if good:
            self._strikes = 0
            if self._unknown and used_weight is None:
                # The answer that was to tell does not say: what cannot be known is assumed spent.
                self._window.hold(self._window.limit, now_s + self._window.window_s)
        if good or used_weight is not None:
            self._unknown = False
            self._window.went_well()
        self._changed.set()

    def _learn(
        self, grant: Grant, weight: int, used_weight: int | None, now_s: float, *, limited: bool
    ) -> None:
        terms = self._window.terms
        if used_weight is not None:
            heavier = terms.answered(
                weight,
                used_weight,
                number=grant.number,
                granted_s=grant.granted_s,
                now_s=now_s,
                alone=self._window.in_flight == 1,
            )
            if heavier is not None:
                logger.error(
                    "the exchange charges another weight than is documented; it is counted from now on",
                    extra={"egress": self.egress, "documented": weight, "charged": heavier},
                )
        if limited and (lower := terms.limited(used_weight, grant.weight)) is not None:
            self._limit_learned_ns = self._clock.utc_ns()
            logger.error(
                "the exchange allows less than is configured; correct budget.weight_limit",
                extra={"egress": self.egress, "configured": terms.configured, "learned": lower},
            )

    async def pause(self, error: PollError, *, exchange_ms: float) -> None:
        """Silence this address for as long as the error demands; durable when this returns.

        No grant is given from the first moment on. A pause that ends later than the one in force
        replaces it; an earlier end changes nothing.

        Raises:
            OutboxError: it is in force, but would not survive a restart.
        """
        left_s = self.pause_left_s()
        begins = left_s <= 0  # answers that were under way when a pause began are not new offences
        length_s = pause_s(
            error,
            strikes=self._strikes if begins else self._strikes - 1,
            window_s=self._window.window_s,
            exchange_ms=exchange_ms,
        )
        if length_s <= left_s:
            return
        if begins:
            self._strikes += 1
            self._metrics.pauses.labels(self.egress, error.kind).inc()
        cause_before = self._pause.cause if self._pause else ""
        self._pause = self._pause_of(error.kind, length_s)
        self._changed.set()
        # A pause that is only prolonged for the cause that is known is no news.
        logger.log(
            logging.ERROR if begins or cause_before != error.kind else logging.DEBUG,
            "every request from this address pauses",
            extra={
                "egress": self.egress,
                "cause": error.kind,
                "pause_s": round(length_s, 1),
                "error": str(error),
            },
        )
        await self._save(self._state())

    def status(self) -> BudgetStatus:
        """Return what an operator looks at when polls are late."""
        now_s = self._clock.monotonic_s()
        window = self._window
        return BudgetStatus(
            egress=self.egress,
            limit=window.limit,
            allowed=window.allowed,
            capacity=window.capacity(now_s),
            own=window.own(now_s),
            foreign=window.foreign(now_s),
            reported=window.reported,
            in_flight=window.in_flight,
            granted=self._granted,
            pause_s=self.pause_left_s(),
            pause_cause=self._pause.cause if self._pause else "",
        )

    def _spend(self, weight: int, now_s: float, *, reported: bool) -> Grant:
        self._block_left -= weight
        self._granted += weight
        self._granted_metric.inc(weight)
        return self._window.grant(weight, now_s, reported=reported)

    async def _reserve(self, weight: int) -> None:
        window = self._window
        block = max(weight, window.allowed // BLOCKS_PER_WINDOW)
        utc_ns, uptime_s = self._clock.utc_ns(), self._clock.uptime_s()
        self._blocks = [kept for kept in self._blocks if uptime_s - kept[1] < self._counts_for_s()]
        self._blocks.append((utc_ns, uptime_s, block))
        await self._save(self._state())
        self._block_left = block
        # In uptime, as its age will be after a restart: a machine may sleep on it.
        self._block_until_s = uptime_s + window.window_s / BLOCKS_PER_WINDOW

    def _counts_for_s(self) -> float:
        # A block may be spent until it is stale, be under way after that, and then counts a window.
        window_s = self._window.window_s
        return window_s / BLOCKS_PER_WINDOW + self._in_flight_s + window_s

    def _age_s(self, utc_ns: int, uptime_s: float, boot_id: str) -> float:
        """Age of a reservation; never more than can be proven, so that it counts rather too long."""
        if boot_id and boot_id == self._clock.boot_id():
            return max(0.0, self._clock.uptime_s() - uptime_s)
        return max(0.0, (self._clock.utc_ns() - utc_ns) / NS_PER_S)

    def _end_pause(self) -> None:
        assert self._pause is not None  # noqa: S101  # only called while there is one
        logger.warning("the pause is over", extra={"egress": self.egress, "cause": self._pause.cause})
        self._pause = None
        self._window.resume(self._clock.monotonic_s())
        self._changed.set()

    def _state(self) -> bytes:
        learned_ns = self._limit_learned_ns
        limit = None if learned_ns is None else (self._window.limit, learned_ns)
        return State(self._pause, self._strikes, self._blocks, self._clock.boot_id(), limit).encode()

    async def _wait(self, seconds: float) -> None:
        """Wait for time to pass or for something to change, whichever comes first."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await self._changed.wait()
