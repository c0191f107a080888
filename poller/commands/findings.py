"""What ``poller doctor`` finds, one thing at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: what it belongs to, such as ``clock``.
        name: what it is.
        level: ``warning``: it works, but somebody should know; ``error``: it does not, or will not for long.
        text: how it is.
        remedy: what to do; empty if it is well.
    """

    section: str
    name: str
    level: Level
    text: str
    remedy: str = ""


def worst_level(findings: Iterable[Finding]) -> Level:
    """Return the worst level there is."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
