"""The daemon as `poller run` makes it, which also says when it got where, and how late each poll was.

It is run by its path and imports nothing of the measurements, so that nothing else is in its memory. It
does not harden itself, or nobody but root could look at that memory.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from contextlib import ExitStack


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
        return run(path, polls_until_trace, starting)


def run(path: str, polls_until_trace: int, starting: ExitStack) -> int:
    """Run until a signal comes; ``starting`` is closed when all that a start makes is there."""
    import asyncio

    from poller.app import App
    from poller.config import load, read_secrets
    from poller.logs import logging_to
    from poller.metrics import Metrics
    from poller.outbox import Outbox
    from poller.signals import until_signalled

    lap("imports")
    imported = tracemalloc.take_snapshot() if polls_until_trace else None
    config = load(path)
    lap("configuration")
    metrics = Metrics()
    opening = Outbox.open
    polls = 0

    async def open_outbox(*args: object, **settings: object) -> Outbox:
        outbox = await opening(*args, **settings)  # type: ignore[arg-type]  # passed on as they came
        lap("outbox")
        return outbox

    def observe(account: object, outcome: object, lateness_s: float) -> None:
        nonlocal polls
        if not polls:
            lap("first-poll")
        polls += 1
        say("poll", account.name, lateness_s)  # type: ignore[attr-defined]
        if imported is not None and polls == polls_until_trace:
            trace(imported)

    Outbox.open = open_outbox  # type: ignore[method-assign]
    with logging_to(level=config.logging.level, style="json", metrics=metrics):
        secrets = read_secrets(config)
        lap("secrets")
        app = App(config, secrets, metrics=metrics, observer=observe)
        starting.close()
        return asyncio.run(until_signalled(lambda stop, hurry: app.run(stop, hurry=hurry), hung_up=len))  # type: ignore[arg-type]


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
