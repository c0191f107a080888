"""What there is to see of a running fleet, as documents: what the page, the API and the commands show.

Frozen values that become JSON as they are. Times are UTC in RFC 3339, amounts are text in plain notation,
and nothing here is a secret. ``Overview`` is what hands them out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

SLICE: Final = 100  # accounts that are looked at in one go: a few milliseconds, in which nothing else goes on

AccountState = Literal["ok", "stale", "quarantined", "keyless"]
"""``keyless``: the place where the account's key is kept cannot be reached, so nobody can ask about it."""


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """One account at a glance.

    Attributes:
        state: ``ok``, ``stale``, ``quarantined``, as sinks were told, or ``keyless``.
        since: when that state began; ``None`` if it always was so.
        reason: why it is not ``ok``; empty if it is.
        interval_s: seconds between two polls as configured.
        stretch: how many times as long they are now, because not all fit the budget; 1.0 if all do.
        good_at: when the account last answered well; ``None`` before the first time since the start.
        lateness_s: from due to granted, of the last poll; ``None`` before the first.
        next_due_s: seconds until the next poll is due, at the time of this document; negative if it is
            overdue, ``None`` if none is planned.
        total_btc: value of the last good answer; ``None`` if that is not known.
        line: that value over time, oldest first, at most 48 points some minutes apart; for a drawing only.
        sequence: of the last accepted snapshot; 0 before the first.
        assets: how many the account holds.
        error: what the last poll failed with, in words; empty if it was good.
        error_kind: one word for it, such as ``timeout``; empty if it was good.
        failures: polls that failed in a row.
    """

    account: str
    state: AccountState
    since: str | None
    reason: str
    interval_s: float
    stretch: float
    priority: int
    egress: str
    labels: Mapping[str, str]
    good_at: str | None
    lateness_s: float | None
    next_due_s: float | None
    total_btc: str | None
    line: Sequence[float]
    sequence: int
    assets: int
    error: str
    error_kind: str
    failures: int


@dataclass(frozen=True, slots=True)
class PollSeen:
    """One poll that has ended.

    Attributes:
        at: when it ended.
        outcome: ``ok``, or one word for the error.
        text: the error in words; empty if it was good.
        lateness_s: from due to granted.
        latency_ms: from sending to the end of the answer; ``None`` of one that failed.
        sequence: of the account after it.
    """

    at: str
    outcome: str
    text: str
    lateness_s: float
    latency_ms: float | None
    sequence: int


@dataclass(frozen=True, slots=True)
class BalanceSeen:
    """What an account holds of one asset, as last accepted."""

    asset: str
    free: str
    locked: str
    freeze: str
    withdrawing: str
    ipoable: str
    total: str
    btc_valuation: str | None


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """What an account held at one moment: of one asset, or altogether.

    Attributes:
        at: when the balances were so.
        total: of the asset that was asked for; ``None`` if none was.
        total_btc: value in BTC of the asset, or else of the account; ``None`` if that is not known.
        sequence: of the snapshot that says so.
    """

    at: str
    total: str | None
    total_btc: str | None
    sequence: int


@dataclass(frozen=True, slots=True)
class AccountDetail:
    """One account, whole.

    Attributes:
        balances: as last accepted, sorted by asset; empty before the first snapshot.
        polls: the last ones since the start, newest first, at most 20.
        why: sentences that say how it stands: when it was last polled and will be next, why it is late,
            which pause is in force, which sink has not got its last record yet. Never empty.
    """

    summary: AccountSummary
    balances: Sequence[BalanceSeen]
    polls: Sequence[PollSeen]
    why: Sequence[str]


@dataclass(frozen=True, slots=True)
class WeightSeen:
    """One second of an address's weight window.

    Attributes:
        own: own weight that may be in the window.
        foreign: weight that others used in it.
        reported: the exchange's own figure; ``None`` before the first.
        is_paused: no request may leave.
    """

    own: int
    foreign: int
    reported: int | None
    is_paused: bool


@dataclass(frozen=True, slots=True)
class EgressSeen:
    """One egress address.

    Attributes:
        limit: the exchange's, weight per window.
        allowed: our share of it.
        capacity: what others leave us of that now.
        own, foreign, reported: as in ``WeightSeen``, now.
        window_s: length of the window.
        in_flight: requests without an answer yet.
        accounts: how many are polled from here.
        pause_s: seconds of silence left; 0.0 if there is no pause.
        pause_until: when it ends; ``None`` if there is none.
        pause_cause: kind of error that began it; empty if there is none.
        stretch: by priority, how many times as long as configured the intervals are.
        seconds: the last ones, oldest first, at most 120.
    """

    egress: str
    limit: int
    allowed: int
    capacity: int
    own: int
    foreign: int
    reported: int | None
    window_s: float
    in_flight: int
    accounts: int
    pause_s: float
    pause_until: str | None
    pause_cause: str
    stretch: Mapping[str, float]
    seconds: Sequence[WeightSeen]


