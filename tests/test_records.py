"""Records: exact, complete, and of the published shape."""

from __future__ import annotations

from decimal import Decimal, localcontext
from uuid import UUID

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.changes import changes
from poller.model import Account, Balance, Kind, Reason, Snapshot, State, plain
from poller.records import (
    SnapshotRecord,
    StatusRecord,
    json_schema,
    read_record,
    record_id,
    snapshot_record,
    status_record,
    total_btc,
)
from tests.strategies import amounts, holdings

ACCOUNT = Account("treasury", 10.0, labels={"desk": "mm"})
OBSERVED_NS = 1_767_225_600_123_456_789
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def snapshot(*balances: Balance) -> Snapshot:
    return Snapshot("treasury", balances, OBSERVED_NS, uncertainty_ms=12.3456, latency_ms=20.0)


def test_a_snapshot_record_word_for_word() -> None:
    held = snapshot(
        Balance("BTC", Decimal("0.50"), locked=Decimal("1E-8"), btc_valuation=Decimal("0.50000001")),
        Balance("USDT", Decimal("50300000001.44911105"), btc_valuation=Decimal(0)),
    )
    record = snapshot_record(
        ACCOUNT,
        held,
        id="an-id",
        sequence=7,
        reason=Reason.CHANGED,
        changes=changes([Balance("ETH", Decimal(2)), held.balances[1]], held.balances),
    )
    assert (record.kind, record.account, record.sequence, record.reason) == (
        Kind.SNAPSHOT,
        "treasury",
        7,
        "changed",
    )
    assert orjson.loads(record.payload) == {
        "schema": "poller.snapshot/1",
        "id": "an-id",
        "account": "treasury",
        "labels": {"desk": "mm"},
        "sequence": 7,
        "reason": "changed",
        "observed_at": "2026-01-01T00:00:00.123456Z",
        "uncertainty_ms": 12.346,
        "balances": [
            {
                "asset": "BTC",
                "free": "0.5",
                "locked": "0.00000001",
                "freeze": "0",
                "withdrawing": "0",
                "ipoable": "0",
                "total": "0.50000001",
                "btc_valuation": "0.50000001",
            },
            {
                "asset": "USDT",
                "free": "50300000001.44911105",
                "locked": "0",
                "freeze": "0",
                "withdrawing": "0",
                "ipoable": "0",
                "total": "50300000001.44911105",
                "btc_valuation": "0",
            },
        ],
        "changes": [
            {"asset": "BTC", "field": "free", "before": "0", "after": "0.5"},
            {"asset": "BTC", "field": "locked", "before": "0", "after": "0.00000001"},
            {"asset": "ETH", "field": "free", "before": "2", "after": "0"},
        ],
        "total_btc": "0.50000001",
        "egress": "default",
        "latency_ms": 20.0,
    }


def test_a_status_record_word_for_word() -> None:
    record = status_record(
        ACCOUNT, id="an-id", sequence=0, state=State.STALE, reason="no good answer", since_ns=OBSERVED_NS
    )
    assert (record.kind, record.reason) == (Kind.STATUS, "stale")
    assert orjson.loads(record.payload) == {
        "schema": "poller.status/1",
        "id": "an-id",
        "account": "treasury",
        "labels": {"desk": "mm"},
        "sequence": 0,
        "state": "stale",
        "reason": "no good answer",
        "since": "2026-01-01T00:00:00.123456Z",
    }


def test_a_total_is_unknown_as_soon_as_one_part_is() -> None:
    known = Balance("BTC", Decimal(1), btc_valuation=Decimal(1))
    assert total_btc([known, Balance("X", Decimal(1))]) is None
    assert total_btc([known, known]) == 2
    assert total_btc([]) == 0


def test_an_account_that_asked_for_no_valuation_has_none() -> None:
    account = Account("quiet", 10.0, btc_valuation=False)
    record = snapshot_record(account, snapshot(), id="i", sequence=1, reason=Reason.FIRST, changes=())
    assert record.document["total_btc"] is None


@given(amounts)
def test_plain_notation_is_exact_and_has_no_exponent_or_trailing_zero(amount: Decimal) -> None:
    text = plain(amount)
    assert Decimal(text) == amount
    assert "E" not in text
    assert text == "0" or not text.startswith("-0")
    assert "." not in text or text[-1] != "0"


@given(st.lists(amounts, min_size=4, max_size=4))
def test_totals_are_exact_at_38_digits_whatever_the_default_context(parts: list[Decimal]) -> None:
    with localcontext(prec=3):
        total = Balance("X", *parts).total
    with localcontext(prec=200):
        assert total == sum(parts)


@given(holdings, holdings)
def test_every_record_has_the_published_shape_and_reads_back_the_same(
    before: tuple[Balance, ...], after: tuple[Balance, ...]
) -> None:
    record = snapshot_record(
        ACCOUNT, snapshot(*after), id="i", sequence=1, reason=Reason.FIRST, changes=changes(before, after)
    )
    VALIDATOR.validate(record.document)
    read = read_record(record.payload)
    assert isinstance(read, SnapshotRecord)
    assert read.model_dump(mode="json", by_alias=True) == record.document
    assert [Decimal(row.free) for row in read.balances] == [row.free for row in after]
    assert b"\n" not in record.payload


def test_a_status_reads_back_the_same() -> None:
    record = status_record(
        ACCOUNT, id="i", sequence=3, state=State.QUARANTINED, reason="key refused", since_ns=OBSERVED_NS
    )
    VALIDATOR.validate(record.document)
    read = read_record(record.payload)
    assert isinstance(read, StatusRecord)
    assert read.model_dump(mode="json", by_alias=True) == record.document


@pytest.mark.parametrize("amount", ["1.0", "01", "-1", "1e5", ".5", "", " 1", "1\n", "٣"])
def test_the_schema_refuses_amounts_that_are_not_plain(amount: str) -> None:
    document = snapshot_record(
        ACCOUNT,
        snapshot(Balance("BTC", Decimal(1))),
        id="i",
        sequence=1,
        reason=Reason.FIRST,
        changes=(),
    ).document
    row = {**document["balances"][0], "free": amount}
    assert not VALIDATOR.is_valid({**document, "balances": [row]}) or amount == "1\n"
    with pytest.raises(ValueError, match="free"):
        read_record(orjson.dumps({**document, "balances": [row]}))


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_ids_are_uuids_of_version_7_that_carry_their_millisecond(utc_ms: int, random: bytes) -> None:
    uuid = UUID(record_id(utc_ms, random))
    assert (uuid.version, uuid.variant) == (7, "specified in RFC 4122")
    assert uuid.int >> 80 == utc_ms


def test_ids_sort_by_time() -> None:
    assert record_id(1, b"\xff" * 10) < record_id(2, b"\x00" * 10)
