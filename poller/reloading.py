"""Put another configuration into force while the daemon runs: all of it, or nothing.

First everything is read, checked and prepared that can fail; until then nothing that runs is touched. What
is done after that cannot be refused by anybody: accounts come and go one by one, each of the others keeps
its place in its interval, and every sink its cursor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from poller.assembly import Assembly
from poller.clock import NS_PER_S, Clock
from poller.config import Config, Secrets, load, read_again, read_secrets
from poller.config.difference import Difference, difference
from poller.delivery import Delivery
from poller.delivery.calls import text
from poller.errors import ConfigError, EgressLocked, OutboxFull, Problem, SinkError
from poller.exchange.transport import Transport
from poller.locks import FileLock
from poller.metrics import Metrics
from poller.parts import Parts
from poller.report import Report
from poller.running import Running

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InForce:
    """A configuration with its secrets, and what builds from them."""

    config: Config
    secrets: Secrets
    assembly: Assembly


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What another configuration needs and there was not yet; nothing of it runs."""

    locks: Mapping[str, FileLock | None]
    transports: Mapping[str, Transport]
    deliveries: Mapping[str, Delivery]


class Reloading:
    """Reads the configuration anew, and lets the daemon follow.

    Args:
        now: what is in force when the daemon starts.
        parts: of the daemon.
        running: its tasks.
        report: told of every attempt.
        check: raises ``ConfigError`` if somebody could not adopt it.
        adopted: called with what is in force now, for those who keep some of it.
        busy: called with whether a reload is under way, before and after each.
    """

    def __init__(
        self,
        now: InForce,
        parts: Parts,
        running: Running,
        report: Report,
        *,
        clock: Clock,
        metrics: Metrics,
        check: Callable[[InForce], object] = lambda _: None,
        adopted: Callable[[InForce], object],
        busy: Callable[[bool], object] = lambda _: None,
    ) -> None:
        self.now = now
        self._parts = parts
        self._running = running
        self._report = report
        self._clock = clock
        self._metrics = metrics
        self._check = check
        self._adopted = adopted
        self._busy = busy
        self._one_at_a_time = asyncio.Lock()
        self._refused: tuple[Problem, ...] = ()

    async def reload(self) -> tuple[str, ...]:
        """Read the configuration and put it into force; return what is different, a line each.

        Raises:
            ConfigError: it has problems, and what was in force still is.
            OutboxFailed: the process must stop.
        """
        async with self._one_at_a_time:
            self._busy(True)  # noqa: FBT003  # a callback's only argument
            try:
                config, secrets = await asyncio.to_thread(_read, self.now.config.path)
                lines = await self._change(config, secrets)
            except ConfigError as error:
                self._refuse(error)
                raise
            finally:
                self._busy(False)  # noqa: FBT003
            self._refused = ()
            self._metrics.config_reloaded(self._clock.utc_ns() / NS_PER_S, accepted=True)
            self._report.adopt(config, secrets, lines)
            if lines:
                logger.info("the configuration was reloaded", extra={"changed": list(lines)})
            return lines

    async def complete(self) -> None:
        """Read again the secrets that could not be had; go on as if nothing had been amiss with those that can.

        Raises:
            OutboxFailed: the process must stop.
        """
        async with self._one_at_a_time:
            config, before = self.now.config, self.now.secrets
            if not before.unavailable:
                return
            secrets = await asyncio.to_thread(read_again, config, before)
            if before.unavailable == secrets.unavailable:
                return
            lines = await self._change(config, secrets)
            self._report.adopt(config, secrets, lines)
            logger.info(
                "secrets can be reached again",
                extra={
                    "count": len(before.unavailable) - len(secrets.unavailable),
                    "changed": list(lines),
                },
            )

    def _refuse(self, error: ConfigError) -> None:
        self._metrics.config_reloaded(self._clock.utc_ns() / NS_PER_S, accepted=False)
        self._report.refuse([str(problem) for problem in error.problems])
        if tuple(error.problems) != self._refused:  # the same again is no news
            self._refused = tuple(error.problems)
            logger.error(
                "the configuration was not reloaded: what was in force still is",
                extra={"problems": [str(problem) for problem in error.problems]},
            )

    async def _change(self, config: Config, secrets: Secrets) -> tuple[str, ...]:
        old = self.now
        found = await asyncio.to_thread(difference, old.config, config, old.secrets, secrets)
        if found.fixed:
            raise ConfigError(list(found.fixed))
        missing = secrets.unavailable.keys() - old.secrets.unavailable.keys()
        if missing:  # what was missing already may go on to be so; nothing that works is given up
            raise ConfigError([problem for owner, problem in secrets.unavailable.items() if owner in missing])
        new = InForce(config, secrets, old.assembly.anew(config, secrets))
        self._check(new)
        prepared = await self._prepare(new, found)
        self.now = new
        self._adopted(new)
        await self._apply(old, new, found, prepared)
        return found.lines

    # What can fail --------------------------------------------------------------------------------

    async def _prepare(self, new: InForce, found: Difference) -> _Prepared:
        locks: dict[str, FileLock | None] = {}
        deliveries: dict[str, Delivery] = {}
        try:
            for key, name in self._addresses(new).items():
                if key not in self._parts.locks:
                    locks[key] = self._claim(new, name)
            for name in (*found.sinks.added, *found.sinks.changed):
                if name not in new.secrets.sink_options:
                    continue
                deliveries[name] = await self._prepared_delivery(new, name)
            await self._register(new)
        except BaseException:
            for lock in locks.values():
                if lock is not None:
                    lock.release()
            for delivery in deliveries.values():
                await delivery.close()
            raise
        others = {name for name in new.config.egress if name in {*found.egress.added, *found.egress.changed}}
        if new.config.exchange != self.now.config.exchange:
            others = set(new.config.egress)
        return _Prepared(locks, {name: new.assembly.transport(name) for name in others}, deliveries)

    def _addresses(self, new: InForce) -> dict[str, str]:
        """Return the names of the addresses by what stands for each."""
        found: dict[str, str] = {}
        for name in new.config.egress:
            if not new.assembly.is_reachable(name):
                continue
            key = new.assembly.address_key(name)
            if key in found:
                message = (
                    f"it is the same address as {found[key]!r}, and each would spend the whole weight of it"
                )
                raise _problem(new.config, f"egress.{name}", message)
            found[key] = name
        return found

    def _claim(self, new: InForce, egress: str) -> FileLock | None:
        try:
            return new.assembly.claim(egress)
        except EgressLocked as error:
            raise _problem(new.config, f"egress.{egress}", str(error)) from error

    async def _prepared_delivery(self, new: InForce, name: str) -> Delivery:
        delivery = new.assembly.delivery(self._parts.outbox, name)
        # A changed one must first let go of what it has; two writers of one file would be one too many.
        if new.config.sinks[name].delivery.on_start == "fail" and name not in self._parts.deliveries:
            try:
                await delivery.open()
            except SinkError as error:
                await delivery.close()
                message = f"this sink cannot be opened: {text(error)}"
                raise _problem(new.config, f"sinks.{name}", message) from error
        return delivery

    async def _register(self, new: InForce) -> None:
        try:
            await new.assembly.register(self._parts.outbox)
        except OutboxFull as error:
            raise _problem(new.config, "sinks", f"they cannot be noted now: {error}") from error

    # What cannot ----------------------------------------------------------------------------------

    async def _apply(self, old: InForce, new: InForce, found: Difference, prepared: _Prepared) -> None:
        parts = self._parts
        for name in found.egress.changed:
            parts.egress[name].budget.leave_elsewhere()
        replaced = [parts.client.put_transport(name, one) for name, one in prepared.transports.items()]
        parts.locks.update(prepared.locks)
        parts.client.exchange_keys(new.secrets.credentials, new.secrets.masters)
        parts.client.set_recv_window(new.config.exchange.recv_window_ms)
        parts.timekeeper.set_interval(new.config.exchange.time_sync_s)
        parts.acceptance.set_terms(**new.assembly.acceptance_terms())
        for egress in parts.egress.values():
            egress.budget.reconfigure(limit=new.config.budget.weight_limit, share=new.config.budget.share)
            egress.set_policy(new.config.key_policy)
        await self._apply_accounts(old, new, found)
        for name in found.egress.removed:
            await self._running.stop_egress(name)
            del parts.egress[name]
            replaced.append(parts.client.take_transport(name))
        await self._apply_sinks(found, prepared)
        if found.is_discovering_anew:
            parts.discoveries.clear()
            parts.discoveries.update(new.assembly.discoveries(parts.client, parts.egress))
            self._running.start_discoveries()
        self._release(new)
        self._running.retire(
            [transport for transport in replaced if transport is not None], old.config.exchange.timeout_s
        )

    async def _apply_accounts(self, old: InForce, new: InForce, found: Difference) -> None:
        parts, config = self._parts, new.config
        without = keyless(config, new.secrets)
        moved = [
            name
            for name in found.accounts.changed
            if old.config.accounts[name].egress != config.accounts[name].egress
        ]
        # Everybody who goes ends a poll that is under way first; nobody is polled in two places.
        await asyncio.gather(
            *(parts.egress[old.config.accounts[name].egress].leave(name) for name in moved),
            *(parts.egress[old.config.accounts[name].egress].remove(name) for name in found.accounts.removed),
        )
        for name in found.accounts.removed:
            parts.observations.forget(name)
        states = await parts.outbox.egress() if found.egress.added else {}
        for name in found.egress.added:
            parts.egress[name] = new.assembly.egress(parts, name, states.get(name))
            self._running.start_egress(name, without)
        for name in (*found.accounts.added, *moved):
            account = config.accounts[name]
            if account.egress not in found.egress.added:  # or it has come with its address
                parts.egress[account.egress].add(account, keyless=name in without)
        for name in found.accounts.changed:
            if name not in moved:
                parts.egress[config.accounts[name].egress].change(config.accounts[name])
        again = keyless(old.config, old.secrets) - without
        renewed = {*found.rekeyed, *again} & old.config.accounts.keys() & config.accounts.keys() - without
        for name in renewed:
            parts.egress[config.accounts[name].egress].renewed(name)
        for name in (*found.accounts.added, *found.accounts.changed, *renewed):
            parts.observations.touch(name)

    async def _apply_sinks(self, found: Difference, prepared: _Prepared) -> None:
        for name in (*found.sinks.removed, *found.sinks.changed):
            await self._running.stop_delivery(name)
            self._parts.deliveries.pop(name, None)
        for name, delivery in prepared.deliveries.items():
            self._parts.deliveries[name] = delivery
            self._running.start_delivery(name)

    def _release(self, new: InForce) -> None:
        kept = {
            new.assembly.address_key(name) for name in new.config.egress if new.assembly.is_reachable(name)
        }
        for key in self._parts.locks.keys() - kept:
            lock = self._parts.locks.pop(key)
            if lock is not None:
                lock.release()


def keyless(config: Config, secrets: Secrets) -> set[str]:
    """Return the accounts whose key, or whose way out, cannot be had now."""
    return {name for name, account in config.accounts.items() if secrets.obstacle(account) is not None}


def _read(path: Path) -> tuple[Config, Secrets]:
    config = load(path)
    return config, read_secrets(config)


def _problem(config: Config, key: str, message: str) -> ConfigError:
    place = config.place(key)
    return ConfigError([Problem(place.file, place.line, key, message)])
