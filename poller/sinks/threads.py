"""A thread for the blocking work of one sink."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Job = tuple["Future[Any]", Callable[[], Any]]


class OwnThread(Executor):
    """Runs one job after the other, for ``loop.run_in_executor``.

    Unlike the threads of ``ThreadPoolExecutor`` this one is a daemon: a write that hangs, because nobody
    reads the pipe or a disk has gone, does not keep the process from ending. A job whose waiter was
    cancelled before it began is left out, so retries do not queue up behind a hanging one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function after those before it; begins a thread if there is none."""
        if self._jobs is None:
            self._jobs = SimpleQueue()
            Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True).start()
        future: Future[T] = Future()
        self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # the base's own signature
        """Let the thread end after the jobs it has; does not wait for it. Harmless when called twice."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        future, function = job
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits for the future
            future.set_exception(error)
        else:
            future.set_result(result)
        del job, future  # an idle thread holds on to nothing
