"""Records: how snapshots and states are written for sinks, and the schema of what is written.

Two kinds of JSON object, one a record, UTF-8, without line breaks:

* ``poller.snapshot/1``: what an account holds, and what changed since the snapshot before;
* ``poller.status/1``: the account turned ``ok``, ``stale``, ``quarantined`` or ``removed``.

Amounts are strings in plain notation without trailing zeros: a JSON number would lose digits in
nearly every reader. The pydantic models are the published schema and a reader for consumers; the
writer builds plain dictionaries, which is ten times faster, and a test holds the two together.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from poller.clock import rfc3339
from poller.model import (
    AMOUNT_FIELDS,
    EXACT,
    Account,
    Balance,
    Change,
    Kind,
    Reason,
    Record,
    Snapshot,
    State,
    plain,
)

_UUID_RANDOM_BYTES = 10


def record_id(utc_ms: int, random: bytes) -> str:
    """Return a version 7 UUID: unique by 74 random bits, and sorted by the millisecond it was made in.

    Args:
        utc_ms: milliseconds since the epoch.
        random: 10 random bytes.
    """
    if len(random) != _UUID_RANDOM_BYTES:
        raise ValueError(f"random must be {_UUID_RANDOM_BYTES} bytes, not {len(random)}")
    value = (utc_ms & (1 << 48) - 1) << 80 | int.from_bytes(random)
    value = value & ~(0xF << 76) | 7 << 76  # version
    value = value & ~(0b11 << 62) | 0b10 << 62  # variant
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def snapshot_record(
    account: Account,
    snapshot: Snapshot,
    *,
    id: str,  # noqa: A002  # the field's name in the record
    sequence: int,
    reason: Reason,
    changes: Sequence[Change],
) -> Record:
    """Write one snapshot."""
    document = {
        "schema": Kind.SNAPSHOT.schema,
        "id": id,
        "account": account.name,
        "labels": dict(account.labels),
        "sequence": sequence,
        "reason": reason.value,
        "observed_at": rfc3339(snapshot.observed_ns),
        "uncertainty_ms": round(snapshot.uncertainty_ms, 3),
        "balances": [_balance(balance) for balance in snapshot.balances],
        "changes": [
            {"asset": c.asset, "field": c.field, "before": plain(c.before), "after": plain(c.after)}
            for c in changes
        ],
        "total_btc": _plain_or_none(total_btc(snapshot.balances)) if account.btc_valuation else None,
        "egress": account.egress,
        "latency_ms": round(snapshot.latency_ms, 3),
    }
    return Record(id, Kind.SNAPSHOT, account.name, sequence, reason.value, orjson.dumps(document))


def status_record(
    account: Account,
    *,
    id: str,  # noqa: A002  # the field's name in the record
    sequence: int,
    state: State,
    reason: str,
    since_ns: int,
) -> Record:
    """Write that an account's state changed. ``reason`` is one sentence for people, without secrets."""
    document = {
        "schema": Kind.STATUS.schema,
        "id": id,
        "account": account.name,
        "labels": dict(account.labels),
        "sequence": sequence,
        "state": state.value,
        "reason": reason,
        "since": rfc3339(since_ns),
    }
    return Record(id, Kind.STATUS, account.name, sequence, state.value, orjson.dumps(document))


def total_btc(balances: Sequence[Balance]) -> Decimal | None:
    """Return the exact sum of the valuations, ``None`` if one of them is unknown."""
    total = Decimal(0)
    for balance in balances:
        if balance.btc_valuation is None:
            return None
        total = EXACT.add(total, balance.btc_valuation)
    return total


def _balance(balance: Balance) -> dict[str, str | None]:
    row: dict[str, str | None] = {"asset": balance.asset}
    for field in AMOUNT_FIELDS:
        row[field] = plain(getattr(balance, field))
    row["total"] = plain(balance.total)
    row["btc_valuation"] = _plain_or_none(balance.btc_valuation)
    return row


def _plain_or_none(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)


# What is published. ---------------------------------------------------------------------------

# An exponent of two digits may stand in the exchange's answer, so up to 99 zeros on either side.
Amount = Annotated[
    str,
    Field(
        pattern=r"^(0|[1-9][0-9]*)(\.[0-9]*[1-9])?$",
        description="Exact decimal in plain notation, without trailing zeros.",
    ),
]
Instant = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
        description="RFC 3339, UTC, microseconds.",
    ),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class _Published(BaseModel):
    # Readers must tolerate fields that a later version adds, so more is allowed. Built when somebody reads: a
    # daemon only writes, and starts sooner.
    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)


class BalanceEntry(_Published):
    """What the account holds of one asset."""

    asset: str = Field(min_length=1, max_length=64)
    free: Amount
    locked: Amount
    freeze: Amount
    withdrawing: Amount
    ipoable: Amount = Field(description="The exchange's figure; undocumented, and not part of total.")
    total: Amount = Field(description="free + locked + freeze + withdrawing, exactly.")
    btc_valuation: Amount | None = Field(description="null: unknown, not worthless.")


class ChangeEntry(_Published):
    """One amount that is not what it was in the snapshot with the sequence before."""

    asset: str = Field(min_length=1, max_length=64)
    field: Literal["free", "locked", "freeze", "withdrawing", "ipoable"]
    before: Amount
    after: Amount = Field(description='"0" in every field when the asset is no longer held.')


class SnapshotRecord(_Published):
    """What an account holds, and what changed since the snapshot before."""

    schema_: Literal["poller.snapshot/1"] = Field(alias="schema")
    id: str = Field(description="UUID; the same on every redelivery of this record.")
    account: Name
    labels: dict[str, str]
    sequence: int = Field(
        ge=1,
        description="Version of the account's balances: +1 with every change. A jump means something was "
        "missed, a step back means a redelivery.",
    )
    reason: Literal["first", "changed", "heartbeat", "every"]
    observed_at: Instant = Field(
        description="On the exchange's clock; true at some moment at most uncertainty_ms away."
    )
    uncertainty_ms: float = Field(ge=0)
    balances: list[BalanceEntry] = Field(description="Everything held, sorted by asset.")
    changes: list[ChangeEntry]
    total_btc: Amount | None = Field(description="Sum of btc_valuation; null if one is unknown.")
    egress: Name
    latency_ms: float = Field(ge=0)


class StatusRecord(_Published):
    """The account turned ok, stale, quarantined or removed."""

    schema_: Literal["poller.status/1"] = Field(alias="schema")
    id: str = Field(description="UUID; the same on every redelivery of this record.")
    account: Name
    labels: dict[str, str]
    sequence: int = Field(ge=0, description="Of the last snapshot record; 0 before the first.")
    state: Literal["ok", "stale", "quarantined", "removed"]
    reason: str = Field(description="One sentence for people.")
    since: Instant


@functools.cache
def _any_record() -> TypeAdapter[SnapshotRecord | StatusRecord]:
    return TypeAdapter(Annotated[SnapshotRecord | StatusRecord, Field(discriminator="schema_")])


def read_record(payload: bytes | str) -> SnapshotRecord | StatusRecord:
    """Parse one record, as a consumer would.

    Raises:
        pydantic.ValidationError: it does not have the published shape.
    """
    return _any_record().validate_json(payload)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record, either kind."""
    schema = _any_record().json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "poller record",
        **schema,
    }
