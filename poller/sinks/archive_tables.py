"""What the archive's columns are, and a record as a row of them.

One row a record, with its balances and changes as lists in it: so a row is there whole or not at all,
and an account that holds nothing has its row, too. Amounts are text: the exchange's may have 30 digits
on either side of the point, and readers turn decimals of more than 38 digits into doubles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poller.model import AMOUNT_FIELDS, Kind, Record

VERSION = 1

_text = pa.string()
_instant = pa.timestamp("us", tz="UTC")
_LISTS = {
    "balances": ("asset", *AMOUNT_FIELDS, "total", "btc_valuation"),
    "changes": ("asset", "field", "before", "after"),
}
_IDENTITY = [
    ("id", _text),
    ("position", pa.int64()),  # ascends in the order of delivery
    ("account", _text),
    ("labels", pa.map_(_text, _text)),
    ("sequence", pa.int64()),
]


def _schema(kind: Kind, columns: Sequence[tuple[str, Any]]) -> Any:
    marks = {"poller.archive": str(VERSION), "poller.schema": kind.schema}
    return pa.schema([*_IDENTITY, *columns], metadata=marks)


SCHEMAS: Mapping[Kind, Any] = {
    Kind.SNAPSHOT: _schema(
        Kind.SNAPSHOT,
        [
            ("reason", _text),
            ("observed_at", _instant),
            ("uncertainty_ms", pa.float64()),
            ("total_btc", _text),  # null: unknown
            ("egress", _text),
            ("latency_ms", pa.float64()),
            *(
                (name, pa.list_(pa.struct([(field, _text) for field in fields])))
                for name, fields in _LISTS.items()
            ),
        ],
    ),
    Kind.STATUS: _schema(Kind.STATUS, [("state", _text), ("reason", _text), ("since", _instant)]),
}
INSTANTS = {Kind.SNAPSHOT: "observed_at", Kind.STATUS: "since"}

Row = dict[str, Any]

# What a record can do wrong; Arrow's own errors are among them.
UNFIT = (KeyError, TypeError, ValueError, OverflowError, AttributeError)


def row(record: Record) -> Row:
    """Return the record's row. Its values may still be of types that ``table`` refuses.

    Raises:
        UNFIT: it does not have the published shape.
    """
    document = record.document
    if document["id"] != record.id:
        raise ValueError(f"the payload has another id: {document['id']!r}")
    instant = INSTANTS[record.kind]
    found = {name: document[name] for name in SCHEMAS[record.kind].names if name != "position"}
    found |= {
        "position": record.position,
        "labels": list(document["labels"].items()),
        instant: datetime.fromisoformat(document[instant]),
    }
    for name in _LISTS.keys() & found.keys():
        found[name] = [{field: entry[field] for field in _LISTS[name]} for entry in found[name]]
    return found


def table(kind: Kind, rows: Sequence[Row]) -> Any:
    """Return rows of one kind as a table.

    Raises:
        UNFIT: a value is of another type than its column.
    """
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS[kind])


def parquet(rows: Any) -> bytes:
    """Return a table as the contents of a file."""
    buffer = pa.BufferOutputStream()
    pq.write_table(rows, buffer, compression="zstd")
    contents: bytes = buffer.getvalue().to_pybytes()
    return contents
