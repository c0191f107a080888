"""How long a daemon takes from the start of its process to its first poll, part by part."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.config_load import write_secret
from bench.scale import backlog
from bench.scale.fleet import interval_s, replace_sinks, serve, simulating
from bench.scale.watched import watching

PARTS = ("interpreter", "imports", "configuration", "secrets", "outbox", "first-poll")
_OUTBOX = "{{path: {path}, max_size: 64GB}}"
_DEAD = "{dead: {kind: webhook, url: file:secrets/dead.url, secret: file:secrets/dead.secret}}"
# Nobody listens there.
_SECRETS = {"dead.url": "http://127.0.0.1:9/", "dead.secret": f"whsec_{'A' * 44}"}
_ALIVE = "{log: {kind: jsonl, path: data/records.jsonl}}"


@dataclass(frozen=True)
class Case:
    """One kind of start."""

    name: str
    kinds: str
    backlog: int
    is_serving: bool


def run(chosen: argparse.Namespace) -> None:
    """Start each kind several times in turn, and print the medians of its parts."""
    cases = [
        Case("HMAC keys, a new outbox", "hmac", 0, is_serving=False),
        Case(f"HMAC keys, server, {chosen.backlog} records wait", "hmac", chosen.backlog, is_serving=True),
        Case(
            f"all kinds of keys, server, {chosen.backlog} records wait",
            "hmac,rsa,ed25519",
            chosen.backlog,
            is_serving=True,
        ),
    ]
    times: dict[Case, list[dict[str, tuple[float, float]]]] = {case: [] for case in cases}
    for _ in range(chosen.rounds):
        for case in cases:
            times[case].append(measure(case, chosen))
            wall_s, cpu_s = times[case][-1]["all"]
            print(f"{case.name}: {wall_s:.2f} s, processor {cpu_s:.2f} s", flush=True)
    for case in cases:
        print(f"{case.name}; {chosen.accounts} accounts; median of {chosen.rounds}:")
        for part in (*PARTS, "all"):
            wall_s, cpu_s = (statistics.median(each[part][which] for each in times[case]) for which in (0, 1))
            print(f"  {part:14} {wall_s:6.2f} s, processor {cpu_s:6.2f} s", flush=True)


def measure(case: Case, chosen: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Return wall and processor time of each part of one start."""
    interval = interval_s(chosen.accounts)
    with (
        tempfile.TemporaryDirectory() as name,
        simulating(Path(name), chosen.accounts, interval=interval, kinds=case.kinds, latency="0-0") as config,
    ):
        outbox = config.parent / "data" / "outbox.db"
        if case.backlog:
            for file, text in _SECRETS.items():
                write_secret(config.parent / "secrets" / file, text)
            outbox = backlog.kept(chosen.cache, case.backlog, chosen.accounts)
        replace_sinks(config, _DEAD if case.backlog else _ALIVE, _OUTBOX.format(path=outbox))
        if case.is_serving:
            serve(config)
        with watching(config, chosen.cache) as daemon:
            daemon.until(lambda: any(lap.name == PARTS[-1] for lap in daemon.laps))
    found: dict[str, tuple[float, float]] = {}
    at_ns, cpu_s = daemon.began_ns, 0.0
    for lap in daemon.laps:
        found[lap.name] = ((lap.at_ns - at_ns) / 1e9, lap.cpu_s - cpu_s)
        at_ns, cpu_s = lap.at_ns, lap.cpu_s
    return found | {"all": ((at_ns - daemon.began_ns) / 1e9, cpu_s)}
