"""A few threads of the server's own, for what takes long: the daemon's threads, which look up names, stay free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar, TypeVarTuple

_THREADS: Final = 2

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Worker:
    """Runs functions in threads. Made at once, its threads begin with their first work."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="server")

    async def run(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Return what the function returns."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def begin(self, work: Callable[[], T]) -> Future[T]:
        """Begin what nobody waits for yet."""
        return self._threads.submit(work)

    def close(self) -> None:
        """End the threads; what has not begun yet does not begin."""
        self._threads.shutdown(wait=False, cancel_futures=True)
