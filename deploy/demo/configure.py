"""Makes the demo's configuration out of the one that the simulated exchange wrote: other sinks, and a server.

Run in the image, before the daemon, by compose.yaml.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any

import yaml


def configuration(simulated: dict[str, Any]) -> dict[str, Any]:
    """Return what the daemon of the demo runs with, given what the simulator wrote for one of its own."""
    return {
        **simulated,
        "sinks": {
            "desk": {"kind": "redis", "url": "file:redis.url", "stream": "balances"},
            "history": {"kind": "sqlite", "path": "/var/lib/poller/history.db"},
        },
        "outbox": {"path": "/var/lib/poller/outbox.db", "max_size": "256MiB"},
        "server": {"listen": "0.0.0.0:8080", "token": "file:server-token", "hosts": ["poller"]},
        "metrics": {"balances": True},
    }


def main(directory: Path, for_prometheus: Path) -> None:
    """Write the configuration and its secrets; the token once more, for who scrapes."""
    simulated = yaml.safe_load((directory / "accounts.yaml").read_text())
    token = secrets.token_urlsafe(32)
    _write(directory / "redis.url", "redis://127.0.0.1:6379/0", 0o600)
    _write(directory / "server-token", token, 0o600)
    _write(for_prometheus / "poller-token", token, 0o644)  # in a volume that only the two see
    _write(directory / "poller.yaml", yaml.safe_dump(configuration(simulated), sort_keys=False), 0o600)


def _write(path: Path, text: str, mode: int) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    path.chmod(mode)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
