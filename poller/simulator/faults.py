"""Faults on demand: which requests they hit, and what they make of an answer.

Pure. A fault hits by rate, by script, or always; each one is a function from answer to answer, so
several on the same request add up, in the order they were set.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cache
from random import Random
from typing import Any, Final

WEIGHT_HEADER: Final = "X-SAPI-USED-IP-WEIGHT-1M"
DEFAULT_PATH: Final = "/sapi/v3/asset/getUserAsset"
TRAP_PATH: Final = "/simulator/trap"  # where redirects lead; nobody who signs requests should arrive there
JSON: Final = "application/json;charset=UTF-8"
HTML: Final = "text/html"


class Ending(StrEnum):
    """How the server ends an answer."""

    WHOLE = "whole"
    RESET = "reset"  # the connection is torn down instead
    RESET_WITHIN = "reset within"  # ... in the middle of the body
    CLOSE_WITHIN = "close within"  # the connection is closed in good manners, but in the middle of the body
    STALL = "stall"  # nothing comes for ``stall_s``, then the connection is torn down
    STALL_WITHIN = "stall within"  # the same after half of the body


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client, and how.

    Attributes:
        headers: by name as it is sent, ``Content-Type`` included.
        delay_s: wait so long before sending, besides the usual latency.
        stall_s: how long the two stalling endings last.
    """

    status: int
    body: bytes
    headers: Mapping[str, str]
    delay_s: float = 0.0
    ending: Ending = Ending.WHOLE
    stall_s: float = 0.0


class FaultKind(StrEnum):
    """What can go wrong."""

    LATENCY = "latency"
    STALL = "stall"
    STALL_WITHIN = "stall_within"
    RESET = "reset"
    RESET_WITHIN = "reset_within"
    CLOSE_WITHIN = "close_within"
    ERROR = "error"
    ERROR_HTML = "error_html"
    ERROR_OBJECT = "error_object"
    WAF = "waf"
    TRUNCATED = "truncated"
    BOMB = "bomb"
    REDIRECT = "redirect"
    EMPTY_LIST = "empty_list"
    EMPTY_OBJECT = "empty_object"
    BODY = "body"
    WEIGHT_HEADER = "weight_header"
    RETRY_AFTER = "retry_after"


