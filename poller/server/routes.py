"""What is behind each path: the documents of the overview, the metrics, the events and the page."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar, cast

from aiohttp import web

from poller.overview import AccountDetail, BalanceSeen, HistoryPoint, Overview, in_slices
from poller.server import queries
from poller.server.answers import JSON, TEXT, Refused, dumped, dumps, json_answer, respond
from poller.server.connections import Connection
from poller.server.events import Hub, stream
from poller.server.exposition import Exposition
from poller.server.openapi import Accounts, Readiness, openapi_document
from poller.server.page import ICON, INDEX, PageFile, read_page, send_file
from poller.server.security import HEADERS
from poller.server.settings import ServerSettings
from poller.server.worker import Worker

ReadHistory = Callable[[str, str | None, float], Awaitable[Sequence[HistoryPoint] | None]]
ReadBalances = Callable[[str], Awaitable[Sequence[BalanceSeen] | None]]

_EVENT_ID: Final = re.compile(r"[0-9]{1,18}")
_RETRY_STREAM_S: Final = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may be answered.

    Attributes:
        names: what stands in the places of the path that are open.
        word_only: the client has not shown the token, and learns one word.
    """

    request: web.BaseRequest
    names: Sequence[str]
    fields: queries.Fields
    word_only: bool


Handler = Callable[[Asked], Awaitable[web.StreamResponse]]


