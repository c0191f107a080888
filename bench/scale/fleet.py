"""The simulated fleet, and the configuration of the daemon that polls it."""

from __future__ import annotations

import math
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WEIGHT = 5
WINDOW_S = 60
LIMIT = 12_000
SHARE = 0.9
ROOM = 2  # times the weight that is needed: or else whatever a start made late would stay so for long


def interval_s(accounts: int) -> int:
    """Return the interval, whole seconds, at which so many accounts are polled as fast as one address may be."""
    return max(1, math.ceil(accounts * WEIGHT * WINDOW_S / (LIMIT * SHARE)))


@contextmanager
def simulating(
    directory: Path,
    accounts: int,
    *,
    interval: int,
    kinds: str = "hmac",
    weight_limit: int = LIMIT * ROOM,
    latency: str = "20-80",
) -> Iterator[Path]:
    """Run the simulator; yield the configuration that it wrote."""
    options = {
        "--accounts": accounts, "--interval": f"{interval}s", "--key-kinds": kinds, "--latency": latency,
        "--weight-limit": weight_limit, "--write-config": directory,
    }  # fmt: skip
    command = [sys.executable, "-m", "poller", "simulate"]
    command += [str(part) for option in options.items() for part in option]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if "http://" not in process.stdout.readline():
                raise SystemExit("the simulator did not start")
            yield directory / "accounts.yaml"
        finally:
            process.terminate()


def serve(config: Path) -> str:
    """Let the daemon of a configuration serve its page, and return the URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config.write_text(f"{config.read_text()}server: {{listen: 127.0.0.1:{port}}}\n")
    return f"http://127.0.0.1:{port}"


def replace_sinks(config: Path, sinks: str, outbox: str) -> None:
    """Give a configuration other sinks and another outbox."""
    text = re.sub(r"(?ms)^sinks:\n.*\Z", "", config.read_text())
    config.write_text(f"{text}sinks: {sinks}\noutbox: {outbox}\nshutdown: {{drain: 0s}}\n")


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so many of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
