"""Browsers that have shown the token, and peers that have failed to. In memory, and bounded. Pure but for chance."""

from __future__ import annotations

import math
import secrets
from collections import deque
from hashlib import sha256
from typing import Final

LIFE_S: Final = 12 * 3600.0
MOST_SESSIONS: Final = 1_000
MOST_TRIES: Final = 10
TRIES_WITHIN_S: Final = 60.0
MOST_PEERS: Final = 1_000


class Sessions:
    """Who is logged in. Of too many the oldest goes: that browser has to log in again."""

    def __init__(self) -> None:
        self._ends_s: dict[bytes, float] = {}  # oldest first, since all live equally long

    def __len__(self) -> int:
        return len(self._ends_s)

    def begin(self, now_s: float) -> str:
        """Return the id of a new session."""
        self._forget(now_s)
        if len(self._ends_s) >= MOST_SESSIONS:
            del self._ends_s[next(iter(self._ends_s))]
        session = secrets.token_urlsafe(32)
        self._ends_s[_key(session)] = now_s + LIFE_S
        return session

    def is_valid(self, session: str, now_s: float) -> bool:
        """Tell whether the id is one of ours and not too old."""
        return now_s < self._ends_s.get(_key(session), -math.inf)

    def _forget(self, now_s: float) -> None:
        for key in [key for key, end_s in self._ends_s.items() if end_s <= now_s]:
            del self._ends_s[key]


class Tries:
    """Wrong tokens by peer, over the last minute."""

    def __init__(self) -> None:
        self._failed_s: dict[str, deque[float]] = {}

    def __len__(self) -> int:
        return len(self._failed_s)

    def wait_s(self, peer: str, now_s: float) -> float:
        """Return for how many seconds the peer may not try; 0.0 if it may now."""
        failed = self._failed_s.get(peer, deque())
        while failed and failed[0] <= now_s - TRIES_WITHIN_S:
            failed.popleft()
        return failed[0] + TRIES_WITHIN_S - now_s if len(failed) >= MOST_TRIES else 0.0

    def failed(self, peer: str, now_s: float) -> None:
        """Note a wrong token."""
        if peer not in self._failed_s and len(self._failed_s) >= MOST_PEERS:
            del self._failed_s[next(iter(self._failed_s))]
        # The last to fail stands last, so that whoever goes has been quiet for longest.
        failed = self._failed_s.pop(peer, deque(maxlen=MOST_TRIES))
        failed.append(now_s)
        self._failed_s[peer] = failed


def _key(session: str) -> bytes:
    # Looked up by its digest, so that how long that takes tells nothing of the ids that there are.
    return sha256(session.encode(errors="surrogatepass")).digest()