class Routes:
    """All paths but ``/login``.

    Args:
        history: reads what an account held: by its name, an asset or ``None``, and for how many seconds back.
            It returns ``None`` if none is kept of it.
        balances: reads what an account holds, for those of which the overview itself has nothing.
        is_alive: returns what keeps the daemon from its work; empty if nothing does.
    """

    def __init__(
        self,
        overview: Overview,
        exposition: Exposition,
        hub: Hub,
        settings: ServerSettings,
        worker: Worker,
        *,
        history: ReadHistory | None,
        balances: ReadBalances | None,
        is_alive: Callable[[], str],
    ) -> None:
        self._overview = overview
        self._exposition = exposition
        self._hub = hub
        self._settings = settings
        self._worker = worker
        self._history = history
        self._balances = balances
        self._is_alive = is_alive
        self._files = worker.begin(read_page)  # beside the first polls, not before them
        self.paths: dict[str, Handler] = {
            "/": self._index,
            "/account/{name}": self._index,
            "/static/{file}": self._static,
            "/favicon.ico": self._icon,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/api/status": self._status,
            "/api/accounts": self._accounts,
            "/api/accounts/{name}": self._account,
            "/api/accounts/{name}/history": self._account_history,
            "/api/egress": self._egress,
            "/api/sinks": self._sinks,
            "/api/happenings": self._happenings,
            "/api/events": self._events,
            "/api/openapi.json": self._openapi,
        }
        self._patterns = [
            (re.compile(re.sub(r"\\\{\w+\\\}", "([^/]+)", re.escape(path))), handler)
            for path, handler in self.paths.items()
        ]

    async def answer(self, request: web.BaseRequest, *, word_only: bool) -> web.StreamResponse:
        """Answer a request that is allowed.

        Raises:
            Refused: there is nothing of that name, or the question makes no sense.
        """
        for pattern, handler in self._patterns:
            if found := pattern.fullmatch(request.path):
                query = request.query
                fields = {name: query.getall(name) for name in query}
                return await handler(Asked(request, found.groups(), fields, word_only))
        raise Refused(404, "there is nothing here; /api/openapi.json lists what there is")

    async def _index(self, asked: Asked) -> web.StreamResponse:
        return await self._file(asked, INDEX)

    async def _static(self, asked: Asked) -> web.StreamResponse:
        return await self._file(asked, asked.names[0])

    async def _icon(self, asked: Asked) -> web.StreamResponse:
        return await self._file(asked, ICON)

    async def _file(self, asked: Asked, name: str) -> web.StreamResponse:
        # Whoever hangs up while it is read leaves it to the others who wait.
        files = await asyncio.shield(asyncio.wrap_future(self._files))
        file: PageFile | None = files.get(name)
        if file is None:
            raise Refused(404, "the page has no such file")
        return send_file(asked.request, file)

    async def _livez(self, asked: Asked) -> web.StreamResponse:
        wrong = self._is_alive()
        if not wrong:
            return respond(b"ok", TEXT)
        return respond(b"failing" if asked.word_only else wrong.encode(), TEXT, status=503)

    async def _readyz(self, asked: Asked) -> web.StreamResponse:
        checks = self._overview.status().ready
        is_ready = all(check.ok for check in checks)
        status = 200 if is_ready else 503
        if asked.word_only:
            return respond(b"ready" if is_ready else b"not ready", TEXT, status=status)
        return json_answer(Readiness(is_ready, checks), status=status)

    async def _metrics(self, asked: Asked) -> web.StreamResponse:
        text, content_type = await self._exposition.text(asked.request.headers.get("Accept", ""))
        return respond(text, content_type)

    async def _status(self, asked: Asked) -> web.StreamResponse:
        queries.check_names(asked.fields, ())
        return json_answer(self._overview.status())

    async def _accounts(self, asked: Asked) -> web.StreamResponse:
        query = queries.read_account_query(asked.fields)
        names, at = self._overview.names(), self._overview.at()
        accounts = [one async for part in in_slices(self._overview, names) for one in part]

        def document() -> bytes:
            total, selected = queries.select(accounts, names, query)
            return dumps(Accounts(at, total, dumped(selected)))

        # Ten thousand accounts take some ten milliseconds to sort; polls go on meanwhile.
        return respond(await self._worker.run(document), JSON)

    async def _account(self, asked: Asked) -> web.StreamResponse:
        queries.check_names(asked.fields, ())
        detail = self._known(asked.names[0])
        if self._balances is not None and not detail.balances:
            balances = await self._in_time(self._balances(asked.names[0]))
            detail = replace(detail, balances=balances or ())
        return json_answer(detail)

    async def _account_history(self, asked: Asked) -> web.StreamResponse:
        queries.check_names(asked.fields, ("asset", "since_s"))
        asset, since_s = queries.one(asked.fields, "asset"), queries.since_s(asked.fields)
        self._known(asked.names[0])
        points = None
        if self._history is not None:
            points = await self._in_time(self._history(asked.names[0], asset or None, since_s))
        if points is None:
            raise Refused(404, "no history is kept; a sink of kind sqlite keeps one")
        return json_answer(points)

    async def _in_time(self, reading: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._settings.answer_s):
                return await reading
        except TimeoutError:
            raise Refused(504, "it could not be read in time") from None

    def _known(self, name: str) -> AccountDetail:
        detail = self._overview.account(name)
        if detail is None:
            raise Refused(404, "there is no account of that name")
        return detail

    async def _egress(self, asked: Asked) -> web.StreamResponse:
        queries.check_names(asked.fields, ())
        return json_answer(self._overview.egress())

    async def _sinks(self, asked: Asked) -> web.StreamResponse:
        queries.check_names(asked.fields, ())
        return json_answer(self._overview.sinks())

    async def _happenings(self, asked: Asked) -> web.StreamResponse:
        queries.check_names(asked.fields, ("after",))
        after = queries.whole(asked.fields, "after", 0, 0, 10**18 - 1)
        return json_answer(self._overview.happenings(after=after))

    async def _openapi(self, asked: Asked) -> web.StreamResponse:
        return json_answer(await self._worker.run(openapi_document))

    async def _events(self, asked: Asked) -> web.StreamResponse:
        request = asked.request
        response = web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        )
        if request.method == "HEAD":
            return response
        connection = cast("Connection", request.protocol)
        known = request.headers.get("Last-Event-ID", "")
        after = int(known) if _EVENT_ID.fullmatch(known) else None
        subscriber = self._hub.subscribe(after, connection.abort)
        if subscriber is None:
            raise Refused(503, "too many are listening already", Retry_After=str(_RETRY_STREAM_S))
        response.force_close()
        try:
            await response.prepare(request)
            await stream(subscriber, response.write, self._settings)
        finally:
            self._hub.leave(subscriber)
        return response
