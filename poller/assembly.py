"""Builds everything that a configuration asks for, wires it, and closes it in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypedDict

from poller.acceptance import Acceptance
from poller.addresses import address_key, claim
from poller.beat import Beat
from poller.budget import WeightBudget, WeightWindow
from poller.budget.questions import Questions
from poller.checking import KeyChecker
from poller.clock import NS_PER_S, Clock
from poller.config import Config, Secrets
from poller.delivery import Delivery
from poller.delivery.isolation import isolated
from poller.delivery.traced import traced
from poller.discovery import DiscoveryWatch, Roster
from poller.egress import Egress
from poller.errors import NoResponse, PollError
from poller.exchange.client import ExchangeClient
from poller.exchange.server_time import ServerTime
from poller.exchange.transport import AiohttpTransport, Transport
from poller.exchange.unreachable import Unreachable
from poller.locks import FileLock
from poller.maintenance import MaintenanceWatch
from poller.metrics import Metrics
from poller.model import Account
from poller.observations import Observations
from poller.outbox import Outbox
from poller.outcomes import Outcomes
from poller.parts import Parts, RoundEgress
from poller.polling import WEIGHT, Dispatcher, Observer
from poller.schedule import Schedule
from poller.stretching import Stretching
from poller.timekeeping import TimeKeeper
from poller.tracing import NoTracer, Tracer

CHOOSE_AGAIN_S: Final = 5.0  # an address for the exchange's clock, while all pause


@dataclass(frozen=True, slots=True)
class Foundation:
    """What daemons and single rounds both stand on. ``states`` is what the outbox keeps of each address."""

    outbox: Outbox
    client: ExchangeClient
    server_time: ServerTime
    locks: dict[str, FileLock | None]
    states: Mapping[str, bytes]


class AcceptanceTerms(TypedDict):
    """See ``poller.acceptance.Acceptance``."""

    every: bool
    heartbeat_s: float


class Assembly:
    """Makes the parts of a configuration.

    Args:
        config: what to build.
        secrets: its keys, read.
        beat: touched by every dispatcher as long as it turns.
        tracer: told of polls and deliveries.
    """

    def __init__(
        self,
        config: Config,
        secrets: Secrets,
        clock: Clock,
        metrics: Metrics,
        *,
        beat: Beat | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._config = config
        self._secrets = secrets
        self._clock = clock
        self._metrics = metrics
        self._beat = beat
        self._tracer = tracer or NoTracer()

    def anew(self, config: Config, secrets: Secrets) -> Assembly:
        """Return one that builds from another configuration."""
        return Assembly(config, secrets, self._clock, self._metrics, beat=self._beat, tracer=self._tracer)

    def forget(self) -> None:
        """Let go of the secrets: nothing more is built from them."""
        self._secrets = Secrets({}, {}, {})

    @asynccontextmanager
    async def open(self, observer: Observer | None) -> AsyncIterator[Parts]:
        """Take up where the last process ended; the outbox is opened first and closed last.

        Args:
            observer: called with every poll's outcome.

        Raises:
            OutboxError: the outbox cannot be used, or another process has it.
            EgressLocked: another process sends from one of the addresses.
        """
        async with self.foundation() as base:
            observations = Observations(self._clock, observer, position=lambda: base.outbox.last_position)
            acceptance = await self._acceptance(base.outbox, observations)
            egress: dict[str, Egress] = {}
            parts = Parts(
                outbox=base.outbox,
                client=base.client,
                server_time=base.server_time,
                timekeeper=self.timekeeper(base.client, egress),
                acceptance=acceptance,
                observations=observations,
                egress=egress,
                deliveries={},
                discoveries={},
                locks=base.locks,
            )
            for name in self._config.egress:
                egress[name] = self.egress(parts, name, base.states.get(name))
            parts.discoveries.update(self.discoveries(base.client, egress))
            await self.register(base.outbox)
            for name in self._config.sinks:
                if name in self._secrets.sink_options:
                    parts.deliveries[name] = self.delivery(base.outbox, name)
            yield parts

    @asynccontextmanager
    async def foundation(self) -> AsyncIterator[Foundation]:
        """Open the outbox, claim the addresses, and close all of it in order.

        Raises:
            OutboxError, EgressLocked: as from ``open``.
        """
        async with AsyncExitStack() as stack:
            outbox = await self._open_outbox()
            stack.push_async_callback(outbox.close)
            locks: dict[str, FileLock | None] = {}
            stack.callback(_release, locks)
            for name in self._config.egress:
                if self.is_reachable(name):
                    locks[self.address_key(name)] = self.claim(name)
            server_time = ServerTime(self._clock)
            client = self._client(server_time)
            stack.push_async_callback(client.close)
            yield Foundation(outbox, client, server_time, locks, await outbox.egress())

    def is_reachable(self, egress: str) -> bool:
        """Say whether an address can be sent from: a proxy whose URL cannot be had keeps it from that."""
        return f"egress.{egress}" not in self._secrets.unavailable

    def claim(self, egress: str) -> FileLock | None:
        """Take an address for this process alone.

        Raises:
            EgressLocked: another process has it.
        """
        return claim(egress, self.address_key(egress), shared=self._config.egress[egress].shared)

    def address_key(self, egress: str) -> str:
        """Return what stands for the address that requests really leave from."""
        proxy = self._secrets.proxies.get(egress)
        return address_key(
            self._config.exchange.base_url,
            local_address=self._config.egress[egress].local_address,
            proxy=None if proxy is None else proxy.reveal(),
        )

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

    def transport(self, egress: str) -> Transport:
        """Make what sends from an address."""
        exchange, settings = self._config.exchange, self._config.egress[egress]
        if not self.is_reachable(egress):
            return Unreachable()
        return AiohttpTransport(
            exchange.base_url,
            clock=self._clock,
            local_address=settings.local_address,
            proxy=self._secrets.proxies.get(egress),
            connect_timeout_s=exchange.connect_timeout_s,
            total_timeout_s=exchange.timeout_s,
        )

    def _client(self, server_time: ServerTime) -> ExchangeClient:
        return ExchangeClient(
            {name: self.transport(name) for name in self._config.egress},
            self._secrets.credentials,
            server_time,
            self._clock,
            recv_window_ms=self._config.exchange.recv_window_ms,
            metrics=self._metrics,
            masters=self._secrets.masters,
        )

    async def _acceptance(self, outbox: Outbox, observations: Observations) -> Acceptance:
        acceptance = Acceptance(
            outbox, self._clock, metrics=self._metrics, told=observations.told, **self.acceptance_terms()
        )
        baselines = await outbox.baselines()
        acceptance.restore(baselines)
        observations.restore([baselines[name] for name in self._config.accounts if name in baselines])
        return acceptance

    def acceptance_terms(self) -> AcceptanceTerms:
        """Return what makes an unchanged answer worth a record: what the sinks ask for."""
        deliveries = [sink.delivery for sink in self._config.sinks.values()]
        return {
            "every": any(delivery.emit == "every" for delivery in deliveries),
            "heartbeat_s": min((delivery.heartbeat_s for delivery in deliveries), default=900.0),
        }

    def timekeeper(self, client: ExchangeClient, addresses: Mapping[str, Egress | RoundEgress]) -> TimeKeeper:
        """One clock for all addresses, measured through the first that may speak."""
        asked: list[Egress | RoundEgress] = []  # the last one, for it is the one to blame

        async def choose() -> WeightBudget:
            while True:  # the longest pause may end first, for addresses come and go
                able = [address for name, address in addresses.items() if client.is_reachable(name)]
                if not able:
                    raise NoResponse("no address can be sent from now", cause="proxy")
                asked[:] = [min(able, key=lambda address: address.budget.pause_left_s())]
                budget = asked[0].budget
                if budget.pause_left_s() <= 0:
                    return budget
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHOOSE_AGAIN_S):
                        await budget.resumed()

        async def measure() -> None:
            budget = await choose()

            async def permit() -> None:
                if budget.pause_left_s() > 0:
                    raise NoResponse("the address fell silent meanwhile", cause="pause")

            await client.synchronise(budget.egress, permit=permit)

        async def blame(error: PollError) -> None:
            if asked:
                await asked[0].outcomes.blame(error)

        return TimeKeeper(measure, blame, self._clock, interval_s=self._config.exchange.time_sync_s)

    def budget(self, egress: str, outbox: Outbox, state: bytes | None) -> WeightBudget:
        """Make an address's budget, and let it take up what is kept of it."""
        settings = self._config.budget
        window = WeightWindow(limit=settings.weight_limit, share=settings.share, window_s=settings.window_s)
        budget = WeightBudget(
            egress,
            window,
            self._clock,
            partial(outbox.put_egress, egress),
            metrics=self._metrics,
            in_flight_s=self._config.exchange.timeout_s,
        )
        budget.restore(state, lost=outbox.set_aside is not None)
        return budget

    def accounts(self, egress: str) -> list[Account]:
        """Return the accounts of an address, in the configuration's order."""
        return [account for account in self._config.accounts.values() if account.egress == egress]

    def outcomes(
        self,
        budget: WeightBudget,
        client: ExchangeClient,
        server_time: ServerTime,
        acceptance: Acceptance | None,
    ) -> Outcomes:
        """Make what draws the consequences of an address's polls. Without acceptance nothing is accepted."""
        maintenance = MaintenanceWatch(
            budget.egress,
            budget,
            partial(client.system_status, budget.egress),
            exchange_ns=server_time.now_ns,
            clock=self._clock,
        )
        return Outcomes(
            budget.egress,
            self.accounts(budget.egress),
            budget,
            acceptance,
            exchange_ns=server_time.now_ns,
            clock=self._clock,
            metrics=self._metrics,
            maintenance=maintenance,
        )

    def egress(self, parts: Parts, name: str, state: bytes | None) -> Egress:
        """Make one address, with its accounts; nothing of it runs yet.

        Args:
            parts: what it works with.
            state: what the outbox keeps of the address; ``None`` if nothing.
        """
        budget = self.budget(name, parts.outbox, state)
        outcomes = self.outcomes(budget, parts.client, parts.server_time, parts.acceptance)
        schedule = Schedule(now_s=self._clock.monotonic_s(), utc_s=self._clock.utc_ns() / NS_PER_S)
        dispatcher = Dispatcher(
            name,
            schedule,
            budget,
            parts.client,
            outcomes,
            parts.timekeeper,
            room=parts.outbox,
            clock=self._clock,
            metrics=self._metrics,
            stretching=self._stretching(schedule, budget),
            observer=parts.observations.polled,
            beat=self._beat,
            tracer=self._tracer,
        )
        return Egress(
            self.accounts(name),
            budget,
            outcomes,
            schedule,
            dispatcher,
            KeyChecker(budget, parts.client.api_restrictions, outcomes.blame),
            parts.acceptance,
            key_policy=self._config.key_policy,
            clock=self._clock,
        )

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

    def discoveries(
        self, client: ExchangeClient, egress: Mapping[str, Egress | RoundEgress]
    ) -> dict[str, DiscoveryWatch]:
        """Make what asks master accounts for their sub-accounts."""
        roster = Roster(self._config.discover, self._config.sub_accounts)
        return {
            name: DiscoveryWatch(
                name,
                roster,
                Questions(egress[settings.egress].budget, egress[settings.egress].outcomes.blame),
                partial(client.sub_accounts, name, settings.egress),
                interval_s=settings.interval_s,
                clock=self._clock,
                metrics=self._metrics,
            )
            for name, settings in self._config.discover.items()
        }

    async def register(self, outbox: Outbox) -> None:
        """Tell the outbox which sinks there are.

        Raises:
            OutboxError: it could not be noted.
        """
        await outbox.register({name: sink.delivery.start for name, sink in self._config.sinks.items()})

    def delivery(self, outbox: Outbox, sink: str) -> Delivery:
        """Make one sink and its reader of the outbox, which knows of it already; nothing is opened yet."""
        settings = self._config.sinks[sink]
        made = isolated(settings.sink(self._secrets.sink_options[sink]), sink)
        return Delivery(
            sink,
            traced(made, sink, self._tracer, self._clock),
            outbox,
            self._clock,
            settings.delivery,
            metrics=self._metrics,
        )


def _release(locks: Mapping[str, FileLock | None]) -> None:
    for lock in locks.values():
        if lock is not None:
            lock.release()
