"""What a budget leaves on disk for the process after it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from poller.budget.pause import Pause

VERSION = 1


@dataclass(frozen=True, slots=True)
class State:
    """One address's weight and pause.

    Attributes:
        pause: the silence in force, if any.
        strikes: pauses since the last good answer.
        blocks: reservations that may still count: (wall ns, uptime s, weight).
        boot_id: the boot that the uptimes belong to.
        limit: a limit that was learned, and when, in nanoseconds since the epoch.
    """

    pause: Pause | None
    strikes: int
    blocks: list[tuple[int, float, int]]
    boot_id: str
    limit: tuple[int, int] | None

    def encode(self) -> bytes:
        """Return the state as JSON."""
        return orjson.dumps(
            {
                "version": VERSION,
                "pause": self.pause.to_dict() if self.pause else None,
                "strikes": self.strikes,
                "blocks": self.blocks,
                "boot_id": self.boot_id,
                "limit": self.limit,
            }
        )

    @classmethod
    def decode(cls, encoded: bytes) -> State:
        """Read what ``encode`` returned.

        Raises:
            ValueError: it is something else, or of another version.
        """
        try:
            document: dict[str, Any] = orjson.loads(encoded)
            if document["version"] != VERSION:
                raise ValueError(f"state version {document['version']}, not {VERSION}")
            limit = document.get("limit")
            return cls(
                pause=Pause.from_dict(document["pause"]) if document["pause"] else None,
                strikes=int(document["strikes"]),
                blocks=[
                    (int(utc_ns), float(uptime_s), int(weight))
                    for utc_ns, uptime_s, weight in document["blocks"]
                ],
                boot_id=str(document["boot_id"]),
                limit=None if limit is None else (int(limit[0]), int(limit[1])),
            )
        except (KeyError, TypeError, IndexError, OverflowError) as error:
            raise ValueError("not the state of a budget") from error
