"""A daemon in this process, with the fleet of a simulated exchange, and the files it runs from."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poller.app import App
from poller.config import load, read_secrets
from poller.simulator import SimulatorSettings, serve, write_config
from poller.simulator.server import SimulatorServer


async def happens(condition: Callable[[], Any]) -> None:
    """Wait for what a daemon on the same loop does; the test's own limit ends a vain wait."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # what it waits for sets no event
            await asyncio.sleep(0.02)


@dataclass
class Daemon:
    """What a test looks at and changes. ``refused`` are the polls that failed: account and error.

    ``stop`` ends it before the context does; the exchange goes on.
    """

    app: App
    directory: Path
    server: SimulatorServer
    refused: list[tuple[str, str]]
    stop: Callable[[], Awaitable[None]]

    @property
    def file(self) -> Path:
        return self.directory / "accounts.yaml"

    def polls(self, account: str) -> int:
        return self.server.exchange.tally.polls[account]

    def edit(self, pattern: str, replacement: str) -> None:
        text, count = re.subn(pattern, replacement, self.file.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert count
        self.file.write_text(text)

    def remove(self, account: str) -> None:
        self.edit(rf"^  {account}:\n(    [^\n]*\n)+", "")

    async def polled_again(self, *accounts: str) -> None:
        before = {name: self.polls(name) for name in accounts}
        await happens(lambda: all(self.polls(name) > before[name] + 1 for name in accounts))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.directory / "data/history.db")) as db:
            return db.execute(query).fetchall()


@asynccontextmanager
async def running(
    directory: Path,
    *,
    watch: bool = False,
    stale_after: int = 1000,  # of intervals: nobody is stale because the machine is busy
    spare: int = 0,
    prepare: Callable[[Path], object] = lambda _: None,
) -> AsyncIterator[Daemon]:
    settings = SimulatorSettings(accounts=8, latency_ms=(1.0, 5.0), moves_per_s=40.0)
    refused: list[tuple[str, str]] = []
    async with serve(settings) as server:
        write_config(directory, server.url, server.accounts[: 8 - spare], settings, interval="200ms")
        main = directory / "accounts.yaml"
        text = main.read_text()
        assert "btc_valuation: true}" in text
        main.write_text(text.replace("true}", f"true, stale_after: {stale_after}}}"))
        with main.open("a") as file:
            file.write(f"reload: {{watch: {str(watch).lower()}}}\n")
        prepare(directory)
        config = load(directory / "accounts.yaml")
        secrets = read_secrets(config)

        def observer(account: Any, outcome: Any, _: float) -> None:
            # Somebody who lost all when the daemon was told to stop is not asked twice any more.
            if isinstance(outcome, Exception) and "not confirmed" not in str(outcome):
                refused.append((account.name, str(outcome)))

        app, stop_it = App(config, secrets, observer=observer), asyncio.Event()
        task = asyncio.create_task(app.run(stop_it))

        async def stop() -> None:
            stop_it.set()
            await task

        daemon = Daemon(app, directory, server, refused, stop)
        await happens(lambda: all(daemon.polls(name) for name in secrets.usable(config).accounts))
        yield daemon
        await stop()
