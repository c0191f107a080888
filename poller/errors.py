"""Every error the poller raises on purpose, and what each one means for the rest.

PollerError
├── ConfigError            the operator must edit a file; carries every problem found, not only the first
├── PollError              one poll failed; ``scope`` says who has to wait
│   ├── NoResponse         POLL      connection, TLS or time-out; the weight may have been counted
│   │   └── StaleConnection          a kept-alive connection was dead before any answer
│   ├── NoKey              POLL      the account's key is not at hand
│   ├── KeyExchanged       POLL      a key was refused that was replaced meanwhile: ask again at once
│   ├── Unavailable        POLL      5xx and the exchange's own words for it
│   ├── BadAnswer          POLL      a success that does not have the documented shape
│   ├── ClockSkew          POLL      our timestamp was refused; the clock has to be measured again
│   ├── AccessDenied       ACCOUNT   the key is wrong, expired, or lacks a permission
│   ├── BadRequest         ENDPOINT  a request the exchange calls wrong: a bug of ours
│   ├── Overloaded         ENDPOINT  the exchange sheds load, or has closed the endpoint
│   │   └── Maintenance              it says that it is under maintenance
│   ├── RateLimited        EGRESS    429: the weight of this address is used up
│   ├── Banned             EGRESS    418: this address is banned
│   └── Blocked            EGRESS    403 of the firewall, 451 of a restricted territory
├── SinkError
│   ├── SinkUnavailable    the same batch may be written later
│   ├── SinkRejected       these records will never be accepted, the others were written
│   ├── BatchRejected      some record of the batch will never be accepted, and nobody says which
│   └── SinkBroken         nothing will be accepted until somebody repairs the sink's set-up
├── SinkNotOpened          a sink without which the daemon is not to start cannot be opened
├── EgressLocked           another process sends from this address
├── ServerNotBound         the daemon's own HTTP server cannot listen
└── OutboxError
    ├── OutboxLocked       another process owns this outbox
    ├── OutboxFull         no room on the disk; nothing was accepted, polls have to wait
    └── OutboxFailed       a record could not be made durable; the process must stop
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Scope(StrEnum):
    """Who has to wait after a failed poll."""

    POLL = "poll"  # nobody: the account's next poll is the retry
    ACCOUNT = "account"  # this account alone
    ENDPOINT = "endpoint"  # every account, on this endpoint
    EGRESS = "egress"  # every request from this address


class PollerError(Exception):
    """Base class of all errors the poller raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration, where it is, and what to do about it.

    Attributes:
        file: path of the file as the operator named it; empty if no file is to blame.
        line: line in it, counted from 1; 0 if unknown.
        key: dotted path of the key, such as ``accounts.treasury.interval``.
        message: what is wrong, naming the value.
        remedy: what to write or run instead; may be empty.
    """

    file: str
    line: int
    key: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        text = ": ".join(part for part in (place, self.key, self.message) if part)
        return f"{text}; {self.remedy}" if self.remedy else text


class ConfigError(PollerError):
    """The configuration cannot be used. ``problems`` lists everything that was found wrong."""

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems = [Problem("", 0, "", problems)] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PollError(PollerError):
    """One poll failed.

    Attributes:
        scope: who has to wait.
        kind: stable name for logs and metrics.
        code: the exchange's own code, if its answer had one.
        status: the HTTP status, if there was an answer.
        retry_after_s: seconds the exchange asked us to wait, as it said so (unclamped); ``None`` if
            it named nothing that can be read.
    """

    scope: ClassVar[Scope]
    kind: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s


class NoResponse(PollError):
    """No whole answer arrived: connection, TLS or time-out. ``cause`` names which."""

    scope = Scope.POLL
    kind = "no_response"

    def __init__(self, message: str, *, cause: str) -> None:
        super().__init__(message)
        self.cause = cause  # dns, connect, tls, proxy, timeout, reset, too_large, protocol, pause, removed


class StaleConnection(NoResponse):
    """A kept-alive connection turned out dead before one byte of an answer: may be retried at once."""

    def __init__(self, message: str) -> None:
        super().__init__(message, cause="stale")


class NoKey(PollError):
    """The account's key is not at hand: where it is kept cannot be reached, or the account was removed."""

    scope = Scope.POLL
    kind = "no_key"


