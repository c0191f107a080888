"""A small server with the fleet page and its API, on a thread of its own, over a made-up fleet."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from poller.overview import Overview
from tests.page.made_up import MadeUpFleet

PAGE = Path(__file__).parents[2] / "poller" / "server" / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
CHUNK = 500
INTERVAL_S = 0.1  # a second would be what the daemon does; tests need not wait for it
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}


def dumped(value: object) -> bytes:
    return orjson.dumps(value)


def answer(value: object, status: int = 200) -> web.Response:
    return web.Response(body=dumped(value), status=status, content_type="application/json")


class StandIn:
    """Serves until it is stopped; it can be stopped and started again at the same address.

    Attributes:
        url: where it listens, without a slash at the end; known once it was started.
        bare_lists: tell addresses and sinks as the API does, without the time.
        needs_login: answer 401 to the API, as the daemon does without a session.
    """

    def __init__(self, fleet: MadeUpFleet) -> None:
        self.fleet = fleet
        self.url = ""
        self.needs_login = False
        self.bare_lists = False
        self.version = "0.1.0"
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(20)

    def stop(self) -> None:
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self._thread = None

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(self._app(), handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"
        ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", self._page)
        app.router.add_get("/account/{name:[^/]+}", self._page)
        app.router.add_get("/login", self._login)
        app.router.add_get("/static/{file}", self._file)
        app.router.add_get("/api/status", self._status)
        app.router.add_get("/api/accounts", self._accounts)
        app.router.add_get("/api/accounts/{name:[^/]+}", self._account)
        app.router.add_get("/api/accounts/{name:[^/]+}/history", self._history)
        app.router.add_get("/api/egress", self._egress)
        app.router.add_get("/api/sinks", self._sinks)
        app.router.add_get("/api/happenings", self._happenings)
        app.router.add_get("/api/events", self._events)
        app.router.add_get("/favicon.ico", self._nothing)
        app.on_response_prepare.append(self._protect)
        return app

    async def _protect(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        if self.needs_login and request.path.startswith("/api/"):
            return answer({"error": "sign in first"}, 401)
        response: web.StreamResponse = await handler(request)
        return response

    async def _nothing(self, request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=(PAGE / "index.html").read_text(), content_type="text/html")

    async def _login(self, request: web.Request) -> web.Response:
        return web.Response(
            text="<!doctype html><title>sign in</title><p>sign in</p>", content_type="text/html"
        )

    async def _file(self, request: web.Request) -> web.Response:
        path = PAGE / request.match_info["file"]
        if path.parent != PAGE or not path.is_file():
            return answer({"error": "no such file"}, 404)
        return web.Response(body=path.read_bytes(), content_type=TYPES[path.suffix])

    async def _status(self, request: web.Request) -> web.Response:
        return answer(self.fleet.status())

    async def _egress(self, request: web.Request) -> web.Response:
        return answer(self.fleet.egress())

    async def _sinks(self, request: web.Request) -> web.Response:
        return answer(self.fleet.sinks())

    async def _accounts(self, request: web.Request) -> web.Response:
        _, accounts = self.fleet.accounts()
        limit = int(request.query.get("limit", "5000"))
        return answer({"at": self.fleet.status().at, "total": len(accounts), "accounts": accounts[:limit]})

    async def _account(self, request: web.Request) -> web.Response:
        found = self.fleet.account(request.match_info["name"])
        if found is None:
            return answer({"error": "there is no account of that name"}, 404)
        return answer(found)

    async def _history(self, request: web.Request) -> web.Response:
        points = self.fleet.course(
            request.match_info["name"],
            request.query.get("asset", ""),
            float(request.query.get("since_s", "604800")),
        )
        return (
            answer({"error": "no history is kept; a sink of kind sqlite keeps one"}, 404)
            if points is None
            else answer(points)
        )

    async def _happenings(self, request: web.Request) -> web.Response:
        return answer(self.fleet.happenings(after=int(request.query.get("after", "0"))))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        # The first word a browser reads is how soon to come again when it is cut off.
        await response.write(b"retry: 300\n\n")
        stream = _Stream(self.fleet, response, int(request.headers.get("Last-Event-ID", "0")))
        stream.bare_lists = self.bare_lists
        await stream.hello(self.version)
        while True:
            await stream.tell()
            await asyncio.sleep(INTERVAL_S)


class _Stream:
    """One reader, and what it was told."""

    def __init__(self, fleet: Overview, response: web.StreamResponse, last_event: int) -> None:
        self._fleet = fleet
        self._response = response
        self._number = 0
        self._happening = last_event
        self._told: dict[str, object] = {}
        self.bare_lists = False

    async def _send(self, kind: str, value: object, number: int | None = None) -> None:
        mark = "" if number is None else f"id: {number}\n"
        await self._response.write(f"event: {kind}\n{mark}data: ".encode() + dumped(value) + b"\n\n")

    async def hello(self, version: str) -> None:
        status = self._fleet.status()
        await self._send(
            "hello",
            {"version": version, "at": status.at, "started_at": status.started_at, "interval_s": INTERVAL_S},
        )

    def _is_new(self, kind: str, value: object) -> bool:
        is_new = self._told.get(kind) != value
        self._told[kind] = value
        return is_new

    async def tell(self) -> None:
        status = self._fleet.status()
        document = asdict(status)
        document.pop("at")
        if self._is_new("status", json.dumps(document)):
            await self._send("status", status)
        await self._tell_accounts(status.at)
        for kind, value in (("egress", self._fleet.egress()), ("sinks", self._fleet.sinks())):
            if self._is_new(kind, value):
                await self._send(kind, value if self.bare_lists else {"at": status.at, kind: value})
        for happening in self._fleet.happenings(after=self._happening):
            self._happening = happening.number
            await self._send("happening", happening, happening.number)

    async def _tell_accounts(self, at: str) -> None:
        names: Sequence[str] | None = self._fleet.names()
        names = names if self._is_new("names", names) else None
        self._number, accounts = self._fleet.accounts(after=self._number)
        for start in range(0, len(accounts), CHUNK) if accounts else [0] if names is not None else []:
            fleet: dict[str, object] = {
                "number": self._number,
                "at": at,
                "accounts": accounts[start : start + CHUNK],
            }
            if names is not None:
                fleet["names"], names = names, None
            await self._send("fleet", fleet)