@dataclass(frozen=True, slots=True)
class SinkSeen:
    """One sink.

    Attributes:
        kind: of sink, as configured.
        backlog: records that wait for it.
        lag_s: age of the oldest of them; 0.0 if none waits.
        rate_per_s: records delivered a second, over the last minute.
        delivered: records acknowledged since the start.
        dead_letters: records that it refused for good and that are kept.
        dropped: records that it had not acknowledged and will not get.
        failing_s: seconds since the first failure after the last success; 0.0 if it works.
        is_open: its breaker is open: it failed so often that single records are tried.
        error: what the last attempt failed with; empty if it did not.
    """

    sink: str
    kind: str
    backlog: int
    lag_s: float
    rate_per_s: float
    delivered: int
    dead_letters: int
    dropped: int
    failing_s: float
    is_open: bool
    error: str


@dataclass(frozen=True, slots=True)
class AmountChange:
    """One amount that is not what it was."""

    asset: str
    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that sinks are told: a balance changed, or an account turned into another state.

    Attributes:
        number: counts up, over restarts too, so that a reader knows what it has seen: from the milliseconds since the
            epoch when the daemon started.
        kind: ``snapshot`` or ``status``.
        reason: ``first`` or ``changed``; of a status the new state.
        text: of a status: why. Empty otherwise.
        changes: of a snapshot; empty if it is the first.
    """

    number: int
    at: str
    kind: Literal["snapshot", "status"]
    account: str
    sequence: int
    reason: str
    text: str
    changes: Sequence[AmountChange]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to be right. ``text`` says what is wrong with it, or how it stands."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class ConfigurationSeen:
    """The configuration in force.

    Attributes:
        path: as the operator named it.
        loaded_at: when what is in force was read.
        changed: what the last reload that did something changed, a line each; empty if there was none.
        problems: why the last attempt to reload it was refused, a line each; empty if it was not.
        refused_at: when that was; ``None`` if the last attempt was good.
    """

    path: str
    loaded_at: str
    changed: Sequence[str]
    problems: Sequence[str]
    refused_at: str | None


@dataclass(frozen=True, slots=True)
class OutboxSeen:
    """The durable store.

    Attributes:
        records: kept, delivered ones included.
        oldest_s: age of the oldest record that some sink has not acknowledged; 0.0 if there is none.
        is_full: nothing is accepted at the moment.
    """

    records: int
    used_bytes: int
    max_bytes: int
    oldest_s: float
    is_full: bool


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a master account said of its sub-accounts.

    Attributes:
        name: of the ``discover`` entry.
        at: when it last answered; ``None`` before the first time.
        error: why the last question was not answered; empty if it was.
        found: how many sub-accounts there are.
        missing: those that no configured account is matched with.
        frozen: those that the exchange has frozen.
        gone: configured accounts whose sub-account does not exist any more.
    """

    name: str
    at: str | None
    error: str
    found: int
    missing: Sequence[str]
    frozen: Sequence[str]
    gone: Sequence[str]


@dataclass(frozen=True, slots=True)
class Status:
    """The whole daemon at a glance.

    Attributes:
        at: when this was written, by the daemon's clock: ages are differences to it.
        states: accounts by state.
        overdue: accounts whose last good answer is older than two of their intervals.
        total_btc: of all accounts whose value is known; exact. ``unvalued`` counts the others.
        polls_per_s: over the last minute.
        ready: what ``/readyz`` holds against; the daemon is ready if all are ok.
    """

    version: str
    at: str
    started_at: str
    accounts: int
    states: Mapping[str, int]
    overdue: int
    total_btc: str
    unvalued: int
    polls_per_s: float
    clock_offset_s: float
    outbox: OutboxSeen
    configuration: ConfigurationSeen
    ready: Sequence[Check]
    discoveries: Sequence[Discovery]


class Overview(Protocol):
    """Hands out documents about the daemon as it is now. Nothing here waits or does I/O."""

    def status(self) -> Status:
        """Return the whole at a glance."""
        ...

    def at(self) -> str:
        """Return what time it is by the daemon's clock, as ``Status.at`` does."""
        ...

    def changed(self, *, after: int = 0) -> tuple[int, Sequence[str]]:
        """Return the number to ask with the next time, and the names of accounts about which something changed.

        Args:
            after: the number that was returned before; 0 gives every account.

        Removed accounts may be among them: see ``names``.
        """
        ...

    def summaries(self, names: Sequence[str]) -> Sequence[AccountSummary]:
        """Return those of the named accounts that there are, as they are now. See ``in_slices``."""
        ...

    def names(self) -> Sequence[str]:
        """Return the names of all accounts, in the configuration's order."""
        ...

    def account(self, name: str) -> AccountDetail | None:
        """Return one account, whole; ``None`` if there is none of that name."""
        ...

    def egress(self) -> Sequence[EgressSeen]:
        """Return every egress address."""
        ...

    def sinks(self) -> Sequence[SinkSeen]:
        """Return every sink."""
        ...

    def happenings(self, *, after: int = 0) -> Sequence[Happening]:
        """Return what happened after that number, oldest first; at most the last 500."""
        ...


async def in_slices(overview: Overview, names: Sequence[str]) -> AsyncIterator[Sequence[AccountSummary]]:
    """Yield the named accounts in parts, and let the event loop do what else there is to do in between."""
    for start in range(0, len(names), SLICE):
        yield overview.summaries(names[start : start + SLICE])
        await asyncio.sleep(0)
