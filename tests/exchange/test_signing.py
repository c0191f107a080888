from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from poller.exchange.signing import Credentials, KeyFormatError, Signer, hmac_signer, private_key_signer
from poller.secrets import Secret
from tests.exchange.keys import (
    SAMPLE_SECRET,
    ed25519_key,
    ed25519_pem_of_seed,
    pem,
    public_pem,
    rsa_key,
    sample_credentials,
)

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
PAYLOAD = b"asset=%E5%B8%81&recvWindow=10000&timestamp=1767225600000"


@pytest.mark.parametrize(
    ("payload", "signature"),
    [
        (
            (
                "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1"
                "&recvWindow=5000&timestamp=1499827319559"
            ),
            "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71",
        ),
        (
            (
                "symbol=%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96&side=BUY&type=LIMIT"
                "&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
            ),
            "e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3",
        ),
    ],
    ids=["plain", "percent-encoded"],
)
def test_hmac_gives_the_signatures_printed_in_the_documentation(payload: str, signature: str) -> None:
    assert hmac_signer(Secret(SAMPLE_SECRET)).sign(payload.encode()) == signature


@given(st.integers(1, 200), st.binary(), st.binary())
def test_hmac_is_what_rfc_2104_says(length: int, seed: bytes, payload: bytes) -> None:
    secret = (hashlib.sha256(seed).hexdigest() * 4)[:length]  # never a text that other tests would write
    key = secret.encode() if len(secret) <= 64 else hashlib.sha256(secret.encode()).digest()
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + payload).digest()
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).hexdigest()
    assert hmac_signer(Secret(secret)).sign(payload) == outer


@given(st.binary(max_size=300))
def test_an_rsa_signature_opens_to_the_padded_digest(payload: bytes) -> None:
    key = rsa_key()
    signature = base64.b64decode(private_key_signer(Secret(pem(key))).sign(payload), validate=True)
    numbers = key.public_key().public_numbers()
    opened = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n).to_bytes(256, "big")
    digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(payload).digest()
    assert opened == b"\0\1" + b"\xff" * (256 - 3 - len(digest)) + b"\0" + digest


@pytest.mark.parametrize(
    ("seed", "message", "signature"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "",
            (
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
                "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
            ),
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "72",
            (
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            ),
        ),
    ],
)
def test_ed25519_gives_the_signatures_of_rfc_8032(seed: str, message: str, signature: str) -> None:
    signer = private_key_signer(Secret(ed25519_pem_of_seed(bytes.fromhex(seed))))
    assert base64.b64decode(signer.sign(bytes.fromhex(message)), validate=True).hex() == signature


@openssl
def test_openssl_makes_the_same_hmac() -> None:
    command = ["openssl", "dgst", "-sha256", "-hmac", SAMPLE_SECRET]
    said = subprocess.run(command, input=PAYLOAD, capture_output=True, check=True).stdout
    assert said.decode().split()[-1] == sample_credentials().signer.sign(PAYLOAD)


@openssl
@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_openssl_accepts_the_signature(kind: str, tmp_path: Path) -> None:
    key = rsa_key() if kind == "rsa" else ed25519_key()
    signer = private_key_signer(Secret(pem(key)))
    (tmp_path / "public.pem").write_text(public_pem(key))
    (tmp_path / "payload").write_bytes(PAYLOAD)
    (tmp_path / "signature").write_bytes(base64.b64decode(signer.sign(PAYLOAD)))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "payload"]
    command += ["-sigfile", "signature", *(["-digest", "sha256"] if kind == "rsa" else [])]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    (tmp_path / "payload").write_bytes(PAYLOAD + b"0")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0


def test_the_kind_of_a_private_key_is_told_from_its_pem() -> None:
    assert private_key_signer(Secret(pem(rsa_key()))).kind == "rsa"
    assert private_key_signer(Secret(pem(ed25519_key()))).kind == "ed25519"
    assert sample_credentials().signer.kind == "hmac"


def test_signers_are_the_same_if_they_sign_alike() -> None:
    pems = [pem(rsa_key()), pem(rsa_key(3072)), pem(ed25519_key()), ed25519_pem_of_seed(b"s" * 32)]

    def signers() -> list[Signer]:
        private = [private_key_signer(Secret(text)) for text in pems]
        return [*private, *(hmac_signer(Secret(text)) for text in (SAMPLE_SECRET, SAMPLE_SECRET[1:]))]

    for number, one in enumerate(signers()):
        for place, other in enumerate(signers()):
            assert one.is_same(other) == (number == place)
            assert (one.sign(PAYLOAD) == other.sign(PAYLOAD)) == (number == place)


def test_to_compare_private_keys_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (private_key_signer(Secret(pem(rsa_key()))) for _ in range(2))

    def sign(*_: object) -> str:
        raise AssertionError("a millisecond for each key of each reload")

    monkeypatch.setattr(type(one), "sign", sign)
    assert one.is_same(other)


