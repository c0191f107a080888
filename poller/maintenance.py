"""Planned outages of the exchange: recognised before an account is blamed, and waited out.

A planned outage looks like mass failure. So whoever sees something that could be one asks here, and
the exchange is asked, without a key. While it says maintenance, its address is silent but for that
question, once a minute.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from poller.budget import WeightBudget
from poller.clock import NS_PER_MS, Clock
from poller.errors import Maintenance, OutboxFull, PollError, Scope
from poller.exchange.client import SystemStatus

logger = logging.getLogger(__name__)

ASK_EVERY_S = 60.0
# A pause outlasts the next question and its answer, so that it never ends in between. After the end
# of the maintenance what is left of it runs out: half a minute, and the fleet comes back as after any.
PAUSE_S = 90.0


class MaintenanceWatch:
    """Knows whether the exchange is under maintenance, as far as one egress address can tell.

    Args:
        egress: name of the address.
        budget: silenced as long as it is.
        ask: asks for the system's status; raises ``PollError`` if that is not said.
        exchange_ns: the exchange's clock, nanoseconds since the epoch.
    """

    def __init__(
        self,
        egress: str,
        budget: WeightBudget,
        ask: Callable[[], Awaitable[SystemStatus]],
        *,
        exchange_ns: Callable[[], int],
        clock: Clock,
    ) -> None:
        self._egress = egress
        self._budget = budget
        self._ask = ask
        self._exchange_ns = exchange_ns
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_s = -math.inf
        self._begun = asyncio.Event()

    @property
    def is_on(self) -> bool:
        """The exchange has said so, and has not taken it back."""
        return self._begun.is_set()

    async def explains_it(self) -> bool:
        """Say whether maintenance is why polls fail; if it is, the address is silent when this returns.

        Asks at most once a minute and not during a pause; between two questions the last answer holds.

        Raises:
            OutboxFailed: the process must stop.
        """
        async with self._asking:
            if not self.is_on:
                now_s = self._clock.monotonic_s()
                if now_s - self._asked_s < ASK_EVERY_S or self._budget.pause_left_s() > 0:
                    return False
                self._asked_s = now_s
                status = await self._status()
                if status is None or status.normal:
                    return False
                self._begun.set()
                logger.warning(
                    "the exchange is under maintenance: nothing but its status is asked",
                    extra={"egress": self._egress, "says": status.message},
                )
            if self._budget.pause_left_s() <= 0:
                await self._be_silent()
            return True

    async def watch(self) -> None:
        """Ask again once a minute for as long as the maintenance lasts, until cancelled.

        Raises:
            OutboxFailed: the process must stop.
        """
        while True:
            await self._begun.wait()
            begun_s = self._clock.monotonic_s()
            while not await self._is_over():
                pass
            self._begun.clear()
            logger.warning(
                "the maintenance is over: polls resume",
                extra={"egress": self._egress, "lasted_s": round(self._clock.monotonic_s() - begun_s, 1)},
            )

    async def _is_over(self) -> bool:
        """Wait a minute, then ask; whoever does not answer is taken to be down still."""
        await asyncio.sleep(ASK_EVERY_S)
        if self._budget.status().pause_cause not in {"", Maintenance.kind}:
            await self._budget.resumed()  # a ban or the like came on top: that forbids the question, too
        async with self._asking:
            self._asked_s = self._clock.monotonic_s()
            status = await self._status()
            if status is not None and status.normal:
                return True
            await self._be_silent()
            return False

    async def _status(self) -> SystemStatus | None:
        try:
            return await self._ask()
        except PollError as error:
            if error.scope is Scope.EGRESS:
                await self._pause(error)
            return None

    async def _be_silent(self) -> None:
        await self._pause(Maintenance("the exchange says it is under maintenance", retry_after_s=PAUSE_S))

    async def _pause(self, error: PollError) -> None:
        try:
            await self._budget.pause(error, exchange_ms=self._exchange_ns() / NS_PER_MS)
        except OutboxFull as full:
            logger.warning(
                "a pause is in force but not on disk", extra={"egress": self._egress, "error": str(full)}
            )
