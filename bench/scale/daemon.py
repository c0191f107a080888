"""The daemon as `poller run` makes it, which also says when it got where, and how late each poll was.

It is run by its path and imports nothing of the measurements, so that nothing else is in its memory. It
does not harden itself, or nobody but root could look at that memory.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def say(what: str, *figures: object) -> None:
    """Tell whoever measures, in one line."""
    print(what, *figures, flush=True)


def lap(name: str) -> None:
    """Say that a part of the start is done, when, and how much processor time the process has used."""
    say("lap", name, time.time_ns(), time.process_time())


def main(path: str, polls_until_trace: int) -> int:
    lap("interpreter")
    if polls_until_trace:
        tracemalloc.start()
    import poller.cli  # noqa: F401  # as the command does, before it knows what to do
    from poller.garbage import collector_at_rest

    with ExitStack() as starting:
        starting.enter_context(collector_at_rest())
        from poller.commands import run

        lap("imports")
        listen_in(run, polls_until_trace)
        return run.run_daemon(Path(path), log_level=None, log_format="json", started=starting.close)


def listen_in(run: Any, polls_until_trace: int) -> None:
    """Have what the command runs say how far it is, and leave out what would close its memory to us."""
    from poller.outbox import Outbox

    imported = tracemalloc.take_snapshot() if polls_until_trace else None
    polls = 0

    def observe(account: Any, outcome: object, lateness_s: float) -> None:
        nonlocal polls
        if not polls:
            lap("first-poll")
        polls += 1
        say("poll", account.name, lateness_s)
        if imported is not None and polls == polls_until_trace:
            trace(imported)

    def then_lap(work: Callable[P, T], name: str) -> Callable[P, T]:
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            result = work(*args, **kwargs)
            lap(name)
            return result

        return timed

    opening = Outbox.open

    async def open_outbox(*args: Any, **settings: Any) -> Outbox:
        outbox = await opening(*args, **settings)
        lap("outbox")
        return outbox

    run.secrets_footprint = then_lap(run.secrets_footprint, "configuration")
    run.read_secrets = then_lap(run.read_secrets, "secrets")
    run.App = partial(run.App, observer=observe)
    run.harden = int
    Outbox.open = open_outbox  # type: ignore[method-assign]


def trace(imported: tracemalloc.Snapshot) -> None:
    """Say which lines of which files allocated what has come since the imports, the largest first."""
    gc.collect()
    found = tracemalloc.take_snapshot().compare_to(imported, "lineno")
    say("trace", sum(one.size_diff for one in found), sum(one.count_diff for one in found), "altogether")
    for one in found[:25]:
        frame = one.traceback[0]
        say("trace", one.size_diff, one.count_diff, f"{frame.filename}:{frame.lineno}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
