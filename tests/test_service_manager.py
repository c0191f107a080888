"""The protocol of sd_notify on real datagram sockets, and a watchdog that only real progress feeds."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import pytest

from poller.beat import Beat
from poller.clock import SystemClock
from poller.service_manager import ServiceManager
from poller.testing.virtual_time import VirtualClock


class Listener:
    """A service manager's socket: ``address`` is what it puts into the environment."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(0)

    def heard(self) -> list[str]:
        """Every message that has come and was not heard yet."""
        messages = []
        with suppress(BlockingIOError):
            while True:
                messages.append(self.socket.recv(4096).decode())
        return messages


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@poller-test-{token_hex(8)}"
    listener = Listener(name)
    yield listener
    listener.socket.close()


def environ(listener: Listener, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": listener.address, "PATH": "/bin", **more}


def manager(listener: Listener, **more: str) -> ServiceManager:
    return ServiceManager.from_environment(SystemClock(), environ(listener, **more))


def test_it_is_told_everything_in_its_own_words(listener: Listener) -> None:
    told = manager(listener)
    told.ready("10 accounts")
    told.status("a sink\nis down  STATUS=x")
    before_us = time.monotonic_ns() // 1000
    told.reloading()
    after_us = time.monotonic_ns() // 1000
    told.ready()
    told.stopping("draining")
    ready, status, reloading, again, stopping = listener.heard()
    assert ready == "READY=1\nSTATUS=10 accounts"
    assert status == "STATUS=a sink is down STATUS=x"  # one line: it cannot say anything else
    state, _, since = reloading.partition("\nMONOTONIC_USEC=")
    assert (state, again, stopping) == ("RELOADING=1", "READY=1", "STOPPING=1\nSTATUS=draining")
    assert before_us <= int(since) <= after_us


def test_after_the_end_has_begun_it_is_not_told_of_the_end_of_a_reload(listener: Listener) -> None:
    told = manager(listener)
    told.reloading()
    told.stopping()
    told.ready("10 accounts")
    told.reloading()
    assert [message.split("\n")[0] for message in listener.heard()] == ["RELOADING=1", "STOPPING=1"]


def test_a_message_is_never_longer_than_its_bound(listener: Listener) -> None:
    manager(listener).status("é" * 10_000)
    [message] = listener.heard()
    assert len(message) == len("STATUS=") + 400


def test_what_was_read_is_gone_from_the_environment(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ(listener, WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid())).items():
        monkeypatch.setenv(name, value)
    told = ServiceManager.from_environment(SystemClock())
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
    assert told.watchdog_s == 3.0
    told.ready()
    assert listener.heard() == ["READY=1"]


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({}, None),
    ],
)
def test_a_watchdog_is_meant_for_this_process_and_has_a_time(
    variables: dict[str, str], watchdog_s: float | None
) -> None:
    assert ServiceManager.from_environment(SystemClock(), variables).watchdog_s == watchdog_s
    assert variables == {}


def test_without_a_service_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    told = ServiceManager.from_environment(SystemClock(), {})
    told.ready()
    told.status("well")
    told.stopping()
    assert caplog.records == []


def test_one_that_cannot_be_reached_is_one_line_and_is_told_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = str(tmp_path / "notify")
    told = ServiceManager(address, None, SystemClock())
    told.ready("starting")
    told.status("running")
    assert [(line.message, line.__dict__["error"]) for line in caplog.records] == [
        ("the service manager cannot be told how it stands", "No such file or directory")
    ]
    listener = Listener(address)
    told.status("running well")
    assert listener.heard() == ["READY=1\nSTATUS=running well"]
    told.status("still")
    assert listener.heard() == ["STATUS=still"]
    listener.socket.close()


def test_an_address_of_another_kind_is_no_reason_to_fail(caplog: pytest.LogCaptureFixture) -> None:
    for address in ("vsock:2:1234", "/" + "x" * 200):
        ServiceManager(address, None, SystemClock()).ready()
    assert len(caplog.records) == 2


