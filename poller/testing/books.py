"""Hold records against the books of the simulated exchange: the oracle of the demo and the kill tests.

The books say what every account held, version by version, each with the moment it began. A record
is right if its balances, to the last digit, are a version that held within the uncertainty the
record itself states.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from poller.model import AMOUNT_FIELDS

Holdings = Mapping[str, Mapping[str, Decimal]]
"""Asset to field to amount; assets of which there is nothing are left out."""


@dataclass(frozen=True, slots=True)
class Version:
    """What an account held from ``from_us`` on, microseconds since the epoch on the exchange's clock."""

    from_us: int
    holdings: Holdings


Books = Mapping[str, Sequence[Version]]


def holdings(rows: Iterable[Mapping[str, Any]]) -> Holdings:
    """Read rows of amounts as text, those of the books and those of a record alike."""
    read = {row["asset"]: {field: Decimal(row[field]) for field in AMOUNT_FIELDS} for row in rows}
    return {asset: amounts for asset, amounts in read.items() if any(amounts.values())}


def mismatches(records: Iterable[Mapping[str, Any]], books: Books) -> list[str]:
    """Return, in words, every snapshot record that is not what the books held when it was observed.

    Also: a sequence with a gap or a step back, a change of sequence without a change, and changes
    that do not lead from the record before to this one. Records of one account must come in order,
    each once.
    """
    found: list[str] = []
    last: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if record["schema"] != "poller.snapshot/1":
            continue
        name = f"{record['account']} sequence {record['sequence']} observed {record['observed_at']}"
        if not _was_held(record, books[record["account"]]):
            found.append(f"{name}: the books held something else")
        if (problem := _does_not_follow(last.get(record["account"]), record)) is not None:
            found.append(f"{name}: {problem}")
        last[record["account"]] = record
    return found


def last_states_differ(records: Iterable[Mapping[str, Any]], books: Books) -> list[str]:
    """Return the accounts whose last record is not the last version of the books."""
    last = {record["account"]: record for record in records if record["schema"] == "poller.snapshot/1"}
    return sorted(
        account
        for account, versions in books.items()
        if account not in last or holdings(last[account]["balances"]) != versions[-1].holdings
    )


def _was_held(record: Mapping[str, Any], versions: Sequence[Version]) -> bool:
    observed = datetime.fromisoformat(record["observed_at"])
    observed_us = round(observed.timestamp() * 1_000_000)
    # One millisecond for the exchange's own answer, which is stamped in milliseconds.
    slack_us = round(record["uncertainty_ms"] * 1000) + 1000
    begins = [version.from_us for version in versions]
    first = max(0, bisect_right(begins, observed_us - slack_us) - 1)
    last = bisect_right(begins, observed_us + slack_us)
    said = holdings(record["balances"])
    return any(version.holdings == said for version in versions[first:last])


def _does_not_follow(before: Mapping[str, Any] | None, record: Mapping[str, Any]) -> str | None:
    if before is None:
        return None if record["sequence"] == 1 else "the first record is not sequence 1"
    said, had = holdings(record["balances"]), holdings(before["balances"])
    if record["sequence"] == before["sequence"]:
        return None if said == had else "other balances under the same sequence"
    if record["sequence"] != before["sequence"] + 1:
        return f"sequence {before['sequence']} came before"
    book = {asset: dict(amounts) for asset, amounts in had.items()}
    for change in record["changes"]:
        amounts = book.setdefault(change["asset"], dict.fromkeys(AMOUNT_FIELDS, Decimal(0)))
        if amounts[change["field"]] != Decimal(change["before"]):
            return f"a change of {change['asset']} begins where it was not"
        amounts[change["field"]] = Decimal(change["after"])
    applied = {asset: amounts for asset, amounts in book.items() if any(amounts.values())}
    return None if applied == said else "its changes do not lead to its balances"
