"""What the simulator's tests share: a clock turned by hand, and a client that signs by other means."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from poller.simulator import SimulatedAccount
from poller.simulator.faults import DEFAULT_PATH

START_US = 1_767_225_600_000_000  # 2026-01-01 00:00:00, the beginning of a minute
START_MS = START_US // 1000


class HandClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def advance(self, seconds: float) -> None:
        self.passed_s += seconds

    def monotonic_s(self) -> float:
        return self.passed_s

    def utc_ns(self) -> int:
        return START_US * 1000 + round(self.passed_s * 1e9)

    def uptime_s(self) -> float:
        return 1000.0 + self.passed_s

    def boot_id(self) -> str:
        return "boot"


def signature(account: SimulatedAccount, payload: str) -> str:
    """Return the signature as it stands in a query."""
    if account.kind == "hmac":
        return hmac.new(account.secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    private = load_pem_private_key(account.secret.encode(), password=None)
    if isinstance(private, rsa.RSAPrivateKey):
        raw = private.sign(payload.encode(), padding.PKCS1v15(), SHA256())
    else:
        assert isinstance(private, ed25519.Ed25519PrivateKey)
        raw = private.sign(payload.encode())
    return quote(base64.b64encode(raw), safe="")


def signed(account: SimulatedAccount, payload: str, path: str = DEFAULT_PATH) -> str:
    """Return path and signed query."""
    return f"{path}?{payload}&signature={signature(account, payload)}"
