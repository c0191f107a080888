"""How much of the weight limit the real daemon uses, alone and beside others, over HTTP against the simulator.

At the real cost (5 a poll), with the window scaled to 10 s and the limit to 2,000; 300 accounts that
want more than fits; latency 20 to 80 ms. `python -m bench.budget --real` adds the real size: 60 s,
12,000, 3,000 accounts, four minutes. The simulator's own counts decide.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

POLLER = [sys.executable, "-m", "poller"]
POLL = "/sapi/v3/asset/getUserAsset"


@dataclass(frozen=True)
class Case:
    """One row of the table. ``aim`` is the least share of what is left that has to be used."""

    name: str
    window: str
    share: int = 100
    neighbour: float = 0.0
    mode: str = "even"
    bursts: int = 1
    kills: int = 0
    aim: float = 0.98
    seconds: float = 60.0
    window_s: float = 10.0
    limit: int = 2000
    accounts: int = 300
    interval: str = "5s"


@dataclass(frozen=True)
class Result:
    used: float  # of what is left, 1.0 is all
    polls: int
    limited: int  # 429s to us after the first window
    banned: int
    spread: int  # most polled minus least polled
    worst: int  # heaviest window by the enforced way of counting, everybody's weight
    unserved: int


def cases() -> list[Case]:
    rows = []
    for window in ("fixed", "rolling"):
        rows += [
            Case("alone, share 100 %", window),
            Case("alone, share 90 %", window, share=90),
            Case("neighbour 40 % even", window, neighbour=0.4, aim=0.90),
            Case("neighbour 40 % bursts", window, neighbour=0.4, mode="bursts", aim=0.80),
            Case("neighbour 40 % 10 bursts", window, neighbour=0.4, mode="bursts", bursts=10, aim=0.80),
            Case("neighbour 40 % 40 bursts", window, neighbour=0.4, mode="bursts", bursts=40, aim=0.80),
            Case("5 restarts by SIGKILL", window, kills=5, aim=0.0),
        ]
    return rows


def real_size() -> list[Case]:
    real = Case(
        "real size, alone",
        "fixed",
        aim=0.995,
        seconds=240,
        window_s=60,
        limit=12_000,
        accounts=3000,
        interval="60s",
    )
    return [real, replace(real, window="rolling")]


def ask(url: str, page: str) -> Any:
    address = urlsplit(url)
    with closing(HTTPConnection(address.hostname or "", address.port, timeout=30)) as connection:
        connection.request("GET", f"/simulator/{page}")
        return json.load(connection.getresponse())


@contextmanager
def simulating(case: Case, directory: Path) -> Iterator[str]:
    options = {
        "--accounts": case.accounts, "--interval": case.interval, "--key-kinds": "hmac", "--window": case.window,
        "--window-length": case.window_s, "--weight-limit": case.limit, "--latency": "20-80",
        "--moves-per-second": 0, "--neighbour": case.neighbour, "--neighbour-mode": case.mode,
        "--neighbour-bursts": case.bursts, "--write-config": directory,
    }  # fmt: skip
    arguments = [str(part) for option in options.items() for part in option]
    process = subprocess.Popen([*POLLER, "simulate", *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, "the simulator did not start"
        config = directory / "accounts.yaml"
        config.write_text(config.read_text().replace("share: 90%", f"share: {case.share}%"))
        yield found.group()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def start(directory: Path) -> subprocess.Popen[bytes]:
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            [*POLLER, "run", "-c", str(directory / "accounts.yaml")], stdout=log, stderr=log
        )


def measure(case: Case) -> Result:
    with tempfile.TemporaryDirectory() as name, simulating(case, Path(name)) as url:
        directory = Path(name)
        daemon = start(directory)
        try:
            while not ask(url, "status")["polls"]:
                time.sleep(0.05)
            time.sleep(case.window_s)  # the first window
            before = ask(url, "status")
            if case.kills:
                for _ in range(case.kills):
                    time.sleep(case.seconds / case.kills)
                    daemon.send_signal(signal.SIGKILL)
                    daemon.wait()
                    daemon = start(directory)
            else:
                time.sleep(case.seconds)
            after = ask(url, "status")
        finally:
            daemon.terminate()
            daemon.wait()
    return judge(case, before, after)


def judge(case: Case, before: dict[str, Any], after: dict[str, Any]) -> Result:
    def count(status: dict[str, Any], code: str) -> int:
        return sum(
            counts.get(code, 0) for endpoint, counts in status["requests"].items() if endpoint.endswith(POLL)
        )

    seconds = (after["time_us"] - before["time_us"]) / 1e6
    good = count(after, "200") - count(before, "200")
    left = case.limit * seconds / case.window_s * min(case.share / 100, 1 - case.neighbour)
    polls = after["polls"]
    return Result(
        used=good * 5 / left,
        polls=good,
        limited=count(after, "429") - count(before, "429"),
        banned=after["bans"],
        spread=max(polls.values()) - min(polls.values()) if len(polls) == case.accounts else -1,
        worst=after["worst_window"],
        unserved=case.accounts - len(polls),
    )


def parser() -> argparse.ArgumentParser:
    """Return what reads the options."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--real", action="store_true", help="the real size as well: ten minutes more")
    options.add_argument("--only", default="", help="cases whose name contains this")
    options.add_argument("--window", default="", help="fixed or rolling alone")
    options.add_argument(
        "--seconds", type=float, help="of each row after its first window, instead of its own"
    )
    return options


def run(chosen: argparse.Namespace) -> None:
    """Print a row for each case."""
    rows = cases() + (real_size() if chosen.real else [])
    print(
        f"{'case':24} {'window':8} {'used':>7} {'aim':>6} {'polls':>6} {'429':>4} {'bans':>4} {'spread':>6} {'worst':>6}"
    )
    for case in rows:
        if chosen.only not in case.name or chosen.window not in case.window:
            continue
        result = measure(replace(case, seconds=chosen.seconds) if chosen.seconds else case)
        print(
            f"{case.name:24} {case.window:8} {result.used:7.1%} {case.aim:6.1%} {result.polls:6d} {result.limited:4d} "
            f"{result.banned:4d} {result.spread:6d} {result.worst:6d}",
            flush=True,
        )


if __name__ == "__main__":
    run(parser().parse_args())
