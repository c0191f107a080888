"""The composition root: builds everything from the configuration, starts and stops it in order."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from poller import __version__
from poller.assembly import Assembly
from poller.beat import Beat
from poller.budget import BudgetStatus
from poller.clock import NS_PER_S, Clock, SystemClock
from poller.config import Config, Secrets
from poller.config.footprint import Footprint
from poller.delivery import Delivery, DeliveryStatus
from poller.delivery.calls import text
from poller.doors import Doors
from poller.errors import ConfigError, OutboxFailed, OutboxFull, SinkNotOpened, first_in
from poller.following import Following
from poller.loop_lag import watch_loop
from poller.metrics import Metrics
from poller.model import Account, State
from poller.outbox import OutboxStats
from poller.overview import Overview
from poller.parts import Parts
from poller.polling import DispatcherStatus, Observer
from poller.preparing import InForce, keyless
from poller.reloading import Reloading
from poller.report import Report
from poller.running import Running, persistently
from poller.sampling import Sampling
from poller.scrape import Sources, scraped
from poller.service_manager import ServiceManager
from poller.tracing import Tracer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AppStatus:
    """The whole daemon at a glance."""

    dispatchers: Sequence[DispatcherStatus]
    budgets: Sequence[BudgetStatus]
    deliveries: Sequence[DeliveryStatus]
    outbox: OutboxStats
    clock_offset_s: float


class App:
    """One daemon: the fleet of a configuration, its outbox and its sinks.

    Args:
        config: what to run.
        secrets: its keys, read.
        observer: called with every poll's outcome, for those who watch.
        manager: told how the daemon is doing; ``None`` if nobody wants to know.
        footprint: of the configuration's files when they were read; ``None`` if that was just now.
        set_log_level: called with the level that is configured now; ``None`` if that decides nothing.

    Attributes:
        doors: the ways in; ``None`` while nothing runs.
        started: set once polls begin.
    """

    def __init__(
        self,
        config: Config,
        secrets: Secrets,
        *,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        observer: Observer | None = None,
        manager: ServiceManager | None = None,
        footprint: Footprint | None = None,
        set_log_level: Callable[[str], object] | None = None,
    ) -> None:
        self.doors: Doors | None = None
        self._config = config
        self._clock = clock or SystemClock()
        self.metrics = metrics or Metrics()
        self._secrets = secrets
        self._assembly = Assembly(config, secrets, self._clock, self.metrics)
        self._observer = observer
        self._manager = manager or ServiceManager("", None, self._clock)
        self._footprint = footprint
        self._set_log_level = set_log_level
        self._beat = Beat()
        self._parts: Parts | None = None
        self._report: Report | None = None
        self._reloading: Reloading | None = None
        self._following: Following | None = None
        self._is_asked_early = False
        self.started = asyncio.Event()

    @property
    def overview(self) -> Overview | None:
        """What there is to see of the daemon; ``None`` while nothing runs."""
        return self._report

    def reload_soon(self) -> None:
        """Have the configuration read anew, at the earliest once polls begin; for signals."""
        if self._following is None:
            self._is_asked_early = True
        else:
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
        async with AsyncExitStack() as stack:
            self._assembly = Assembly(
                self._config,
                self._secrets,
                self._clock,
                self.metrics,
                beat=self._beat,
                tracer=await self._tracer(stack),
            )
            self._parts = await stack.enter_async_context(self._assembly.open(self._observer))
            try:
                await self._run(self._parts, stop, hurry)
            except* OutboxFailed as failed:
                raise first_in(failed) from None
            finally:
                self._parts = self._report = self._reloading = self._following = self.doors = None

    async def _tracer(self, stack: AsyncExitStack) -> Tracer | None:
        """Begin to send traces, if that is configured."""
        settings = self._config.tracing
        if settings is None:
            return None
        from poller.otlp import traces_to

        return await stack.enter_async_context(
            traces_to(
                settings.endpoint,
                headers=self._secrets.tracing_headers,
                sample=settings.sample,
                clock=self._clock,
                metrics=self.metrics,
            )
        )

    def _adopt(self, now: InForce) -> None:
        self._config, self._secrets, self._assembly = now.config, now.secrets, now.assembly
        if self.doors is not None:
            self.doors.adopt(now)
        if self._set_log_level is not None:
            self._set_log_level(now.config.logging.level)

    def _is_reloading(self, is_busy: bool) -> None:  # noqa: FBT001  # a callback's only argument
        if is_busy:
            self._manager.reloading()
        else:
            self._manager.ready(self._in_short())

    def _in_short(self) -> str:
        return f"{len(self._config.accounts)} accounts, {len(self._config.sinks)} sinks"

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

    async def _run(self, parts: Parts, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        await self._open_required(list(parts.deliveries.values()))
        await self._tell_removed(parts)
        async with asyncio.TaskGroup() as tasks:
            running = Running(tasks, parts)
            for name in parts.deliveries:
                running.start_delivery(name)
            for name in parts.egress:
                running.start_egress(name, keyless(self._config, self._secrets))
            running.start_discoveries()
            sampling = Sampling(parts, self._clock)
            report = self._report = self._reporting(parts, sampling)
            beside = [
                running.begin(persistently(run, name), name)
                for name, run in (
                    ("clock", parts.timekeeper.run),
                    ("sampling", sampling.run),
                    ("loop lag", partial(watch_loop, self._clock, self.metrics)),
                    ("watchdog", partial(self._manager.watch, self._beat)),
                    ("configuration", self._follow(parts, running, report).run),
                )
            ]
            assert self.doors is not None  # noqa: S101  # made with what is to follow
            assert self._reloading is not None  # noqa: S101  # as well
            async with self.doors.open():
                with scraped(self.metrics, self._sources(parts, sampling, report)):
                    self._say_started(parts)
                    await stop.wait()
                    drain_s = self._config.shutdown.drain_s
                    logger.info("stopping: polls end, sinks drain", extra={"drain_s": drain_s})
                    self._manager.stopping()
                    await _unless(hurry, self._reloading.end())
                    await _unless(hurry, running.stop_polling())
                    await _unless(hurry, self._drain(parts))
            running.cancel()
            for task in beside:
                task.cancel()
        logger.info("stopped")

    def _say_started(self, parts: Parts) -> None:
        self.metrics.config_loaded(self._clock.utc_ns() / NS_PER_S)
        self._manager.ready(self._in_short())
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

    def _reporting(self, parts: Parts, sampling: Sampling) -> Report:
        return Report(
            parts,
            self._config,
            self._secrets,
            sampling,
            self._clock,
            discoveries=lambda: [watch.seen() for watch in parts.discoveries.values()],
        )

    def _follow(self, parts: Parts, running: Running, report: Report) -> Following:
        """Make what reloads the configuration, and the ways in that can ask for it."""
        now = InForce(self._config, self._secrets, self._assembly)
        self.doors = Doors(
            now,
            parts,
            report,
            self.reload,
            clock=self._clock,
            metrics=self.metrics,
            is_alive=lambda: self._beat.trouble(self._clock.monotonic_s()),
        )
        self._reloading = Reloading(
            now,
            parts,
            running,
            report,
            clock=self._clock,
            metrics=self.metrics,
            check=self.doors.check,
            footprint=self._footprint,
            adopted=self._adopt,
            busy=self._is_reloading,
        )
        self._following = Following(self._reloading, self._clock)
        if self._is_asked_early:
            self._following.ask()
        return self._following

    def _sources(self, parts: Parts, sampling: Sampling, report: Report) -> Sources:
        """What a scrape looks at. Gauges of balances come and go with a restart only."""
        settings = self._config.metrics
        return Sources(
            budgets=lambda: [egress.budget.status() for egress in parts.egress.values()],
            deliveries=lambda: [delivery.status() for delivery in parts.deliveries.values()],
            outbox=parts.outbox.stats,
            waits_s=sampling.lag_s,
            accounts=lambda: [health for egress in parts.egress.values() for health in egress.healths()],
            baselines=lambda: [
                held for egress in parts.egress.values() for held in egress.outcomes.baselines()
            ],
            ready=lambda: {check.name: check.ok for check in report.status().ready},
            max_balances=settings.max_series if settings.balances else 0,
        )

    async def _tell_removed(self, parts: Parts) -> None:
        """Tell sinks of accounts that were configured when the last process ended, and are not any more."""
        for baseline in parts.acceptance.baselines():
            name = baseline.account
            if name in self._config.accounts:
                continue
            try:  # which does nothing for those of whom it was told before
                await parts.acceptance.turned(
                    Account(name, math.inf), State.REMOVED, "removed from the configuration"
                )
            except OutboxFull as error:
                logger.warning(
                    "sinks cannot be told yet of accounts that were removed",
                    extra={"account": name, "error": str(error)},
                )
                return
            parts.acceptance.forget(name)
            parts.observations.forget(name)  # it was told, and that is all there is to see of it

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


def _offset_s(parts: Parts, clock: Clock) -> float:
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
