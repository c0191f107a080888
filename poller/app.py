"""The composition root: builds everything from the configuration, starts and stops it in order."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poller import __version__
from poller.assembly import Assembly
from poller.budget import BudgetStatus
from poller.checking import Checkup, ClockReading, Finding
from poller.clock import NS_PER_S, Clock, SystemClock
from poller.config import Config, Secrets
from poller.control import Serving, balances_verbs, outbox_verbs, socket_path
from poller.delivery import Delivery, DeliveryStatus
from poller.delivery.calls import text
from poller.discovery import DiscoveryWatch
from poller.errors import ConfigError, OutboxFailed, OutboxFull, PollError, SinkNotOpened
from poller.following import Following
from poller.metrics import Metrics
from poller.model import Account, Snapshot, State
from poller.outbox import OutboxStats
from poller.overview import Overview
from poller.parts import Parts, RoundEgress, RoundParts
from poller.polling import DispatcherStatus, Observer
from poller.reloading import InForce, Reloading, keyless
from poller.report import Report
from poller.running import Running
from poller.sampling import Sampling

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AppStatus:
    """The whole daemon at a glance."""

    dispatchers: Sequence[DispatcherStatus]
    budgets: Sequence[BudgetStatus]
    deliveries: Sequence[DeliveryStatus]
    outbox: OutboxStats
    clock_offset_s: float


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
        self._clock = clock or SystemClock()
        self.metrics = metrics or Metrics()
        self._secrets = secrets
        self._assembly = Assembly(config, secrets, self._clock, self.metrics)
        self._observer = observer
        self._parts: Parts | None = None
        self._report: Report | None = None
        self._reloading: Reloading | None = None
        self._following: Following | None = None
        self.started = asyncio.Event()

    @property
    def overview(self) -> Overview | None:
        """What there is to see of the daemon; ``None`` while nothing runs."""
        return self._report

    def reload_soon(self) -> None:
        """Have the configuration read anew; for signals. Nothing happens while nothing runs."""
        if self._following is not None:
            self._following.ask()

    async def reload(self) -> tuple[str, ...]:
        """Read the configuration anew and put it into force; return what is different, a line each.

        Raises:
            ConfigError: it has problems, or nothing runs yet; what was in force still is.
        """
        if self._reloading is None:
            raise ConfigError("the daemon is only just starting; ask again")
        return await self._reloading.reload()

    async def run(self, stop: asyncio.Event, *, hurry: asyncio.Event | None = None) -> None:
        """Poll and deliver until ``stop`` is set; then end the polls, drain the sinks, and return.

        What is not drained within the configured limit, or when ``hurry`` is set, stays in the outbox and
        is delivered after the next start.

        Raises:
            OutboxLocked: another daemon owns the outbox.
            OutboxError: the outbox cannot be used, or failed: nothing can be promised any more.
            SinkNotOpened: a sink with ``on_start: fail`` could not be opened.
        """
        hurry = hurry or asyncio.Event()
        async with (
            self._assembly.open(self._observer) as parts,
            Serving(
                socket_path(self._config.outbox.path),
                {
                    **outbox_verbs(parts.outbox, self._clock),
                    **balances_verbs(parts.outbox),
                    "reload": self._reload_verb,
                },
            ),
        ):
            self._parts = parts
            try:
                await self._run(parts, stop, hurry)
            except* OutboxFailed as failed:
                raise _first(failed) from None
            finally:
                self._parts = self._report = self._reloading = self._following = None

    async def _reload_verb(self, _: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {"changed": list(await self.reload())}
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def _adopt(self, now: InForce) -> None:
        self._config, self._secrets, self._assembly = now.config, now.secrets, now.assembly

    async def check(self, *, timeout_s: float, checked: Callable[[], object]) -> Checkup:
        """Ask the exchange for its time, its status, what every key may do and which sub-accounts exist.

        All within the budget. Nothing is polled. During a pause nothing is asked; what is not answered in
        time stays unknown.

        Args:
            timeout_s: for everything together.
            checked: called after each key.

        Raises:
            OutboxLocked, EgressLocked: a daemon is running on this outbox, or from one of the addresses.
            OutboxError: the outbox cannot be used.
        """
        checkup = Checkup(
            dict.fromkeys(self._config.accounts),
            dict.fromkeys(self._config.egress),
            dict.fromkeys(self._config.discover),
        )

        async def found(account: Account, finding: Finding) -> None:
            checkup.keys[account.name] = finding
            checked()

        async def ask(parts: RoundParts, name: str, address: RoundEgress) -> None:
            checkup.systems[name] = await address.checker.system(parts.client.system_status)
            await address.checker.check(address.accounts, found)

        async def discover(watch: DiscoveryWatch) -> None:
            checkup.discoveries[watch.name] = await watch.ask()

        async with self._assembly.open_round(None) as parts:
            try:
                async with asyncio.timeout(timeout_s):
                    if await parts.timekeeper.refresh():
                        checkup.clock = ClockReading(
                            _offset_s(parts, self._clock), parts.server_time.uncertainty_ms
                        )
                    async with asyncio.TaskGroup() as tasks:
                        for name, address in parts.egress.items():
                            tasks.create_task(ask(parts, name, address), name=f"checks from {name}")
                        for name, watch in parts.discoveries.items():
                            tasks.create_task(discover(watch), name=f"sub-accounts of {name}")
            except* TimeoutError:
                pass
            except* OutboxFailed as failed:
                raise _first(failed) from None
        return checkup

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

        async with self._assembly.open_round(note) as parts:
            try:
                await self._sweep(parts, found.finished, timeout_s)
            except* OutboxFailed as failed:
                raise _first(failed) from None
        return found.outcomes

    def status(self) -> AppStatus | None:
        """Return how everything stands; ``None`` while nothing is open."""
        if self._parts is None:
            return None
        return AppStatus(
            dispatchers=[address.dispatcher.status() for address in self._parts.egress.values()],
            budgets=[address.budget.status() for address in self._parts.egress.values()],
            deliveries=[delivery.status() for delivery in self._parts.deliveries.values()],
            outbox=self._parts.outbox.stats(),
            clock_offset_s=_offset_s(self._parts, self._clock),
        )

    async def _sweep(self, parts: RoundParts, finished: asyncio.Event, timeout_s: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(parts.timekeeper.run(), name="clock")]
            background += [
                tasks.create_task(address.dispatcher.run(), name=f"polls from {name}")
                for name, address in parts.egress.items()
            ]
            try:
                async with asyncio.timeout(timeout_s):
                    await finished.wait()
            except TimeoutError:
                pass
            for task in background:
                task.cancel()

    async def _run(self, parts: Parts, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        await self._open_required(list(parts.deliveries.values()))
        await self._tell_removed(parts)
        async with asyncio.TaskGroup() as tasks:
            running = Running(tasks, parts)
            for name in parts.deliveries:
                running.start_delivery(name)
            keeping = tasks.create_task(parts.timekeeper.run(), name="clock")
            for name in parts.egress:
                running.start_egress(name, keyless(self._config, self._secrets))
            running.start_discoveries()
            beside = self._start_beside(tasks, parts, running)
            self.started.set()
            logger.info(
                "started",
                extra={
                    "version": __version__,
                    "accounts": len(self._config.accounts),
                    "addresses": list(parts.egress),
                    "backlogs": {name: parts.outbox.backlog(name) for name in parts.deliveries},
                },
            )
            await stop.wait()
            logger.info("stopping: polls end, sinks drain", extra={"drain_s": self._config.shutdown.drain_s})
            for task in beside:
                task.cancel()
            await _unless(hurry, running.stop_polling())
            keeping.cancel()
            await _unless(hurry, self._drain(parts))
            running.cancel()
        logger.info("stopped")

    def _start_beside(
        self, tasks: asyncio.TaskGroup, parts: Parts, running: Running
    ) -> list[asyncio.Task[None]]:
        """Start what watches and changes the daemon, and may end with the first signal."""
        sampling = Sampling(parts, self._clock)
        self._report = Report(
            parts,
            self._config,
            self._secrets,
            sampling,
            self._clock,
            discoveries=lambda: [watch.seen() for watch in parts.discoveries.values()],
        )
        self._reloading = Reloading(
            InForce(self._config, self._secrets, self._assembly),
            parts,
            running,
            self._report,
            clock=self._clock,
            metrics=self.metrics,
            adopted=self._adopt,
        )
        self._following = Following(self._reloading, self._clock)
        return [
            tasks.create_task(sampling.run(), name="sampling"),
            tasks.create_task(self._following.run(), name="following the configuration"),
        ]

    async def _tell_removed(self, parts: Parts) -> None:
        """Tell sinks of accounts that were configured when the last process ended, and are not any more."""
        for baseline in parts.acceptance.baselines():
            name = baseline.account
            if name not in self._config.accounts and baseline.state is not State.REMOVED:
                account = Account(name, math.inf)
                try:
                    await parts.acceptance.turned(account, State.REMOVED, "removed from the configuration")
                except OutboxFull as error:
                    logger.warning(
                        "sinks cannot be told yet of accounts that were removed",
                        extra={"account": name, "error": str(error)},
                    )
                    return

    async def _open_required(self, deliveries: Sequence[Delivery]) -> None:
        required = [
            delivery
            for delivery in deliveries
            if self._config.sinks[delivery.name].delivery.on_start == "fail"
        ]
        outcomes = await asyncio.gather(*(delivery.open() for delivery in required), return_exceptions=True)
        for delivery, outcome in zip(required, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                await asyncio.gather(*(delivery.close() for delivery in required))
                raise SinkNotOpened(delivery.name, text(outcome)) from outcome

    async def _drain(self, parts: Parts) -> None:
        last = parts.outbox.last_position
        try:
            async with asyncio.timeout(self._config.shutdown.drain_s):
                await asyncio.gather(*(delivery.drained(last) for delivery in parts.deliveries.values()))
        except TimeoutError:
            left = {name: parts.outbox.backlog(name) for name in parts.deliveries}
            logger.warning(
                "not everything was drained; it is delivered after the next start", extra={"backlogs": left}
            )


def _offset_s(parts: Parts | RoundParts, clock: Clock) -> float:
    return (parts.server_time.now_ns() - clock.utc_ns()) / NS_PER_S


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
