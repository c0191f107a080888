"""The composition root: builds everything from the configuration, starts and stops it in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from poller.acceptance import Acceptance
from poller.budget import BudgetStatus, WeightBudget, WeightWindow
from poller.clock import NS_PER_S, Clock, SystemClock
from poller.config import Config, Secrets
from poller.delivery import Delivery, DeliveryStatus
from poller.errors import OutboxFailed, PollError
from poller.exchange.client import ExchangeClient
from poller.exchange.server_time import ServerTime
from poller.exchange.transport import AiohttpTransport
from poller.metrics import Metrics
from poller.model import Account, Snapshot
from poller.outbox import Outbox, OutboxStats
from poller.outcomes import Outcomes
from poller.polling import WEIGHT, Dispatcher, DispatcherStatus, Observer, Queue
from poller.schedule import Schedule, Sweep
from poller.stretching import Stretching
from poller.timekeeping import TimeKeeper

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AppStatus:
    """The whole daemon at a glance."""

    dispatchers: Sequence[DispatcherStatus]
    budgets: Sequence[BudgetStatus]
    deliveries: Sequence[DeliveryStatus]
    outbox: OutboxStats
    clock_offset_s: float


@dataclass(slots=True)
class _Address:
    """What there is once per egress address."""

    budget: WeightBudget
    outcomes: Outcomes
    dispatcher: Dispatcher


@dataclass(slots=True)
class _Parts:
    """What was built, while it is open."""

    outbox: Outbox
    server_time: ServerTime
    timekeeper: TimeKeeper
    addresses: dict[str, _Address]
    deliveries: list[Delivery]


class _Round:
    """Collects one outcome per account, and knows when all are there."""

    def __init__(self, accounts: Iterable[str]) -> None:
        self.outcomes: dict[str, Snapshot | PollError | None] = dict.fromkeys(accounts)
        self.finished = asyncio.Event()
        self._missing = set(self.outcomes)

    def note(self, account: Account, outcome: Snapshot | PollError) -> None:
        self.outcomes[account.name] = outcome
        self._missing.discard(account.name)
        if not self._missing:
            self.finished.set()


class App:
    """One daemon: the fleet of a configuration, its outbox and its sinks.

    Args:
        config: what to run.
        secrets: its keys, read.
        observer: called with every poll's outcome, for those who watch.
    """

    def __init__(
        self,
        config: Config,
        secrets: Secrets,
        *,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._config = config
        self._secrets = secrets
        self._clock = clock or SystemClock()
        self.metrics = metrics or Metrics()
        self._observer = observer
        self._parts: _Parts | None = None
        self.started = asyncio.Event()

    async def run(self, stop: asyncio.Event, *, hurry: asyncio.Event | None = None) -> None:
        """Poll and deliver until ``stop`` is set; then end the polls, drain the sinks, and return.

        What is not drained within the configured limit, or when ``hurry`` is set, stays in the outbox and
        is delivered after the next start.

        Raises:
            OutboxLocked: another daemon owns the outbox.
            OutboxError: the outbox cannot be used, or failed: nothing can be promised any more.
        """
        hurry = hurry or asyncio.Event()
        async with self._open(sweep=False, observer=self._observer) as parts:
            self._parts = parts
            try:
                await self._run(parts, stop, hurry)
            except* OutboxFailed as failed:
                raise _first(failed) from None
            finally:
                self._parts = None

    async def sweep(self, *, timeout_s: float) -> dict[str, Snapshot | PollError | None]:
        """Poll every account once; return each one's outcome, ``None`` if there was no time for it.

        Nothing is accepted or delivered. The weight and the pauses in the outbox hold all the same: a
        round cannot overspend what a daemon spent a moment ago, and does not start beside a running one.

        Raises:
            OutboxLocked: a daemon is running on this outbox.
            OutboxError: the outbox cannot be used.
        """
        found = _Round(self._config.accounts)

        def note(account: Account, outcome: Snapshot | PollError, lateness_s: float) -> None:
            found.note(account, outcome)
            if self._observer is not None:
                self._observer(account, outcome, lateness_s)

        async with self._open(sweep=True, observer=note) as parts, asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(parts.timekeeper.run(), name="clock")]
            background += [
                tasks.create_task(address.dispatcher.run(), name=f"polls from {name}")
                for name, address in parts.addresses.items()
            ]
            try:
                async with asyncio.timeout(timeout_s):
                    await found.finished.wait()
            except TimeoutError:
                pass
            for task in background:
                task.cancel()
        return found.outcomes

    def status(self) -> AppStatus | None:
        """Return how everything stands; ``None`` while nothing is open."""
        if self._parts is None:
            return None
        return AppStatus(
            dispatchers=[address.dispatcher.status() for address in self._parts.addresses.values()],
            budgets=[address.budget.status() for address in self._parts.addresses.values()],
            deliveries=[delivery.status() for delivery in self._parts.deliveries],
            outbox=self._parts.outbox.stats(),
            clock_offset_s=self._parts.server_time.now_ns() / 1e9 - self._clock.utc_ns() / 1e9,
        )

    async def _run(self, parts: _Parts, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            delivering = [
                tasks.create_task(delivery.run(), name=f"delivery to {delivery.name}")
                for delivery in parts.deliveries
            ]
            keeping = tasks.create_task(parts.timekeeper.run(), name="clock")
            polling = [
                tasks.create_task(address.dispatcher.run(), name=f"polls from {name}")
                for name, address in parts.addresses.items()
            ]
            self.started.set()
            await stop.wait()
            logger.info("stopping: polls end, sinks drain", extra={"drain_s": self._config.shutdown.drain_s})
            for address in parts.addresses.values():
                address.dispatcher.stop()
            await _unless(hurry, asyncio.wait(polling))
            keeping.cancel()
            await _unless(hurry, self._drain(parts))
            for task in (*polling, *delivering):
                task.cancel()

    async def _drain(self, parts: _Parts) -> None:
        last = parts.outbox.last_position
        try:
            async with asyncio.timeout(self._config.shutdown.drain_s):
                await asyncio.gather(*(delivery.drained(last) for delivery in parts.deliveries))
        except TimeoutError:
            left = {delivery.name: parts.outbox.backlog(delivery.name) for delivery in parts.deliveries}
            logger.warning(
                "not everything was drained; it is delivered after the next start", extra={"left": left}
            )

    @asynccontextmanager
    async def _open(self, *, sweep: bool, observer: Observer | None) -> AsyncIterator[_Parts]:
        """Build everything and take up where the last process ended; the outbox is opened first and closed last."""
        async with AsyncExitStack() as stack:
            outbox = await self._open_outbox()
            stack.push_async_callback(outbox.close)
            server_time = ServerTime(self._clock)
            client = self._client(server_time)
            stack.push_async_callback(client.close)
            acceptance = None if sweep else await self._acceptance(outbox)
            addresses: dict[str, _Address] = {}
            timekeeper = self._timekeeper(client, addresses)
            states = await outbox.egress()
            for name in self._config.egress:
                budget = self._budget(name, outbox)
                budget.restore(states.get(name), lost=outbox.set_aside is not None)
                addresses[name] = self._address(
                    name,
                    budget,
                    client,
                    timekeeper,
                    server_time,
                    acceptance,
                    None if sweep else outbox,
                    observer,
                )
            deliveries = [] if sweep else await self._deliveries(outbox)
            yield _Parts(outbox, server_time, timekeeper, addresses, deliveries)

    async def _open_outbox(self) -> Outbox:
        settings = self._config.outbox
        return await Outbox.open(
            settings.path,
            self._clock,
            metrics=self.metrics,
            retain_s=settings.retain_s,
            max_size_bytes=settings.max_size_bytes,
        )

    def _client(self, server_time: ServerTime) -> ExchangeClient:
        exchange = self._config.exchange
        transports = {
            name: AiohttpTransport(
                exchange.base_url,
                clock=self._clock,
                local_address=egress.local_address,
                proxy=self._secrets.proxies.get(name),
                connect_timeout_s=exchange.connect_timeout_s,
                total_timeout_s=exchange.timeout_s,
            )
            for name, egress in self._config.egress.items()
        }
        return ExchangeClient(
            transports,
            self._secrets.credentials,
            server_time,
            self._clock,
            recv_window_ms=exchange.recv_window_ms,
            metrics=self.metrics,
        )

    async def _acceptance(self, outbox: Outbox) -> Acceptance:
        deliveries = [sink.delivery for sink in self._config.sinks.values()]
        acceptance = Acceptance(
            outbox,
            self._clock,
            metrics=self.metrics,
            every=any(delivery.emit == "every" for delivery in deliveries),
            heartbeat_s=min((delivery.heartbeat_s for delivery in deliveries), default=900.0),
        )
        acceptance.restore(await outbox.baselines())
        return acceptance

    def _timekeeper(self, client: ExchangeClient, addresses: Mapping[str, _Address]) -> TimeKeeper:
        """One clock for all addresses, measured through the first that may speak."""
        asked: list[_Address] = []  # the last one, for it is the one to blame

        async def measure() -> None:
            asked[:] = [min(addresses.values(), key=lambda address: address.budget.pause_left_s())]
            budget = asked[0].budget
            await client.synchronise(budget.egress, permit=budget.resumed)

        async def blame(error: PollError) -> None:
            await asked[0].outcomes.blame(error)

        return TimeKeeper(measure, blame, self._clock, interval_s=self._config.exchange.time_sync_s)

    def _budget(self, egress: str, outbox: Outbox) -> WeightBudget:
        settings = self._config.budget
        window = WeightWindow(limit=settings.weight_limit, share=settings.share, window_s=settings.window_s)
        return WeightBudget(
            egress,
            window,
            self._clock,
            partial(outbox.put_egress, egress),
            metrics=self.metrics,
            in_flight_s=self._config.exchange.timeout_s,
        )

    def _address(
        self,
        egress: str,
        budget: WeightBudget,
        client: ExchangeClient,
        timekeeper: TimeKeeper,
        server_time: ServerTime,
        acceptance: Acceptance | None,
        room: Outbox | None,
        observer: Observer | None,
    ) -> _Address:
        accounts = [account for account in self._config.accounts.values() if account.egress == egress]
        outcomes = Outcomes(
            egress,
            accounts,
            budget,
            acceptance,
            exchange_ns=server_time.now_ns,
            clock=self._clock,
            metrics=self.metrics,
        )
        queue = self._queue(accounts, once=acceptance is None)
        dispatcher = Dispatcher(
            egress,
            queue,
            budget,
            client,
            outcomes,
            timekeeper,
            room=room,
            clock=self._clock,
            metrics=self.metrics,
            stretching=self._stretching(queue, budget) if isinstance(queue, Schedule) else None,
            observer=observer,
        )
        return _Address(budget, outcomes, dispatcher)

    def _stretching(self, schedule: Schedule, budget: WeightBudget) -> Stretching:
        return Stretching(
            budget.egress,
            schedule,
            budget,
            window_s=self._config.budget.window_s,
            weight=WEIGHT,
            clock=self._clock,
            metrics=self.metrics,
        )

    def _queue(self, accounts: Sequence[Account], *, once: bool) -> Queue:
        now_s = self._clock.monotonic_s()
        if once:
            return Sweep(accounts, now_s=now_s)
        schedule = Schedule(now_s=now_s, utc_s=self._clock.utc_ns() / NS_PER_S)
        for account in accounts:
            schedule.add(account, now_s)
        return schedule

    async def _deliveries(self, outbox: Outbox) -> list[Delivery]:
        await outbox.register(dict.fromkeys(self._config.sinks, "oldest"))
        return [
            Delivery(
                name,
                settings.sink(self._secrets.sink_options[name]),
                outbox,
                self._clock,
                settings.delivery,
                metrics=self.metrics,
            )
            for name, settings in self._config.sinks.items()
        ]


async def _unless(hurry: asyncio.Event, waiting: Coroutine[Any, Any, object]) -> None:
    """Wait for something, but no longer than until somebody is in a hurry."""
    jobs = [asyncio.create_task(waiting), asyncio.create_task(hurry.wait())]
    try:
        await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


def _first(group: BaseExceptionGroup[OutboxFailed]) -> OutboxFailed:
    """Several tasks may meet the same failure; one is enough to say."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OutboxFailed)  # noqa: S101  # what except* let through
    return error
