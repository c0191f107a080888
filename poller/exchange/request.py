"""Requests, signed and unsigned. Pure: the same account, parameters and time give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from poller.exchange.signing import Credentials

RECV_WINDOW_MOST_MS: Final = 60_000  # the exchange refuses more (-1131)

# Ours to set: a caller's own would be signed next to them, and the exchange would take one of the two.
_RESERVED: Final = frozenset({"recvWindow", "timestamp", "signature"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of the exchange.

    Attributes:
        weight: what one request costs, whatever becomes of it.
        signed: takes an API key, a timestamp and a signature.
    """

    method: str
    path: str
    weight: int
    signed: bool


USER_ASSETS: Final = Endpoint("POST", "/sapi/v3/asset/getUserAsset", weight=5, signed=True)
API_RESTRICTIONS: Final = Endpoint("GET", "/sapi/v1/account/apiRestrictions", weight=1, signed=True)
SUB_ACCOUNTS: Final = Endpoint("GET", "/sapi/v1/sub-account/list", weight=1, signed=True)
SYSTEM_STATUS: Final = Endpoint("GET", "/sapi/v1/system/status", weight=1, signed=False)
SERVER_TIME: Final = Endpoint("GET", "/api/v3/time", weight=1, signed=False)

# A signature is as good as the key for what it covers: nothing but these can be made to carry one.
SIGNED: Final = frozenset({USER_ASSETS, API_RESTRICTIONS, SUB_ACCOUNTS})


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it goes out; nothing of it may be encoded again.

    Attributes:
        query: percent-encoded, without the question mark; of a signed request it ends in the signature.
    """

    method: str
    path: str
    query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def sign(
    credentials: Credentials,
    endpoint: Endpoint,
    parameters: Mapping[str, str],
    *,
    exchange_ms: int,
    recv_window_ms: int,
) -> Request:
    """Sign a request with one key. Everything is in the query; the body is empty.

    Args:
        credentials: the key, and what signs for it.
        endpoint: one of ``SIGNED``.
        parameters: sent in their order, ahead of the window and the timestamp.
        exchange_ms: the exchange's time as we know it, in milliseconds since the epoch.
        recv_window_ms: for how many milliseconds after ``exchange_ms`` the exchange may still accept it.

    Raises:
        ValueError: the endpoint is not to be signed, the window is not 1 to 60,000 ms, or a parameter
            cannot be sent.
    """
    if endpoint not in SIGNED:
        raise ValueError(f"{endpoint.path} is not a path to be signed")
    if not 1 <= recv_window_ms <= RECV_WINDOW_MOST_MS:
        raise ValueError(f"recv_window is 1 to {RECV_WINDOW_MOST_MS} ms, not {recv_window_ms}")
    if clash := _RESERVED & parameters.keys():
        raise ValueError(f"parameters set by the signing itself: {', '.join(sorted(clash))}")
    # Encoded first, then signed: the exchange verifies the bytes as they arrive.
    query = encoded(
        [*parameters.items(), ("recvWindow", str(recv_window_ms)), ("timestamp", str(exchange_ms))]
    )
    signature = credentials.signer.sign(query.encode("ascii"))
    return Request(
        endpoint.method,
        endpoint.path,
        f"{query}&{encoded([('signature', signature)])}",
        {"X-MBX-APIKEY": credentials.api_key.reveal()},
    )


def unsigned(endpoint: Endpoint) -> Request:
    """Return the request for an endpoint that wants no key.

    Raises:
        ValueError: it wants one.
    """
    if endpoint.signed:
        raise ValueError(f"{endpoint.path} has to be signed")
    return Request(endpoint.method, endpoint.path)


def encoded(parameters: Iterable[tuple[str, str]]) -> str:
    """Return the parameters as a query, every byte but RFC 3986's unreserved ones percent-encoded.

    Raises:
        ValueError: a text holds half a surrogate pair, which no encoding has.
    """
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters)
