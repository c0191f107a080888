"""A dispatcher is seen to turn whatever it waits for, and is seen to hang when it waits without a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from poller import polling
from poller.beat import HANGS_AFTER_S, TURN_EVERY_S
from poller.errors import RateLimited
from poller.model import Account
from poller.service_manager import ServiceManager
from poller.testing.virtual_time import VirtualClock
from tests.test_polling import World
from tests.test_service_manager import Listener

HOUR_S = 3600.0


def fleet(count: int, interval_s: float) -> list[Account]:
    return [Account(f"a{n}", interval_s, stale_after_s=1e6) for n in range(count)]


async def troubles(w: World, seconds: float) -> list[str]:
    """Everything that the beat says in this time, looked at as the service manager's watch does."""
    told = []
    end_s = w.clock.monotonic_s() + seconds
    while w.clock.monotonic_s() < end_s:
        told.append(w.beat.trouble(w.clock.monotonic_s()))
        await asyncio.sleep(TURN_EVERY_S)
    return [trouble for trouble in told if trouble]


async def test_it_turns_while_nobody_is_due(clock: VirtualClock) -> None:
    w = World(clock, fleet(1, 7 * 86_400.0))
    w.dispatcher._stretching = None  # it would wake the dispatcher as often
    async with w.running():
        assert await troubles(w, 86_400.0) == []
    assert len(w.exchange.calls) <= 1


async def test_it_turns_during_a_pause(clock: VirtualClock) -> None:
    w = World(clock, fleet(5, 10.0))
    w.exchange.script["*"] = [RateLimited("HTTP 429", status=429, retry_after_s=HOUR_S)]
    async with w.running():
        assert await troubles(w, HOUR_S) == []
        assert w.budget.pause_left_s() > 0
        polled = len(w.exchange.calls)
        assert await troubles(w, HOUR_S / 2) == []
        assert len(w.exchange.calls) > polled


async def test_it_turns_while_the_outbox_is_full(clock: VirtualClock) -> None:
    w = World(clock, fleet(5, 10.0))
    w.outbox.room.clear()
    async with w.running():
        assert await troubles(w, HOUR_S) == []
        assert w.exchange.calls == []
        w.outbox.room.set()
        assert await troubles(w, 60.0) == []
        assert len(w.exchange.calls) >= 25


async def test_it_turns_while_far_more_is_wanted_than_fits(clock: VirtualClock) -> None:
    w = World(clock, fleet(50, 1.0), limit=10)
    async with w.running():
        assert await troubles(w, HOUR_S) == []
    assert len(w.exchange.calls) > 100


async def test_it_turns_while_others_leave_it_nothing(clock: VirtualClock) -> None:
    w = World(clock, fleet(5, 10.0), limit=100)
    w.exchange.foreign = 1000
    async with w.running():
        assert await troubles(w, HOUR_S) == []


async def test_it_turns_while_every_socket_is_in_use(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "IN_FLIGHT_AT_MOST", 2)
    w = World(clock, fleet(5, 10.0))
    w.exchange.script["*"] = [600.0, 600.0]
    async with w.running():
        assert await troubles(w, 500.0) == []
        assert len(w.exchange.calls) == 2


async def test_it_turns_before_the_exchanges_clock_is_known(clock: VirtualClock) -> None:
    w = World(clock, fleet(5, 10.0))
    running = asyncio.create_task(w.dispatcher.run())  # nobody measures
    assert await troubles(w, HOUR_S) == []
    w.dispatcher.stop()
    await running
    assert w.exchange.calls == []


async def test_a_machine_that_slept_is_no_hang(clock: VirtualClock) -> None:
    w = World(clock, fleet(5, 60.0))
    async with w.running():
        await asyncio.sleep(100)
        clock.suspended_s += HOUR_S
        assert await troubles(w, 600.0) == []


async def test_a_wait_that_goes_on_without_a_reason_is_a_hang(clock: VirtualClock) -> None:
    w = World(clock, fleet(5, 10.0))
    never = asyncio.Event()

    async def save(_state: bytes) -> None:
        await never.wait()  # a disk that does not answer: there is weight, and it is not granted

    async with w.running():
        await asyncio.sleep(100)
        assert await troubles(w, 60.0) == []
        w.budget._save = save  # what a disk does is not configured
        told = await troubles(w, 60.0)
        assert told
        assert all(
            trouble.startswith("the dispatcher of default has not turned for ")
            and trouble.endswith(" s; it was last seen waiting for weight")
            for trouble in told
        )
        never.set()
        await asyncio.sleep(1)
        assert await troubles(w, 60.0) == []


async def test_one_that_has_ended_does_not_hang(clock: VirtualClock) -> None:
    w = World(clock, fleet(5, 10.0))
    await w.run(30)
    assert w.beat.trouble(1e9) == ""


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(str(tmp_path / "notify"))
    yield listener
    listener.socket.close()


async def test_a_hung_dispatcher_starves_the_watchdog_and_a_waiting_one_does_not(
    clock: VirtualClock, listener: Listener
) -> None:
    w = World(clock, fleet(5, 10.0))
    w.exchange.script["*"] = [RateLimited("HTTP 429", status=429, retry_after_s=HOUR_S)]
    watching = asyncio.create_task(ServiceManager(listener.address, 60.0, clock).watch(w.beat))

    async def fed(seconds: float) -> int:
        listener.heard()
        count = 0
        for _ in range(round(seconds / 60)):
            await asyncio.sleep(60)
            count += listener.heard().count("WATCHDOG=1")
        return count

    async def save(_state: bytes) -> None:
        await asyncio.Event().wait()

    async with w.running():
        await asyncio.sleep(15)
        assert await fed(600.0) == 20
        w.budget._save = save  # what a disk does is not configured
        await asyncio.sleep(HOUR_S + HANGS_AFTER_S + 60.0)  # the pause ends, and no weight can be reserved
        assert await fed(600.0) == 0
    watching.cancel()
