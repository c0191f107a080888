from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.errors import (
    AccessDenied,
    BadAnswer,
    BadRequest,
    Banned,
    Blocked,
    ClockSkew,
    Maintenance,
    Overloaded,
    PollError,
    RateLimited,
    Scope,
    Unavailable,
)
from poller.exchange.response import Response, error_in, sanitized, used_weight
from poller.secrets import Secret

HTML = b"<html><head><title>403 Forbidden</title></head><body>Request blocked.</body></html>"


def answer(status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, headers or {}, content, 1.0, 2.0)


def error(status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> PollError:
    found = error_in(answer(status, body, headers))
    assert found is not None
    return found


@pytest.mark.parametrize("body", [b"[]", b" \r\n\t[]", b'[{"asset":"BTC","free":"1"}]'])
def test_a_list_with_status_200_is_no_error(body: bytes) -> None:
    assert error_in(answer(200, body)) is None


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (201, b"[]", BadAnswer),
        (204, b"", BadAnswer),
        (206, b"[]", BadAnswer),
        (301, b"", BadRequest),
        (302, HTML, BadRequest),
        (304, b"", BadAnswer),
        (307, b"[]", BadRequest),
        (400, b"", BadRequest),
        (400, HTML, BadRequest),
        (400, {"msg": "no code"}, BadRequest),
        (400, {"code": 100001003, "msg": "Verification failed"}, Unavailable),
        (401, b"", AccessDenied),
        (401, {"code": -77777, "msg": "?"}, AccessDenied),
        (403, HTML, Blocked),
        (403, {"msg": "no code"}, Blocked),
        (403, {"code": -77777}, Blocked),
        (404, HTML, BadRequest),
        (404, b"", BadRequest),
        (405, b"", BadRequest),
        (408, b"", Unavailable),
        (410, b"", Overloaded),
        (418, b"", Banned),
        (418, b"[]", Banned),
        (418, {"code": -1003, "msg": "Way too much request weight used"}, Banned),
        (418, {"code": -2015, "msg": "?"}, Banned),
        (429, b"", RateLimited),
        (429, HTML, RateLimited),
        (429, {"code": -1003, "msg": "Too many requests; current request has limited."}, RateLimited),
        (429, {"code": -4005, "msg": "?"}, RateLimited),
        (429, {"code": -2015, "msg": "?"}, RateLimited),
        (451, HTML, Blocked),
        (451, {"code": 0, "msg": "Service unavailable from a restricted location"}, Blocked),
        (500, b"", Unavailable),
        (500, HTML, Unavailable),
        (500, {"msg": "Internal error"}, Unavailable),
        (502, HTML, Unavailable),
        (503, {"timestamp": 1, "path": "/sapi", "msg": "Service Unavailable."}, Unavailable),
        (503, {"code": -1008, "msg": "Request throttled by system-level protection"}, Overloaded),
        (504, HTML, Unavailable),
        (599, b"", Unavailable),
    ],
)
def test_the_status_decides_where_no_known_code_does(
    status: int, body: object, kind: type[PollError]
) -> None:
    found = error(status, body)
    assert type(found) is kind
    assert found.status == status


