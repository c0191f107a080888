"""Whose polls are under way on one address, and how to wait for the end of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from poller.clock import Clock


class UnderWay:
    """The accounts that are being polled, by name: one poll of each at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._names: set[str] = set()
        self._leaving: set[str] = set()  # accounts whose poll under way is waited for
        self._repeating: dict[str, asyncio.Timeout] = {}  # ends the wait for the weight of one request more
        self._landed = asyncio.Event()  # set, and replaced, when a poll has ended

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._names)

    def begin(self, name: str) -> None:
        """Note that an account's poll begins."""
        self._names.add(name)

    def end(self, name: str) -> None:
        """Note that it has ended."""
        self._names.discard(name)
        self._landed.set()
        self._landed = asyncio.Event()

    def is_leaving(self, name: str) -> bool:
        """Say whether somebody waits for the end of an account's poll."""
        return name in self._leaving

    async def finished(self, name: str) -> None:
        """Wait until no poll of an account is under way; nothing is sent again for the one that is."""
        self._leaving.add(name)
        self._hurry(name)
        try:
            while name in self._names:
                await self._landed.wait()
        finally:
            self._leaving.discard(name)

    def hurry_all(self) -> None:
        """Let nobody wait any longer for the weight of one request more."""
        for name in self._repeating:
            self._hurry(name)

    @asynccontextmanager
    async def repeating(self, name: str) -> AsyncIterator[None]:
        """Wait within it for the weight of one request more.

        Raises:
            TimeoutError: nobody is to wait for that any longer.
        """
        try:
            async with asyncio.timeout(None) as self._repeating[name]:
                yield
        finally:
            self._repeating.pop(name, None)

    def _hurry(self, name: str) -> None:
        if name in self._repeating:
            self._repeating[name].reschedule(self._clock.monotonic_s())
