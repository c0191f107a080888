"""Answers: JSON, texts and errors, each with the headers that every answer has, compressed where it pays."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from aiohttp import web

from poller.overview import SLICE
from poller.server.security import HEADERS
from poller.server.worker import Worker

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"

_COMPRESSED_FROM_BYTES: Final = 1024
# From this size on compressing takes longer than a thread costs.
_IN_A_THREAD_FROM_BYTES: Final = 32 * 1024
_LEVEL: Final = 5


class Refused(Exception):  # an answer, not a failure
    """A request that is answered with an error. The text is for the client and repeats nothing of its own."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def dumps(document: object) -> bytes:
    """Return a document as JSON, dataclasses included."""
    return orjson.dumps(document, default=_plain)


def dumped(documents: Sequence[object]) -> Any:
    """Return a list of any length as a part of a document, encoded in pieces: to encode one keeps all threads waiting."""
    pieces = (dumps(documents[start : start + SLICE])[1:-1] for start in range(0, len(documents), SLICE))
    return orjson.Fragment(b"[%s]" % b",".join(pieces))


def respond(
    body: bytes, content_type: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return an answer."""
    whole = {**HEADERS, "Content-Type": content_type, **(headers or {})}
    return web.Response(status=status, body=body, headers=whole)


def json_answer(document: object, *, status: int = 200) -> web.Response:
    """Return a document as an answer."""
    return respond(dumps(document), JSON, status=status)


def refusal(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an error as an answer."""
    return respond(dumps({"error": text}), JSON, status=status, headers=headers)


def accepts_gzip(request: web.BaseRequest) -> bool:
    """Tell whether the client takes gzip."""
    for part in ",".join(request.headers.getall("Accept-Encoding", ())).lower().split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() in {"gzip", "*"}:
            return quality.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def accepts_html(request: web.BaseRequest) -> bool:
    """Tell whether it is a browser that wants a page."""
    return "text/html" in request.headers.get("Accept", "")


async def compressed(request: web.BaseRequest, response: web.Response, worker: Worker) -> web.Response:
    """Compress an answer if it is worth it and the client takes it."""
    body = response.body
    # What has a tag is a file, which has its own compressed form under a tag of its own.
    if not isinstance(body, bytes) or len(body) <= _COMPRESSED_FROM_BYTES or "ETag" in response.headers:
        return response
    response.headers["Vary"] = "Accept-Encoding"
    if not accepts_gzip(request):
        return response
    if len(body) < _IN_A_THREAD_FROM_BYTES:
        response.body = squeeze(body)
    else:
        response.body = await worker.run(squeeze, body)
    response.headers["Content-Encoding"] = "gzip"
    return response


def squeeze(body: bytes) -> bytes:
    """Return the body compressed, always alike."""
    return gzip.compress(body, _LEVEL, mtime=0)


def _plain(value: object) -> Any:
    # What a document may hold besides the types that orjson knows: read-only mappings, other sequences.
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no part of a document")
