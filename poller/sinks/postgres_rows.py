"""What of a record goes into the tables of the ``postgres`` sink, checked before it is sent. Pure.

The server says of a batch only that something in it does not fit; here the record is named. The record's
own bytes are sent, nothing is written anew, with one exception: no text of PostgreSQL can hold NUL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from poller.model import Kind, Record

NO_NUL: Final = "\N{REPLACEMENT CHARACTER}"
_NUL_ESCAPED = b"\\u0000"

# Of numeric's limits, 131072 digits before the point and 16383 behind it, nobody will need more.
Amount = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?$", max_length=10_000)]
Whole = Annotated[int, Field(ge=0, lt=1 << 63)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# An entry of an index can have a third of a page.
Name = Annotated[str, Field(min_length=1, max_length=256)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)


class _Balance(_Row):
    asset: Name
    free: Amount
    locked: Amount
    freeze: Amount
    withdrawing: Amount
    ipoable: Amount
    total: Amount
    btc_valuation: Amount | None


class _Change(_Row):
    asset: Name
    field: Name
    before: Amount
    after: Amount


class _Snapshot(_Row):
    id: Id
    account: Name
    labels: dict[str, str]
    sequence: Whole
    reason: Name
    observed_at: AwareDatetime
    uncertainty_ms: Milliseconds
    total_btc: Amount | None
    egress: Name
    latency_ms: Milliseconds
    balances: list[_Balance]
    changes: list[_Change]


class _Status(_Row):
    id: Id
    account: Name
    labels: dict[str, str]
    sequence: Whole
    state: Name
    reason: str
    since: AwareDatetime


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch on its way.

    Attributes:
        snapshots: of those that fit, a JSON array of ``{"position": 7, "record": {...}}``, no id twice.
        statuses: likewise.
        rejected: id to reason, of those that do not have the published shape.
    """

    snapshots: str
    statuses: str
    rejected: Mapping[str, str]


def rows(batch: Sequence[Record]) -> Rows:
    """Return what to send for a batch."""
    sent: dict[Kind, dict[str, object]] = {Kind.SNAPSHOT: {}, Kind.STATUS: {}}
    rejected = {}
    for record in batch:
        try:
            _check(record)
        except ValueError as error:
            rejected[record.id] = f"not of the published shape: {_reason(error)}"
        else:
            row = {"position": record.position, "record": orjson.Fragment(_storable(record))}
            sent[record.kind].setdefault(record.id, row)
    snapshots, statuses = (orjson.dumps(list(found.values())).decode() for found in sent.values())
    return Rows(snapshots, statuses, rejected)


def _check(record: Record) -> None:
    shape = _Status if record.kind is Kind.STATUS else _Snapshot
    found = shape.model_validate_json(record.payload)
    if found.id != record.id:
        raise ValueError(f"the payload has another id: {found.id!r}")
    if isinstance(found, _Snapshot):
        _refuse_twice("balances", [balance.asset for balance in found.balances])
        _refuse_twice("changes", [(change.asset, change.field) for change in found.changes])


def _refuse_twice(name: str, keys: Sequence[object]) -> None:
    if len(set(keys)) < len(keys):
        raise ValueError(f"{name}: an asset stands there twice")


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def _storable(record: Record) -> bytes:
    if _NUL_ESCAPED not in record.payload:
        return record.payload
    return orjson.dumps(_without_nul(record.document))


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", NO_NUL)
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return [_without_nul(item) for item in value] if isinstance(value, list) else value
