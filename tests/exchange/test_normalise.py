from __future__ import annotations

from decimal import Decimal, localcontext
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.errors import BadAnswer
from poller.exchange.normalise import amount, normalise
from poller.exchange.payload import Number, Row
from poller.model import Balance, plain
from tests.strategies import assets, holdings

CYRILLIC = "\u0412\u0422\u0421"  # looks like BTC
BTC: Row = {
    "asset": "BTC",
    "free": "1.5",
    "locked": "0.25",
    "freeze": "0.125",
    "withdrawing": "0.0625",
    "ipoable": "3",
    "btcValuation": "1.9375",
}


def balances(*rows: Row, btc_valuation: bool = True) -> tuple[Balance, ...]:
    return normalise(rows, btc_valuation=btc_valuation).balances


def reason(*rows: Row) -> str:
    with pytest.raises(BadAnswer) as caught:
        normalise(rows, btc_valuation=True)
    return caught.value.reason


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0", "0"),
        ("0.0", "0"),
        ("0.00000000", "0"),
        ("0e99", "0"),
        ("0E-99", "0"),
        ("1", "1"),
        ("0.9", "0.9"),
        ("10", "10"),
        ("1.50", "1.5"),
        ("50300000001.44911105", "50300000001.44911105"),
        ("1e5", "100000"),
        ("1E-8", "0.00000001"),
        ("1e+2", "100"),
        ("1.25e1", "12.5"),
        ("0.1234567890123456789", "0.1234567890123456789"),
        ("9" * 30, "9" * 30),
        ("9" * 30 + "." + "9" * 30, "9" * 30 + "." + "9" * 30),
        ("0." + "0" * 29 + "1", "0." + "0" * 29 + "1"),
        ("1e29", "1" + "0" * 29),
        ("1e-30", "0." + "0" * 29 + "1"),
    ],
)
def test_an_amount_is_kept_to_the_last_digit(text: str, shown: str) -> None:
    assert plain(amount(text)) == shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-1", "negative_amount"),
        ("-0", "negative_amount"),
        ("-0.0", "negative_amount"),
        ("-1e5", "negative_amount"),
        ("1e30", "amount_bounds"),
        ("1e99", "amount_bounds"),
        ("1e-31", "amount_bounds"),
        ("1." + "1" * 30 + "e-1", "amount_bounds"),
        ("9" * 30 + "e1", "amount_bounds"),
        *(
            (text, "malformed_amount")
            for text in (
                *("", " ", " 1", "1 ", "1\n", "\t1", "+1", "--1", "1_0", "1,5", "1,000", ".5", "1.", "."),
                *("01", "00", "00.1", "0x10", "1e", "e5", "1e5.0", "1e100", "1E+400", "1e1000000"),
                *("1e999999999", "1e-999999999", "NaN", "nan", "sNaN", "Infinity", "inf", "-inf", "٣", "一"),
                *(
                    "1\u066b5",
                    "\uff11\uff12",
                    "1\u00a0000",
                    "1.2.3",
                    "1/2",
                    "1\x00",
                    "true",
                    "null",
                    "9" * 31,
                ),
                *("0." + "0" * 31, "1" * 5_000),
            )
        ),
    ],
)
def test_what_is_no_amount_is_rejected(text: str, why: str) -> None:
    with pytest.raises(BadAnswer) as caught:
        amount(text)
    assert caught.value.reason == why
    assert len(str(caught.value)) < 120


@given(st.text(max_size=12) | st.from_regex(r"[-+]?[0-9._]{0,6}[eE]?[-+]?[0-9]{0,4}", fullmatch=True))
def test_an_amount_is_what_decimal_reads_or_rejected(text: str) -> None:
    try:
        value = amount(text)
    except BadAnswer:
        return
    assert value == Decimal(text)
    assert value >= 0
    assert len(plain(value)) <= 61


@given(st.integers(0, 10**38 - 1), st.integers(8, 30))
def test_38_digits_come_through_a_context_of_nine(digits: int, places: int) -> None:
    written = str(digits).rjust(places + 1, "0")
    text = f"{written[:-places]}.{written[-places:]}"
    with localcontext() as context:
        context.prec = 9
        value = amount(text)
    assert plain(value) == text.rstrip("0").rstrip(".")


def test_a_row_becomes_a_balance() -> None:
    assert balances(BTC) == (
        Balance(
            "BTC",
            free=Decimal("1.5"),
            locked=Decimal("0.25"),
            freeze=Decimal("0.125"),
            withdrawing=Decimal("0.0625"),
            ipoable=Decimal(3),
            btc_valuation=Decimal("1.9375"),
        ),
    )


def _row(balance: Balance) -> Row:
    row = {
        "asset": balance.asset,
        "free": plain(balance.free),
        "locked": plain(balance.locked),
        "freeze": plain(balance.freeze),
        "withdrawing": plain(balance.withdrawing),
        "ipoable": plain(balance.ipoable),
    }
    if balance.btc_valuation is not None:
        row["btcValuation"] = plain(balance.btc_valuation)
    return row


def _is_something(balance: Balance) -> bool:
    return any((balance.total, balance.ipoable))


within_bounds = holdings.filter(
    lambda held: all(
        part < 10**30
        for each in held
        for part in (each.free, each.locked, each.freeze, each.withdrawing, each.ipoable)
        + ((each.btc_valuation,) if each.btc_valuation is not None else ())
    )
)


