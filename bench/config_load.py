"""How long a fleet of 10,000 accounts takes to load, and its secrets to read: ``python -m bench config_load``."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from poller.config import load, read_secrets

LIMIT_S = 3.0
ACCOUNTS = 10_000
ROUNDS = 3
ACCOUNTS_PER_FILE = 500


def write_fleet(directory: Path, accounts: int, *, private_keys: bool) -> Path:
    """Write a configuration whose accounts stand in included files and whose secrets stand in files."""
    secrets, fleet = directory / "secrets", directory / "fleet.d"
    secrets.mkdir()
    fleet.mkdir()
    pem = (
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    )
    for first in range(0, accounts, ACCOUNTS_PER_FILE):
        lines = ["accounts:"]
        for number in range(first, min(first + ACCOUNTS_PER_FILE, accounts)):
            name = f"sub-{number:05d}"
            key = "private_key" if private_keys else "secret"
            write_secret(secrets / f"{name}.key", f"{number:064d}\n")
            write_secret(secrets / f"{name}.{key}", pem if private_keys else f"{number:063d}s\n")
            lines += [
                f"  {name}:",
                f"    api_key: file:../secrets/{name}.key",
                f"    {key}: file:../secrets/{name}.{key}",
                "    interval: 30s",
                f"    labels: {{desk: mm, region: eu, book: b{number % 7}}}",
            ]
        (fleet / f"{first:05d}.yaml").write_text("\n".join(lines) + "\n")
    main = directory / "accounts.yaml"
    main.write_text("include: [fleet.d/*.yaml]\n")
    return main


def write_secret(path: Path, text: str) -> None:
    """Write a file that nobody else can read."""
    path.touch(mode=0o600)
    path.write_text(text)


def main() -> None:
    """Measure and print; the exit code says whether it stayed within the limit."""
    slowest_s = 0.0
    for private_keys in (False, True):
        with tempfile.TemporaryDirectory() as directory:
            path = write_fleet(Path(directory), ACCOUNTS, private_keys=private_keys)
            for _ in range(ROUNDS):
                started_s = time.perf_counter()
                config = load(path)
                loaded_s = time.perf_counter()
                secrets = read_secrets(config)
                read_s = time.perf_counter()
                if len(secrets.credentials) != ACCOUNTS:
                    raise SystemExit("accounts are missing")
                slowest_s = max(slowest_s, read_s - started_s)
                print(
                    f"{ACCOUNTS} accounts, {'Ed25519' if private_keys else 'HMAC'}:"
                    f" loaded in {loaded_s - started_s:.2f} s, secrets read in {read_s - loaded_s:.2f} s"
                )
    if slowest_s > LIMIT_S:
        raise SystemExit(f"slower than {LIMIT_S} s: {slowest_s:.2f} s")


if __name__ == "__main__":
    main()
