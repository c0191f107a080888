"""The demo: a simulated exchange in one process, the real daemon in this one, and the books at the end.

What is shown is what runs for real: HTTP between two processes, signed requests, the outbox, two
sinks. At the end the simulator's own books decide whether every balance was right.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from poller.app import App
from poller.clock import NS_PER_MS, Clock, SystemClock
from poller.config import Config, load, read_secrets
from poller.errors import PollerError, PollError
from poller.metrics import Metrics
from poller.model import Account, Snapshot
from poller.sinks.sqlite import read_history
from poller.testing.books import Books, Version, holdings, last_states_differ, mismatches

MARKER = ".poller-demo"  # a directory with this file in it is ours to empty
SETTLE_AT_MOST_S = 20.0
REFRESH_S = 0.25
READY = re.compile(r"http://\S+")


class DemoError(PollerError):
    """The demo could not be run; the text says why."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment of the demo, for whoever shows it.

    Attributes:
        page: URL of the daemon's own page; empty while there is none.
    """

    page: str
    elapsed_s: float
    polls: int
    limited: int
    changes: int
    accepted: int
    delivered: int
    weight_own: int
    weight_reported: int
    weight_allowed: int
    lateness_ms: float


@dataclass(frozen=True, slots=True)
class Summary:
    """How it ended.

    Attributes:
        worst_window: the heaviest minute the exchange counted.
        wrong: what the books contradict, in words; empty if everything was right.
        directory: where everything that was written lies.
    """

    progress: Moment
    accounts: int
    in_history: int
    in_log: int
    worst_window: int
    wrong: list[str]
    directory: Path


@dataclass(frozen=True, slots=True)
class Simulator:
    """A simulated exchange in a process of its own, asked through its own pages."""

    url: str

    async def get(self, page: str) -> Any:
        """Return what a page says."""
        return await asyncio.to_thread(self._ask, page, "GET")

    async def post(self, page: str) -> Any:
        """Have something done."""
        return await asyncio.to_thread(self._ask, page, "POST")

    def _ask(self, page: str, method: str) -> Any:
        address = urlsplit(self.url)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
        with closing(connection):
            body = "{}" if method == "POST" else None
            connection.request(method, f"/simulator/{page}", body, {"Content-Type": "application/json"})
            return json.load(connection.getresponse())


def prepare(directory: Path) -> None:
    """Make the directory, or empty the one that the last demo left.

    Raises:
        DemoError: there is something in it that no demo put there.
    """
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise DemoError(f"{directory} is not empty and no demo made it; name another with --directory")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()


@asynccontextmanager
async def simulating(directory: Path, *arguments: str) -> AsyncIterator[Simulator]:
    """Run ``poller simulate`` in a process of its own, writing its configuration to the directory.

    Raises:
        DemoError: it did not start.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "poller", "simulate", "--write-config", str(directory), *arguments),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us; it is told when its books have been read
    )
    assert process.stdout is not None  # noqa: S101  # asked for above
    try:
        first = (await process.stdout.readline()).decode()
        if (found := READY.search(first)) is None:
            raise DemoError("the simulated exchange did not start; see above")
        yield Simulator(found.group().rstrip(",;."))
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def demonstrate(
    directory: Path,
    *,
    accounts: int = 50,
    duration_s: float = 30.0,
    show: Callable[[Moment], None],
    clock: Clock | None = None,
) -> Summary:
    """Run simulator and daemon for a while, freeze the market, let the last polls settle, and compare.

    SIGINT ends it early, with the same summary.

    Raises:
        DemoError, ConfigError, OutboxError: it could not be run.
    """
    clock = clock or SystemClock()
    prepare(directory)
    arguments = ("--accounts", str(accounts), "--interval", "2s", "--moves-per-second", "10")
    async with simulating(directory, *arguments) as simulator:
        configuration = directory / "accounts.yaml"
        with configuration.open("a") as file:
            file.write(f"server: {{listen: '127.0.0.1:{free_port()}'}}\n")
        watched = _Watched(load(configuration), clock)
        # The first Ctrl-C ends the show and lets the last polls settle, the second ends the daemon as well.
        enough, stop = asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGINT, lambda: stop.set() if enough.is_set() else enough.set()
        )
        daemon = asyncio.create_task(watched.app.run(stop), name="daemon")
        ended = asyncio.Event()
        showing = asyncio.create_task(_show_until(ended, watched, show), name="progress")
        try:
            await _first_of(daemon, enough.wait(), asyncio.sleep(duration_s))
            enough.set()
            frozen = await simulator.post("freeze")
            settled = watched.all_seen_after(frozen["time_us"])
            await _first_of(daemon, stop.wait(), settled, asyncio.sleep(SETTLE_AT_MOST_S))
        finally:
            hurried = stop.is_set()
            stop.set()
            await daemon
            ended.set()
            await showing
        books = read_books(await simulator.get("books"))
        status = await simulator.get("status")
    return _judge(directory, watched, books, status, settled=not hurried)


