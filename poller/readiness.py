"""Is the daemon doing what it is there for? Fresh polls, an outbox that takes records, sinks that move. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from poller.overview import Check, SinkSeen
from poller.units import span

FRESH_PART: Final = 0.9  # of the accounts that can be polled
STUCK_AFTER_S: Final = 60.0  # failing for shorter is what retries are for


def readiness(
    *,
    fresh: int,
    pollable: int,
    accounts: int,
    pauses: Mapping[str, tuple[str, float]],
    is_full: bool,
    sinks: Sequence[SinkSeen],
) -> tuple[Check, ...]:
    """Return one check for each of the three.

    Args:
        fresh: accounts that have answered well since the start, and lately enough.
        pollable: accounts that are neither quarantined nor without a key.
        accounts: all of them.
        pauses: by egress address, cause and seconds left.
        is_full: the outbox accepts nothing.
        sinks: how each is doing.
    """
    return _polls(fresh, pollable, accounts, pauses), _outbox(is_full=is_full), _sinks(sinks)


def _polls(fresh: int, pollable: int, accounts: int, pauses: Mapping[str, tuple[str, float]]) -> Check:
    text = f"{fresh} of {accounts} accounts are fresh"
    if accounts and not pollable:
        text += "; none can be polled, for all are quarantined or without a key"
    for egress, (cause, left_s) in pauses.items():
        text += f"; every request from egress {egress} pauses for {span(left_s)} more ({cause})"
    return Check("polls", pollable > 0 and fresh >= FRESH_PART * pollable, text)


def _outbox(*, is_full: bool) -> Check:
    return Check(
        "outbox", not is_full, "it is full: nothing is accepted" if is_full else "it accepts records"
    )


def _sinks(sinks: Sequence[SinkSeen]) -> Check:
    stuck = [
        f"{sink.sink} has not moved for {span(sink.failing_s)} ({sink.error})"
        for sink in sinks
        if sink.backlog and sink.failing_s >= STUCK_AFTER_S
    ]
    return Check("sinks", not stuck, "; ".join(stuck) if stuck else f"{len(sinks)} of {len(sinks)} move")
