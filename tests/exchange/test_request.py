from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.exchange.request import (
    API_RESTRICTIONS,
    SERVER_TIME,
    SYSTEM_STATUS,
    USER_ASSETS,
    Endpoint,
    Request,
    encoded,
    sign,
    unsigned,
)
from poller.exchange.signing import Credentials, private_key_signer
from poller.secrets import Secret
from tests.exchange.keys import (
    SAMPLE_API_KEY,
    SAMPLE_SECRET,
    ed25519_key,
    pem,
    rsa_key,
    sample_credentials,
)

UNRESERVED = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
NOW_MS = 1_767_225_600_000

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = texts.filter(lambda name: name not in {"", "recvWindow", "timestamp", "signature"})


def signed(parameters: dict[str, str], credentials: Credentials | None = None) -> Request:
    return sign(
        credentials or sample_credentials(),
        USER_ASSETS,
        parameters,
        exchange_ms=NOW_MS,
        recv_window_ms=10_000,
    )


def test_a_signed_request_is_this_to_the_byte() -> None:
    request = signed({"asset": "币安人生", "needBtcValuation": "true"})
    query = (
        "asset=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9F&needBtcValuation=true"
        "&recvWindow=10000&timestamp=1767225600000"
    )
    signature = hmac.new(SAMPLE_SECRET.encode(), query.encode(), hashlib.sha256).hexdigest()
    assert (request.method, request.path) == ("POST", "/sapi/v3/asset/getUserAsset")
    assert request.query == f"{query}&signature={signature}"
    assert dict(request.headers) == {"X-MBX-APIKEY": SAMPLE_API_KEY}


@given(st.dictionaries(names, texts, max_size=6))
def test_what_a_parser_reads_back_from_the_sent_bytes_is_what_was_asked(parameters: dict[str, str]) -> None:
    query = signed(parameters).query
    read = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
    assert read[:-1] == [*parameters.items(), ("recvWindow", "10000"), ("timestamp", str(NOW_MS))]
    assert read[-1][0] == "signature"


@given(st.dictionaries(names, texts, max_size=6))
def test_the_signature_covers_every_byte_before_it(parameters: dict[str, str]) -> None:
    payload, _, signature = signed(parameters).query.rpartition("&signature=")
    assert signature == hmac.new(SAMPLE_SECRET.encode(), payload.encode(), hashlib.sha256).hexdigest()


@given(st.lists(st.tuples(texts, texts), max_size=6))
def test_only_unreserved_bytes_go_out_bare(pairs: list[tuple[str, str]]) -> None:
    allowed = UNRESERVED | set(b"%&=")
    query = encoded(pairs)
    assert set(query.encode("ascii")) <= allowed
    assert query.count("=") == len(pairs)


@pytest.mark.parametrize("key", [rsa_key(), ed25519_key()], ids=["rsa", "ed25519"])
def test_the_signs_of_base64_are_percent_encoded(key: object) -> None:
    assert isinstance(key, type(rsa_key()) | type(ed25519_key()))
    signer = private_key_signer(Secret(pem(key)))
    # Some of these hold a plus, a slash; all of them end in an equals sign.
    for number in range(30):
        payload, _, sent = signed(
            {"asset": f"A{number}"}, Credentials(Secret("some-api-key"), signer)
        ).query.rpartition("&signature=")
        assert not set("+/=") & set(sent)
        signature = parse_qsl(f"signature={sent}", strict_parsing=True)[0][1]
        if signer.kind == "rsa":  # deterministic, as is Ed25519
            assert signature.endswith("==")
        assert signature == signer.sign(payload.encode())


def test_a_later_attempt_is_stamped_and_signed_anew() -> None:
    first, second = (
        sign(sample_credentials(), USER_ASSETS, {}, exchange_ms=NOW_MS + late, recv_window_ms=5000)
        for late in (0, 1)
    )
    assert first.query.split("&signature=")[1] != second.query.split("&signature=")[1]
    assert "timestamp=1767225600001" in second.query


@pytest.mark.parametrize(
    "endpoint",
    [
        SERVER_TIME,
        SYSTEM_STATUS,
        Endpoint("POST", "/sapi/v1/capital/withdraw/apply", 1, signed=True),
        Endpoint("POST", "/sapi/v3/asset/getUserAsset/../../v1/capital", 1, signed=True),
        Endpoint("DELETE", "/sapi/v3/asset/getUserAsset", 5, signed=True),
    ],
    ids=lambda endpoint: f"{endpoint.method} {endpoint.path}",
)
def test_nothing_but_the_listed_endpoints_can_be_signed(endpoint: Endpoint) -> None:
    with pytest.raises(ValueError, match="not a path to be signed"):
        sign(sample_credentials(), endpoint, {}, exchange_ms=NOW_MS, recv_window_ms=5000)


@pytest.mark.parametrize("name", ["timestamp", "recvWindow", "signature"])
def test_a_caller_cannot_set_what_the_signing_sets(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        signed({name: "1"})


@pytest.mark.parametrize("recv_window_ms", [0, -1, 60_001])
def test_a_window_that_the_exchange_refuses_is_refused_here(recv_window_ms: int) -> None:
    with pytest.raises(ValueError, match="recv_window is 1 to 60000 ms"):
        sign(sample_credentials(), USER_ASSETS, {}, exchange_ms=NOW_MS, recv_window_ms=recv_window_ms)


def test_half_a_surrogate_pair_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        signed({"asset": "\ud800"})


def test_an_unsigned_request_carries_nothing_of_anybody() -> None:
    assert unsigned(SERVER_TIME) == Request("GET", "/api/v3/time", "", {})
    with pytest.raises(ValueError, match="has to be signed"):
        unsigned(API_RESTRICTIONS)


def test_the_repr_of_a_request_shows_neither_key_nor_query() -> None:
    shown = repr(signed({"asset": "BTC"}))
    assert shown == "Request(method='POST', path='/sapi/v3/asset/getUserAsset')"


def test_the_weights_are_those_of_the_documentation() -> None:
    weights = {each.path: each.weight for each in (USER_ASSETS, API_RESTRICTIONS, SYSTEM_STATUS, SERVER_TIME)}
    assert weights == {
        "/sapi/v3/asset/getUserAsset": 5,
        "/sapi/v1/account/apiRestrictions": 1,
        "/sapi/v1/system/status": 1,
        "/api/v3/time": 1,
    }
