"""The dispatcher of one egress address, and one poll.

The dispatcher knows who is due and asks the budget; a granted poll is a short task: send, repeat
where that is right, and settle the outcome. So one place decides the order, and nothing a poll
does, fails at or hangs on delays another.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from poller.beat import Beat
from poller.budget import Grant, WeightBudget
from poller.clock import Clock
from poller.errors import (
    BadAnswer,
    ClockSkew,
    KeyExchanged,
    OutboxFailed,
    OutboxFull,
    PollError,
    RateLimited,
    Scope,
    StaleConnection,
)
from poller.exchange.client import Answer
from poller.metrics import Metrics
from poller.model import Account, Snapshot, State
from poller.outcomes import COMPLAIN_EVERY_S, Outcomes
from poller.schedule import Due
from poller.stretching import Stretching
from poller.timekeeping import TimeKeeper
from poller.tracing import PollTrace, Tracer
from poller.turning import Turning
from poller.under_way import UnderWay

logger = logging.getLogger(__name__)

WEIGHT = 5  # of one poll, whatever its outcome: the endpoint's own page
IN_FLIGHT_AT_MOST = 512  # sockets; at 40 polls a second reached only when answers take 12 s
CLOCK_PATIENCE_S = 120.0  # for the exchange's clock after a suspended machine, pauses aside
STALLED_S = 5.0  # woken this much too late, the machine slept or the loop hung

Observer = Callable[[Account, Snapshot | PollError, float], None]


class Exchange(Protocol):
    """What is needed of the exchange's client."""

    async def user_assets(self, account: Account) -> Answer:
        """Ask for an account's balances; never raises for a poll that failed."""
        ...


class Queue(Protocol):
    """What is needed of a schedule."""

    def next_s(self) -> float:
        """When somebody is or was next due; infinity if nobody waits."""
        ...

    def take(self, now_s: float) -> Due | None:
        """Who goes first among those due."""
        ...

    def done(self, name: str, now_s: float, *, not_before_s: float = 0.0) -> None:
        """A poll has ended."""
        ...

    def respread(self, now_s: float) -> int:
        """Move everybody overdue to their next place; how many that were."""
        ...


class Room(Protocol):
    """What is needed of the outbox before a poll is worth its weight."""

    @property
    def is_full(self) -> bool:
        """Whether nothing is accepted at the moment."""
        ...

    async def wait_for_room(self) -> None:
        """Return when records can be accepted."""
        ...


@dataclass(frozen=True, slots=True)
class DispatcherStatus:
    """One address's polls at a glance. ``states`` counts accounts by state."""

    egress: str
    accounts: int
    in_flight: int
    states: dict[State, int]


def _unconfirmed(answer: Answer | None) -> Answer | None:
    error = BadAnswer("empty, and not confirmed by a second poll", reason="unconfirmed_empty")
    return answer and replace(answer, outcome=error)


def _words(outcome: Snapshot | PollError) -> tuple[str, str]:
    """Name the outcome, and who has to wait for it."""
    return ("ok", "none") if isinstance(outcome, Snapshot) else (outcome.kind, outcome.scope)


