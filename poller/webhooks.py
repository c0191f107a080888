"""Sign webhooks, and verify them as a receiver, by the Standard Webhooks convention.

What the ``webhook`` sink sends carries three headers: ``webhook-id`` (the record's id, the same over all
attempts), ``webhook-timestamp`` (of this attempt, seconds since the epoch) and ``webhook-signature``. The
signature covers all three and the body, byte by byte, so verify the body as it arrived, before parsing::

    webhook_id = verify(body, request.headers, [secret], now=now)

This module needs nothing but the standard library, so a receiver can take it as it is. Ed25519 keys
(``whsk_`` to sign, ``whpk_`` to verify) need the package ``cryptography``.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, Protocol

TOLERANCE_S: Final = 300.0

_ID: Final = "webhook-id"
_TIMESTAMP: Final = "webhook-timestamp"
_SIGNATURE: Final = "webhook-signature"
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)

# Of the shared secret behind ``whsec_``, decoded.
_SHORTEST_BYTES: Final = 24
_LONGEST_BYTES: Final = 64
_ED25519_BYTES: Final = 32


class InvalidWebhook(Exception):
    """A request is not what its sender signed, or is too old: answer 401 and do nothing with it.

    ``reason`` is a stable name: ``headers``, ``timestamp`` or ``signature``.
    """

    def __init__(self, message: str, *, reason: Literal["headers", "timestamp", "signature"]) -> None:
        super().__init__(message)
        self.reason = reason


class Headers(Protocol):
    """What servers and frameworks give as headers: a dictionary, or what is like one."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return names and values."""
        ...


def verify(
    body: bytes,
    headers: Headers,
    secrets: str | Sequence[str],
    *,
    now: float,
    tolerance_s: float = TOLERANCE_S,
) -> str:
    """Return the webhook's id if one of the secrets signed it; keep ids to leave out what comes twice.

    Comparisons take the same time wherever a signature is wrong. Within the tolerance a copied request
    is still good: only the id tells it from the first.

    Args:
        body: as it arrived.
        headers: of the request, in any case.
        secrets: ``whsec_...``, or ``whpk_...`` of an Ed25519 key; during a rotation the old and the new.
        now: the receiver's time, seconds since the epoch.
        tolerance_s: how far the timestamp may lie in the past or the future.

    Raises:
        InvalidWebhook: it is not authentic.
        ValueError: a secret is not one; this is no fault of the request.
    """
    keys = [secrets] if isinstance(secrets, str) else list(secrets)
    if not keys:
        raise ValueError("no secrets to verify with")
    checks = [_check(key) for key in keys]
    given = _given(headers)
    timestamp = given[_TIMESTAMP]
    if not _SECONDS.fullmatch(timestamp):
        raise InvalidWebhook(f"{_TIMESTAMP} is not a number of seconds", reason="timestamp")
    # Written so that a ``now`` or a tolerance that is no number refuses.
    if not abs(now - int(timestamp)) <= tolerance_s:
        raise InvalidWebhook(f"{_TIMESTAMP} is more than {tolerance_s:g} s away", reason="timestamp")
    signed = _signed(body, given[_ID], timestamp)
    signatures = given[_SIGNATURE].split(" ")
    # Each with each: what is found early must not end it early.
    if not any([check(signed, signature) for check in checks for signature in signatures]):  # noqa: C419
        raise InvalidWebhook("none of the signatures is of one of the secrets", reason="signature")
    return given[_ID]


def sign(body: bytes, webhook_id: str, timestamp: int, secrets: Sequence[str]) -> dict[str, str]:
    """Return the three headers of one attempt, signed with each of the secrets.

    Args:
        webhook_id: the same for all attempts; without dots.
        timestamp: of this attempt, seconds since the epoch.
        secrets: ``whsec_...`` or ``whsk_...``.

    Raises:
        ValueError: a secret, or the id, is not one. The text shows nothing of a secret.
    """
    if not _is_id(webhook_id):
        raise ValueError(f"{webhook_id!r} cannot be the id of a webhook")
    signed = _signed(body, webhook_id, str(timestamp))
    return {
        _ID: webhook_id,
        _TIMESTAMP: str(timestamp),
        _SIGNATURE: " ".join(_signature(secret, signed) for secret in secrets),
    }


