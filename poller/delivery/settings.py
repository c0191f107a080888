"""What every sink can be given, whatever its kind: which records, how many at once, how it is retried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from poller.model import Kind, Reason, Record


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """One sink's part in the configuration that is not its kind's own.

    Attributes:
        emit: ``changed`` leaves out snapshots that differ in nothing, ``every`` takes them too.
        only: kinds of record that it gets.
        accounts: patterns such as ``sub-*``; it gets the accounts that match one, all if there is none.
        labels: it gets the accounts that have all of these.
        heartbeat_s: an account without a record for this long gets one.
        batch_records: most records in one write.
        batch_bytes: most bytes of payload in one write; a single larger record goes alone.
        linger_s: how long a batch that is not full waits for more.
        write_timeout_s: a write that takes longer has failed.
        retry_min_s: shortest delay before a batch is tried again.
        retry_max_s: longest delay.
        start: where a sink begins that was never configured before: at the oldest record that is still
            kept, or with the next one.
        on_start: what follows if it cannot be opened when the daemon starts: it is tried again, or the
            daemon ends.
    """

    emit: Literal["changed", "every"] = "changed"
    only: frozenset[Kind] = frozenset(Kind)
    accounts: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    heartbeat_s: float = 900.0
    batch_records: int = 500
    batch_bytes: int = 4 * 1024 * 1024
    linger_s: float = 0.0
    write_timeout_s: float = 30.0
    retry_min_s: float = 0.5
    retry_max_s: float = 60.0
    start: Literal["oldest", "now"] = "oldest"
    on_start: Literal["retry", "fail"] = "retry"

    def wants(self, record: Record) -> bool:
        """Say whether the record is for this sink."""
        if record.kind not in self.only or (self.emit == "changed" and record.reason == Reason.EVERY):
            return False
        if self.accounts and not any(fnmatchcase(record.account, pattern) for pattern in self.accounts):
            return False
        return not self.labels or self.labels.items() <= record.document["labels"].items()