class KeyExchanged(PollError):
    """A key was refused that was replaced by another while the request was under way: ask again with that."""

    scope = Scope.POLL
    kind = "key_exchanged"


class Unavailable(PollError):
    """The exchange failed to answer; whether it did the work is unknown, and for a read does not matter."""

    scope = Scope.POLL
    kind = "unavailable"


class BadAnswer(PollError):
    """A success that does not have the documented shape. ``reason`` is a stable name, for counting."""

    scope = Scope.POLL
    kind = "bad_answer"

    def __init__(self, message: str, *, reason: str, status: int | None = 200) -> None:
        super().__init__(message, status=status)
        self.reason = reason


class ClockSkew(PollError):
    """Our timestamp was refused (-1021)."""

    scope = Scope.POLL
    kind = "clock_skew"


class AccessDenied(PollError):
    """The key is wrong, expired, not allowed from this address, or lacks a permission."""

    scope = Scope.ACCOUNT
    kind = "access_denied"


class BadRequest(PollError):
    """The exchange calls the request itself wrong: a bug of ours, or an endpoint that moved."""

    scope = Scope.ENDPOINT
    kind = "bad_request"


class Overloaded(PollError):
    """The exchange sheds load, or has closed the endpoint."""

    scope = Scope.ENDPOINT
    kind = "overloaded"


class Maintenance(Overloaded):
    """The exchange says that it is under maintenance."""

    kind = "maintenance"


class RateLimited(PollError):
    """429: the weight of this address is used up. Going on is what turns it into a ban."""

    scope = Scope.EGRESS
    kind = "rate_limited"


class Banned(PollError):
    """418: this address is banned.

    ``banned_until_ms`` is the end named in the text, in milliseconds since the epoch on the
    exchange's clock; ``None`` if it named none.
    """

    scope = Scope.EGRESS
    kind = "banned"

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        banned_until_ms: int | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, retry_after_s=retry_after_s)
        self.banned_until_ms = banned_until_ms


class Blocked(PollError):
    """403 of the exchange's firewall, or 451: this address is in a restricted territory."""

    scope = Scope.EGRESS
    kind = "blocked"


class SinkError(PollerError):
    """A sink did not take a batch."""


class SinkUnavailable(SinkError):
    """Nothing of the batch may count as written; the same batch comes again later.

    ``retry_after_s`` is the delay the destination asked for, in seconds; ``None`` if it named none.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SinkRejected(SinkError):
    """Some records are refused for good; the others of the batch were written.

    ``rejected`` maps the id of each refused record to the destination's reason.
    """

    def __init__(self, message: str, *, rejected: Mapping[str, str]) -> None:
        super().__init__(message)
        self.rejected = dict(rejected)


class BatchRejected(SinkError):
    """Some record of the batch is refused for good, and the destination does not say which.

    Nothing of the batch may count as written. It comes again in halves, until the record is found.
    """


class SinkBroken(SinkError):
    """The sink's set-up is wrong (credentials, missing table): nothing passes until it is repaired."""


class SinkNotOpened(PollerError):
    """A sink with ``on_start: fail`` cannot be opened. ``sink`` is its name in the configuration."""

    def __init__(self, sink: str, why: str) -> None:
        super().__init__(f"sinks.{sink}: cannot be opened, and has 'on_start: fail': {why}")
        self.sink = sink


class EgressLocked(PollerError):
    """Another process sends from this egress address, and their weight would be spent twice.

    ``pid`` is that process, ``None`` if it cannot be told.
    """

    def __init__(self, message: str, *, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class ServerNotBound(PollerError):
    """The daemon's own HTTP server cannot listen on its address. ``address`` is that, as configured."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"server.listen: cannot listen on {address}: {why}")
        self.address = address


class OutboxError(PollerError):
    """The outbox cannot be used."""


class OutboxLocked(OutboxError):
    """Another process owns this outbox. ``pid`` is that process, ``None`` if it cannot be told."""

    def __init__(self, message: str, *, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class OutboxFull(OutboxError):
    """No room on the disk or within the configured size; nothing was accepted."""


class OutboxFailed(OutboxError):
    """A write or sync failed in a way after which nothing it says can be trusted."""


def first_in(group: BaseExceptionGroup[OutboxFailed]) -> OutboxFailed:
    """Return one of the failures of a group: several tasks may meet the same, and one is enough to say."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OutboxFailed)  # noqa: S101  # what the type says
    return error