class UnfitFault(ValueError):
    """No such fault; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, with some requests.

    Requests are counted from 1, from the moment the fault was set, and only those that match ``path`` and
    ``account``. Without ``rate``, ``nth``, ``after_s`` and ``count`` all of them are hit.

    Attributes:
        kind: ``latency`` delays by ``delay_s`` to ``delay_s + jitter_s``. ``stall`` and ``stall_within`` keep the
            client waiting for ``delay_s`` (60, if that is 0) and tear the connection down. ``reset``,
            ``reset_within``, ``close_within``: see ``Ending``. ``error`` and ``error_html`` answer with
            ``status`` (503, if not given) as the exchange's or as a gateway's page. ``error_object`` is a 200
            with an error in its body, ``waf`` a 403 page. ``truncated`` cuts the body in half without a
            sign of it in the headers. ``bomb`` is an empty list that unpacks to ``size_bytes``.
            ``redirect`` is a 302, ``empty_list`` and ``empty_object`` a 200 with ``[]`` and ``{}``,
            ``body`` a ``status`` (200) with ``value`` as its body. ``weight_header`` and ``retry_after`` put
            ``value`` into that header, or leave it out if ``value`` is not given.
        rate: hit this share of the requests, 0 to 1.
        nth: hit from this request on.
        after_s: hit from so many seconds after it was set.
        count: hit no more than this many requests.
        account: hit this account's requests only.
        path: hit this path only; empty for all paths.
    """

    kind: FaultKind
    rate: float = 1.0
    nth: int = 1
    after_s: float = 0.0
    count: int | None = None
    account: str | None = None
    path: str = DEFAULT_PATH
    delay_s: float = 0.0
    jitter_s: float = 0.0
    status: int | None = None
    value: str | None = None
    size_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", FaultKind(self.kind))
        if not 0 <= self.rate <= 1:
            raise UnfitFault(f"rate: {self.rate} is not between 0 and 1")
        if self.nth < 1 or (self.count is not None and self.count < 1):
            raise UnfitFault("nth and count: requests are counted from 1")
        if min(self.after_s, self.delay_s, self.jitter_s) < 0:
            raise UnfitFault("after_s, delay_s and jitter_s cannot be negative")
        if self.status is not None and not 200 <= self.status <= 599:
            raise UnfitFault(f"status: {self.status} is not between 200 and 599")
        if not 2 <= self.size_bytes <= 1 << 30:
            raise UnfitFault("size_bytes: from 2 to 1 GiB")
        if self.value is not None and self.kind in {FaultKind.WEIGHT_HEADER, FaultKind.RETRY_AFTER}:
            if not self.value.isascii() or not self.value.isprintable():
                raise UnfitFault("value: a header takes printable ASCII")
        elif self.value is not None:
            _as_bytes(self.value)

    @classmethod
    def from_json(cls, document: Any) -> Fault:
        """Return the fault that a JSON object describes.

        Raises:
            UnfitFault: it describes none; the message says why.
        """
        if not isinstance(document, dict):
            raise UnfitFault('a fault is an object such as {"kind": "reset", "rate": 0.1}')
        for name, value in document.items():
            if name not in _TAKES:
                raise UnfitFault(f"unknown key {name!r}; known: {', '.join(_TAKES)}")
            if not isinstance(value, _TAKES[name]) or isinstance(value, bool):
                raise UnfitFault(f"{name}: {value!r} will not do")
        if "kind" not in document:
            raise UnfitFault("kind is missing")
        return cls(**document)

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``from_json`` reads."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def _as_bytes(text: str) -> bytes:
    """Return the text as UTF-8; U+DC80 to U+DCFF stand for the bytes 0x80 to 0xFF that are none."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise UnfitFault("value: of the surrogates only U+DC80 to U+DCFF mean a byte") from None


_TAKES: Final[dict[str, tuple[type, ...]]] = {
    "kind": (str,),
    "rate": (int, float),
    "nth": (int,),
    "after_s": (int, float),
    "count": (int, type(None)),
    "account": (str, type(None)),
    "path": (str,),
    "delay_s": (int, float),
    "jitter_s": (int, float),
    "status": (int, type(None)),
    "value": (str, type(None)),
    "size_bytes": (int,),
}


@dataclass(slots=True)
class _Set:
    """A fault and how often it was met."""

    fault: Fault
    since_us: int
    seen: int = 0
    given: int = 0


@dataclass(slots=True)
class Faults:
    """The faults that are set now.

    Attributes:
        given: how often each kind was given, also by faults that are no longer set.
    """

    random: Random
    given: dict[str, int] = field(default_factory=dict)
    _set: list[_Set] = field(default_factory=list)

    def set(self, faults: Sequence[Fault], now_us: int) -> None:
        """Let these faults happen from now on, and none of those before."""
        self._set = [_Set(fault, now_us) for fault in faults]

    def current(self) -> list[Fault]:
        """Return what was set."""
        return [item.fault for item in self._set]

    def step_clock(self, by_us: int) -> None:
        """Take note that the exchange's clock jumps: faults were set as long ago as they were."""
        for item in self._set:
            item.since_us += by_us

    def pick(self, path: str, account: str | None, now_us: int) -> list[Fault]:
        """Return the faults that hit this request."""
        return [item.fault for item in self._set if self._hits(item, path, account, now_us)]

    def _hits(self, item: _Set, path: str, account: str | None, now_us: int) -> bool:
        fault = item.fault
        if fault.path not in {"", path} or fault.account not in {None, account}:
            return False
        item.seen += 1
        if (
            item.seen < fault.nth
            or now_us - item.since_us < fault.after_s * 1e6
            or (fault.count is not None and item.given >= fault.count)
            or self.random.random() >= fault.rate
        ):
            return False
        item.given += 1
        self.given[fault.kind] = self.given.get(fault.kind, 0) + 1
        return True


# These happen on the wire or in the headers, so they also hit answers that are errors already.
ON_EVERY_ANSWER: Final = frozenset(
    {
        FaultKind.LATENCY,
        FaultKind.STALL,
        FaultKind.STALL_WITHIN,
        FaultKind.RESET,
        FaultKind.RESET_WITHIN,
        FaultKind.CLOSE_WITHIN,
        FaultKind.TRUNCATED,
        FaultKind.WEIGHT_HEADER,
        FaultKind.RETRY_AFTER,
    }
)


def spoil(answer: Answer, fault: Fault, random: Random) -> Answer:
    """Return what the fault makes of the answer."""
    return _SPOILERS[fault.kind](answer, fault, random)


