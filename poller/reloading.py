"""Put another configuration into force while the daemon runs: all of it, or nothing.

First everything is read, checked and prepared that can fail; until then nothing that runs is touched. What
is done after that cannot be refused by anybody: accounts come and go one by one, each of the others keeps
its place in its interval, and every sink its cursor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from poller.clock import NS_PER_S, Clock
from poller.config import Config, Secrets, load, read_again, read_secrets
from poller.config.difference import Difference, is_same_key
from poller.config.footprint import Footprint, files_footprint, secrets_footprint
from poller.errors import ConfigError, OutboxFailed, OutboxFull, Problem
from poller.metrics import Metrics
from poller.parts import Parts
from poller.preparing import InForce, Prepared, Preparing, keyless
from poller.report import Report
from poller.running import Running

logger = logging.getLogger(__name__)


class Reloading:
    """Reads the configuration anew, and lets the daemon follow.

    Args:
        now: what is in force when the daemon starts.
        footprint: of its files, from before they were read; ``None`` if nobody took it.
        parts: of the daemon.
        running: its tasks.
        report: told of every attempt.
        check: raises ``ConfigError`` if somebody could not adopt it.
        adopted: called with what is in force now, for those who keep some of it.
        busy: called with whether a reload is under way, before and after each.

    Attributes:
        now: what is in force.
        footprint: of the files that were read last, whoever asked for that and whatever came of it.
        refused_s: when that was refused; monotonic. ``None`` if it is in force.
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
        footprint: Footprint | None = None,
        check: Callable[[InForce], object] = lambda _: None,
        adopted: Callable[[InForce], object],
        busy: Callable[[bool], object] = lambda _: None,
    ) -> None:
        self.now = now
        self.footprint = footprint
        self.refused_s: float | None = None
        self._parts = parts
        self._running = running
        self._report = report
        self._clock = clock
        self._metrics = metrics
        self._preparing = Preparing(parts, check)
        self._adopted = adopted
        self._busy = busy
        self._one_at_a_time = asyncio.Lock()
        self._attempts: set[asyncio.Task[Any]] = set()
        self._is_applying = False
        self._is_over = False
        self._refused: tuple[Problem, ...] = ()
        self._incomplete: tuple[Problem, ...] = ()

    async def reload(self) -> tuple[str, ...]:
        """Read the configuration and put it into force; return what is different, a line each.

        It goes on if whoever waits for it is cancelled.

        Raises:
            ConfigError: it has problems, and what was in force still is.
            OutboxFailed: the process must stop.
        """
        outcome = await self._attempt(self._reload)
        if isinstance(outcome, ConfigError):
            raise outcome
        return outcome

    async def complete(self) -> None:
        """Read again the secrets that could not be had; go on as if nothing had been amiss with those that can.

        What keeps one that can be had from being used is logged, and it is tried again the next time.

        Raises:
            OutboxFailed: the process must stop.
        """
        await self._attempt(self._complete)

    async def end(self) -> None:
        """Let nobody reload any more; when this returns nothing does. What is being put into force is, first."""
        self._is_over = True
        if not self._is_applying:
            for attempt in self._attempts:
                attempt.cancel()
        try:
            if self._attempts:
                await asyncio.wait(self._attempts)
        finally:  # nobody may wait for as long as that takes
            for attempt in self._attempts:
                attempt.cancel()

    def _has_ended(self) -> bool:
        return self._is_over

    async def _attempt(
        self, job: Callable[[], Coroutine[Any, Any, tuple[str, ...] | ConfigError]]
    ) -> tuple[str, ...] | ConfigError:
        if self._is_over:
            return _stopping()
        # A task of the daemon's own: nobody who has lost patience leaves half of it behind, and if a bug does,
        # the process ends, and begins anew with the whole.
        attempt = job()
        try:
            task = self._running.begin(attempt, "reload")
        except RuntimeError:  # something failed for good: the daemon's tasks are being ended
            attempt.close()
            return _stopping()
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)
        await asyncio.wait([task])
        return _stopping() if task.cancelled() else task.result()

    async def _reload(self) -> tuple[str, ...] | ConfigError:
        async with self._one_at_a_time:
            self._busy(True)  # noqa: FBT003  # a callback's only argument
            try:
                return await self._read_and_change()
            finally:
                self._busy(False)  # noqa: FBT003

    async def _read_and_change(self) -> tuple[str, ...] | ConfigError:
        if self._is_over:
            return _stopping()
        try:
            # Before it is read: what changes from now on is read again.
            files, self.footprint = await asyncio.to_thread(_footprint, self.now.config)
            config, secrets, of_secrets = await asyncio.to_thread(
                _read, self.now.config.path, self._has_ended
            )
            new, found, prepared = await self._preparing.prepare(self.now, config, secrets)
        except ConfigError as error:
            return self._refuse(error)
        except OutboxFailed:
            raise
        except Exception as error:
            logger.exception("the configuration could not be reloaded for a reason of our own")
            return self._refuse(_our_own(error))
        self.footprint, self.refused_s = files + of_secrets, None
        await self._apply(new, found, prepared)
        self._refused = ()
        self._metrics.config_reloaded(self._clock.utc_ns() / NS_PER_S, accepted=True)
        self._report.adopt(config, secrets, found.lines)
        if found.lines:
            logger.info("the configuration was reloaded", extra={"changed": list(found.lines)})
        return found.lines

    async def _complete(self) -> tuple[str, ...] | ConfigError:
        async with self._one_at_a_time:
            config, before = self.now.config, self.now.secrets
            if self._is_over or not before.unavailable:
                return ()
            secrets = await asyncio.to_thread(read_again, config, before, is_over=self._has_ended)
            if before.unavailable == secrets.unavailable:
                return ()
            try:
                new, found, prepared = await self._preparing.prepare(self.now, config, secrets)
            except ConfigError as error:
                if tuple(error.problems) != self._incomplete:  # the same again is no news
                    self._incomplete = tuple(error.problems)
                    logger.error(  # noqa: TRY400  # no bug that a traceback would help with
                        "secrets can be reached again, but not be used",
                        extra={"problems": [str(problem) for problem in error.problems]},
                    )
                return error
            except OutboxFailed:
                raise
            except Exception as error:
                logger.exception("the configuration could not be reloaded for a reason of our own")
                return _our_own(error)
            await self._apply(new, found, prepared)
            self._incomplete = ()
            self._report.complete(secrets, found.lines)
            logger.info(
                "secrets can be reached again",
                extra={
                    "count": len(before.unavailable) - len(secrets.unavailable),
                    "changed": list(found.lines),
                },
            )
            return found.lines

    def _refuse(self, error: ConfigError) -> ConfigError:
        self.refused_s = self._clock.monotonic_s()
        self._metrics.config_reloaded(self._clock.utc_ns() / NS_PER_S, accepted=False)
        self._report.refuse([str(problem) for problem in error.problems])
        if tuple(error.problems) != self._refused:  # the same again is no news
            self._refused = tuple(error.problems)
            logger.error(
                "the configuration was not reloaded: what was in force still is",
                extra={"problems": [str(problem) for problem in error.problems]},
            )
        return error

    async def _apply(self, new: InForce, found: Difference, prepared: Prepared) -> None:
        self._is_applying = True
        try:
            old, self.now = self.now, new
            self._adopted(new)
            await self._put_into_force(old, new, found, prepared)
        finally:
            self._is_applying = False

    async def _put_into_force(
        self, old: InForce, new: InForce, found: Difference, prepared: Prepared
    ) -> None:
        parts = self._parts
        for name in found.egress.changed:
            parts.egress[name].budget.leave_elsewhere()
        replaced = [parts.client.put_transport(name, one) for name, one in prepared.transports.items()]
        parts.locks.update(prepared.locks)
        # Whoever goes ends a poll that is under way with the key from before.
        parts.client.exchange_keys(
            {**old.secrets.credentials, **new.secrets.credentials}, new.secrets.masters
        )
        parts.client.set_recv_window(new.config.exchange.recv_window_ms)
        parts.timekeeper.set_interval(new.config.exchange.time_sync_s)
        parts.acceptance.set_terms(**new.assembly.acceptance_terms())
        for egress in parts.egress.values():
            egress.budget.reconfigure(
                limit=new.config.budget.weight_limit,
                share=new.config.budget.share,
                in_flight_s=new.config.exchange.timeout_s,
            )
            egress.set_policy(new.config.key_policy)
        moved = await self._let_go(old, new, found)
        parts.client.exchange_keys(new.secrets.credentials, new.secrets.masters)
        for name in found.egress.removed:
            await self._running.stop_egress(name)
            del parts.egress[name]
            self._metrics.forget_egress(name)
            replaced.append(parts.client.take_transport(name))
        parts.acceptance.restore(prepared.baselines)
        await self._open_egress(old, new, found)
        self._take_in(old, new, found, moved)
        await self._apply_sinks(found, prepared)
        if found.is_discovering_anew:
            self._discover_anew(old, new)
        self._release(new)
        self._running.retire(
            [transport for transport in replaced if transport is not None], old.config.exchange.timeout_s
        )
        old.assembly.forget()  # the one of the start is kept until the end by what it has opened

    def _discover_anew(self, old: InForce, new: InForce) -> None:
        parts, before = self._parts, dict(self._parts.discoveries)
        parts.discoveries.clear()
        parts.discoveries.update(new.assembly.discoveries(parts.client, parts.egress))
        for name, watch in before.items():
            if name not in parts.discoveries:
                self._metrics.forget_discover(name)
            elif is_same_key(old.secrets.masters.get(name), new.secrets.masters.get(name)):
                parts.discoveries[name].take_over(watch)
        self._running.start_discoveries()

    async def _let_go(self, old: InForce, new: InForce, found: Difference) -> list[str]:
        """Poll from nowhere who goes, or is polled from elsewhere; return the latter.

        Everybody ends a poll that is under way first: nobody is polled in two places.
        """
        parts, config = self._parts, new.config
        moved = [
            name
            for name in found.accounts.changed
            if old.config.accounts[name].egress != config.accounts[name].egress
        ]
        await asyncio.gather(
            *(parts.egress[old.config.accounts[name].egress].leave(name) for name in moved),
            *(parts.egress[old.config.accounts[name].egress].remove(name) for name in found.accounts.removed),
        )
        for name in found.accounts.removed:
            parts.observations.forget(name)
        return moved

    async def _open_egress(self, old: InForce, new: InForce, found: Difference) -> None:
        if not found.egress.added:
            return
        parts, without = self._parts, keyless(new.config, new.secrets)
        states = await parts.outbox.egress()
        names = {
            old.assembly.address_key(name): name
            for name in old.config.egress
            if old.assembly.is_reachable(name)
        }
        for name in found.egress.added:
            # Under another name an address is as silent, and has spent as much, as it had before.
            before = names.get(new.assembly.address_key(name)) if new.assembly.is_reachable(name) else None
            state = states.get(name) if before is None else states.get(before)
            if before is not None and state is not None:
                with suppress(OutboxFull):  # then it is forgotten by the next start, as one that is new
                    await parts.outbox.put_egress(name, state)
            parts.egress[name] = new.assembly.egress(parts, name, state)
            self._running.start_egress(name, without)

    def _take_in(self, old: InForce, new: InForce, found: Difference, moved: Sequence[str]) -> None:
        parts, config = self._parts, new.config
        without = keyless(config, new.secrets)
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

    async def _apply_sinks(self, found: Difference, prepared: Prepared) -> None:
        going = (*found.sinks.removed, *found.sinks.changed)
        await asyncio.gather(*map(self._running.stop_delivery, going))
        for name in going:
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


def _stopping() -> ConfigError:
    return ConfigError("the daemon is about to stop")


def _our_own(error: Exception) -> ConfigError:
    return ConfigError(f"it cannot be reloaded: {type(error).__name__}; see the log")


def _footprint(config: Config) -> tuple[Footprint, Footprint]:
    """Return the footprint of the configuration's own files, and that of all."""
    files = files_footprint(config.path)
    return files, files + secrets_footprint(config)


def _read(path: Path, is_over: Callable[[], bool]) -> tuple[Config, Secrets, Footprint]:
    config = load(path)
    of_secrets = secrets_footprint(config)
    return config, read_secrets(config, is_over=is_over), of_secrets
