"""The thread that one sink works in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from poller.sinks.threads import OwnThread

pytestmark = pytest.mark.real_time


def test_jobs_run_one_after_the_other_in_one_thread() -> None:
    thread = OwnThread("test")
    order: list[tuple[int, int]] = []

    def note(number: int) -> None:
        order.append((number, threading.get_ident()))

    futures = [thread.submit(note, number) for number in range(20)]
    for future in futures:
        future.result(timeout=10)
    assert [number for number, _ in order] == list(range(20))
    assert len({ident for _, ident in order}) == 1
    thread.shutdown()


async def test_an_error_reaches_whoever_waits_and_the_next_job_runs() -> None:
    thread, loop = OwnThread("test"), asyncio.get_running_loop()
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(thread, lambda: 1 // 0)
    assert await loop.run_in_executor(thread, lambda: 7) == 7
    thread.shutdown()


async def test_a_job_whose_waiter_left_before_it_began_is_left_out() -> None:
    thread, loop = OwnThread("test"), asyncio.get_running_loop()
    go_on = threading.Event()
    done: list[object] = []
    hanging = loop.run_in_executor(thread, go_on.wait, 10)
    retries = [loop.run_in_executor(thread, done.append, number) for number in range(3)]
    for retry in retries:
        retry.cancel()
    await asyncio.gather(*retries, return_exceptions=True)  # the thread is told by the loop, in its turn
    last = loop.run_in_executor(thread, done.append, "last")
    go_on.set()
    await asyncio.gather(hanging, last)
    assert done == ["last"]
    thread.shutdown()


def test_jobs_given_before_the_shutdown_are_done_and_a_later_one_begins_a_new_thread() -> None:
    thread = OwnThread("test")
    futures = [thread.submit(threading.get_ident) for _ in range(3)]
    thread.shutdown()
    thread.shutdown()
    first = {future.result(timeout=10) for future in futures}
    assert len(first) == 1
    assert thread.submit(lambda: "again").result(timeout=10) == "again"
    thread.shutdown()


def test_a_job_that_never_ends_does_not_keep_the_process() -> None:
    program = (
        "import threading\n"
        "from poller.sinks.threads import OwnThread\n"
        "begun = threading.Event()\n"
        "OwnThread('hangs').submit(lambda: (begun.set(), threading.Event().wait()))\n"
        "begun.wait()\n"
        "print('leaving')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "leaving\n"
