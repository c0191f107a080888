"""The JSON of an answer, read strictly: what parsers disagree about is rejected whole. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

from poller.errors import BadAnswer

ROWS_MOST: Final = 5_000  # more assets than the exchange has ever listed


class Number(str):
    """A JSON number as it was written. Not a text, though it is kept as one: no digit is lost."""

    __slots__ = ()


Row = dict[str, Any]


def rows(body: bytes) -> list[Row]:
    """Return the rows of an answer that has to be a list of objects.

    Raises:
        BadAnswer: it is anything else. ``reason`` is one of ``empty_body``, ``not_utf8``, ``not_json``,
            ``duplicate_key``, ``not_a_number``, ``surrogate``, ``too_deep``, ``not_a_list``,
            ``not_an_object``, ``too_many_rows``.
    """
    return rows_of(_parse(body))


def rows_of(value: Any, *, most: int = ROWS_MOST) -> list[Row]:
    """Return a part of an answer that has to be a list of objects, ``most`` of them at most.

    Raises:
        BadAnswer: as for ``rows``.
    """
    if not isinstance(value, list):
        raise BadAnswer(f"a list was due, not {_name(value)}", reason="not_a_list")
    if len(value) > most:
        raise BadAnswer(f"{len(value)} rows; at most {most} are believed", reason="too_many_rows")
    for row in value:
        if not isinstance(row, dict):
            raise BadAnswer(f"a row is {_name(row)}, not an object", reason="not_an_object")
    return value


def fields(body: bytes) -> Row:
    """Return an answer that has to be one object.

    Raises:
        BadAnswer: as for ``rows``.
    """
    document = _parse(body)
    if not isinstance(document, dict):
        raise BadAnswer(f"an object was due, not {_name(document)}", reason="not_an_object")
    return document


def _parse(body: bytes) -> Any:
    if not body:
        raise BadAnswer("the body is empty", reason="empty_body")
    try:
        # Given bytes, json would guess UTF-16 and UTF-32 as well.
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise BadAnswer("the body is not UTF-8", reason="not_utf8") from None
    try:
        # Not orjson: of two equal keys it keeps the last without a word, and numbers lose digits.
        document = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_no_constant,
        )
    except RecursionError:
        raise BadAnswer("the JSON is nested too deeply", reason="too_deep") from None
    except ValueError:
        raise BadAnswer("the body is not JSON", reason="not_json") from None
    if "\\u" in text:
        _refuse_surrogates(document)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise BadAnswer("an object has the same key twice", reason="duplicate_key")
    return row


def _no_constant(_name: str) -> None:
    raise BadAnswer("the body holds NaN or Infinity", reason="not_a_number")


def _refuse_surrogates(document: Any) -> None:
    """Half a pair can be written as an escape, but no sink could encode it afterwards."""
    try:
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise BadAnswer("a text holds half a surrogate pair", reason="surrogate") from None


def _name(value: Any) -> str:
    if value is None:
        return "null"
    names = {list: "a list", dict: "an object", bool: "a truth value", Number: "a number", str: "a text"}
    return names[type(value)]