@given(within_bounds, st.randoms())
def test_the_order_of_rows_means_nothing(held: tuple[Balance, ...], random: Random) -> None:
    rows = [_row(balance) for balance in held]
    random.shuffle(rows)
    assert balances(*rows) == tuple(each for each in held if _is_something(each))


def test_a_row_of_nothing_is_left_out() -> None:
    nothing = {"asset": "ETH", "free": "0", "locked": "0.000", "btcValuation": "1"}
    assert balances(nothing, BTC) == balances(BTC)
    assert balances({"asset": "ETH", "free": "0", "ipoable": "0.1"}) == (
        Balance("ETH", Decimal(0), ipoable=Decimal("0.1")),
    )


def test_a_valuation_that_was_not_asked_for_is_unknown() -> None:
    (held,) = balances({**BTC, "btcValuation": "0"}, btc_valuation=False)
    assert held.btc_valuation is None
    (held,) = balances({**BTC, "btcValuation": "0"})
    assert held.btc_valuation == 0


def test_absent_amounts_are_zero_and_counted_and_an_absent_valuation_is_unknown() -> None:
    rows: list[Row] = [{"asset": "A", "free": "1"}, {"asset": "B", "free": "2", "locked": "1"}]
    found = normalise(rows, btc_valuation=True)
    assert found.balances == (Balance("A", Decimal(1)), Balance("B", Decimal(2), locked=Decimal(1)))
    assert found.missing_fields == {
        "locked": 1,
        "freeze": 2,
        "withdrawing": 2,
        "ipoable": 2,
        "btcValuation": 2,
    }
    assert "btcValuation" not in normalise(rows, btc_valuation=False).missing_fields


def test_unknown_fields_are_tolerated_and_counted() -> None:
    found = normalise(
        [{**BTC, "assetBalances": [], "x": None}, {"asset": "E", "free": "1", "y": Number("1")}],
        btc_valuation=True,
    )
    assert found.unknown_fields == 3
    assert [each.asset for each in found.balances] == ["BTC", "E"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"free": None}, "wrong_type"),
        ({"free": True}, "wrong_type"),
        ({"free": ["1"]}, "wrong_type"),
        ({"locked": None}, "wrong_type"),
        ({"btcValuation": None}, "wrong_type"),
        ({"free": Number("1")}, "number_amount"),
        ({"ipoable": Number("0.1234567890123456789")}, "number_amount"),
        ({"asset": Number("456")}, "number_amount"),
        ({"asset": None}, "wrong_type"),
        ({"free": "-1"}, "negative_amount"),
        ({"btcValuation": "-1"}, "negative_amount"),
        ({"withdrawing": "1e999999999"}, "malformed_amount"),
        ({"free": "1e50"}, "amount_bounds"),
        ({"asset": ""}, "asset_name"),
        ({"asset": "A" * 65}, "asset_name"),
        ({"asset": "A\nB"}, "asset_name"),
        ({"asset": "A\x00"}, "asset_name"),
        ({"asset": "\x1b[31mBTC"}, "asset_name"),
        ({"asset": "BTC\u202e"}, "asset_name"),
        ({"asset": "B\u200bTC"}, "asset_name"),
        ({"asset": "B\u2028TC"}, "asset_name"),
        ({"asset": "\ufeffBTC"}, "asset_name"),
    ],
)
def test_one_bad_field_rejects_the_whole_answer(change: Row, why: str) -> None:
    good: Row = {"asset": "ETH", "free": "1"}
    assert reason(good, {**BTC, **change}) == why
    assert reason({**BTC, **change}, good) == why


@pytest.mark.parametrize("name", ["asset", "free"])
def test_a_row_without_what_it_must_have_rejects_the_whole_answer(name: str) -> None:
    row = {key: value for key, value in BTC.items() if key != name}
    assert reason({"asset": "ETH", "free": "1"}, row) == "missing_field"


def test_an_asset_listed_twice_rejects_the_whole_answer() -> None:
    assert reason(BTC, {"asset": "ETH", "free": "1"}, BTC) == "duplicate_asset"
    assert reason(BTC, {"asset": "BTC", "free": "0"}) == "duplicate_asset"


@pytest.mark.parametrize(
    "asset",
    [
        "BTC",
        "456",
        "1INCH",
        "币安人生",
        CYRILLIC,
        "LDBNB",
        "A" * 64,
        "=cmd()",
        "<script>",
        "../x",
        "a.b.*>",
        "😀",
        "A B",
        "é",
        "e\u0301",
    ],  # lookalikes are the point
)
def test_names_are_kept_as_they_are(asset: str) -> None:
    (held,) = balances({"asset": asset, "free": "1"})
    assert held.asset == asset


def test_lookalikes_are_kept_apart() -> None:
    rows: list[Row] = [{"asset": asset, "free": "1"} for asset in ("BTC", CYRILLIC, "é", "e\u0301")]
    assert len(balances(*rows)) == 4


@given(assets)
def test_every_visible_name_is_accepted(asset: str) -> None:
    (held,) = balances({"asset": asset, "free": "1"})
    assert held.asset == asset


def test_a_message_never_repeats_a_hostile_value_whole_or_raw() -> None:
    with pytest.raises(BadAnswer) as caught:
        balances({"asset": "X", "free": "\x1b[31m\n" + "9" * 1_000})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 120


def test_nothing_held_is_an_empty_answer() -> None:
    found = normalise([], btc_valuation=True)
    assert (found.balances, found.unknown_fields, found.missing_fields) == ((), 0, {})
