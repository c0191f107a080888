"""What an answer to a webhook means: delivered, refused, try again later, or somebody has to repair something."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from yarl import URL

from poller.clock import NS_PER_S
from poller.errors import SinkBroken, SinkUnavailable

SHOWN_CHARACTERS: Final = 200  # of what the receiver says

_REFUSED: Final = frozenset({400, 413, 415, 422})
_REPAIR: Final[Mapping[int, str]] = {
    401: "repair 'secret' or 'credential'",
    403: "repair 'secret' or 'credential', or its rules",
    404: "repair 'url'",
    405: "it takes no POST: repair 'url'",
}
_THROTTLED: Final = frozenset({425, 429})
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)
_UNPRINTABLE = re.compile(r"[^ -~]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer, and how its body begins.

    Attributes:
        headers: by lower-case name.
        said: the first characters of the body, of a failure.
    """

    status: int
    headers: Mapping[str, str]
    said: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """This record will never be taken."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Not taken this time.

    Attributes:
        error: what it is for the whole batch.
        is_for_all: another record would fare no better: nothing more is sent.
        is_gone: the receiver asked for no more requests.
    """

    error: SinkUnavailable | SinkBroken
    is_for_all: bool = False
    is_gone: bool = False


def judge(answer: Answer, host: str, now_ns: int) -> Refused | Failed | None:
    """Return what the answer means; ``None``: the record is delivered.

    Args:
        host: of the receiver, for messages.
        now_ns: our time, nanoseconds since the epoch, for a ``Retry-After`` that is a date.
    """
    status = answer.status
    said = f": {answer.said}" if answer.said else ""
    text = f"{host} answered {status}{said}"
    if 200 <= status < 300:
        return None
    if status in _REFUSED:
        return Refused(text)
    if 300 <= status < 400:
        return Failed(SinkBroken(f"{host} answered {status}, {_whereto(answer)}"), is_for_all=True)
    if status == 410:
        return Failed(SinkBroken(f"{text}; it wants no more of this"), is_for_all=True, is_gone=True)
    if status in _REPAIR:
        return Failed(SinkBroken(f"{text}; {_REPAIR[status]}"), is_for_all=True)
    retry_after_s = _retry_after_s(answer.headers, now_ns)
    return Failed(
        SinkUnavailable(text, retry_after_s=retry_after_s),
        is_for_all=status in _THROTTLED or retry_after_s is not None,
    )


def printable(text: str) -> str:
    """Return how a text begins, as one short line of ASCII."""
    return _UNPRINTABLE.sub(" ", text).strip()[:SHOWN_CHARACTERS]


def _whereto(answer: Answer) -> str:
    """Name the host of a redirect, and nothing else of it: a token may stand in the rest."""
    try:
        host = URL(answer.headers.get("location", "")).raw_host
    except ValueError:
        host = None
    where = f"to {_UNPRINTABLE.sub('', host)[:SHOWN_CHARACTERS]}" if host else "to another place of its own"
    return f"a redirect {where}; none is followed: repair 'url'"


def _retry_after_s(headers: Mapping[str, str], now_ns: int) -> float | None:
    """Return the seconds to wait, of a date counted from the answer's own, or else from ours."""
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        until_s = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    try:
        from_s = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        from_s = now_ns / NS_PER_S
    return max(0.0, until_s - from_s)
