"""Carry records from the outbox to one sink: in order, at least once, whatever the sink does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """What every sink can be given, whatever its kind.

    Attributes:
        emit: ``changed`` leaves out polls that found nothing new; ``every`` sends those too.
        heartbeat_s: an account without a change is told again after this many seconds.
        batch_records: at most this many records a write.
        batch_bytes: at most this many payload bytes a write, unless one record alone has more.
        write_timeout_s: seconds after which a write (or an open) counts as failed.
        retry_min_s: upper bound of the first wait after a failure; it doubles from there.
        retry_max_s: upper bound of every later one.
    """

    emit: Literal["changed", "every"] = "changed"
    heartbeat_s: float = 900.0
    batch_records: int = 500
    batch_bytes: int = 4 * 1024 * 1024
    write_timeout_s: float = 30.0
    retry_min_s: float = 0.5
    retry_max_s: float = 60.0
