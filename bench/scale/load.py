"""What the polls of a fleet ask of the processor, and what those who look on add to it."""

from __future__ import annotations

import argparse
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from bench.scale.fleet import interval_s, quantile, serve, simulating
from bench.scale.watched import Watched, watching

SETTLED_POLLS = 100
SETTLED_S = 0.25


@dataclass(frozen=True)
class Row:
    """What was seen in so many seconds. Lags are upper bounds: they are counted in buckets."""

    polls_per_s: float
    late_half_ms: float
    late_99_ms: float
    late_most_ms: float
    lag_99_ms: float
    cpu: float
    rss_mb: float
    heard_mb_per_s: float = 0.0


HEAD = ("polls/s", "late p50 ms", "p99 ms", "max ms", "lag p99 ms", "cpu s/s", "rss MB", "heard MB/s")


def run(chosen: argparse.Namespace) -> None:
    """Measure the two kinds of rows in turn, and print both with their ratio."""
    interval = interval_s(chosen.accounts)
    print(f"{chosen.accounts} accounts every {interval} s, rows of {chosen.seconds:g} s")
    with (
        tempfile.TemporaryDirectory() as name,
        simulating(Path(name), chosen.accounts, interval=interval) as config,
    ):
        url = serve(config)
        with watching(config, chosen.cache) as daemon:
            daemon.until(lambda: len(daemon.polls) == chosen.accounts)
            # What a start made late is made up for by now.
            daemon.until(lambda: statistics.median(daemon.lateness_s[-SETTLED_POLLS:]) < SETTLED_S)
            plain: list[Row] = []
            watched: list[Row] = []
            show("", HEAD)
            for _ in range(chosen.rounds):
                plain.append(measure(daemon, url, chosen.seconds))
                show("plain", astuple(plain[-1]))
                with reading(url, chosen.browsers) as heard:
                    row = measure(daemon, url, chosen.seconds)
                watched.append(replace(row, heard_mb_per_s=heard[0] / 1e6 / chosen.seconds))
                show("watched", astuple(watched[-1]))
    medians = [
        [statistics.median(figures) for figures in zip(*map(astuple, rows), strict=True)]
        for rows in (plain, watched)
    ]
    for title, figures in zip(("plain, median", "watched, median"), medians, strict=True):
        show(title, figures)
    show("ratio", [there / here if here else math.nan for here, there in zip(*medians, strict=True)])


def show(title: str, cells: object) -> None:
    """Print a row."""
    assert isinstance(cells, tuple | list)
    shown = (cell if isinstance(cell, str) else f"{cell:.3f}" for cell in cells)
    print(f"{title:16}" + "".join(f"{cell:>13}" for cell in shown), flush=True)


def measure(daemon: Watched, url: str, seconds: float) -> Row:
    """Watch a daemon for so long."""
    lags, first, cpu_s, began_s = loop_lags(url), len(daemon.lateness_s), daemon.cpu_s(), time.monotonic()
    time.sleep(seconds)
    elapsed_s, used_s = time.monotonic() - began_s, daemon.cpu_s() - cpu_s
    late_ms = [late_s * 1e3 for late_s in daemon.lateness_s[first:]]
    later = loop_lags(url)
    return Row(
        polls_per_s=len(late_ms) / elapsed_s,
        late_half_ms=quantile(late_ms, 0.5),
        late_99_ms=quantile(late_ms, 0.99),
        late_most_ms=max(late_ms, default=math.nan),
        lag_99_ms=bound({edge: count - lags.get(edge, 0) for edge, count in later.items()}, 0.99) * 1e3,
        cpu=used_s / elapsed_s,
        rss_mb=daemon.memory().rss_bytes / 1e6,
    )


def loop_lags(url: str) -> dict[float, float]:
    """Return how often the loop's lag was at most so many seconds, by those."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        text = response.read().decode()
    found = re.findall(r'^poller_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', text, re.MULTILINE)
    return {float(edge): float(count) for edge, count in found}


def bound(counts: dict[float, float], share: float) -> float:
    """Return the least edge that so many of all do not exceed."""
    edges = sorted(counts)
    wanted = share * counts[edges[-1]] if edges else 0.0
    return next((edge for edge in edges if counts[edge] >= wanted), math.nan)


@contextmanager
def reading(url: str, browsers: int) -> Iterator[list[int]]:
    """Let others look on; afterwards the list has how many bytes of events they were told."""
    command = [sys.executable, "-m", "bench.scale.readers", url, str(browsers)]
    heard: list[int] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise SystemExit("nobody could listen")
            yield heard
            said, _ = process.communicate("")
            heard.append(int(said.split()[0]))
        finally:
            process.terminate()
