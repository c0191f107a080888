from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.errors import BadAnswer
from poller.exchange.payload import ROWS_MOST, Number, fields, rows

BODY = (
    '[{"asset":"BTC","free":"0.10","locked":"0","x":1.5e3},{"asset":"币安人生","free":"50300000001.44911105"}]'
).encode()

documents = st.lists(
    st.dictionaries(
        st.text(max_size=6),
        st.text(max_size=12)
        | st.booleans()
        | st.none()
        | st.lists(st.text(max_size=4), max_size=2)
        | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        max_size=5,
    ),
    max_size=5,
)


def reason(body: bytes, read: Callable[[bytes], object] = rows) -> str:
    with pytest.raises(BadAnswer) as caught:
        read(body)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.reason


def test_a_good_body_is_its_rows() -> None:
    first, second = rows(BODY)
    assert first == {"asset": "BTC", "free": "0.10", "locked": "0", "x": "1.5e3"}
    assert isinstance(first["x"], Number)
    assert not isinstance(first["free"], Number)
    assert second == {"asset": "币安人生", "free": "50300000001.44911105"}


def test_an_empty_list_is_no_rows_and_nothing_else_is() -> None:
    assert rows(b"[]") == []
    assert rows(b" [ ] \n") == []


@pytest.mark.parametrize("length", range(len(BODY)))
def test_every_prefix_of_a_good_body_is_rejected(length: int) -> None:
    assert reason(BODY[:length]) in {"empty_body", "not_utf8", "not_json"}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty_body"),
        (b"   ", "not_json"),
        (b"null", "not_a_list"),
        (b'""', "not_a_list"),
        (b"{}", "not_a_list"),
        (b"0", "not_a_list"),
        (b"true", "not_a_list"),
        (b'{"code":0}', "not_a_list"),
        (b"<html></html>", "not_json"),
        (b"[null]", "not_an_object"),
        (b"[[]]", "not_an_object"),
        (b'["asset"]', "not_an_object"),
        (b"[1]", "not_an_object"),
        (b"[false]", "not_an_object"),
        (BODY + b"x", "not_json"),
        (BODY + b"[]", "not_json"),
        (BODY + b"\x00", "not_json"),
        (b'[{"free":"1","free":"2"}]', "duplicate_key"),
        (b'[{"free":"1","fr\\u0065e":"1"}]', "duplicate_key"),
        (b'[{"x":{"a":1,"a":1}}]', "duplicate_key"),
        (b'[{"free":NaN}]', "not_a_number"),
        (b'[{"free":Infinity}]', "not_a_number"),
        (b'[{"free":-Infinity}]', "not_a_number"),
        (b'[{"asset":"\\ud800"}]', "surrogate"),
        (b'[{"\\udc00":"1"}]', "surrogate"),
        (b'[{"asset":"\xff"}]', "not_utf8"),
        (b'[{"asset":"\xed\xa0\x80"}]', "not_utf8"),
        (b"\xef\xbb\xbf[]", "not_json"),
        ("[]".encode("utf-16"), "not_utf8"),
        ("[]".encode("utf-16-le"), "not_json"),
        ("[]".encode("utf-32-be"), "not_json"),
        (b"[{'asset':'BTC'}]", "not_json"),
        (b'[{"asset":"BTC",}]', "not_json"),
        (b"[{},]", "not_json"),
        (b'[{"asset":"B\nTC"}]', "not_json"),
        (b'[{"free":01}]', "not_json"),
        (b'[{"free":+1}]', "not_json"),
        (b'[{"free":.5}]', "not_json"),
        (b'[{"free":0x10}]', "not_json"),
        (b"[{}]/* */", "not_json"),
        (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
        (b"[" + b"{}," * ROWS_MOST + b"{}]", "too_many_rows"),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else value,
)
def test_a_body_that_is_not_clean_is_rejected_whole(body: bytes, why: str) -> None:
    assert reason(body) == why


def test_as_many_rows_as_are_believed_are_read() -> None:
    assert len(rows(b"[" + b",".join([b"{}"] * ROWS_MOST) + b"]")) == ROWS_MOST


def test_a_pair_of_surrogates_written_as_escapes_is_one_character() -> None:
    assert rows(b'[{"asset":"\\ud83d\\ude00"}]') == [{"asset": "😀"}]


def test_no_digit_of_a_number_is_lost_however_long() -> None:
    digits = "1" * 5_000
    (row,) = rows(f'[{{"a":{digits},"b":0.1234567890123456789,"c":1e999999999}}]'.encode())
    assert row == {"a": digits, "b": "0.1234567890123456789", "c": "1e999999999"}


@given(documents, st.booleans())
def test_what_is_written_is_read(document: list[dict[str, object]], ascii_only: bool) -> None:
    assert rows(json.dumps(document, ensure_ascii=ascii_only).encode()) == document


@given(documents)
def test_another_parser_reads_the_same(document: list[dict[str, object]]) -> None:
    body = orjson.dumps(document)
    assert rows(body) == orjson.loads(body)


@given(documents, st.data())
def test_a_damaged_body_is_rejected_or_what_another_parser_reads(
    document: list[dict[str, object]], data: st.DataObject
) -> None:
    body = bytearray(json.dumps(document, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = rows(bytes(body))
    except BadAnswer:
        return
    # Numbers apart, which we keep as they are written.
    assert json.dumps(read) == json.dumps(_with_texts(orjson.loads(bytes(body)), read))


def _with_texts(theirs: object, ours: object) -> object:
    """Put our texts in the place of the numbers of theirs that they stand for."""
    if isinstance(theirs, list) and isinstance(ours, list):
        return [_with_texts(each, mine) for each, mine in zip(theirs, ours, strict=True)]
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return {key: _with_texts(value, ours[key]) for key, value in theirs.items()}
    if isinstance(ours, Number) and isinstance(theirs, int | float):
        return str(ours) if float(ours) == float(theirs) else theirs
    return theirs


@given(st.binary(max_size=100))
def test_any_bytes_are_rows_or_rejected(body: bytes) -> None:
    with suppress(BadAnswer):
        assert isinstance(rows(body), list)


def test_an_object_is_read_where_one_is_due() -> None:
    assert fields(b'{"serverTime":1767225600000}') == {"serverTime": "1767225600000"}
    assert reason(b"[]", fields) == "not_an_object"
    assert reason(b'{"a":1,"a":2}', fields) == "duplicate_key"
