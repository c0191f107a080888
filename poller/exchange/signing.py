"""Signatures: HMAC-SHA256, RSA and Ed25519, told apart from the key that is given."""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from poller.secrets import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers, RSAPublicKey

# What the exchange takes.
RSA_BITS_LEAST = 2048
RSA_BITS_MOST = 4096

_LABEL = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----")
# What operators have in hand instead of a PKCS#8 private key, and what to do about it.
_OTHER_PEMS = {
    "PUBLIC KEY": "is the public half, which belongs to the exchange; give the private key",
    "RSA PUBLIC KEY": "is the public half, which belongs to the exchange; give the private key",
    "CERTIFICATE": "is a certificate; give the private key",
    "RSA PRIVATE KEY": "is RSA in the old PKCS#1 form; convert it: openssl pkcs8 -topk8 -in OLD.pem -out NEW.pem",
    "EC PRIVATE KEY": "is an elliptic-curve key that the exchange does not take; make an Ed25519 or RSA key",
    "DSA PRIVATE KEY": "is a DSA key, which the exchange does not take; make an Ed25519 or RSA key",
    "OPENSSH PRIVATE KEY": "is in OpenSSH's own form; make a key: openssl genpkey -algorithm ed25519 -out NEW.pem",
}
_ONE_WORD = re.compile(r"[!-~]+")
_PRIVATE = "PRIVATE KEY"
_ENCRYPTED = "ENCRYPTED PRIVATE KEY"
_DAMAGED = "the PEM of the private key is damaged; copy the whole file again"


class KeyFormatError(ValueError):
    """A key cannot be used. The text says what it is and what to do, and shows nothing of it."""


class Signer(Protocol):
    """Signs for one account. Shows nothing of its key."""

    @property
    def kind(self) -> str:
        """One of ``hmac``, ``rsa``, ``ed25519``."""
        ...

    def sign(self, payload: bytes) -> str:
        """Return the signature: hexadecimal for HMAC, base64 for the others; not percent-encoded."""
        ...

    def is_same(self, other: Signer) -> bool:
        """Say whether both sign with one key; takes microseconds."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an account proves itself with.

    Raises:
        KeyFormatError: the API key cannot stand in a header.
    """

    api_key: Secret
    signer: Signer = field(repr=False)

    def __post_init__(self) -> None:
        _require_one_word("the API key", self.api_key)


def hmac_signer(secret: Secret) -> Signer:
    """Return a signer for a key that the exchange made (HMAC-SHA256). It keeps no copy of the secret.

    Raises:
        KeyFormatError: the secret is empty, has blanks, or is a PEM.
    """
    if _LABEL.search(secret.reveal()):
        raise KeyFormatError("the secret is a PEM; configure it as private_key")
    _require_one_word("the secret", secret)
    return _Hmac(hmac.new(secret.reveal().encode(), None, "sha256"))


def private_key_signer(pem: Secret, passphrase: Secret | None = None) -> Signer:
    """Return a signer for a key that the operator made: RSA of 2048 to 4096 bits, or Ed25519, as PKCS#8.

    It keeps the key as the cryptographic library has it, and neither the PEM nor the passphrase.

    Args:
        pem: the private key; may be encrypted.
        passphrase: opens an encrypted one.

    Raises:
        KeyFormatError: it is something else, or does not open.
    """
    # 15 MB of library, for fleets that need it.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    key = _load(pem.reveal(), passphrase)
    if isinstance(key, Ed25519PrivateKey):
        return _Ed25519(key)
    if not isinstance(key, RSAPrivateKey):
        raise KeyFormatError(
            "the private key is neither Ed25519 nor RSA; the exchange takes no other: make an Ed25519 key"
        )
    if not RSA_BITS_LEAST <= key.key_size <= RSA_BITS_MOST:
        raise KeyFormatError(
            f"the RSA key has {key.key_size} bits; the exchange takes {RSA_BITS_LEAST} to {RSA_BITS_MOST}"
        )
    if not _fits_itself(key.private_numbers()):
        raise KeyFormatError(_DAMAGED)
    return _Rsa(key)


