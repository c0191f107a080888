from __future__ import annotations

import pytest

from poller.simulator.rules import Refused, Sent, asset_asked_for, parse, valuation_asked_for


@pytest.mark.parametrize(
    ("query", "body", "sent"),
    [
        (b"", b"", Sent({}, b"", None)),
        (b"a=1&signature=s", b"", Sent({"a": "1", "signature": "s"}, b"a=1", b"s")),
        (b"", b"a=1&signature=s", Sent({"a": "1", "signature": "s"}, b"a=1", b"s")),
        # In a mixed request nothing stands between the two parts.
        (b"a=1", b"b=2&signature=s", Sent({"b": "2", "signature": "s", "a": "1"}, b"a=1b=2", b"s")),
        (b"a=1&signature=s", b"b=2", Sent({"b": "2", "a": "1", "signature": "s"}, b"a=1b=2", b"s")),
        (b"a=query", b"a=body&signature=s", Sent({"a": "query", "signature": "s"}, b"a=querya=body", b"s")),
        (b"a=%40%E5%B8%81", b"", Sent({"a": "@币"}, b"a=%40%E5%B8%81", None)),
        (b"a=x+y", b"", Sent({"a": "x y"}, b"a=x+y", None)),
        (b"signature=s&a=1", b"", Sent({"signature": "s", "a": "1"}, b"signature=s&a=1", None)),
        (b"xsignature=s", b"", Sent({"xsignature": "s"}, b"xsignature=s", None)),
        (b"signature=s", b"", Sent({"signature": "s"}, b"", b"s")),
    ],
)
def test_requests_are_taken_apart_without_changing_what_was_signed(
    query: bytes, body: bytes, sent: Sent
) -> None:
    assert parse(query, body) == sent


@pytest.mark.parametrize(
    ("query", "code", "text"),
    [
        (b"a=1&a=1", -1101, "Duplicate values for parameter 'a' detected."),
        (b"signature=1&signature=2", -1101, "Duplicate values for parameter 'signature' detected."),
        (b"a=%FF", -1100, "Illegal characters found in a parameter."),
    ],
)
def test_what_cannot_be_read_is_refused(query: bytes, code: int, text: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(query, b"")
    assert (caught.value.status, caught.value.code, caught.value.text) == (400, code, text)


@pytest.mark.parametrize(
    ("values", "asset"), [({}, None), ({"asset": ""}, None), ({"asset": "币安"}, "币安")]
)
def test_a_blank_asset_means_all(values: dict[str, str], asset: str | None) -> None:
    assert asset_asked_for(Sent(values, b"", None)) == asset


def test_an_asset_with_a_blank_in_it_is_refused() -> None:
    with pytest.raises(Refused, match="-1100"):
        asset_asked_for(Sent({"asset": "B TC"}, b"", None))


@pytest.mark.parametrize(("values", "wanted"), [({}, False), ({"needBtcValuation": "true"}, True)])
def test_a_valuation_is_given_if_it_is_asked_for(values: dict[str, str], *, wanted: bool) -> None:
    assert valuation_asked_for(Sent(values, b"", None)) is wanted


@pytest.mark.parametrize("value", ["True", "1", "", "TRUE"])
def test_booleans_are_lower_case(value: str) -> None:
    with pytest.raises(Refused, match="-1100"):
        valuation_asked_for(Sent({"needBtcValuation": value}, b"", None))