def page(answer: Answer, status: int, body: bytes, content_type: str) -> Answer:
    """Return the answer with another page in it; the other headers stay."""
    return replace(answer, status=status, body=body, headers={**answer.headers, "Content-Type": content_type})


def _latency(answer: Answer, fault: Fault, random: Random) -> Answer:
    return replace(answer, delay_s=answer.delay_s + fault.delay_s + fault.jitter_s * random.random())


def _ends(ending: Ending) -> Callable[[Answer, Fault, Random], Answer]:
    def spoiler(answer: Answer, fault: Fault, random: Random) -> Answer:
        return replace(answer, ending=ending, stall_s=fault.delay_s or 60.0)

    return spoiler


def _error(answer: Answer, fault: Fault, random: Random) -> Answer:
    body = b'{"code":-1000,"msg":"An unknown error occurred while processing the request."}'
    return page(answer, fault.status or 503, body, JSON)


def _error_html(answer: Answer, fault: Fault, random: Random) -> Answer:
    status = fault.status or 503
    body = f"<html><head><title>{status}</title></head><body><center><h1>{status} Gateway</h1></center></body></html>"
    return page(answer, status, body.encode(), HTML)


def _error_object(answer: Answer, fault: Fault, random: Random) -> Answer:
    body = fault.value or '{"code":-1003,"msg":"Too many requests; current request has limited."}'
    return page(answer, 200, _as_bytes(body), JSON)


def _waf(answer: Answer, fault: Fault, random: Random) -> Answer:
    body = b"<!DOCTYPE HTML><html><head><title>ERROR: The request could not be satisfied</title></head><body>"
    body += b"<h1>403 ERROR</h1><p>Request blocked.</p></body></html>"
    # The firewall stands in front of the exchange: none of the exchange's own headers.
    return replace(answer, status=403, body=body, headers={"Content-Type": HTML})


def _truncated(answer: Answer, fault: Fault, random: Random) -> Answer:
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def _bomb(answer: Answer, fault: Fault, random: Random) -> Answer:
    spoiled = page(answer, 200, packed_blanks(fault.size_bytes), JSON)
    return replace(spoiled, headers={**spoiled.headers, "Content-Encoding": "gzip"})


@cache
def packed_blanks(size_bytes: int) -> bytes:
    """Return an empty JSON list with blanks in it that unpacks to so many bytes: it would be believed."""
    return gzip.compress(b"[" + b" " * (size_bytes - 2) + b"]", mtime=0)


def _redirect(answer: Answer, fault: Fault, random: Random) -> Answer:
    return replace(answer, status=302, body=b"", headers={**answer.headers, "Location": TRAP_PATH})


def _body(status: int, text: str | None) -> Callable[[Answer, Fault, Random], Answer]:
    def spoiler(answer: Answer, fault: Fault, random: Random) -> Answer:
        chosen = (fault.value or "") if text is None else text
        return page(answer, fault.status or status, _as_bytes(chosen), JSON)

    return spoiler


def _header(name: str) -> Callable[[Answer, Fault, Random], Answer]:
    def spoiler(answer: Answer, fault: Fault, random: Random) -> Answer:
        headers = {key: value for key, value in answer.headers.items() if key != name}
        if fault.value is not None:
            headers[name] = fault.value
        return replace(answer, headers=headers)

    return spoiler


_SPOILERS: Final[Mapping[FaultKind, Callable[[Answer, Fault, Random], Answer]]] = {
    FaultKind.LATENCY: _latency,
    FaultKind.STALL: _ends(Ending.STALL),
    FaultKind.STALL_WITHIN: _ends(Ending.STALL_WITHIN),
    FaultKind.RESET: _ends(Ending.RESET),
    FaultKind.RESET_WITHIN: _ends(Ending.RESET_WITHIN),
    FaultKind.CLOSE_WITHIN: _ends(Ending.CLOSE_WITHIN),
    FaultKind.ERROR: _error,
    FaultKind.ERROR_HTML: _error_html,
    FaultKind.ERROR_OBJECT: _error_object,
    FaultKind.WAF: _waf,
    FaultKind.TRUNCATED: _truncated,
    FaultKind.BOMB: _bomb,
    FaultKind.REDIRECT: _redirect,
    FaultKind.EMPTY_LIST: _body(200, "[]"),
    FaultKind.EMPTY_OBJECT: _body(200, "{}"),
    FaultKind.BODY: _body(200, None),
    FaultKind.WEIGHT_HEADER: _header(WEIGHT_HEADER),
    FaultKind.RETRY_AFTER: _header("Retry-After"),
}
