"""What thousands of accounts ask of the machine: processor, memory, lateness, and how long a start takes.

The real daemon in a process of its own, against the simulator in another; only the daemon is counted.
`python -m bench scale --part load --seconds 60`: two kinds of rows in turn, plain, and with the page open in
20 browsers and a scrape a second. `--part memory`: what one account more takes. `--part start`: from the
start of the process to its first poll, also with a million records that wait for a sink whose server is
dead; those are made once, under `--cache`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bench.scale import load, memory, start

PARTS = {"load": load.run, "memory": memory.run, "start": start.run}


def parser() -> argparse.ArgumentParser:
    """Return what reads the options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--part", choices=sorted(PARTS), action="append", help="only this; repeatable")
    options.add_argument("--accounts", type=int, default=5000, help="of the fleet")
    options.add_argument("--seconds", type=float, default=60.0, help="of each row under load")
    options.add_argument("--rounds", type=int, default=3, help="so many rows of each kind")
    options.add_argument("--browsers", type=int, default=20, help="that listen in every other row")
    options.add_argument("--backlog", type=int, default=1_000_000, help="records that wait at the start")
    options.add_argument(
        "--sizes", type=_numbers, default=(100, 1000, 5000, 10_000), help="fleets whose memory is compared"
    )
    options.add_argument("--polls-per-s", type=float, default=150.0, help="while memory is measured")
    options.add_argument("--polls", type=int, default=1, help="of each account before memory is looked at")
    options.add_argument("--trace", action="store_true", help="also say what takes the memory, slowly")
    options.add_argument("--cache", type=Path, default=_cache(), help="where the backlog is kept")
    return options


def run(chosen: argparse.Namespace) -> None:
    """Run the chosen parts, one after another."""
    chosen.cache.mkdir(parents=True, exist_ok=True)
    for name in chosen.part or PARTS:
        PARTS[name](chosen)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poller-bench"
