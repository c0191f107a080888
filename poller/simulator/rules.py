"""What the exchange demands of a request: its parameters, its time, its signature.

Pure. The checks come in a fixed order, the first one that fails decides: names that stand twice, the API
key, unknown names, missing ones, the timestamp, the signature, and what the endpoint itself wants to know.
The exchange documents the rules, not their order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from poller.simulator.keys import SimulatedAccount

AHEAD_MS: Final = 1_000
DEFAULT_RECV_WINDOW_MS: Final = 5_000
MAX_RECV_WINDOW_MS: Final = 60_000

_API_KEY = re.compile(r"[A-Za-z0-9]{64}")
_INTEGER = re.compile(r"[0-9]{1,18}")
_ASSET = re.compile(r"[^\s\x00-\x1f]{1,32}")
# Since January 2026 everything is to be percent-encoded before it is signed.
_ENCODED = re.compile(rb"(?:[A-Za-z0-9._~&=-]|%[0-9A-Fa-f]{2})*")
_SIGNED = ("recvWindow", "timestamp", "signature")


class Refused(Exception):
    """The request is answered with an error.

    Attributes:
        status: of the HTTP answer.
        code: the exchange's own.
        text: its ``msg``.
    """

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(f"{status} {code} {text}")
        self.status = status
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint.

    Attributes:
        pool: whose weight it uses up: its own path, or what it shares.
        signed: needs an API key, a timestamp and a signature.
        parameters: what it understands besides.
    """

    method: str
    path: str
    pool: str
    weight: int
    signed: bool
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """The parameters of a request.

    Attributes:
        values: by name, decoded; where query and body have the same name, the query's.
        payload: the bytes that are signed: query and body as received, without the signature.
        signature: as it stood in the request; ``None`` if there was none, or not at the end.
    """

    values: Mapping[str, str]
    payload: bytes
    signature: bytes | None


def parse(query: bytes, body: bytes) -> Sent:
    """Take the request's parameters apart.

    Raises:
        Refused: a name stands twice, or the bytes are no text.
    """
    values = _pairs(body) | _pairs(query)
    signed, signature = _cut_signature(body)
    if body and signature is not None:
        return Sent(values, query + signed, signature)
    signed, signature = _cut_signature(query)
    return Sent(values, signed + body, signature)


def check_key_form(api_key: str | None) -> None:
    """Raise ``Refused`` unless it is 64 letters and digits."""
    if api_key is None or not _API_KEY.fullmatch(api_key):
        raise Refused(401, -2014, "API-key format invalid.")


def check_signed(sent: Sent, route: Route, account: SimulatedAccount, now_ms: int) -> None:
    """Check all that every signed endpoint demands.

    Args:
        now_ms: the exchange's clock.

    Raises:
        Refused: something is wrong with it.
    """
    check_names(sent, (*route.parameters, *_SIGNED))
    for name in ("timestamp", "signature"):
        if not sent.values.get(name):
            text = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
            raise Refused(400, -1102, text)
    timestamp_ms = _integer(sent, "timestamp")
    window_ms = _integer(sent, "recvWindow") if "recvWindow" in sent.values else DEFAULT_RECV_WINDOW_MS
    if window_ms > MAX_RECV_WINDOW_MS:
        raise Refused(400, -1131, f"recvWindow must be less than {MAX_RECV_WINDOW_MS}.")
    if timestamp_ms >= now_ms + AHEAD_MS:
        text = f"Timestamp for this request was {AHEAD_MS}ms ahead of the server's time."
        raise Refused(400, -1021, text)
    if now_ms - timestamp_ms > window_ms:
        raise Refused(400, -1021, "Timestamp for this request is outside of the recvWindow.")
    if (
        sent.signature is None
        or _ENCODED.fullmatch(sent.payload) is None
        or not account.has_signed(sent.payload, sent.signature)
    ):
        raise Refused(400, -1022, "Signature for this request is not valid.")


def check_names(sent: Sent, known: tuple[str, ...]) -> None:
    """Raise ``Refused`` where a parameter is none of those known."""
    read = sum(name in known for name in sent.values)
    if read < len(sent.values):
        text = f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{len(sent.values)}'."
        raise Refused(400, -1104, text)


def asset_asked_for(sent: Sent) -> str | None:
    """Return the ``asset`` parameter; ``None`` means all of them. Raises ``Refused``."""
    asset = sent.values.get("asset")
    if asset and not _ASSET.fullmatch(asset):
        raise illegal("asset", "^[^\\s]{1,32}$")
    return asset or None


def valuation_asked_for(sent: Sent) -> bool:
    """Return the ``needBtcValuation`` parameter. Raises ``Refused`` unless it is in lower case."""
    value = sent.values.get("needBtcValuation", "false")
    if value not in {"true", "false"}:
        raise illegal("needBtcValuation", "true|false")
    return value == "true"


def _pairs(part: bytes) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in part.split(b"&") if part else ():
        name, _, value = (_decoded(piece) for piece in pair.partition(b"="))
        if name in values:
            raise Refused(400, -1101, f"Duplicate values for parameter '{name}' detected.")
        values[name] = value
    return values


def _decoded(piece: bytes) -> str:
    try:
        return unquote_to_bytes(piece.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise Refused(400, -1100, "Illegal characters found in a parameter.") from None


def _cut_signature(part: bytes) -> tuple[bytes, bytes | None]:
    before, name, last = part.rpartition(b"signature=")
    if not name or b"&" in last or (before and not before.endswith(b"&")):
        return part, None
    return before.removesuffix(b"&"), last


def _integer(sent: Sent, name: str) -> int:
    value = sent.values[name]
    if not _INTEGER.fullmatch(value):
        raise illegal(name, "^[0-9]{1,20}$")
    return int(value)


def illegal(name: str, legal: str) -> Refused:
    """Return what is said of a parameter that holds what it must not."""
    return Refused(400, -1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")
