"""The fleet's API keys, and whether a signature is right.

Everything follows from the seed, so a configuration written for one run fits the next. That makes
these keys worthless as secrets, which is what they are: they open nothing but a simulator.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256, sha512
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

KeyKind = Literal["hmac", "rsa", "ed25519"]
KEY_KINDS: Final[tuple[KeyKind, ...]] = ("hmac", "rsa", "ed25519")

# To make a good RSA key takes long, so all RSA accounts share these few; their API keys differ. Each
# prime is the first from a number that a text stands for; the search for it, half a second, was done
# once, and these are the distances it had to go. A test holds that they lead to primes.
RSA_DISTANCES: Final = ((646, 18), (690, 408), (1332, 352))

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class SimulatedAccount:
    """One account and its key.

    Attributes:
        name: such as ``sim-0001``.
        secret: of an HMAC key, as text; of the others the private key as PKCS#8 PEM.
    """

    name: str
    kind: KeyKind
    api_key: str = field(repr=False)
    secret: str = field(repr=False)
    _private: PrivateKey | None = field(repr=False, compare=False, default=None)

    def has_signed(self, payload: bytes, signature: bytes) -> bool:
        """Tell whether the signature, as it stood in the request, is this account's for these very bytes."""
        decoded = unquote_to_bytes(signature.replace(b"+", b" "))
        if self._private is None:
            expected = hmac.digest(self.secret.encode(), payload, "sha256").hex().encode()
            return hmac.compare_digest(expected, decoded.lower())
        try:
            raw = base64.b64decode(decoded, validate=True)
            if isinstance(self._private, rsa.RSAPrivateKey):
                self._private.public_key().verify(raw, payload, padding.PKCS1v15(), SHA256())
            else:
                self._private.public_key().verify(raw, payload)
        except (binascii.Error, InvalidSignature):
            return False
        return True


def make_accounts(count: int, kinds: Sequence[KeyKind], seed: int) -> tuple[SimulatedAccount, ...]:
    """Return so many accounts, their kinds of key in turn."""
    width = max(4, len(str(count)))
    return tuple(
        _make_account(f"sim-{place + 1:0{width}d}", kinds[place % len(kinds)], seed, place)
        for place in range(count)
    )


def make_master(kind: KeyKind, seed: int) -> SimulatedAccount:
    """Return the account that all others are sub-accounts of."""
    return _make_account("master", kind, seed, 0)


def _make_account(name: str, kind: KeyKind, seed: int, place: int) -> SimulatedAccount:
    api_key = _letters(f"{seed}/{name}/{kind}/key")
    if kind == "hmac":
        return SimulatedAccount(name, kind, api_key, _letters(f"{seed}/{name}/secret"))
    private: PrivateKey
    if kind == "rsa":
        private, pem = _rsa_key(place // len(KEY_KINDS) % len(RSA_DISTANCES))
    else:
        private = ed25519.Ed25519PrivateKey.from_private_bytes(sha256(f"{seed}/{name}".encode()).digest())
        pem = _pem(private)
    return SimulatedAccount(name, kind, api_key, pem, private)


def _letters(text: str) -> str:
    """Return 64 letters and digits, the form of the exchange's keys."""
    digest = sha512(f"simulated exchange/{text}".encode()).digest()
    return base64.b64encode(digest, altchars=b"Zz")[:64].decode()


@cache
def _rsa_key(number: int) -> tuple[rsa.RSAPrivateKey, str]:
    p, q = (
        _start(f"simulated exchange, RSA key {number}, prime {letter}") + distance
        for letter, distance in zip("pq", RSA_DISTANCES[number], strict=True)
    )
    exponent = 65_537
    secret = pow(exponent, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=secret,
        dmp1=rsa.rsa_crt_dmp1(secret, p),
        dmq1=rsa.rsa_crt_dmq1(secret, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(exponent, p * q),
    )
    private = numbers.private_key()
    return private, _pem(private)


def _start(text: str) -> int:
    """Return an odd number of 1,024 bits, the two highest set, so that the product of two has 2,048."""
    raw = b"".join(sha512(f"{text}/{half}".encode()).digest() for half in range(2))
    return int.from_bytes(raw) | 0b11 << 1022 | 1


def _pem(private: PrivateKey) -> str:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
