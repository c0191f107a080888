"""Reload the configuration when somebody asks for it, and when its files change."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from poller.clock import Clock
from poller.config.footprint import Footprint, Footprints
from poller.errors import ConfigError
from poller.reloading import Reloading

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0
# What made a configuration fail may lie in a file that is not known, such as one that is missing.
TRY_AGAIN_S: Final = 30.0


class Following:
    """Lets the daemon follow its configuration.

    Args:
        reloading: reads it.
    """

    def __init__(self, reloading: Reloading, clock: Clock) -> None:
        self._reloading = reloading
        self._clock = clock
        self._asked = asyncio.Event()
        self._footprints = Footprints(reloading.now.config.path)
        self._completed_s = clock.monotonic_s()

    def ask(self) -> None:
        """Have the configuration read anew, soon; for signals."""
        self._asked.set()

    async def run(self) -> None:
        """Follow until cancelled.

        Raises:
            OutboxFailed: the process must stop.
        """
        if self._reloading.footprint is None:
            self._reloading.footprint = await self._footprint(is_whole=True)
        before = self._reloading.footprint
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._asked.wait()
            except TimeoutError:
                await self._complete()
                if not self._reloading.now.config.reload.is_watching:
                    continue
                # Only what has stood still for a while is read, as a whole: an editor may be in the middle of it.
                read = self._reloading.footprint
                now = await self._footprint(is_whole=before != read)
                has_settled, before = now == before, now
                if read is not self._reloading.footprint:
                    continue  # meanwhile somebody has read what is there
                if not has_settled or (now == read and not self._is_to_try_again()):
                    continue
            self._asked.clear()
            with suppress(ConfigError):  # it is said where it was found
                await self._reloading.reload()

    async def _footprint(self, *, is_whole: bool) -> Footprint:
        look = self._footprints.take if is_whole else self._footprints.glance
        return await asyncio.to_thread(look, self._reloading.now.config)

    async def _complete(self) -> None:
        """Try again, now and then, what could not be had so far."""
        now_s = self._clock.monotonic_s()
        if self._reloading.now.secrets.unavailable and now_s - self._completed_s >= TRY_AGAIN_S:
            self._completed_s = now_s
            await self._reloading.complete()

    def _is_to_try_again(self) -> bool:
        refused_s = self._reloading.refused_s
        return refused_s is not None and self._clock.monotonic_s() - refused_s >= TRY_AGAIN_S