CODES: dict[type[PollError], list[int]] = {
    Unavailable: [-1000, -1001, -1004, -1006, -1007, -3000, -3044, -4038, -4041, -4045],
    ClockSkew: [-1021],
    RateLimited: [-1003],
    Maintenance: [1, -10001],
    Overloaded: [-1008, -1016, -1020, -4005, -6009, -9000],
    AccessDenied: [
        *(-1002, -1022, -1099, -2008, -2014, -2015, -3001, -3999),
        *(-4004, -4039, -4044, -4046, -5021),
    ],
    BadRequest: [
        *(-1010, -1013, -1014, -1015, -1100, -1101, -1102, -1103, -1104, -1105, -1106, -1108),
        *(-1111, -1120, -1128, -1130, -1131, -1134, -1135, -1139, -1145, -1151, -1199),
        *(-3002, -3026, -4001, -4006, -4018, -5001, -5003, -5012),
    ],
}


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500, 503])
@pytest.mark.parametrize(("kind", "code"), [(kind, code) for kind, codes in CODES.items() for code in codes])
def test_a_known_code_says_more_than_the_status(kind: type[PollError], code: int, status: int) -> None:
    found = error(status, {"code": code, "msg": "words"})
    assert (type(found), found.code, found.status) == (kind, code, status)
    assert str(found) == f"HTTP {status}, code {code}: words"


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ({"code": -99999, "msg": "never seen"}, Unavailable, -99999),
        ({"code": "-2015", "msg": "as a text"}, AccessDenied, -2015),
        ({"success": False, "msg": '{"code":-1021,"msg":"as JSON in the text"}'}, ClockSkew, -1021),
        ({"success": False, "msg": "Too many requests. Please try again later."}, RateLimited, None),
        ({"success": False, "msg": "something else"}, Unavailable, None),
        ({"success": False, "msg": "{broken"}, Unavailable, None),
        ({"success": False, "msg": "{}"}, Unavailable, None),
        ({"success": False}, Unavailable, None),
        ({"success": True, "code": -1003}, RateLimited, -1003),
    ],
)
def test_an_error_in_disguise_is_an_error(body: object, kind: type[PollError], code: int | None) -> None:
    found = error(200, body)
    assert (type(found), found.code) == (kind, code)


@pytest.mark.parametrize(
    "body", [{"code": 0}, {"code": 200}, {"code": "000000"}, {"serverTime": 1}, {}, b"null", b"", HTML, b'""']
)
def test_whether_a_document_without_an_error_is_the_one_asked_for_is_judged_elsewhere(body: object) -> None:
    assert error_in(answer(200, body)) is None


@pytest.mark.parametrize(
    ("text", "until_ms"),
    [
        (
            "Way too much request weight used; IP banned until 1767225900000. Use WebSocket.",
            1_767_225_900_000,
        ),
        ("Way too many requests; IP banned until 1767225900000.", 1_767_225_900_000),
        ("Way too many requests; IP(203.0.113.7) banned until 1767225900000. Please", 1_767_225_900_000),
        ("Way too many requests; IP banned until 1767225900.", 1_767_225_900_000),
        ("IP banned until tomorrow", None),
        ("IP banned until 17672259000001234", None),
        ("IP banned until ١٧٦٧٢٢٥٩٠٠٠٠٠", None),
        ("", None),
    ],
)
def test_the_end_of_a_ban_is_read_from_the_text(text: str, until_ms: int | None) -> None:
    found = error(418, {"code": -1003, "msg": text})
    assert isinstance(found, Banned)
    assert found.banned_until_ms == until_ms


@pytest.mark.parametrize("status", [200, 400, 429])
def test_a_ban_is_a_ban_whatever_the_status(status: int) -> None:
    found = error(status, {"code": -1003, "msg": "Way too many requests; IP banned until 1767225900000."})
    assert isinstance(found, Banned)
    assert found.banned_until_ms == 1_767_225_900_000


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("1", 1.0),
        (" 35 ", 35.0),
        ("960", 960.0),
        ("0060", 60.0),
        ("1000000000000", 1e12),
        ("Thu, 01 Jan 2026 00:02:00 GMT", 120.0),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0.0),
        ("Thursday, 01-Jan-26 00:02:00 GMT", 120.0),
        ("", None),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("5 s", None),
        ("5, 10", None),
        ("٣٠", None),
        ("soon", None),
        ("9" * 30, None),
        ("Thu, 32 Jan 2026 00:02:00 GMT", None),
        ("Thu, 01 Jan 99999 00:02:00 GMT", None),
        ("NaN", None),
        ("inf", None),
        ("0x10", None),
        ("\x00", None),
    ],
)
@pytest.mark.parametrize("status", [418, 429])
def test_retry_after_is_seconds_or_a_date_or_nothing(status: int, value: str, seconds: float | None) -> None:
    headers = {"retry-after": value, "date": "Thu, 01 Jan 2026 00:00:00 GMT"}
    assert error(status, b"", headers).retry_after_s == seconds


