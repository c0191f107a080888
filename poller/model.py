"""The values that the poller is about: accounts, balances, snapshots, changes, records. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any

import orjson

# Exact for every sum of amounts within the bounds the parser admits (30 digits before the point,
# 30 behind it, thousands of rows); the default context would round at 28 digits.
EXACT = Context(prec=100)

AMOUNT_FIELDS = ("free", "locked", "freeze", "withdrawing", "ipoable")


def plain(amount: Decimal) -> str:
    """Return the amount in plain notation: no exponent, no trailing zeros, no negative zero."""
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"", "-0"} else text


@dataclass(frozen=True, slots=True)
class Account:
    """One account to poll. Its keys are not here: only the exchange client holds those.

    Attributes:
        name: the operator's own name for it; the identity in every record.
        interval_s: seconds between the starts of two polls, if the budget allows.
        priority: 0 to 9; the higher is served first when not all can be.
        egress: name of the address its requests leave from.
        asset: ask for this asset alone; ``None`` asks for everything held.
        btc_valuation: ask the exchange to value each row in BTC.
        stale_after_s: without a good answer for this long the account is called stale.
    """

    name: str
    interval_s: float
    priority: int = 0
    egress: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    asset: str | None = None
    btc_valuation: bool = True
    stale_after_s: float = 180.0


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account holds of one asset. Exact amounts.

    Attributes:
        ipoable: the exchange's own figure, not part of ``total``: its meaning is undocumented.
        btc_valuation: ``None`` when it was not asked for or not given: unknown, not worthless.
    """

    asset: str
    free: Decimal
    locked: Decimal = Decimal(0)
    freeze: Decimal = Decimal(0)
    withdrawing: Decimal = Decimal(0)
    ipoable: Decimal = Decimal(0)
    btc_valuation: Decimal | None = None

    @property
    def total(self) -> Decimal:
        """Free, locked, frozen and on its way out, added exactly."""
        total = Decimal(0)
        for amount in (self.free, self.locked, self.freeze, self.withdrawing):
            total = EXACT.add(total, amount)
        return total


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one good answer said about one account.

    Attributes:
        balances: sorted by asset; only assets of which there is something.
        observed_ns: nanoseconds since the epoch on the exchange's clock, the middle of request and answer.
        uncertainty_ms: the answer was true at some moment at most this far from ``observed_ns``.
        latency_ms: from sending the request to the end of the answer.
    """

    account: str
    balances: tuple[Balance, ...]
    observed_ns: int
    uncertainty_ms: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Change:
    """One amount that is not what it was.

    ``field`` is one of ``free``, ``locked``, ``freeze``, ``withdrawing``, ``ipoable``.
    """

    asset: str
    field: str
    before: Decimal
    after: Decimal


class Kind(StrEnum):
    """The two kinds of record."""

    SNAPSHOT = "snapshot"
    STATUS = "status"

    @property
    def schema(self) -> str:
        """Name and version of the shape that records of this kind have."""
        return f"poller.{self.value}/1"


class Reason(StrEnum):
    """Why a snapshot record was written."""

    FIRST = "first"
    CHANGED = "changed"
    HEARTBEAT = "heartbeat"
    EVERY = "every"


class State(StrEnum):
    """How an account is doing."""

    OK = "ok"
    STALE = "stale"  # no good answer for a while; the last snapshot may be old
    QUARANTINED = "quarantined"  # its key is refused; probed rarely
    REMOVED = "removed"  # not configured any more; nothing will be said of it until it is again


@dataclass(frozen=True)
class Record:
    """One line of the outbox: what sinks get. The same id always carries the same bytes.

    Attributes:
        id: fixed before the first send; the same on every redelivery; an UUID, so no dots or wildcards.
        kind: snapshot or status.
        account: whom it is about.
        sequence: version of the account's balances, from 1; 0 in a status before the first snapshot.
        reason: of a snapshot: first, changed, heartbeat, every; of a status: the new state.
        payload: the record as JSON, UTF-8, one line, without a line break.
        position: place in the outbox, ascending; 0 before it was accepted.
    """

    id: str
    kind: Kind
    account: str
    sequence: int
    reason: str
    payload: bytes
    position: int = 0

    @cached_property
    def document(self) -> dict[str, Any]:
        """The payload, parsed. Treat it as read-only."""
        document: dict[str, Any] = orjson.loads(self.payload)
        return document


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was last accepted of an account: what the next answer is compared with.

    Attributes:
        sequence: of the last accepted snapshot; 0 before the first.
        balances: sorted by asset; ``None`` before the first snapshot.
        asset: what was asked for: ``None`` for everything. Answers to another question are not compared.
        state: the last state told to sinks.
        since_ns: when that state began, nanoseconds since the epoch.
    """

    account: str
    sequence: int = 0
    balances: tuple[Balance, ...] | None = None
    asset: str | None = None
    state: State = State.OK
    since_ns: int = 0
