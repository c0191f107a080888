"""Signals: the first one asks for an orderly end, a second one for an end at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

ENDING = (signal.SIGTERM, signal.SIGINT)


async def until_signalled(
    job: Callable[[asyncio.Event, asyncio.Event], Awaitable[None]],
    *,
    hung_up: Callable[[], object] = lambda: None,
) -> int:
    """Run ``job(stop, hurry)``; the first signal sets the first event, the second signal the second.

    A SIGHUP calls ``hung_up``, and ends nothing.

    Returns the exit code: 0, or 128 and the signal's number if a second one cut the end short.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    second: list[int] = []

    def caught(number: int) -> None:
        if stop.is_set():
            second.append(number)
            hurry.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in ENDING:
        loop.add_signal_handler(number, caught, number)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    try:
        await job(stop, hurry)
    finally:
        for number in (*ENDING, signal.SIGHUP):
            loop.remove_signal_handler(number)
    return 128 + second[0] if second else 0
