"""Builds everything that a configuration asks for, wires it, and closes it in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from poller.acceptance import Acceptance
from poller.addresses import address_key, claim
from poller.budget import WeightBudget, WeightWindow
from poller.checking import KeyChecker, KeyWatch
from poller.clock import NS_PER_S, Clock
from poller.config import Config, Secrets
from poller.delivery import Delivery
from poller.delivery.isolation import isolated
from poller.errors import PollError
from poller.exchange.client import ExchangeClient
from poller.exchange.server_time import ServerTime
from poller.exchange.transport import AiohttpTransport
from poller.locks import FileLock
from poller.maintenance import MaintenanceWatch
from poller.metrics import Metrics
from poller.model import Account
from poller.outbox import Outbox
from poller.outcomes import Outcomes
from poller.polling import WEIGHT, Dispatcher, Observer
from poller.schedule import Schedule, Sweep
from poller.stretching import Stretching
from poller.timekeeping import TimeKeeper


@dataclass(frozen=True, slots=True)
class Address:
    """What there is once per egress address. ``watch`` is ``None`` for a single round."""

    accounts: Sequence[Account]
    budget: WeightBudget
    outcomes: Outcomes
    dispatcher: Dispatcher
    checker: KeyChecker
    watch: KeyWatch | None


@dataclass(frozen=True, slots=True)
class Parts:
    """What was built, while it is open."""

    outbox: Outbox
    client: ExchangeClient
    server_time: ServerTime
    timekeeper: TimeKeeper
    addresses: Mapping[str, Address]
    deliveries: Sequence[Delivery]


class Assembly:
    """Opens the parts of one configuration.

    Args:
        config: what to build.
        secrets: its keys, read.
    """

    def __init__(self, config: Config, secrets: Secrets, clock: Clock, metrics: Metrics) -> None:
        self._config = config
        self._secrets = secrets
        self._clock = clock
        self._metrics = metrics

    @asynccontextmanager
    async def open(self, *, sweep: bool, observer: Observer | None) -> AsyncIterator[Parts]:
        """Take up where the last process ended; the outbox is opened first and closed last.

        Args:
            sweep: poll everybody once, and accept and deliver nothing.
            observer: called with every poll's outcome.

        Raises:
            OutboxError: the outbox cannot be used, or another process has it.
            EgressLocked: another process sends from one of the addresses.
        """
        async with AsyncExitStack() as stack:
            outbox = await self._open_outbox()
            stack.push_async_callback(outbox.close)
            for name in self._config.egress:
                if (lock := self._claim(name)) is not None:
                    stack.callback(lock.release)
            server_time = ServerTime(self._clock)
            client = self._client(server_time)
            stack.push_async_callback(client.close)
            acceptance = None if sweep else await self._acceptance(outbox)
            addresses: dict[str, Address] = {}
            timekeeper = self._timekeeper(client, addresses)
            states = await outbox.egress()
            for name in self._config.egress:
                budget = self._budget(name, outbox)
                budget.restore(states.get(name), lost=outbox.set_aside is not None)
                outcomes = self._outcomes(budget, client, server_time, acceptance)
                addresses[name] = (
                    self._sweeping(budget, client, outcomes, timekeeper, observer)
                    if sweep
                    else self._polling(budget, client, outcomes, timekeeper, observer, outbox)
                )
            deliveries = [] if sweep else await self._deliveries(outbox)
            yield Parts(outbox, client, server_time, timekeeper, addresses, deliveries)

    def _claim(self, egress: str) -> FileLock | None:
        settings = self._config.egress[egress]
        proxy = self._secrets.proxies.get(egress)
        key = address_key(
            self._config.exchange.base_url,
            local_address=settings.local_address,
            proxy=None if proxy is None else proxy.reveal(),
        )
        return claim(egress, key, shared=settings.shared)

    async def _open_outbox(self) -> Outbox:
        settings = self._config.outbox
        return await Outbox.open(
            settings.path,
            self._clock,
            metrics=self._metrics,
            retain_s=settings.retain_s,
            max_size_bytes=settings.max_size_bytes,
            when_full=settings.when_full,
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
            metrics=self._metrics,
        )

    async def _acceptance(self, outbox: Outbox) -> Acceptance:
        deliveries = [sink.delivery for sink in self._config.sinks.values()]
        acceptance = Acceptance(
            outbox,
            self._clock,
            metrics=self._metrics,
            every=any(delivery.emit == "every" for delivery in deliveries),
            heartbeat_s=min((delivery.heartbeat_s for delivery in deliveries), default=900.0),
        )
        acceptance.restore(await outbox.baselines())
        return acceptance

    def _timekeeper(self, client: ExchangeClient, addresses: Mapping[str, Address]) -> TimeKeeper:
        """One clock for all addresses, measured through the first that may speak."""
        asked: list[Address] = []  # the last one, for it is the one to blame

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
            metrics=self._metrics,
            in_flight_s=self._config.exchange.timeout_s,
        )

    def _accounts(self, egress: str) -> list[Account]:
        return [account for account in self._config.accounts.values() if account.egress == egress]

    def _outcomes(
        self,
        budget: WeightBudget,
        client: ExchangeClient,
        server_time: ServerTime,
        acceptance: Acceptance | None,
    ) -> Outcomes:
        maintenance = MaintenanceWatch(
            budget.egress,
            budget,
            partial(client.system_status, budget.egress),
            exchange_ns=server_time.now_ns,
            clock=self._clock,
        )
        return Outcomes(
            budget.egress,
            self._accounts(budget.egress),
            budget,
            acceptance,
            exchange_ns=server_time.now_ns,
            clock=self._clock,
            metrics=self._metrics,
            maintenance=maintenance,
        )

    def _sweeping(
        self,
        budget: WeightBudget,
        client: ExchangeClient,
        outcomes: Outcomes,
        timekeeper: TimeKeeper,
        observer: Observer | None,
    ) -> Address:
        accounts = self._accounts(budget.egress)
        dispatcher = Dispatcher(
            budget.egress,
            Sweep(accounts, now_s=self._clock.monotonic_s()),
            budget,
            client,
            outcomes,
            timekeeper,
            room=None,
            clock=self._clock,
            metrics=self._metrics,
            observer=observer,
        )
        checker = KeyChecker(budget, client.api_restrictions, outcomes.blame)
        return Address(accounts, budget, outcomes, dispatcher, checker, None)

    def _polling(
        self,
        budget: WeightBudget,
        client: ExchangeClient,
        outcomes: Outcomes,
        timekeeper: TimeKeeper,
        observer: Observer | None,
        outbox: Outbox,
    ) -> Address:
        accounts = self._accounts(budget.egress)
        now_s = self._clock.monotonic_s()
        schedule = Schedule(now_s=now_s, utc_s=self._clock.utc_ns() / NS_PER_S)
        dispatcher = Dispatcher(
            budget.egress,
            schedule,
            budget,
            client,
            outcomes,
            timekeeper,
            room=outbox,
            clock=self._clock,
            metrics=self._metrics,
            stretching=self._stretching(schedule, budget),
            observer=observer,
        )

        def allow(account: Account) -> None:
            outcomes.allow(account)
            if account.name not in schedule:
                schedule.add(account, self._clock.monotonic_s())
                dispatcher.wake()

        async def forbid(account: Account, reason: str) -> None:
            schedule.remove(account.name)
            await outcomes.forbid(account, reason)

        if self._config.key_policy != "require_read_only":  # else the watch lets them in, one by one
            for account in accounts:
                schedule.add(account, now_s)
        checker = KeyChecker(budget, client.api_restrictions, outcomes.blame)
        watch = KeyWatch(
            budget.egress, accounts, checker, self._config.key_policy, allow=allow, forbid=forbid
        )
        return Address(accounts, budget, outcomes, dispatcher, checker, watch)

    def _stretching(self, schedule: Schedule, budget: WeightBudget) -> Stretching:
        return Stretching(
            budget.egress,
            schedule,
            budget,
            window_s=self._config.budget.window_s,
            weight=WEIGHT,
            clock=self._clock,
            metrics=self._metrics,
        )

    async def _deliveries(self, outbox: Outbox) -> list[Delivery]:
        await outbox.register({name: sink.delivery.start for name, sink in self._config.sinks.items()})
        return [
            Delivery(
                name,
                isolated(settings.sink(self._secrets.sink_options[name]), name),
                outbox,
                self._clock,
                settings.delivery,
                metrics=self._metrics,
            )
            for name, settings in self._config.sinks.items()
        ]