class Dispatcher:
    """Polls the accounts of one egress address until told to stop.

    Args:
        egress: name of the address.
        schedule: who is due when.
        budget: the address's weight.
        exchange: where polls go.
        outcomes: what follows from them.
        room: polls wait while the outbox has none; ``None`` if nothing is accepted.
        timekeeper: measures the exchange's clock.
        stretching: fits the schedule's intervals to the budget; ``None`` if they need not fit.
        observer: called with every outcome and the poll's lateness in seconds.
        beat: touched each time the dispatcher turns, which it does every few seconds; ``None`` if nobody looks.
        tracer: told of every poll; ``None`` if nobody traces.
    """

    def __init__(
        self,
        egress: str,
        schedule: Queue,
        budget: WeightBudget,
        exchange: Exchange,
        outcomes: Outcomes,
        timekeeper: TimeKeeper,
        *,
        room: Room | None,
        clock: Clock,
        metrics: Metrics,
        stretching: Stretching | None = None,
        observer: Observer | None = None,
        beat: Beat | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.egress = egress
        self._schedule = schedule
        self._budget = budget
        self._exchange = exchange
        self._outcomes = outcomes
        self._timekeeper = timekeeper
        self._room = room
        self._clock = clock
        self._metrics = metrics
        self._stretching = stretching
        self._observer = observer
        self._turning = Turning(egress, beat, clock)
        self._tracer = tracer
        self._slots = asyncio.Semaphore(IN_FLIGHT_AT_MOST)
        self._under_way = UnderWay(clock)
        self._woken = asyncio.Event()
        self._stopped = False
        self._bug_told_s = -math.inf
        self._stop: Callable[[], object] = lambda: None

    async def run(self) -> None:
        """Poll until ``stop``, then finish what is under way.

        Raises:
            ExceptionGroup: of ``OutboxFailed``: nothing can be promised any more; the process must stop.
        """
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(self._outcomes.watch_staleness(), name=f"staleness on {self.egress}")]
            maintenance = self._outcomes.watch_maintenance()
            beside.append(tasks.create_task(maintenance, name=f"maintenance on {self.egress}"))
            if self._stretching is not None:
                stretching = self._stretching.run(self._stretched)
                beside.append(tasks.create_task(stretching, name=f"stretching on {self.egress}"))
            dispatching = tasks.create_task(self._dispatch(tasks), name=f"dispatch on {self.egress}")
            self._stop = dispatching.cancel
            if self._stopped:
                dispatching.cancel()
            await asyncio.wait([dispatching])
            self._turning.end()
            for task in beside:
                task.cancel()

    def stop(self) -> None:
        """Grant no further poll; ``run`` returns when those under way have ended."""
        self._stopped = True
        self._stop()
        self._under_way.hurry_all()

    def wake(self) -> None:
        """Look at the schedule again: somebody was added."""
        self._woken.set()

    def is_polling(self, name: str) -> bool:
        """Say whether a poll of an account is under way."""
        return name in self._under_way

    async def finished(self, name: str) -> None:
        """Wait until no poll of an account is under way; nothing is sent again for the one that is."""
        await self._under_way.finished(name)

    def status(self) -> DispatcherStatus:
        """Return the counts."""
        states = self._outcomes.states()
        return DispatcherStatus(self.egress, sum(states.values()), len(self._under_way), states)

    def _stretched(self, factors: Mapping[int, float]) -> None:
        """Take note that due times have moved."""
        self._outcomes.set_stretch(factors)
        self._woken.set()

    async def _dispatch(self, tasks: asyncio.TaskGroup) -> None:
        await self._turning.in_slices(self._timekeeper.ready, "waiting for the exchange's clock")
        while True:
            await self._somebody_is_due()
            with self._turning.waiting("waiting for a socket", self._sockets_left_s):
                await self._slots.acquire()
            grant = await self._grant()
            due = None if grant is None else self._schedule.take(self._clock.monotonic_s())
            if due is not None and due.account.name in self._under_way:
                # It was forbidden and allowed again under way: one poll of an account at a time.
                self._schedule.done(due.account.name, self._clock.monotonic_s())
                due = None
            if grant is not None and due is not None:
                self._under_way.begin(due.account.name)
                tasks.create_task(self._poll(due, grant), name=f"poll of {due.account.name}")
                continue
            self._slots.release()
            if grant is not None:  # the account was removed while we waited for its weight
                self._budget.answered(grant)

    async def _somebody_is_due(self) -> None:
        """Wait until a poll is due and nothing forbids it."""
        while True:
            if self._budget.pause_left_s() > 0:
                await self._turning.in_slices(self._budget.resumed, "waiting for the end of a pause")
                self._spread("pause")
            if self._room is not None and self._room.is_full:
                await self._turning.in_slices(self._room.wait_for_room, "waiting for room in the outbox")
            elif self._room is not None:
                await self._room.wait_for_room()  # at once, without a timer; or it says that it has failed
            wait_s = self._schedule.next_s() - self._clock.monotonic_s()
            if wait_s <= 0 and self._budget.pause_left_s() <= 0:
                return
            await self._sleep(max(0.0, wait_s))

    async def _grant(self) -> Grant | None:
        try:
            with self._turning.waiting("waiting for weight", lambda: self._budget.fits_in_s(WEIGHT)):
                return await self._budget.acquire(WEIGHT)
        except OutboxFull as error:
            self._outcomes.complain("outbox", "no weight can be reserved", error)
            await self._sleep(1.0)
            return None

    async def _poll(self, due: Due, grant: Grant) -> None:
        account = due.account
        hold_s = 0.0
        began_ns = self._clock.utc_ns()
        spent: list[int] = []  # the weight of each request
        lateness_s = self._clock.monotonic_s() - due.due_s
        self._metrics.lateness.labels(self.egress).observe(lateness_s)
        try:
            if (answer := await self._ask(account, grant, spent)) is not None:
                hold_s = await self._outcomes.settle(account, answer.outcome)
                if self._observer is not None:
                    self._observer(account, answer.outcome, lateness_s)
                self._trace(account, answer, lateness_s, sum(spent), began_ns)
        except OutboxFull as error:
            # The answer is dropped, not its change: the baseline still is what sinks were told.
            self._outcomes.complain("outbox", "answers cannot be accepted", error, account=account.name)
        except OutboxFailed:
            raise
        except Exception:
            # A bug in one poll is that poll's bug: the fleet goes on, and a minute of it is one line.
            if self._clock.monotonic_s() - self._bug_told_s >= COMPLAIN_EVERY_S:
                self._bug_told_s = self._clock.monotonic_s()
                logger.exception(
                    "a poll failed for a reason of our own",
                    extra={"egress": self.egress, "account": account.name},
                )
            self._metrics.polls.labels(self.egress, "bug", Scope.POLL).inc()
        finally:
            self._under_way.end(account.name)
            self._slots.release()
            now_s = self._clock.monotonic_s()
            self._schedule.done(account.name, now_s, not_before_s=now_s + hold_s if hold_s else 0.0)
            self._woken.set()

    def _trace(self, account: Account, answer: Answer, lateness_s: float, weight: int, began_ns: int) -> None:
        if self._tracer is None:
            return
        outcome, scope = _words(answer.outcome)
        latency_s = answer.answered_s - answer.sent_s
        ended_ns = self._clock.utc_ns()
        self._tracer.poll(
            PollTrace(
                account.name, self.egress, outcome, scope, lateness_s, latency_s, weight, began_ns, ended_ns
            )
        )

    async def _ask(self, account: Account, grant: Grant, spent: list[int]) -> Answer | None:
        """Send, and send again where that is right: every time with weight of its own.

        ``None`` if the address fell silent before the first request could leave.
        """
        answer = await self._send(account, grant, spent)
        outcome = answer and answer.outcome
        if isinstance(outcome, StaleConnection):
            answer = await self._again(account, "stale_connection", spent) or answer
        elif isinstance(outcome, KeyExchanged):
            answer = await self._again(account, "key_exchanged", spent) or answer
        elif isinstance(outcome, ClockSkew) and await self._timekeeper.refresh():
            answer = await self._again(account, "clock_skew", spent) or answer
        outcome = answer and answer.outcome
        if isinstance(outcome, Snapshot) and not outcome.balances and self._outcomes.held_something(account):
            # Nothing, from somebody who held something: true, or half an outage. Ask twice.
            answer = await self._again(account, "confirm_empty", spent) or _unconfirmed(answer)
        return answer

    async def _send(self, account: Account, grant: Grant, spent: list[int]) -> Answer | None:
        if self._budget.pause_left_s() > 0:  # it began after the grant; the weight stays spent
            self._budget.answered(grant)
            return None
        spent.append(grant.weight)
        answer: Answer | None = None
        try:
            answer = await self._exchange.user_assets(account)
        finally:
            self._budget.answered(
                grant,
                weight=WEIGHT,
                used_weight=answer.used_weight if answer is not None else None,
                good=answer is not None and isinstance(answer.outcome, Snapshot),
                limited=answer is not None and isinstance(answer.outcome, RateLimited),
            )
        self._metrics.polls.labels(self.egress, *_words(answer.outcome)).inc()
        self._metrics.latency.labels(self.egress).observe(answer.answered_s - answer.sent_s)
        return answer

    async def _again(self, account: Account, reason: str, spent: list[int]) -> Answer | None:
        """Send once more; ``None`` if the address fell silent meanwhile, or somebody waits for the end."""
        if self._stopped or self._under_way.is_leaving(account.name):
            return None
        try:
            # Others may leave us no weight for a long time: a reload must not wait for that.
            async with self._under_way.repeating(account.name):
                grant = await self._budget.acquire(WEIGHT)
        except TimeoutError:
            return None
        if grant is None:
            return None
        self._metrics.retries.labels(reason).inc()
        return await self._send(account, grant, spent)

    async def _sleep(self, seconds: float) -> None:
        """Wait for time to pass or for something to change; notice if the machine slept through it."""
        self._woken.clear()
        slept_before_s = self._clock.uptime_s() - self._clock.monotonic_s()
        planned_s = self._clock.monotonic_s() + seconds
        await self._turning.in_slices(self._woken.wait, "waiting for somebody to be due", until_s=planned_s)
        suspended_s = self._clock.uptime_s() - self._clock.monotonic_s() - slept_before_s
        if suspended_s > STALLED_S:
            self._spread("suspension")
            give_up_s = self._clock.monotonic_s() + CLOCK_PATIENCE_S
            with self._turning.waiting(
                "measuring the exchange's clock",
                lambda: max(self._budget.pause_left_s(), give_up_s - self._clock.monotonic_s()),
            ):
                await self._timekeeper.refresh()  # the loop's clock stood still, the exchange's did not
        elif self._clock.monotonic_s() - planned_s > STALLED_S:
            self._spread("stall")

    def _sockets_left_s(self) -> float:
        # Every poll ends by itself, sooner or later; while all are under way there is nothing but to wait.
        return math.inf if len(self._under_way) >= IN_FLIGHT_AT_MOST else 0.0

    def _spread(self, cause: str) -> None:
        moved = self._schedule.respread(self._clock.monotonic_s())
        if moved:
            logger.info(
                "overdue polls are spread anew", extra={"egress": self.egress, "cause": cause, "polls": moved}
            )
