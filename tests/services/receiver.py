"""A receiver of webhooks as somebody would write one: it verifies, keeps, and answers what a test wants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from poller.model import Record
from poller.secrets import Secret
from poller.sinks.webhook import WebhookSink
from poller.sinks.webhook_options import WebhookOptions
from poller.testing.sink_contract import make_records
from poller.webhooks import verify

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
PATH = "/hooks/c4n4ry-t0ken-in-the-path"


@dataclass
class Received:
    id: str
    body: bytes
    headers: dict[str, str]


Reply = Callable[[Received], Awaitable[web.StreamResponse | int] | web.StreamResponse | int]


@dataclass
class Receiver:
    """Running.

    Attributes:
        reply: decides on a request that was verified; 204 unless a test says otherwise.
        attempts: every request, in the order of arrival.
        taken: those that were answered with a success.
        most_together: requests under way at the same time, at most.
    """

    url: str = ""
    reply: Reply = lambda _: 204
    attempts: list[Received] = field(default_factory=list)
    taken: list[Received] = field(default_factory=list)
    under_way: int = 0
    most_together: int = 0

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.taken]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        webhook_id = verify(body, request.headers, SECRET, now=time.time())
        received = Received(
            webhook_id, body, {name.lower(): value for name, value in request.headers.items()}
        )
        self.attempts.append(received)
        self.under_way += 1
        self.most_together = max(self.most_together, self.under_way)
        try:
            reply = self.reply(received)
            answer = await reply if isinstance(reply, Awaitable) else reply
        finally:
            self.under_way -= 1
        answer = web.Response(status=answer) if isinstance(answer, int) else answer
        if 200 <= answer.status < 300:
            self.taken.append(received)
        return answer


@asynccontextmanager
async def receiving(reply: Reply = lambda _: 204) -> AsyncIterator[Receiver]:
    receiver = Receiver(reply=reply)
    application = web.Application()
    application.router.add_post(PATH, receiver.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def make_sink(url: str, *, clock: Any = None, resolver: Any = None, **options: Any) -> WebhookSink:
    options = {"url": Secret(url), "secret": Secret(SECRET), **options}
    return WebhookSink(WebhookOptions(**options), clock, resolver)


@asynccontextmanager
async def posting(url: str, **options: Any) -> AsyncIterator[WebhookSink]:
    sink = make_sink(url, **options)
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


def fleet(accounts: int, each: int) -> list[Record]:
    """Records of several accounts, taking turns."""
    lanes = [
        make_records(each, account=f"account-{number}", first=1 + number * each) for number in range(accounts)
    ]
    return [record for turn in zip(*lanes, strict=True) for record in turn]


def never() -> asyncio.Future[int]:
    return asyncio.get_running_loop().create_future()
