"""What goes into the outbox and what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from poller.model import Record

if TYPE_CHECKING:
    from poller.outbox.ledger import Ledger

Start = Literal["oldest", "now"]
"""Where a new sink begins: at the oldest record still kept, or after the newest."""

WhenFull = Literal["block", "drop_oldest", "conflate"]
"""What happens at the size limit: nothing is accepted until sinks have freed room; the oldest records are
deleted; of each account the older records are deleted and the newest kept."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that a sink refused for good.

    Attributes:
        record: exactly as it would have been delivered.
        reason: the destination's own words.
        at_ns: when it was put aside, nanoseconds since the epoch; the outbox sets it.
        again: it is to be delivered again.
    """

    record: Record
    reason: str
    at_ns: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """How the outbox stands.

    Attributes:
        first_position: of the oldest record kept; ``last_position + 1`` if none is.
        last_position: of the newest record ever accepted; 0 before the first.
        backlogs: records not yet acknowledged, by registered sink.
        records: kept, delivered ones included.
        letters: records put aside, by registered sink.
        dead_letters: records put aside, all sinks together.
        dropped: records that a sink had not acknowledged and will not get, by registered sink.
        used_bytes: of the database file, without pages that wait to be used again.
        max_bytes: what ``used_bytes`` may grow to.
        is_full: nothing is accepted at the moment.
        commits: transactions since it was opened.
        set_aside: where an unreadable predecessor was put when this outbox was opened.
    """

    first_position: int
    last_position: int
    backlogs: Mapping[str, int]
    records: int
    letters: Mapping[str, int]
    dead_letters: int
    dropped: Mapping[str, int]
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
    """Write: a sink has everything up to a position; some of it was refused for good.

    ``epoch``: the cursor's when the records were read; ``None`` if they were not read from here.
    """

    sink: str
    position: int
    dead: tuple[DeadLetter, ...] = ()
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Register:
    """Write: these are the sinks that are configured now."""

    sinks: Mapping[str, Start]


@dataclass(frozen=True, slots=True)
class PutEgress:
    """Write: the state of one egress address."""

    name: str
    state: bytes


@dataclass(frozen=True, slots=True)
class Rewind:
    """Write: a sink is to get everything behind a position again. Its result is a ``Rewound``."""

    sink: str
    position: int


@dataclass(frozen=True, slots=True)
class Skip:
    """Write: a sink goes on behind the newest record. Its result: how many it will not get."""

    sink: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Write: a sink's cursor goes. Its result: how many records it had waiting."""

    sink: str


@dataclass(frozen=True, slots=True)
class Revive:
    """Write: dead letters are to be delivered again; ``None``: all. Its result: how many."""

    sink: str
    ids: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Discard:
    """Write: dead letters go; ``None``: all. Its result: how many."""

    sink: str
    ids: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Settle:
    """Write: what became of dead letters that were delivered again."""

    sink: str
    taken: tuple[str, ...]
    refused: tuple[DeadLetter, ...]


Write = Accept | Acknowledge | Register | PutEgress | Rewind | Skip | Forget | Revive | Discard | Settle


@dataclass(frozen=True, slots=True)
class Rewound:
    """What moving a cursor back brought.

    Attributes:
        before, after: the cursor.
        records: that wait for the sink more than before.
        letters: dead letters among them; they are not set aside any more.
    """

    before: int
    after: int
    records: int
    letters: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a sink is.

    Attributes:
        position: the last one it acknowledged.
        absent_since_ns: when it was first found missing in the configuration; ``None`` while configured.
        dropped: records that it had not acknowledged and will not get.
        replayed: records that came back to it. What was accepted since it was registered and what was
            replayed is exactly what was acknowledged, is dead, was dropped, or waits.
        missed: what was dropped while it was absent.
        epoch: another one after each jump, so that what was read before it cannot be acknowledged after
            it. Not on disk: nothing read survives the process.
    """

    position: int
    absent_since_ns: int | None = None
    dropped: int = 0
    replayed: int = 0
    missed: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store's thread hands over after each job: how things stand now. The ledger is not changed."""

    ledger: Ledger
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
    """What a commit left behind: for each of its writes its result, or an ``OutboxError``: it was not done."""

    outcomes: tuple[object, ...]
