from __future__ import annotations

import base64
import hashlib
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from poller.simulator.keys import KEY_KINDS, RSA_DISTANCES, KeyKind, SimulatedAccount, make_accounts
from tests.simulator.fixtures import signature

# The documentation's own example.
SAMPLE_SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
ORDER = b"symbol=%s&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
FULL_WIDTH_DIGITS = b"%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96"


def make_account(kind: KeyKind) -> SimulatedAccount:
    return make_accounts(1, (kind,), seed=1)[0]


@pytest.mark.parametrize(
    ("symbol", "signed"),
    [
        (b"LTCBTC", b"c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
        (FULL_WIDTH_DIGITS, b"e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3"),
    ],
)
def test_the_documented_hmac_signatures_are_right(symbol: bytes, signed: bytes) -> None:
    account = SimulatedAccount("sample", "hmac", "", SAMPLE_SECRET)
    assert account.has_signed(ORDER % symbol, signed)
    assert account.has_signed(ORDER % symbol, signed.upper())
    assert not account.has_signed(ORDER % symbol + b"0", signed)


def test_the_ed25519_signature_of_the_standard_is_right() -> None:
    # RFC 8032, section 7.1, test 2.
    private = ed25519.Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    raw = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    account = SimulatedAccount("sample", "ed25519", "", "", private)
    assert account.has_signed(b"\x72", quote(base64.b64encode(raw)).encode())
    assert not account.has_signed(b"\x73", quote(base64.b64encode(raw)).encode())


def test_an_rsa_signature_computed_by_hand_is_right() -> None:
    account = make_account("rsa")
    private = load_pem_private_key(account.secret.encode(), password=None)
    assert isinstance(private, rsa.RSAPrivateKey)
    numbers = private.private_numbers()
    # RFC 8017: 00 01 ff ... ff 00, the algorithm's name, the digest; raised to the secret exponent.
    name = bytes.fromhex("3031300d060960864801650304020105000420")
    digest = name + hashlib.sha256(b"timestamp=1").digest()
    padded = b"\x00\x01" + b"\xff" * (256 - 3 - len(digest)) + b"\x00" + digest
    raw = pow(int.from_bytes(padded), numbers.d, numbers.public_numbers.n).to_bytes(256)
    assert account.has_signed(b"timestamp=1", base64.b64encode(raw).replace(b"+", b"%2B"))


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_signature_holds_for_these_very_bytes_and_this_account_only(kind: KeyKind) -> None:
    one, _, _, other = make_accounts(4, (kind,), seed=7)
    signed = signature(one, "timestamp=1").encode()
    assert one.has_signed(b"timestamp=1", signed)
    assert not one.has_signed(b"timestamp=2", signed)
    assert not other.has_signed(b"timestamp=1", signed)


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_plus_that_was_not_encoded_arrives_as_a_blank_and_is_refused(kind: KeyKind) -> None:
    account = make_account(kind)
    payloads = (f"timestamp={number}" for number in range(100))
    payload = next(payload for payload in payloads if "%2B" in signature(account, payload))
    assert account.has_signed(payload.encode(), signature(account, payload).encode())
    assert not account.has_signed(payload.encode(), signature(account, payload).replace("%2B", "+").encode())


@pytest.mark.parametrize("kind", KEY_KINDS)
@pytest.mark.parametrize("nonsense", [b"", b"abc", b"%", b"%ff", b"====", b"AAAA", b"\xff"])
def test_nonsense_is_no_signature(kind: KeyKind, nonsense: bytes) -> None:
    assert not make_account(kind).has_signed(b"timestamp=1", nonsense)


def test_keys_follow_from_the_seed() -> None:
    one, again, other = (make_accounts(6, KEY_KINDS, seed) for seed in (1, 1, 2))
    assert [(a.name, a.kind, a.api_key, a.secret) for a in one] == [
        (a.name, a.kind, a.api_key, a.secret) for a in again
    ]
    assert not {a.api_key for a in one} & {a.api_key for a in other}


def test_kinds_come_in_turn_and_all_api_keys_differ_and_look_like_the_exchanges() -> None:
    accounts = make_accounts(600, KEY_KINDS, seed=1)
    assert [account.kind for account in accounts[:4]] == ["hmac", "rsa", "ed25519", "hmac"]
    assert [accounts[0].name, accounts[-1].name] == ["sim-0001", "sim-0600"]
    assert len({account.api_key for account in accounts}) == 600
    assert all(len(key) == 64 and key.isalnum() for key in (account.api_key for account in accounts))


def test_names_sort_as_they_count_however_many_there_are() -> None:
    names = [account.name for account in make_accounts(10_001, ("hmac",), seed=1)]
    assert names == sorted(names)


def test_the_noted_distances_lead_to_good_rsa_keys() -> None:
    accounts = make_accounts(len(RSA_DISTANCES) * len(KEY_KINDS), KEY_KINDS, seed=1)
    pems = {account.secret for account in accounts if account.kind == "rsa"}
    assert len(pems) == len(RSA_DISTANCES)
    for pem in pems:
        private = load_pem_private_key(pem.encode(), password=None)
        assert isinstance(private, rsa.RSAPrivateKey)
        numbers = private.private_numbers()
        assert private.key_size == 2048
        for prime in (numbers.p, numbers.q):
            assert all(pow(witness, prime - 1, prime) == 1 for witness in (2, 3, 5, 7, 11, 13))


def test_keys_do_not_show() -> None:
    for account in make_accounts(3, KEY_KINDS, seed=1):
        assert account.secret not in repr(account)
        assert account.api_key not in repr(account)
