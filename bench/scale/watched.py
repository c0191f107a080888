"""A daemon that is watched from outside: what it says, and what the system counts of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 1200.0


@dataclass(frozen=True)
class Lap:
    """A part of the start is done. ``cpu_s`` counts from the start of the process."""

    name: str
    at_ns: int
    cpu_s: float


@dataclass(frozen=True)
class Memory:
    """What the system says of a process: see ``smaps_rollup`` in proc(5)."""

    rss_bytes: int
    pss_bytes: int
    private_dirty_bytes: int


class Watched:
    """One running daemon."""

    def __init__(self, process: subprocess.Popen[str], began_ns: int) -> None:
        self._process = process
        self.began_ns = began_ns
        self.laps: list[Lap] = []
        self.lateness_s: list[float] = []
        self.polls: Counter[str] = Counter()
        self.trace: list[tuple[int, int, str]] = []
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, *words = line.split()
            if what == "lap":
                self.laps.append(Lap(words[0], int(words[1]), float(words[2])))
            elif what == "poll":
                self.polls[words[0]] += 1
                self.lateness_s.append(float(words[1]))
            elif what == "trace":
                self.trace.append((int(words[0]), int(words[1]), " ".join(words[2:])))

    def join(self) -> None:
        """Hear the ended daemon out."""
        self._listening.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the daemon says."""
        ends_s = time.monotonic() + PATIENCE_S
        while not condition():
            if self._process.poll() is not None or time.monotonic() > ends_s:
                raise SystemExit("the daemon has ended, or never came so far; its log is above")
            time.sleep(0.02)

    def cpu_s(self) -> float:
        """Return the processor time it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def memory(self) -> Memory:
        """Return the memory it has."""
        text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        figures = {name: int(size) * 1024 for name, size in re.findall(r"(\w+): +(\d+) kB", text)}
        return Memory(figures["Rss"], figures["Pss"], figures["Private_Dirty"])


@contextmanager
def watching(config: Path, cache: Path, *, polls_until_trace: int = 0) -> Iterator[Watched]:
    """Run the daemon of a configuration, and end it afterwards."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # An installed package is compiled when it is installed; what is compiled here is kept, out of the way.
    environment["PYTHONPYCACHEPREFIX"] = str(cache / "bytecode")
    command = [sys.executable, "-P", str(Path(__file__).with_name("daemon.py")), str(config)]
    with (config.parent / "log").open("a") as log:
        began_ns = time.time_ns()
        process = subprocess.Popen(
            [*command, str(polls_until_trace)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
    watched = Watched(process, began_ns)
    try:
        yield watched
    except SystemExit:
        print("".join((config.parent / "log").read_text().splitlines(keepends=True)[-20:]), file=sys.stderr)
        raise
    finally:
        process.terminate()
        process.wait()
        watched.join()