def test_a_date_to_retry_after_counts_from_the_answers_own_and_not_from_our_clock() -> None:
    assert error(429, b"", {"retry-after": "Thu, 01 Jan 2026 00:02:00 GMT"}).retry_after_s is None
    assert error(429).retry_after_s is None


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_header_breaks_the_reading(retry_after: str, date: str) -> None:
    found = error(429, b"", {"retry-after": retry_after, "date": date})
    assert found.retry_after_s is None or found.retry_after_s >= 0


@pytest.mark.parametrize(
    ("value", "used"),
    [
        ("1", 1),
        ("0", 0),
        ("12000", 12_000),
        ("999999999", 999_999_999),
        ("", None),
        ("abc", None),
        ("-1", None),
        ("1.5", None),
        ("1, 2", None),
        ("٩", None),
        ("1" * 40, None),
    ],
)
def test_the_used_weight_is_a_whole_number_or_nothing(value: str, used: int | None) -> None:
    assert used_weight({"x-sapi-used-ip-weight-1m": value}) == used


def test_the_weight_of_other_pools_is_not_ours() -> None:
    assert used_weight({"x-mbx-used-weight-1m": "17", "x-sapi-used-uid-weight-1m": "18"}) is None


@given(st.integers(100, 599), st.binary(max_size=200) | st.text(max_size=60).map(str.encode))
def test_whatever_arrives_is_a_list_to_be_read_or_an_error(status: int, body: bytes) -> None:
    found = error_in(answer(status, body))
    if status != 200:
        assert found is not None
    if status in {418, 429, 403, 451} and b"code" not in body:
        assert found is not None
        assert found.scope is Scope.EGRESS


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.dictionaries(
                st.sampled_from(["code", "msg", "success", "message"]) | st.text(max_size=4),
                inner,
                max_size=4,
            )
            | st.lists(inner, max_size=3)
        ),
        max_leaves=8,
    ),
    st.sampled_from([200, 400, 401, 403, 418, 429, 500]),
)
def test_no_json_breaks_the_reading(document: object, status: int) -> None:
    found = error_in(answer(status, json.dumps(document).encode()))
    assert found is not None or status == 200


def test_a_message_shows_no_key_no_signature_and_no_line_break() -> None:
    key = Secret("kJ83hHs0Lq2mNb7VxZ5cRt9WyPf4Gd61")
    echoed = f"bad\r\n\x1b[31mrequest\u202e {key.reveal()} timestamp=1&signature=0123456789abcdef&x=1"
    message = str(error(400, {"code": -1100, "msg": echoed}))
    assert message == (
        "HTTP 400, code -1100: bad\\r\\n\\x1b[31mrequest\\u202e *** timestamp=1&signature=***&x=1"
    )


def test_a_page_is_shown_by_its_beginning_only() -> None:
    message = str(error(502, b"<html>\n\n  <body>" + b"x" * 100_000))
    assert message.startswith("HTTP 502, no JSON: <html> <body>xxx")
    assert len(message) < 200


def test_what_has_no_text_is_named_by_its_status() -> None:
    assert str(error(429)) == "HTTP 429, no body"
    assert str(error(400, {"code": -1100})) == "HTTP 400, code -1100"
    assert str(error(500, {"error": "other form"})) == "HTTP 500"


@given(st.text())
def test_sanitized_text_is_short_and_printable(text: str) -> None:
    shown = sanitized(text)
    assert shown.isprintable()
    assert len(shown) <= 163
