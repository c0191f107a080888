"""One poller for each egress address of a host: two would each spend the whole budget of it."""

from __future__ import annotations

import logging
import os
import stat
from hashlib import blake2b
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from poller.errors import EgressLocked
from poller.locks import FileLock, Held

logger = logging.getLogger(__name__)

# The first that exists. Fixed, and not what the environment says: a service and a shell must meet here.
ROOTS: Final = (Path("/run/lock"), Path("/tmp"))  # noqa: S108  # the directory below it is ours alone


def address_key(origin: str, *, local_address: str | None = None, proxy: str | None = None) -> str:
    """Return what stands for an address that requests to one exchange leave from, without any secret.

    Args:
        origin: scheme, host and port of the exchange: each counts on its own.
        local_address: address of this machine to send from, if one is given.
        proxy: URL of the proxy, if there is one; its user and password are left out.
    """
    leaves_from = local_address or "default"
    if proxy is not None:
        url = urlsplit(proxy)
        leaves_from = f"{url.hostname}:{url.port}"
    return f"{origin} from {leaves_from}"


def claim(egress: str, key: str, *, shared: bool = False, directory: Path | None = None) -> FileLock | None:
    """Take an address for this process until the lock is released, at once or not at all.

    Args:
        egress: name of the address, for messages.
        key: what stands for it, of ``address_key``.
        shared: others may send from it too, if they say the same.
        directory: where the locks lie; ours alone, and the same for all pollers of this user.

    Returns ``None``, and says so in the log, where locks cannot be kept: a host that forbids them is no
    reason not to poll.

    Raises:
        EgressLocked: another process has it.
    """
    name = blake2b(key.encode(), digest_size=16).hexdigest()
    try:
        place = _prepared(directory or _default_directory())
        return FileLock(place / name, shared=shared, passing=True)
    except Held as held:
        holder = "another process" if held.pid is None else f"process {held.pid}"
        raise EgressLocked(
            f"egress {egress!r}: {holder} sends from this address already, and both would spend its whole"
            " weight; stop that one, use another egress, or give each a smaller budget.share and set"
            f" egress.{egress}.shared: true in both",
            pid=held.pid,
        ) from held
    except OSError as error:
        logger.warning(
            "nobody watches that this egress address is used by one poller only",
            extra={"egress": egress, "error": str(error)},
        )
        return None


def _default_directory() -> Path:
    root = next((root for root in ROOTS if os.access(root, os.W_OK | os.X_OK)), ROOTS[-1])
    return root / f"poller-{os.geteuid()}"


def _prepared(directory: Path) -> Path:
    """Make the directory if it is missing; refuse one that somebody else made."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} is not a directory of this user alone")
    return directory
