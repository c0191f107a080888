"""Who may see what: decisions about a request by its head alone. Pure.

The order is fixed: an unknown host learns nothing but that, then a foreign origin, then somebody without
the token. Nobody of them can tell whether a path exists.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from poller.secrets import Secret
from poller.server.settings import host_and_port

COOKIE: Final = "poller_session"
LOGIN: Final = "/login"
# Whoever watches over the process has no token, and learns one word.
OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})

# On every answer, errors included.
HEADERS: Final[Mapping[str, str]] = {
    "Server": "poller",  # without this one aiohttp tells versions
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}


class Access(Enum):
    """What is done with a request."""

    ALLOWED = "allowed"
    WORD_ONLY = "word only"  # one of OPEN_PATHS, for somebody without the token
    BAD_TARGET = "bad target"
    WRONG_HOST = "wrong host"
    WRONG_ORIGIN = "wrong origin"
    NO_TOKEN = "no token"  # noqa: S105  # a word, not one


@dataclass(frozen=True, slots=True)
class Head:
    """What of a request decides.

    Attributes:
        target: the path and query as they were received.
        path: decoded, without the query.
        hosts: every ``Host`` header.
        origins: every ``Origin`` header.
        authorizations: every ``Authorization`` header.
        session: value of our cookie; empty if there is none.
    """

    target: str
    path: str
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    authorizations: Sequence[str] = ()
    session: str = ""


class Gate:
    """Decides by the names under which the server is reached, the token and the sessions.

    Args:
        names: ``NAME`` or ``NAME:PORT``, in lower case, as browsers put them into ``Host``.
        token: what must be shown; ``None`` if nothing must.
        is_session: tell whether a cookie's value stands for somebody who has shown the token.
    """

    def __init__(self, names: Iterable[str], token: Secret | None, is_session: Callable[[str], bool]) -> None:
        self._names = frozenset(names)
        self._token = token
        self._is_session = is_session

    @property
    def wants_token(self) -> bool:
        """Whether a token must be shown."""
        return self._token is not None

    def decide(self, head: Head) -> Access:
        """Say what is to be done with a request."""
        if not head.target.startswith("/"):
            return Access.BAD_TARGET  # with another authority than the one in Host
        if len(head.hosts) != 1 or head.hosts[0].lower() not in self._names:
            return Access.WRONG_HOST
        if head.origins and not (len(head.origins) == 1 and self._is_ours(head.origins[0])):
            return Access.WRONG_ORIGIN
        if self._token is None or head.path == LOGIN or self._is_authorised(head):
            return Access.ALLOWED
        return Access.WORD_ONLY if head.path in OPEN_PATHS else Access.NO_TOKEN

    def is_token(self, text: str) -> bool:
        """Tell, in constant time, whether the text is the token."""
        # Digests are of one length, so that not even the token's own is told.
        return self._token is not None and hmac.compare_digest(_digest(text), _digest(self._token.reveal()))

    def _is_authorised(self, head: Head) -> bool:
        if head.authorizations:
            scheme, _, shown = head.authorizations[0].partition(" ")
            return len(head.authorizations) == 1 and scheme.lower() == "bearer" and self.is_token(shown)
        return bool(head.session) and self._is_session(head.session)

    def _is_ours(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in {"http", "https"} or origin != f"{parts.scheme}://{parts.netloc}":
            return False
        return parts.netloc.lower() in self._names


def known_names(listen_host: str, port: int, hosts: Iterable[str]) -> frozenset[str]:
    """Return what may stand in ``Host``.

    Args:
        listen_host: the IP address; one that stands for all of them is no name.
        port: the bound one.
        hosts: further names. One without a port is good without one, as behind a proxy, and with ours.
    """
    own = ["127.0.0.1", "localhost", "[::1]"]
    if listen_host not in {"0.0.0.0", "::"}:  # noqa: S104  # compared, not bound
        own.append(host_and_port(listen_host, port).rpartition(":")[0])
    names = {f"{name}:{port}" for name in own}
    if port == 80:
        names.update(own)  # browsers leave it out
    for host in hosts:
        names.add(host)
        if not host.rpartition("]")[2].count(":"):
            names.add(f"{host}:{port}")
    return frozenset(names)


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="surrogatepass")).digest()
