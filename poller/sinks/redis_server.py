"""A Redis server as the ``redis`` sink sees it: where it is, and what its errors mean. Pure."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from redis.exceptions import AuthenticationError, RedisError

from poller.errors import SinkBroken, SinkError, SinkUnavailable

DEFAULT_PORT: Final = 6379

_CLUSTER = "this is a node of a cluster, which this sink does not follow; name a standalone server or a proxy"
_CREDENTIALS = "put the right user and password into 'url'"

# What does not pass by itself, by the code that begins an error, and what to repair. Everything else may
# pass: OOM, READONLY (a failover goes on), MISCONF, LOADING, MASTERDOWN, CLUSTERDOWN, TRYAGAIN, NOREPLICAS,
# and what nobody has seen yet.
_BROKEN: Final[Mapping[str, str]] = {
    "NOAUTH": _CREDENTIALS,
    "WRONGPASS": _CREDENTIALS,
    "NOPERM": "grant the user the command and the key (ACL SETUSER)",
    "DENIED": "it is in protected mode; give it a password, or bind it to this host",
    "WRONGTYPE": "its key holds something else; name another 'stream', or remove it",
    "MOVED": _CLUSTER,
    "ASK": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
}
# The same for errors of the general kind, by how they go on.
_BROKEN_ERR: Final[Mapping[str, str]] = {
    r"unknown command .?WAITAOF": "it is older than 7.2; remove 'wait_aof', or upgrade it",
    r"unknown command": "it does not have, or hides, what streams need; use Redis or Valkey from 5.0 on",
    r"WAITAOF cannot be used": "set 'appendonly yes' at the server, or remove 'wait_aof'",
    r"(AUTH|invalid password|wrong number of arguments for 'auth')": _CREDENTIALS,
    r"(DB index is out of range|invalid DB index)": "name a database in 'url' that it has",
    r"SELECT is not allowed in cluster": _CLUSTER,
}


@dataclass(frozen=True, slots=True)
class Address:
    """What an URL says. Without ``repr`` of what is secret.

    Attributes:
        scheme: ``redis``, ``rediss`` or ``unix``.
        host: empty for ``unix``.
        path: of the socket, for ``unix``.
    """

    scheme: str
    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """Host and port, or the socket's path: for messages."""
        if self.scheme == "unix":
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def channel(self) -> tuple[str, str]:
        """Return protocol and host as AsyncAPI has them."""
        if self.scheme == "unix":
            return "redis", "localhost"
        return self.scheme, self.place


def parse_url(text: str) -> Address:
    """Return what an URL says.

    Raises:
        ValueError: it cannot be used. The message repeats nothing of it.
    """
    try:
        url = urlsplit(text)
        port = url.port or DEFAULT_PORT
    except ValueError:
        raise ValueError(
            "host or port cannot be read; write redis://user:password@host:6379/0, and in user and password "
            "the signs : / ? # [ ] @ % as %3A %2F %3F %23 %5B %5D %40 %25"
        ) from None
    if url.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("it has to begin with redis://, rediss:// or unix://")
    if url.fragment:
        raise ValueError("write # as %23 in it")
    query = parse_qs(url.query, keep_blank_values=True)
    if query.keys() - {"db"}:
        raise ValueError("nothing but db=NUMBER may stand behind its '?'; the rest are options of this sink")
    is_unix = url.scheme == "unix"
    if not (url.path if is_unix else url.hostname):
        raise ValueError("it names no " + ("path of a socket" if is_unix else "host"))
    database = query["db"][0] if "db" in query else "" if is_unix else url.path.strip("/")
    if not re.fullmatch(r"[0-9]{0,6}", database):
        raise ValueError("the database in it has to be a number, as in redis://host:6379/0")
    return Address(
        url.scheme,
        host="" if is_unix else unquote(url.hostname or ""),
        port=port,
        path=unquote(url.path) if is_unix else "",
        database=int(database or 0),
        username=unquote(url.username) if url.username else None,
        password=unquote(url.password) if url.password else None,
    )


def classified(error: Exception, place: str) -> SinkError:
    """Return what an error of the client or the server means for the batch."""
    code, said = error_code(error), f"{place}: {_said(error)}"
    remedy = _BROKEN.get(code)
    if remedy is None:
        remedy = next((way for words, way in _BROKEN_ERR.items() if re.match(words, str(error))), None)
    if remedy is None and isinstance(error, AuthenticationError):
        remedy = _CREDENTIALS
    if remedy is None and _is_distrust(error):
        remedy = "name the authority that signed its certificate as 'ca', or have the certificate renewed"
    return SinkUnavailable(said) if remedy is None else SinkBroken(f"{said}; {remedy}")


def error_code(error: object) -> str:
    """Return the word that begins a server's error, such as ``WRONGTYPE``; empty if there is none."""
    if not isinstance(error, RedisError):
        return ""
    # The client takes off the codes that it knows.
    code: str | None = error.status_code
    word = str(error).split(" ", 1)[0]
    return code or (word if re.fullmatch(r"[A-Z]{2,}", word) else "")


def _said(error: Exception) -> str:
    code, text = error_code(error), str(error).rstrip(".")
    if not text:
        return type(error).__name__
    return text if not code or text.startswith(code) else f"{code} {text}"


def _is_distrust(error: BaseException | None) -> bool:
    """Tell whether a certificate was not believed: the client keeps the reason only as the context."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
