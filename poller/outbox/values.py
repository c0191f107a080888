"""What goes into the outbox and what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from poller.errors import OutboxError
from poller.model import Record

Start = Literal["oldest", "now"]
"""Where a new sink begins: at the oldest record still kept, or after the newest."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that a sink refused for good.

    Attributes:
        record: exactly as it would have been delivered.
        reason: the destination's own words.
        at_ns: when it was put aside, nanoseconds since the epoch; the outbox sets it.
    """

    record: Record
    reason: str
    at_ns: int = 0


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """How the outbox stands.

    Attributes:
        first_position: of the oldest record kept; ``last_position + 1`` if none is.
        last_position: of the newest record ever accepted; 0 before the first.
        backlogs: records not yet acknowledged, by registered sink.
        dead_letters: records put aside, all sinks together.
        used_bytes: of the database file, without pages that wait to be used again.
        max_bytes: what ``used_bytes`` may grow to.
        is_full: nothing is accepted at the moment.
        commits: transactions since it was opened.
        set_aside: where an unreadable predecessor was put when this outbox was opened.
    """

    first_position: int
    last_position: int
    backlogs: Mapping[str, int]
    dead_letters: int
    used_bytes: int
    max_bytes: int
    is_full: bool
    commits: int
    set_aside: Path | None


@dataclass(frozen=True, slots=True)
class Accept:
    """Write: records and, with them, the baseline of their account."""

    records: tuple[Record, ...]
    account: str = ""
    baseline: bytes | None = None  # of that account; ``None`` leaves the stored one as it is
    size_bytes: int = 0  # an estimate of what it takes in the file


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Write: a sink has everything up to a position; some of it was refused for good."""

    sink: str
    position: int
    dead: tuple[DeadLetter, ...] = ()


@dataclass(frozen=True, slots=True)
class Register:
    """Write: these are the sinks that are configured now."""

    sinks: Mapping[str, Start]


@dataclass(frozen=True, slots=True)
class PutEgress:
    """Write: the state of one egress address."""

    name: str
    state: bytes


Write = Accept | Acknowledge | Register | PutEgress


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a sink is.

    Attributes:
        position: the last one it acknowledged.
        absent_since_ns: when it was first found missing in the configuration; ``None`` while configured.
    """

    position: int
    absent_since_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store's thread hands over after each job: how things stand now."""

    first_position: int
    last_position: int
    cursors: Mapping[str, Cursor]
    dead_letters: int
    used_bytes: int
    is_full: bool


@dataclass(frozen=True, slots=True)
class Tended:
    """What a job of the store's thread left behind.

    Attributes:
        more: there is house-keeping to do at once.
    """

    standing: Standing
    more: bool


@dataclass(frozen=True, slots=True)
class Committed(Tended):
    """What a commit left behind: for each of its writes, why it was not done, ``None`` if it was."""

    outcomes: tuple[OutboxError | None, ...]
