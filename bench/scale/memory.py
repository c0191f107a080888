"""What one account more takes: the memory of daemons with fleets of several sizes."""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from pathlib import Path

from bench.scale.fleet import ROOM, SHARE, WEIGHT, WINDOW_S, simulating
from bench.scale.watched import Memory, watching

SLACK = 1.02  # of the polls that are waited for: those that come again before the last has come


def run(chosen: argparse.Namespace) -> None:
    """Print the memory of each fleet, and what an account takes by all of them together."""
    found = {}
    for accounts in chosen.sizes:
        memory, _ = measure(accounts, chosen)
        found[accounts] = memory
        print(
            f"{accounts:6d} accounts, polled {chosen.polls} times or more: rss {memory.rss_bytes / 1e6:6.1f} MB,"
            f" pss {memory.pss_bytes / 1e6:6.1f} MB, private and dirty {memory.private_dirty_bytes / 1e6:6.1f} MB",
            flush=True,
        )
    if len(found) > 1:
        for name in ("rss_bytes", "pss_bytes", "private_dirty_bytes"):
            fit = statistics.linear_regression(
                list(found), [getattr(memory, name) for memory in found.values()]
            )
            print(f"{name}: {fit.intercept / 1e6:.1f} MB and {fit.slope / 1e3:.2f} kB an account")
    if chosen.trace:
        accounts = max(chosen.sizes)
        _, trace = measure(accounts, chosen, is_traced=True)
        for size, count, where in trace:
            shown = "/".join(where.split("/")[-3:])
            print(f"{size / accounts:8.0f} bytes an account in {count / accounts:7.2f} pieces: {shown}")


def measure(
    accounts: int, chosen: argparse.Namespace, *, is_traced: bool = False
) -> tuple[Memory, list[tuple[int, int, str]]]:
    """Return the memory of a daemon that has polled each account so often, and what takes it if traced."""
    interval = max(1, math.ceil(accounts / chosen.polls_per_s))
    limit = math.ceil(accounts / interval * WEIGHT * WINDOW_S / SHARE * ROOM)
    traced = math.ceil(accounts * chosen.polls * SLACK) if is_traced else 0
    with (
        tempfile.TemporaryDirectory() as name,
        simulating(Path(name), accounts, interval=interval, weight_limit=limit) as config,
        watching(config, chosen.cache, polls_until_trace=traced) as daemon,
    ):
        daemon.until(
            lambda: len(daemon.polls) == accounts and min(list(daemon.polls.values())) >= chosen.polls
        )
        if is_traced:
            daemon.until(lambda: len(daemon.trace) > 1)
        return daemon.memory(), list(daemon.trace)