def test_one_that_does_not_read_holds_nobody_up(listener: Listener) -> None:
    told = manager(listener)
    for number in range(2000):  # far more than its queue holds
        told.status(f"status {number}")
    first, *others = listener.heard()
    assert first == "STATUS=status 0"
    assert len(others) < 1999
    told.status("the last")
    assert listener.heard() == ["STATUS=the last"]


async def fed(told: ServiceManager, beat: Beat, listener: Listener, seconds: float) -> list[float]:
    """Watch for so many virtual seconds, and return when the watchdog was fed."""
    loop = asyncio.get_running_loop()
    watching, begun_s, times = asyncio.create_task(told.watch(beat)), loop.time(), []
    await asyncio.sleep(0.25)  # between two moments at which it may be fed
    while loop.time() < begun_s + seconds:
        times += [loop.time() - 0.25 for message in listener.heard() if "WATCHDOG=1" in message.split("\n")]
        await asyncio.sleep(0.5)
    watching.cancel()
    return times


async def test_it_is_fed_at_half_its_interval(listener: Listener, clock: VirtualClock) -> None:
    for watchdog_s, times in ((60.0, [0.0, 30.0, 60.0]), (12.0, [0, 6, 12, 18, 24, 30, 36, 42, 48, 54, 60])):
        told = ServiceManager(listener.address, watchdog_s, clock)
        begun_s = clock.monotonic_s()
        assert [at_s - begun_s for at_s in await fed(told, Beat(), listener, 61.0)] == times


async def test_without_a_watchdog_it_is_not_fed(listener: Listener, clock: VirtualClock) -> None:
    assert await fed(ServiceManager(listener.address, None, clock), Beat(), listener, 600.0) == []


async def test_a_dispatcher_that_hangs_is_not_fed_and_is_said_once(
    listener: Listener, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    told, beat = ServiceManager(listener.address, 10.0, clock), Beat()
    beat.touch("default", 0.0, "waiting for weight")
    assert await fed(told, beat, listener, 600.0) == [0.0, 5.0, 10.0, 15.0, 20.0]
    assert [line.message for line in caplog.records] == ["polls hang: the watchdog is not fed"]
    assert caplog.records[0].__dict__["error"] == (
        "the dispatcher of default has not turned for 25 s; it was last seen waiting for weight"
    )
    caplog.clear()
    watching = asyncio.create_task(told.watch(beat))
    await asyncio.sleep(1)
    assert listener.heard() == [
        "STATUS=the dispatcher of default has not turned for 600 s; it was last seen waiting for weight"
    ]
    beat.touch("default", clock.monotonic_s())
    await asyncio.sleep(5)
    assert listener.heard() == ["STATUS=polls go on", "WATCHDOG=1"]
    assert caplog.messages[-1] == "polls go on: the watchdog is fed again"
    watching.cancel()


@pytest.mark.real_time
def test_a_loop_that_is_blocked_is_not_fed(listener: Listener) -> None:
    told, beat = ServiceManager(listener.address, 0.1, SystemClock()), Beat()
    listener.socket.settimeout(10)
    blocked, unblock, ended = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        unblock.wait(30)

    async def daemon() -> None:
        beat.touch("default", SystemClock().monotonic_s())
        watching = asyncio.create_task(told.watch(beat))
        await asyncio.to_thread(go_on.wait, 30)
        block()
        await asyncio.to_thread(ended.wait, 30)
        watching.cancel()

    go_on = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(daemon()), daemon=True)
    thread.start()
    assert [listener.socket.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    go_on.set()
    assert blocked.wait(30)
    listener.socket.settimeout(0)
    listener.heard()
    listener.socket.settimeout(1)  # twenty times the interval at which it would be fed
    with pytest.raises(TimeoutError):
        listener.socket.recv(4096)
    unblock.set()
    listener.socket.settimeout(10)
    assert listener.socket.recv(4096) == b"WATCHDOG=1"
    ended.set()
    thread.join(30)
