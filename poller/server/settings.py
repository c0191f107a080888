"""How the daemon's own HTTP server is set up, and what it bears at most."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

LEAST_TOKEN_CHARACTERS: Final = 32
MOST_TOKEN_CHARACTERS: Final = 256  # so that it fits the form however it is encoded


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where to listen, and the bounds on what clients can take.

    Attributes:
        listen_host: an IP address of this machine.
        listen_port: 0 for any free one.
        hosts: further names under which the server is reached, ``NAME`` or ``NAME:PORT``, in lower case.
        most_connections: open at a time. One more takes the place of the connection that has waited longest
            for its client's request; if every client is being served, it is closed at once.
        most_streams: of events, at a time.
        header_s: seconds that a client may take to send the head of a request, and its body.
        keep_alive_s: seconds that a connection stays open for a next request.
        answer_s: seconds that a client may take to read an answer, or an event of a stream.
        closing_s: seconds that answers under way get when the server closes.
        sample_s: seconds between two looks at what is shown, for those who listen to events.
        silence_s: seconds without an event after which a stream says that it is alive.
        queue_bytes: of events that wait for one reader; one that lets more gather is cut off. What it is
            told at first is not counted.
    """

    listen_host: str = "127.0.0.1"
    listen_port: int = 8080
    hosts: tuple[str, ...] = ()
    most_connections: int = 256
    most_streams: int = 64
    header_s: float = 10.0
    keep_alive_s: float = 30.0
    answer_s: float = 30.0
    closing_s: float = 1.0
    sample_s: float = 1.0
    silence_s: float = 15.0
    queue_bytes: int = 8 * 1024**2

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.listen_host).is_loopback


def host_and_port(host: str, port: int) -> str:
    """Return both as an URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def token_fault(token: str) -> str:
    """Say what is wrong with a token, without repeating it; empty if it can be used."""
    if len(token) < LEAST_TOKEN_CHARACTERS:
        return f"has {len(token)} characters, fewer than {LEAST_TOKEN_CHARACTERS}"
    if len(token) > MOST_TOKEN_CHARACTERS:
        return f"has {len(token)} characters, more than {MOST_TOKEN_CHARACTERS}"
    if not all("!" <= sign <= "~" for sign in token):
        return "has characters that a header cannot carry"
    return ""
