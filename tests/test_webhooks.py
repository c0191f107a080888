"""Signatures of webhooks: the convention's own vectors, every tampered byte, rotation, the replay window."""

from __future__ import annotations

import ast
import base64
import math
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from poller import webhooks
from poller.webhooks import InvalidWebhook, check_signing_secret, sign, verify

# Of the reference implementations of Standard Webhooks.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
ED25519_SECRET = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="
ED25519_SIGNATURE = (
    "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="
)
# Of anything else.
FORGED = (
    "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=",
    "v2,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=",
)

OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SECRETS = st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode())
IDS = st.uuids().map(str)
TIMES = st.integers(0, 10**11)


def public_half(secret: str) -> str:
    seed = base64.b64decode(secret.removeprefix("whsk_"))[:32]
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return "whpk_" + base64.b64encode(public).decode()


ED25519_PUBLIC = public_half(ED25519_SECRET)


def headers(signature: str = SIGNATURE, webhook_id: str = ID, timestamp: int | str = AT) -> dict[str, str]:
    return {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def refusal(
    body: bytes, given_headers: dict[str, str], secrets: str | list[str] = SECRET, now: float = AT
) -> str:
    with pytest.raises(InvalidWebhook) as caught:
        verify(body, given_headers, secrets, now=now)
    return caught.value.reason


# The vectors


def test_what_is_signed_is_what_the_reference_signs() -> None:
    assert sign(BODY, ID, AT, [SECRET]) == headers()
    assert sign(BODY, ID, AT, [ED25519_SECRET]) == headers(ED25519_SIGNATURE)
    assert sign(BODY, ID, AT, [SECRET, ED25519_SECRET]) == headers(f"{SIGNATURE} {ED25519_SIGNATURE}")


def test_what_the_reference_signs_is_verified() -> None:
    assert verify(BODY, headers(), SECRET, now=AT) == ID
    assert verify(BODY, headers(), [SECRET], now=AT) == ID
    assert verify(BODY, headers(ED25519_SIGNATURE), ED25519_PUBLIC, now=AT) == ID


def test_one_good_signature_among_others_is_enough() -> None:
    several = " ".join([*FORGED, SIGNATURE, FORGED[0]])
    assert verify(BODY, headers(several), SECRET, now=AT) == ID
    mixed = f"{FORGED[0]} {ED25519_SIGNATURE}"
    assert verify(BODY, headers(mixed), [OTHER, ED25519_PUBLIC], now=AT) == ID


@pytest.mark.parametrize(
    "signature",
    [
        *FORGED,
        "v1,",
        "v1",
        ",",
        SIGNATURE[:8],
        "v1,dawfeoifkpqwoekfpqoekf",
        SIGNATURE.removeprefix("v1,"),
        SIGNATURE.replace("v1,", "v2,"),
        SIGNATURE.replace("v1,", "v1a,"),
        SIGNATURE.replace("v1,", "v1,,"),
        SIGNATURE.rstrip("="),
        SIGNATURE + "=",
        SIGNATURE.replace("OE=", "OF="),  # another spelling of the same bytes
        "v1,ü€\udcff",
    ],
)
def test_other_signatures_are_refused(signature: str) -> None:
    assert refusal(BODY, headers(signature)) == "signature"
    assert refusal(BODY, headers(signature.replace("v1,", "v1a,")), ED25519_PUBLIC) == "signature"


def test_the_one_kind_of_signature_is_not_the_other() -> None:
    assert refusal(BODY, headers(ED25519_SIGNATURE)) == "signature"
    assert refusal(BODY, headers(SIGNATURE), ED25519_PUBLIC) == "signature"
    assert refusal(BODY, headers(ED25519_SIGNATURE.replace("v1a,", "v1,")), ED25519_PUBLIC) == "signature"
    assert refusal(BODY, headers(ED25519_SIGNATURE.rstrip("=")), ED25519_PUBLIC) == "signature"


def test_a_public_key_is_no_shared_secret() -> None:
    """Else whoever knows the public key could sign."""
    key = base64.b64decode(ED25519_PUBLIC.removeprefix("whpk_"))
    as_shared = sign(BODY, ID, AT, ["whsec_" + base64.b64encode(key).decode()])
    assert refusal(BODY, as_shared, ED25519_PUBLIC) == "signature"


# Headers


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(name: str) -> None:
    for incomplete in ({**headers(), name: ""}, {k: v for k, v in headers().items() if k != name}):
        with pytest.raises(InvalidWebhook, match=f"{name} missing") as caught:
            verify(BODY, incomplete, SECRET, now=AT)
        assert caught.value.reason == "headers"


def test_names_of_headers_have_no_case() -> None:
    shouted = {name.upper(): value for name, value in headers().items()}
    assert verify(BODY, shouted, SECRET, now=AT) == ID


def test_a_header_that_is_there_twice_is_refused() -> None:
    assert refusal(BODY, {**headers(), "Webhook-Id": ID}) == "headers"


def test_the_borders_between_the_parts_cannot_be_moved() -> None:
    """``a.1.2.body`` is signed alike for the id ``a`` and for the id ``a.1``."""
    moved = sign(b"2.body", "a", 1, [SECRET])
    assert verify(b"2.body", moved, SECRET, now=1) == "a"
    moved |= {"webhook-id": "a.1", "webhook-timestamp": "2"}
    assert refusal(b"body", moved, now=2) == "headers"
    with pytest.raises(ValueError, match="cannot be the id"):
        sign(BODY, "a.1", AT, [SECRET])


@pytest.mark.parametrize(
    "timestamp", ["hello", "1614265330.0", "-1", "+1614265330", " 1614265330", "\u0661", "9" * 13]
)
def test_a_timestamp_is_whole_seconds(timestamp: str) -> None:
    assert refusal(BODY, headers(timestamp=timestamp)) == "timestamp"


# The window


@pytest.mark.parametrize("away_s", [-300, -299.9, 0, 299.9, 300])
def test_within_the_tolerance_it_is_good(away_s: float) -> None:
    assert verify(BODY, headers(), SECRET, now=AT + away_s) == ID


@pytest.mark.parametrize("away_s", [-1e9, -300.1, 300.1, 1e9, math.inf, math.nan])
def test_beyond_the_tolerance_it_is_a_replay(away_s: float) -> None:
    assert refusal(BODY, headers(), now=AT + away_s) == "timestamp"


def test_the_tolerance_is_the_receivers_choice() -> None:
    assert verify(BODY, headers(), SECRET, now=AT + 900, tolerance_s=900) == ID
    with pytest.raises(InvalidWebhook, match="more than 10 s away"):
        verify(BODY, headers(), SECRET, now=AT + 11, tolerance_s=10)


# Properties


@given(st.binary(max_size=300), IDS, TIMES, SECRETS)
def test_what_was_signed_is_verified(body: bytes, webhook_id: str, at: int, secret: str) -> None:
    assert verify(body, sign(body, webhook_id, at, [secret]), secret, now=at) == webhook_id


@pytest.mark.parametrize(
    ("secret", "public"), [(SECRET, SECRET), (ED25519_SECRET, ED25519_PUBLIC)], ids=["shared", "Ed25519"]
)
def test_every_tampered_byte_is_found(secret: str, public: str) -> None:
    signed = sign(BODY, ID, AT, [secret])
    for place in range(len(BODY)):
        for byte in {0, 0x20, 0x2E, 0x7F, 0xFF, BODY[place] ^ 1, BODY[place] ^ 0x80} - {BODY[place]}:
            tampered = BODY[:place] + bytes([byte]) + BODY[place + 1 :]
            assert refusal(tampered, signed, public) == "signature"
        assert refusal(BODY[:place] + BODY[place + 1 :], signed, public) == "signature"
    for name, value in signed.items():
        for place in range(len(value)):
            for other in {"0", "A", ".", ",", "=", " ", "\0", "é"} - {value[place]}:
                tampered_headers = {**signed, name: value[:place] + other + value[place + 1 :]}
                assert refusal(BODY, tampered_headers, public) in {"headers", "timestamp", "signature"}


@given(SECRETS, SECRETS)
def test_rotation_either_way(old: str, new: str) -> None:
    by_both = sign(BODY, ID, AT, [new, old])
    for known in ([old], [new], [old, new]):  # the sender rotates first
        assert verify(BODY, by_both, known, now=AT) == ID
    for one in (old, new):  # the receiver rotates first
        assert verify(BODY, sign(BODY, ID, AT, [one]), [new, old], now=AT) == ID
    if old != new:
        assert refusal(BODY, sign(BODY, ID, AT, [old]), new) == "signature"


# Secrets


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("", "begins with whsec_"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begins with whsec_"),
        ("whsec_", "0 bytes; 24 to 64"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "23 bytes; 24 to 64"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "65 bytes; 24 to 64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "not Base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_", "not Base64"),
        ("whsk_" + base64.b64encode(bytes(31)).decode(), "31 bytes"),
        ("whsk_" + base64.b64encode(bytes(64)).decode(), "do not belong together"),
        (ED25519_PUBLIC, "begins with whsec_"),
    ],
)
def test_what_cannot_sign_is_said_without_showing_it(secret: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        check_signing_secret(secret)
    assert len(secret) < 10 or secret[6:16] not in str(caught.value)


def test_an_ed25519_key_may_carry_its_public_half() -> None:
    seed, public = (base64.b64decode(key[5:]) for key in (ED25519_SECRET, ED25519_PUBLIC))
    both = "whsk_" + base64.b64encode(seed + public).decode()
    assert sign(BODY, ID, AT, [both]) == headers(ED25519_SIGNATURE)


@pytest.mark.parametrize("secrets", [[], "", "value", ["whpk_AAAA"], ["whsk_AAAA"]])
def test_a_receivers_own_mistake_is_no_forged_request(secrets: str | list[str]) -> None:
    with pytest.raises(ValueError):
        verify(BODY, headers(), secrets, now=AT)


def test_a_receiver_can_take_the_module_as_it_is() -> None:
    tree = ast.parse(Path(webhooks.__file__).read_text())
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert {name for name in imported if name.startswith("poller")} == set()
    assert [name for name in imported if "cryptography" in name] == [
        name for name in imported if name.startswith("cryptography.")
    ]
