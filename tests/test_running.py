"""What a daemon can do without begins anew after a bug; what it cannot do without ends it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from poller.errors import OutboxFailed
from poller.running import ANEW_AFTER_S, persistently
from poller.testing.virtual_time import VirtualClock


class Watcher:
    """Fails as told, then ends."""

    def __init__(self, clock: VirtualClock, *errors: BaseException) -> None:
        self._clock = clock
        self._errors = list(errors)
        self.begun_s: list[float] = []

    async def run(self) -> None:
        self.begun_s.append(self._clock.monotonic_s())
        if self._errors:
            raise self._errors.pop(0)


async def test_a_bug_is_logged_and_it_begins_anew(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher(clock, KeyError("a"), ExceptionGroup("several", [ValueError("b")]))
    await persistently(watcher.run, "sampling")
    assert watcher.begun_s == [0.0, ANEW_AFTER_S, 2 * ANEW_AFTER_S]
    assert [(record.levelno, record.__dict__["task"]) for record in caplog.records] == [
        (logging.ERROR, "sampling")
    ] * 2
    assert all(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    "error",
    [
        OutboxFailed("the disk is gone"),
        ExceptionGroup("several", [KeyError("a"), ExceptionGroup("more", [OutboxFailed("x")])]),
        asyncio.CancelledError(),
    ],
)
async def test_what_ends_the_process_is_passed_on(
    clock: VirtualClock, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher(clock, error)
    with pytest.raises(type(error)) as raised:
        await persistently(watcher.run, "keys")
    assert raised.value is error
    assert watcher.begun_s == [0.0]
    assert caplog.records == []