def free_port() -> int:
    """Return a port of this machine that nobody listens on now. Should somebody take it, there is no page."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class _Watched:
    """The daemon, and when each account was last seen."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self.config = config
        self.metrics = Metrics()
        self.app = App(config, read_secrets(config), metrics=self.metrics, observer=self._note)
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._seen_us: dict[str, float] = dict.fromkeys(config.accounts, 0.0)
        self._lateness_s = 0.0
        self._noted = asyncio.Event()
        self._last: Moment | None = None

    def _note(self, account: Account, outcome: Snapshot | PollError, lateness_s: float) -> None:
        self._lateness_s = lateness_s
        if isinstance(outcome, Snapshot):
            surely_after_ns = outcome.observed_ns - outcome.uncertainty_ms * NS_PER_MS
            self._seen_us[account.name] = surely_after_ns / 1000
        self._noted.set()

    async def all_seen_after(self, time_us: float) -> None:
        """Wait until every account was observed after a moment on the exchange's clock."""
        while any(seen_us <= time_us for seen_us in self._seen_us.values()):
            self._noted.clear()
            await self._noted.wait()

    def progress(self) -> Moment:
        """Return how far it is; after the daemon's end, how far it was."""
        status = self.app.status()
        if status is not None or self._last is None:
            budget = status.budgets[0] if status else None
            address = self.app.doors.address if self.app.doors else None
            self._last = Moment(
                page=f"{address.url}/" if address else "",
                elapsed_s=self._clock.monotonic_s() - self._started_s,
                polls=round(self.metrics.total("polls_total")),
                limited=round(self.metrics.total("polls_total", outcome="rate_limited")),
                changes=round(self.metrics.total("balance_changes_total")),
                accepted=round(self.metrics.total("records_accepted_total")),
                delivered=round(self.metrics.total("records_delivered_total")),
                weight_own=budget.own if budget else 0,
                weight_reported=(budget.reported or 0) if budget else 0,
                weight_allowed=budget.allowed if budget else 0,
                lateness_ms=self._lateness_s * 1000,
            )
        return self._last

    def totals(self) -> Moment:
        """Return the last progress with the counts as they are now."""
        return replace(
            self.progress(),
            polls=round(self.metrics.total("polls_total")),
            changes=round(self.metrics.total("balance_changes_total")),
            accepted=round(self.metrics.total("records_accepted_total")),
            delivered=round(self.metrics.total("records_delivered_total")),
        )


async def _show_until(ended: asyncio.Event, watched: _Watched, show: Callable[[Moment], None]) -> None:
    while not ended.is_set():
        show(watched.progress())
        with suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_S):
                await ended.wait()
    show(watched.totals())


async def _first_of(task: asyncio.Task[None], *waiting: Coroutine[Any, Any, object]) -> None:
    """Wait for the first to end; the task goes on, what else waited does not."""
    jobs = [asyncio.create_task(job) for job in waiting]
    try:
        await asyncio.wait([task, *jobs], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


def read_books(document: Mapping[str, Any]) -> Books:
    """Read the simulator's page ``books``."""
    return {
        account: [Version(entry["time_us"], holdings(entry["balances"])) for entry in entries]
        for account, entries in document["accounts"].items()
    }


def _judge(
    directory: Path, watched: _Watched, books: Books, status: Mapping[str, Any], *, settled: bool
) -> Summary:
    history = read_history(directory / "data" / "history.db")
    with (directory / "data" / "records.jsonl").open() as lines:
        logged = [json.loads(line) for line in lines]
    wrong = mismatches(history, books)
    if settled:  # the last polls came after the last moves
        wrong += [
            f"{account}: the last record is not what the books hold"
            for account in last_states_differ(history, books)
        ]
    if [record["id"] for record in logged] != [record["id"] for record in history]:
        wrong.append("the file does not hold the same records as the database")
    if status["worst_window"] > watched.config.budget.weight_limit:
        wrong.append(f"a window held a weight of {status['worst_window']}")
    return Summary(
        watched.totals(), len(books), len(history), len(logged), status["worst_window"], wrong, directory
    )