def check_signing_secret(secret: str) -> None:
    """Raise unless webhooks can be signed with it.

    Raises:
        ValueError: the text says what to write, and shows nothing of the secret.
    """
    _signature(secret, b"")


def _given(headers: Headers) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        if key in {_ID, _TIMESTAMP, _SIGNATURE}:
            if key in given:
                raise InvalidWebhook(f"{key} is there twice", reason="headers")
            given[key] = value
    if missing := [name for name in (_ID, _TIMESTAMP, _SIGNATURE) if not given.get(name)]:
        raise InvalidWebhook(f"{', '.join(missing)} missing", reason="headers")
    if not _is_id(given[_ID]):
        raise InvalidWebhook(f"{_ID} is not an id", reason="headers")
    return given


def _is_id(text: str) -> bool:
    # A dot would let somebody move the borders between id, timestamp and body under the same signature.
    return bool(text) and "." not in text and text.isascii() and text.isprintable()


def _signed(body: bytes, webhook_id: str, timestamp: str) -> bytes:
    return b"%s.%s.%s" % (webhook_id.encode(), timestamp.encode(), body)


def _signature(secret: str, signed: bytes) -> str:
    if secret.startswith("whsk_"):
        return f"v1a,{_text(_ed25519_signature(secret, signed))}"
    return f"v1,{_text(hmac.digest(_shared_key(secret), signed, 'sha256'))}"


def _check(secret: str) -> Callable[[bytes, str], bool]:
    """Return what tells whether a signature of certain bytes is by the holder of the secret."""
    if secret.startswith("whpk_"):
        return _ed25519_check(_decoded(secret, "whpk_"))
    key = _shared_key(secret)

    def check(signed: bytes, signature: str) -> bool:
        # As texts: Base64 has several spellings of the same bytes, and only one was sent.
        expected = f"v1,{_text(hmac.digest(key, signed, 'sha256'))}"
        return hmac.compare_digest(expected.encode(), signature.encode(errors="replace"))

    return check


def _shared_key(secret: str) -> bytes:
    key = _decoded(secret, "whsec_")
    if not _SHORTEST_BYTES <= len(key) <= _LONGEST_BYTES:
        raise ValueError(
            f"the secret has {len(key)} bytes; {_SHORTEST_BYTES} to {_LONGEST_BYTES} are in order:"
            " write whsec_ and what 'openssl rand -base64 32' prints"
        )
    return key


def _ed25519_signature(secret: str, signed: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = _decoded(secret, "whsk_")
    # Some write the public half behind it.
    if len(key) not in {_ED25519_BYTES, 2 * _ED25519_BYTES}:
        raise ValueError(f"the key has {len(key)} bytes; an Ed25519 key behind whsk_ has {_ED25519_BYTES}")
    private = Ed25519PrivateKey.from_private_bytes(key[:_ED25519_BYTES])
    if len(key) > _ED25519_BYTES and private.public_key().public_bytes_raw() != key[_ED25519_BYTES:]:
        raise ValueError("the two halves of the key behind whsk_ do not belong together")
    return private.sign(signed)


def _ed25519_check(key: bytes) -> Callable[[bytes, str], bool]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(key) != _ED25519_BYTES:
        raise ValueError(f"the key has {len(key)} bytes; a public one behind whpk_ has {_ED25519_BYTES}")
    public = Ed25519PublicKey.from_public_bytes(key)

    def check(signed: bytes, signature: str) -> bool:
        try:
            raw = base64.b64decode(signature.removeprefix("v1a,"), validate=True)
            public.verify(raw, signed)
        except (ValueError, InvalidSignature):
            return False
        return signature == f"v1a,{_text(raw)}"

    return check


def _decoded(secret: str, prefix: str) -> bytes:
    if not secret.startswith(prefix):
        raise ValueError("a secret of webhooks begins with whsec_, an Ed25519 key with whsk_ or whpk_")
    try:
        return base64.b64decode(secret.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {prefix} is not Base64") from None


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
