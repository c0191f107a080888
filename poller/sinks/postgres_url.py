"""Where a PostgreSQL server is and how to speak with it, as a ``postgresql://`` URL says. Pure, but for TLS files."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from poller.secrets import Secret
from poller.sinks.tls import TlsOptions, ssl_context

DEFAULT_PORT: Final = 5432
SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
UNENCRYPTED: Final = frozenset({"disable", "allow", "prefer"})  # or possibly so
_ATTRIBUTES: Final = ("any", "primary", "read-write")
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.%]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")
# What libpq takes in the URL and stands elsewhere here.
_ELSEWHERE: Final[Mapping[str, str]] = {
    "sslrootcert": "write it as the option 'ca'",
    "sslcert": "write it as the option 'certificate'",
    "sslkey": "write it as the option 'private_key'",
    "password": "write it before the host, as in postgresql://USER:PASSWORD@HOST/DATABASE",
    "user": "write it before the host, as in postgresql://USER:PASSWORD@HOST/DATABASE",
    "dbname": "write it behind the host, as in postgresql://USER:PASSWORD@HOST/DATABASE",
}
_QUOTE = "and in user and password the signs : / ? # [ ] @ % as %3A %2F %3F %23 %5B %5D %40 %25"


@dataclass(frozen=True, slots=True)
class Address:
    """What an URL says. ``str`` of it, for messages, has neither user nor password.

    Attributes:
        servers: host, or a socket's directory, and port; tried in turn.
        sslmode: ``None``: not said.
        attributes: which of the servers will do: ``any``, ``primary``, ``read-write``.
    """

    servers: tuple[tuple[str, int], ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    sslmode: str | None = None
    attributes: str = "any"
    application: str = "poller"

    @property
    def hosts(self) -> str:
        """Hosts and ports, separated by commas."""
        return ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.servers
        )

    def __str__(self) -> str:
        return f"{self.hosts}/{self.database or ''}"

    def arguments(self) -> dict[str, Any]:
        """Return what asyncpg's ``connect`` takes; no DSN, which its errors would quote."""
        return {
            "host": [host for host, _ in self.servers],
            "port": [port for _, port in self.servers],
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "target_session_attrs": self.attributes,
            # Nothing else: PgBouncer refuses parameters that it does not know.
            "server_settings": {"application_name": self.application},
        }


def parse(url: Secret) -> Address:
    """Return what an URL says.

    Raises:
        ValueError: it cannot be used. The message repeats nothing of it.
    """
    try:
        found = urlsplit(url.reveal())
        query = dict(parse_qsl(found.query, keep_blank_values=True, strict_parsing=bool(found.query)))
    except ValueError:
        raise ValueError(
            f"it cannot be read; write postgresql://USER:PASSWORD@HOST:5432/DATABASE, {_QUOTE}"
        ) from None
    if "@" in found.path:  # then what stands before it is not the host, but a part of the password
        raise ValueError(f"a host or port in it cannot be read; write HOST:5432, {_QUOTE}")
    if found.scheme not in {"postgresql", "postgres"}:
        raise ValueError("it has to begin with postgresql://")
    if found.fragment:
        raise ValueError("write # as %23 in it")
    user, password, netloc = _credentials(found.netloc)
    servers = _servers(query.pop("host", "") or netloc, query.pop("port", ""))
    several = len(servers) > 1
    address = Address(
        servers,
        user=user,
        password=password,
        database=unquote(found.path.removeprefix("/")) or None,
        sslmode=_one_of("sslmode", query.pop("sslmode", None), SSL_MODES),
        # Of several only one takes writes.
        attributes=_one_of("target_session_attrs", query.pop("target_session_attrs", None), _ATTRIBUTES)
        or ("read-write" if several else "any"),
        application=query.pop("application_name", "poller"),
    )
    for name in query:
        # Unknown names are not repeated: what stands there may be the rest of a password.
        remedy = _ELSEWHERE.get(name)
        raise ValueError(
            f"{name!r} cannot stand in it; {remedy}"
            if remedy
            else "behind its '?' only sslmode, host, port, target_session_attrs and application_name may stand"
        )
    return address


def encryption(address: Address, options: TlsOptions) -> ssl.SSLContext | str | bool:
    """Return what asyncpg's ``ssl`` takes for the URL's ``sslmode``, which means what it means to libpq.

    Without one it is ``prefer``, or ``verify-full`` where files for TLS are named. The authorities are
    those of ``ca`` or the system's.

    Raises:
        SinkBroken: a file is missing or is not what it should be.
    """
    mode = address.sslmode or ("verify-full" if options.has_tls_files() else "prefer")
    if mode == "disable":
        return False
    if mode in UNENCRYPTED:
        return mode
    context = ssl_context(options)
    if mode != "verify-full":
        context.check_hostname = False
    if mode == "require" and options.ca is None:
        context.verify_mode = ssl.CERT_NONE
    return context


def _credentials(netloc: str) -> tuple[str | None, str | None, str]:
    before, at, hosts = netloc.rpartition("@")
    if not at:
        return None, None, hosts
    user, colon, password = before.partition(":")
    return unquote(user) or None, unquote(password) if colon else None, hosts


def _servers(hosts: str, ports: str) -> tuple[tuple[str, int], ...]:
    if not hosts:
        raise ValueError("it names no host; write postgresql://USER:PASSWORD@HOST:5432/DATABASE")
    default = int(ports) if re.fullmatch("[0-9]{1,5}", ports) else DEFAULT_PORT
    servers = []
    for text in hosts.split(","):
        match = _HOST.fullmatch(text)
        host = unquote(match["ipv6"] or match["name"]) if match else ""
        port = int(match["port"] or default) if match else 0
        if not host or not 0 < port < 1 << 16:
            raise ValueError(f"a host or port in it cannot be read; write HOST:5432, {_QUOTE}")
        servers.append((host, port))
    return tuple(servers)


def _one_of(name: str, value: str | None, known: tuple[str, ...]) -> str | None:
    if value is not None and value not in known:
        raise ValueError(f"{name} in it has to be one of {', '.join(known)}")
    return value
