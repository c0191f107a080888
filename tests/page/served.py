"""The real server around a made-up fleet, on a thread of its own, so that a browser can be driven beside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

from poller.clock import SystemClock
from poller.metrics import Metrics
from poller.overview import HistoryPoint
from poller.secrets import Secret
from poller.server.serving import Server
from poller.server.settings import ServerSettings
from tests.page.made_up import MadeUpFleet

PAGE = Path(__file__).parents[2] / "poller" / "server" / "page"
TOKEN = "a-token-that-is-made-up-for-tests-0123456789"
SAMPLE_S = 0.1  # a second is what the daemon does; tests need not wait for it
PATIENCE_S = 20.0


class ServedFleet:
    """Serves until it is stopped; it can be started again at the same address, and then knows no session.

    Attributes:
        url: where it listens, without a slash at the end; known once it was started.
    """

    def __init__(self, fleet: MadeUpFleet, *, token: str | None = None) -> None:
        self.url = ""
        self._fleet = fleet
        self._token = None if token is None else Secret(token)
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE_S)

    def stop(self) -> None:
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        self._thread = None

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        settings = ServerSettings(listen_port=self._port, sample_s=SAMPLE_S, closing_s=0.1)
        async with Server(
            self._fleet, Metrics(), SystemClock(), settings, token=self._token, history=self._history
        ) as server:
            self._port, self.url = server.address.port, server.address.url
            ready.set()
            await self._stop.wait()

    async def _history(self, name: str, asset: str | None, since_s: float) -> Sequence[HistoryPoint] | None:
        return self._fleet.course(name, asset, since_s)
