"""What an HTTP answer means: the one table from code and status to who has to wait. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from poller.errors import (
    AccessDenied,
    BadAnswer,
    BadRequest,
    Banned,
    Blocked,
    ClockSkew,
    Maintenance,
    Overloaded,
    PollError,
    RateLimited,
    Unavailable,
)
from poller.secrets import redact

SHOWN_CHARACTERS: Final = 160  # enough to recognise a proxy's HTML page, too little to flood a log
_LOOKED_AT: Final = 4_096  # bytes or characters of foreign text; beyond there is nothing to recognise

# A 429 or 418 silences the address whatever code comes with it: to go on is what makes it worse.
SILENCING: Final[Mapping[int, type[PollError]]] = {418: Banned, 429: RateLimited}

# The code says more than the other statuses: the same code arrives with different ones on different
# endpoints. Numbers mean other things in the exchange's other families (futures, options).
BY_CODE: Final[Mapping[int, type[PollError]]] = {
    1: Maintenance,  # "System is under maintenance."
    -1000: Unavailable,  # unknown error
    -1001: Unavailable,  # internal error
    -1002: AccessDenied,  # not authorised
    -1003: RateLimited,  # too many requests
    -1004: Unavailable,  # server busy
    -1006: Unavailable,  # unexpected answer of a part of theirs
    -1007: Unavailable,  # a part of theirs timed out
    -1008: Overloaded,  # throttled by system-level protection
    -1010: BadRequest,
    -1013: BadRequest,
    -1014: BadRequest,
    -1015: BadRequest,
    -1016: Overloaded,  # the service is gone
    -1020: Overloaded,  # the operation is not supported
    -1021: ClockSkew,  # timestamp outside of the window, or ahead
    -1022: AccessDenied,  # invalid signature: a wrong secret, unless everybody has it
    -1099: AccessDenied,  # not found, authenticated or authorised
    **dict.fromkeys((*range(-1106, -1099), -1108), BadRequest),  # parameters illegal, missing, too many ...
    **dict.fromkeys((*range(-1128, -1110), -1130, -1131, -1134, -1135, -1139, -1145), BadRequest),
    **dict.fromkeys(range(-1199, -1150), BadRequest),
    -2008: AccessDenied,  # invalid key id
    -2014: AccessDenied,  # the key's format
    -2015: AccessDenied,  # the key, the address, or a permission
    -3000: Unavailable,  # inner failure
    -3001: AccessDenied,  # two-factor authentication must be enabled
    -3002: BadRequest,  # no such asset
    -3026: BadRequest,
    -3044: Unavailable,  # system busy
    -3999: AccessDenied,  # for invited users only
    -4001: BadRequest,
    -4004: AccessDenied,  # not logged in
    -4005: Overloaded,  # too many new requests
    -4006: BadRequest,  # for master accounts only
    -4018: BadRequest,  # no such asset
    -4038: Unavailable,  # try later
    -4039: AccessDenied,  # the user does not exist or does not work
    -4041: Unavailable,  # try later
    -4044: AccessDenied,  # restricted country
    -4045: Unavailable,  # failed to acquire assets
    -4046: AccessDenied,  # an agreement is not confirmed
    **dict.fromkeys(range(-5012, -5000), BadRequest),  # transfers
    -5021: AccessDenied,  # no relation between parent and sub-account
    -6009: Overloaded,  # too frequent
    -9000: Overloaded,  # not supported
    -10001: Maintenance,  # maintenance
}

# For codes that are not above, and for answers without one.
BY_STATUS: Final[Mapping[int, type[PollError]]] = {
    304: BadAnswer,  # nobody asked for an old answer
    401: AccessDenied,
    403: Blocked,  # the firewall
    404: BadRequest,
    408: Unavailable,
    410: Overloaded,
    451: Blocked,  # a restricted territory
}

_SUCCESS_CODES: Final = frozenset({0, 200})  # "000000" reads as 0
_BAN = re.compile(r"IP(?:\([^)]{0,64}\))? banned until ([0-9]{10,13})(?![0-9])")
_TOO_MANY = re.compile(r"too many requests", re.IGNORECASE)
_INTEGER = re.compile(r"-?[0-9]{1,12}")
_SECONDS = re.compile(r"[0-9]{1,18}")
_WEIGHT = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Response:
    """An answer as it arrived.

    Attributes:
        headers: names in lower case.
        body: decompressed. Of an answer that says no, it may be empty because it broke off.
        sent_s: monotonic seconds when the request went out, its connection being open.
        answered_s: monotonic seconds at the end of the body.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    sent_s: float
    answered_s: float


