"""What another configuration needs before it is in force: everything that can fail, and nothing that runs is touched."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from poller.assembly import Assembly
from poller.config import Config, Secrets
from poller.config.difference import Difference, difference
from poller.delivery import Delivery
from poller.delivery.calls import text
from poller.errors import ConfigError, EgressLocked, OutboxFull, Problem, SinkError
from poller.exchange.transport import Transport
from poller.locks import FileLock
from poller.model import Baseline
from poller.parts import Parts


@dataclass(frozen=True, slots=True)
class InForce:
    """A configuration with its secrets, and what builds from them."""

    config: Config
    secrets: Secrets
    assembly: Assembly


@dataclass(frozen=True, slots=True)
class Prepared:
    """What another configuration needs and there was not yet; nothing of it runs.

    Attributes:
        baselines: of accounts that come, where they were there before.
    """

    locks: Mapping[str, FileLock | None]
    transports: Mapping[str, Transport]
    deliveries: Mapping[str, Delivery]
    baselines: Mapping[str, Baseline]


class Preparing:
    """Prepares other configurations.

    Args:
        parts: of the daemon.
        check: raises ``ConfigError`` if somebody could not adopt one.
    """

    def __init__(self, parts: Parts, check: Callable[[InForce], object]) -> None:
        self._parts = parts
        self._check = check

    async def prepare(
        self, old: InForce, config: Config, secrets: Secrets
    ) -> tuple[InForce, Difference, Prepared]:
        """Compare what is in force with what shall be, and prepare that; it is for the caller to let go of.

        Raises:
            ConfigError: it cannot be put into force; nothing of what was prepared is left.
            OutboxFailed: the process must stop.
        """
        found = await asyncio.to_thread(difference, old.config, config, old.secrets, secrets)
        if found.fixed:
            raise ConfigError(list(found.fixed))
        missing = secrets.unavailable.keys() - old.secrets.unavailable.keys()
        if missing:  # what was missing already may go on to be so; nothing that works is given up
            raise ConfigError([problem for owner, problem in secrets.unavailable.items() if owner in missing])
        new = InForce(config, secrets, old.assembly.anew(config, secrets))
        self._check(new)
        for name in (*found.egress.added, *found.egress.changed):
            _try_to_leave(new, name)
        return new, found, await self._prepare(old, new, found)

    async def _prepare(self, old: InForce, new: InForce, found: Difference) -> Prepared:
        locks: dict[str, FileLock | None] = {}
        transports: dict[str, Transport] = {}
        deliveries: dict[str, Delivery] = {}
        others = {*found.egress.added, *found.egress.changed}
        if new.config.exchange != old.config.exchange:
            others = set(new.config.egress)
        try:
            for key, name in _addresses(new).items():
                if key not in self._parts.locks:
                    locks[key] = _claim(new, name)
            for name in (*found.sinks.added, *found.sinks.changed):
                if name in new.secrets.sink_options:
                    deliveries[name] = new.assembly.delivery(self._parts.outbox, name)
                    await _open_required(old, new, found, deliveries[name])
            for name in others:
                transports[name] = new.assembly.transport(name)
            baselines = await self._parts.outbox.baselines(found.accounts.added)
            await self._register(new)
        except BaseException:
            for lock in locks.values():
                if lock is not None:
                    lock.release()
            for delivery in deliveries.values():
                await delivery.close()
            for transport in transports.values():
                await transport.close()
            raise
        return Prepared(locks, transports, deliveries, baselines)

    async def _register(self, new: InForce) -> None:
        try:
            await new.assembly.register(self._parts.outbox)
        except OutboxFull as error:
            raise _problem(new.config, "sinks", f"they cannot be noted now: {error}") from error


def keyless(config: Config, secrets: Secrets) -> set[str]:
    """Return the accounts whose key, or whose way out, cannot be had now."""
    return {name for name, account in config.accounts.items() if secrets.obstacle(account) is not None}


def _addresses(new: InForce) -> dict[str, str]:
    """Return the names of the addresses by what stands for each."""
    found: dict[str, str] = {}
    for name in new.config.egress:
        if not new.assembly.is_reachable(name):
            continue
        key = new.assembly.address_key(name)
        if key in found:
            message = f"it is the same address as {found[key]!r}, and each would spend the whole weight of it"
            raise _problem(new.config, f"egress.{name}", message)
        found[key] = name
    return found


def _claim(new: InForce, egress: str) -> FileLock | None:
    try:
        return new.assembly.claim(egress)
    except EgressLocked as error:
        raise _problem(new.config, f"egress.{egress}", str(error)) from error


def _try_to_leave(new: InForce, egress: str) -> None:
    """Try whether this machine has the address that requests are to leave from."""
    address = new.config.egress[egress].local_address
    if address is None:
        return
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        message = f"nothing can be sent from {address}: {error.strerror or error}"
        raise _problem(new.config, f"egress.{egress}.local_address", message) from error


async def _open_required(old: InForce, new: InForce, found: Difference, delivery: Delivery) -> None:
    settings, before = new.config.sinks[delivery.name], old.config.sinks
    # Who goes must first let go of what they have: two writers of one file would be one too many.
    going = [before[name].options.get("path") for name in (*found.sinks.removed, *found.sinks.changed)]
    path = settings.options.get("path")
    if (
        settings.delivery.on_start != "fail"
        or delivery.name in before
        or (path is not None and path in going)
    ):
        return
    try:
        await delivery.open()
    except SinkError as error:
        message = f"this sink cannot be opened: {text(error)}"
        raise _problem(new.config, f"sinks.{delivery.name}", message) from error


def _problem(config: Config, key: str, message: str) -> ConfigError:
    place = config.place(key)
    return ConfigError([Problem(place.file, place.line, key, message)])