@pytest.mark.parametrize("key", [rsa_key(), ed25519_key()], ids=["rsa", "ed25519"])
def test_an_encrypted_pem_opens_with_its_passphrase(key: object) -> None:
    assert isinstance(key, type(rsa_key()) | type(ed25519_key()))
    opened = private_key_signer(Secret(pem(key, "correct horse")), Secret("correct horse"))
    assert opened.sign(PAYLOAD) == private_key_signer(Secret(pem(key))).sign(PAYLOAD)


def with_another_exponent(key: rsa.RSAPrivateKey) -> rsa.RSAPrivateKey:
    """A key that can be read, but whose public half does not accept what it signs."""
    own = key.private_numbers()
    return rsa.RSAPrivateNumbers(
        own.p, own.q, own.d, own.dmp1, own.dmq1, own.iqmp, rsa.RSAPublicNumbers(3, own.public_numbers.n)
    ).private_key(unsafe_skip_rsa_key_validation=True)


def _refusal(pem_text: str, passphrase: str | None = None) -> str:
    with pytest.raises(KeyFormatError) as caught:
        private_key_signer(Secret(pem_text), None if passphrase is None else Secret(passphrase))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "passphrase", "said"),
    [
        (lambda: pem(ed25519_key(), "right"), None, "encrypted and there is no passphrase"),
        (lambda: pem(ed25519_key(), "right"), "wrong", "passphrase does not open"),
        (lambda: pem(ed25519_key()), "needless", "not encrypted; remove the passphrase"),
        (lambda: public_pem(ed25519_key()), None, "public half"),
        (lambda: pem(rsa_key(1024)), None, "1024 bits; the exchange takes 2048 to 4096"),
        (lambda: pem(ec.generate_private_key(ec.SECP256R1())), None, "neither Ed25519 nor RSA"),
        (
            lambda: pem(rsa_key(), form=serialization.PrivateFormat.TraditionalOpenSSL),
            None,
            "openssl pkcs8 -topk8",
        ),
        (lambda: pem(ed25519_key(), form=serialization.PrivateFormat.OpenSSH), None, "OpenSSH's own form"),
        (lambda: SAMPLE_SECRET, None, "is no PEM"),
        (lambda: "", None, "is no PEM"),
        (lambda: pem(rsa_key()).replace("\n", "\\n"), None, "lost its line breaks"),
        (lambda: "\n".join(pem(rsa_key()).splitlines()[:-5]), None, "damaged"),
        (lambda: pem(rsa_key())[:300] + "!!!!" + pem(rsa_key())[304:], None, "damaged"),
        (lambda: pem(with_another_exponent(rsa_key())), None, "damaged"),
        (
            lambda: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            None,
            "is a certificate",
        ),
        (lambda: "-----BEGIN X-----\nAAAA\n-----END X-----\n", None, "no private key in PKCS#8 form"),
    ],
)
def test_a_pem_that_cannot_be_used_is_refused_with_what_it_is(
    text: object, passphrase: str | None, said: str
) -> None:
    assert callable(text)
    key_text = text()
    message = _refusal(key_text, passphrase)
    assert said in message
    lines = [line for line in key_text.splitlines() if line and "-----" not in line]
    assert not any(line[:12] in message for line in lines)


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("", "empty"),
        ("abc def", "blanks"),
        ("abc\n", "blanks"),
        ("abcä", "foreign letters"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "private_key"),
    ],
)
def test_an_hmac_secret_that_cannot_be_one_is_refused(secret: str, said: str) -> None:
    with pytest.raises(KeyFormatError, match=said) as caught:
        hmac_signer(Secret(secret))
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize("api_key", ["", "two words", "evil\r\nHost: elsewhere", "schlüssel"])
def test_an_api_key_that_cannot_stand_in_a_header_is_refused(api_key: str) -> None:
    with pytest.raises(KeyFormatError, match="the API key") as caught:
        Credentials(Secret(api_key), hmac_signer(Secret("x")))
    assert not api_key or api_key not in str(caught.value)


def test_no_repr_shows_anything_of_a_key() -> None:
    rsa_text, ed_text = pem(rsa_key()), pem(ed25519_key())
    signers = [private_key_signer(Secret(rsa_text)), private_key_signer(Secret(ed_text))]
    shown = repr([sample_credentials(), sample_credentials().signer, *signers])
    for text in (rsa_text, ed_text, SAMPLE_SECRET):
        for line in text.splitlines():
            assert line.startswith("-----") or line[:12] not in shown


def test_the_library_for_private_keys_is_not_loaded_without_need() -> None:
    script = (
        "import sys; from poller.exchange.signing import hmac_signer; from poller.secrets import Secret; "
        "hmac_signer(Secret('x')).sign(b''); sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