def error_in(response: Response) -> PollError | None:
    """Return the error that an answer is; ``None`` for status 200 without one.

    Whether what then remains is the document that was asked for, ``payload`` decides.
    """
    if response.status == 200 and response.body.lstrip(b" \t\r\n")[:1] == b"[":
        return None  # a list; errors are objects
    document = _document(response.body)
    code = _code(document)
    text = _text(response, document, code)
    kind = _disguised(document, code, text) if response.status == 200 else _kind(response.status, code)
    if kind is None:
        return None
    if kind is BadAnswer:
        return BadAnswer(text, reason="unexpected_status", status=response.status)
    retry_after_s = _retry_after_s(response.headers)
    until_ms = _banned_until_ms(response.body)
    if kind is Banned or (kind is RateLimited and until_ms is not None):
        return Banned(
            text, code=code, status=response.status, retry_after_s=retry_after_s, banned_until_ms=until_ms
        )
    return kind(text, code=code, status=response.status, retry_after_s=retry_after_s)


def used_weight(headers: Mapping[str, str]) -> int | None:
    """Return what this address has used of the endpoint's weight; ``None`` if that is not said clearly."""
    value = headers.get("x-sapi-used-ip-weight-1m", "")
    return int(value) if _WEIGHT.fullmatch(value) else None


def sanitized(text: str) -> str:
    """Return foreign text fit for a log: no secret, no control or direction characters, clipped."""
    # Secrets go before the text is cut to what is shown: the cut could leave too little to recognise one.
    visible = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in redact(text[:_LOOKED_AT])
    )
    return visible if len(visible) <= SHOWN_CHARACTERS else f"{visible[:SHOWN_CHARACTERS]}..."


def _disguised(document: dict[str, Any] | None, code: int | None, text: str) -> type[PollError] | None:
    """Return the error that hides behind status 200; ``None`` if none does."""
    if code is not None and code not in _SUCCESS_CODES:
        return BY_CODE.get(code, Unavailable)
    if document is not None and document.get("success") is False:
        return RateLimited if _TOO_MANY.search(text) else Unavailable
    return None


def _kind(status: int, code: int | None) -> type[PollError]:
    return (
        SILENCING.get(status)
        or (BY_CODE.get(code) if code is not None else None)
        or BY_STATUS.get(status)
        or _by_hundred(status, code)
    )


def _by_hundred(status: int, code: int | None) -> type[PollError]:
    match status // 100:
        case 2:
            return BadAnswer  # created, partial: not what was asked for
        case 3:
            return BadRequest  # the endpoint moved; the signed request is not taken there
        case 4 if code is None:
            return BadRequest
    return Unavailable  # of a code that nobody knows, too: not yet a mistake of ours


def _document(body: bytes) -> dict[str, Any] | None:
    document = _object(body)
    if document is not None and "code" not in document and isinstance(said := document.get("msg"), str):
        # An old form: the error as JSON within the text.
        document |= _object(said) or {}
    return document


def _object(text: bytes | str) -> dict[str, Any] | None:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _code(document: dict[str, Any] | None) -> int | None:
    code = (document or {}).get("code")
    if isinstance(code, str) and _INTEGER.fullmatch(code):
        return int(code)
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _text(response: Response, document: dict[str, Any] | None, code: int | None) -> str:
    """Return what an operator needs to know of an answer, and nothing else of it."""
    head = f"HTTP {response.status}" if code is None else f"HTTP {response.status}, code {code}"
    said = (document or {}).get("msg", (document or {}).get("message"))
    if isinstance(said, str) and said:
        return f"{head}: {sanitized(said)}"
    if document is not None or not response.body:
        return head if document is not None else f"{head}, no body"
    start = response.body[:_LOOKED_AT].decode("utf-8", errors="replace")
    return f"{head}, no JSON: {sanitized(' '.join(start.split()))}"


def _banned_until_ms(body: bytes) -> int | None:
    match = _BAN.search(body[:_LOOKED_AT].decode("utf-8", errors="replace"))
    if match is None:
        return None
    until = int(match[1])
    return until if until >= 10**11 else until * 1000  # ten digits are seconds


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the header names; of a date, counted from the answer's own.

    The exchange sends whole seconds. HTTP also allows a date, and something in between may send one.
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, wait.total_seconds())