def _fits_itself(key: RSAPrivateNumbers) -> bool:
    """Say whether the numbers of an RSA key belong together; none of them can be another than it is."""
    p, q, d = key.p, key.q, key.d
    return (
        p % 2 == q % 2 == 1
        and p * q == key.public_numbers.n
        and all(d * key.public_numbers.e % (prime - 1) == 1 for prime in (p, q))
        and (key.dmp1, key.dmq1) == (d % (p - 1), d % (q - 1))
        and key.iqmp * q % p == 1
    )


def _load(pem: str, passphrase: Secret | None) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    label = _label(pem)
    if label == _ENCRYPTED and passphrase is None:
        raise KeyFormatError("the private key is encrypted and there is no passphrase; add a reference to it")
    if label == _PRIVATE and passphrase is not None:
        raise KeyFormatError("the private key is not encrypted; remove the passphrase")
    password = None if passphrase is None else passphrase.reveal().encode()
    # The causes are cut off: their texts may show bytes of the key.
    try:
        # To prove of each RSA key that its factors are prime takes 60 ms: a fleet would start after minutes. Whoever
        # made the key has proved it, and whatever became of the file since breaks the arithmetic.
        return load_pem_private_key(pem.encode(), password, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        raise KeyFormatError("the private key is of a kind that is not known here") from None
    except (ValueError, TypeError):
        if label == _ENCRYPTED:
            raise KeyFormatError(
                "the passphrase does not open the private key, or the PEM is damaged"
            ) from None
        raise KeyFormatError(_DAMAGED) from None


def _label(pem: str) -> str:
    """Return ``PRIVATE KEY`` or ``ENCRYPTED PRIVATE KEY``; refuse every other kind of PEM."""
    match = _LABEL.search(pem)
    if match is None:
        raise KeyFormatError(
            "the private key is no PEM; it begins with -----BEGIN PRIVATE KEY----- "
            "(a secret that the exchange made belongs in secret)"
        )
    label = match[1]
    if label in _OTHER_PEMS:
        raise KeyFormatError(f"the private key {_OTHER_PEMS[label]}")
    if label not in {_PRIVATE, _ENCRYPTED}:
        raise KeyFormatError("the PEM holds no private key in PKCS#8 form")
    if "\n" not in pem.strip():
        raise KeyFormatError("the PEM lost its line breaks; keep it in a file, or with real line breaks")
    return label


def _require_one_word(what: str, secret: Secret) -> None:
    text = secret.reveal()
    if not text:
        raise KeyFormatError(f"{what} is empty")
    if not _ONE_WORD.fullmatch(text):
        raise KeyFormatError(f"{what} has blanks, line breaks or foreign letters; copy it again, exactly")


@dataclass(frozen=True, slots=True)
class _Hmac:
    """Keeps the state of the hash after the key, which signs, and from which the key cannot be had."""

    _keyed: hmac.HMAC = field(repr=False)
    kind: str = "hmac"

    def sign(self, payload: bytes) -> str:
        signing = self._keyed.copy()
        signing.update(payload)
        return signing.hexdigest()

    def is_same(self, other: Signer) -> bool:
        return isinstance(other, _Hmac) and hmac.compare_digest(self.sign(b""), other.sign(b""))


@dataclass(frozen=True, slots=True)
class _Rsa:
    _key: RSAPrivateKey = field(repr=False)
    kind: str = "rsa"

    def sign(self, payload: bytes) -> str:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        return base64.b64encode(self._key.sign(payload, PKCS1v15(), SHA256())).decode()

    def is_same(self, other: Signer) -> bool:
        # Of the public halves: to sign takes a millisecond.
        return isinstance(other, _Rsa) and self._public() == other._public()  # noqa: SLF001  # our own kind

    def _public(self) -> RSAPublicKey:
        return self._key.public_key()


@dataclass(frozen=True, slots=True)
class _Ed25519:
    _key: Ed25519PrivateKey = field(repr=False)
    kind: str = "ed25519"

    def sign(self, payload: bytes) -> str:
        return base64.b64encode(self._key.sign(payload)).decode()

    def is_same(self, other: Signer) -> bool:
        return isinstance(other, _Ed25519) and self._public() == other._public()  # noqa: SLF001  # our own kind

    def _public(self) -> Ed25519PublicKey:
        return self._key.public_key()
