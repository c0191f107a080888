"""The page's files: a fixed list, read once at start. No path of a client ever reaches the file system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Final

from aiohttp import web

from poller.server.answers import accepts_gzip, respond, squeeze

INDEX: Final = "index.html"
ICON: Final = "icon.svg"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "woff2": "font/woff2",
    "txt": "text/plain; charset=utf-8",
}
_COMPRESSED_FROM_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file as it is sent.

    Attributes:
        tag: names this content, quoted as the header wants it.
        small: compressed; empty if that does not pay.
    """

    content_type: str
    body: bytes
    tag: str
    small: bytes


def read_page() -> Mapping[str, PageFile]:
    """Return the files that belong to the package, by name. Those of unknown kinds are left out."""
    found: dict[str, PageFile] = {}
    for entry in files("poller.server").joinpath("page").iterdir():
        content_type = _TYPES.get(entry.name.rpartition(".")[2])
        if content_type is not None and entry.is_file():
            body = entry.read_bytes()
            small = squeeze(body) if len(body) > _COMPRESSED_FROM_BYTES else b""
            tag = sha256(body).hexdigest()[:32]
            found[entry.name] = PageFile(content_type, body, tag, small if len(small) < len(body) else b"")
    return found


def send_file(request: web.BaseRequest, file: PageFile) -> web.Response:
    """Return a file, or that it has not changed since the client got it."""
    is_small = bool(file.small) and accepts_gzip(request)
    tag = f'"{file.tag}-gzip"' if is_small else f'"{file.tag}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    known = {part.strip().removeprefix("W/") for part in request.headers.get("If-None-Match", "").split(",")}
    if tag in known or "*" in known:
        return respond(b"", file.content_type, status=304, headers=headers)
    if is_small:
        headers["Content-Encoding"] = "gzip"
    return respond(file.small if is_small else file.body, file.content_type, headers=headers)
