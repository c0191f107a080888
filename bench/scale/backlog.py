"""An outbox in which records of a fleet wait for a sink, made once by the outbox's own code and kept."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

from poller.clock import SystemClock
from poller.metrics import Metrics
from poller.model import Balance, Baseline, Record
from poller.outbox import Outbox
from poller.outbox.codec import encode_baseline
from poller.outbox.outbox import ROW_BYTES
from poller.outbox.values import Accept
from poller.testing.sink_contract import make_records

SINK = "dead"
ASSETS = ("BNB", "BTC", "ETH", "EUR", "SOL", "USDT")
TOGETHER = 50  # writes that share a commit


def kept(cache: Path, records: int, accounts: int) -> Path:
    """Return an outbox with so many records of so many accounts; it is made if there is none."""
    path = cache / f"backlog-{records}-{accounts}.db"
    done = path.with_suffix(".made")
    if not done.exists():
        for left in cache.glob(f"{path.name}*"):
            left.unlink()
        print(f"making {path}", flush=True)
        asyncio.run(_make(path, records, accounts))
        done.touch()
    return path


async def _make(path: Path, records: int, accounts: int) -> None:
    outbox = await Outbox.open(path, SystemClock(), metrics=Metrics(), max_size_bytes=1 << 36)
    try:
        await outbox.register({SINK: "oldest"})
        [sample] = make_records(1)
        each = -(-records // accounts)
        writes = [_write(number, sample, min(each, records - number * each)) for number in range(accounts)]
        for first in range(0, accounts, TOGETHER):
            await asyncio.gather(*(outbox.write(write) for write in writes[first : first + TOGETHER]))
    finally:
        await outbox.close()


def _write(number: int, sample: Record, count: int) -> Accept:
    """Return an account's baseline and its records, whose payloads are all alike."""
    name = f"sim-{number + 1:04d}"
    balances = tuple(Balance(asset, Decimal("1.23456789"), btc_valuation=Decimal("0.01")) for asset in ASSETS)
    rows = tuple(
        Record(f"{name}-{place}", sample.kind, name, place, sample.reason, sample.payload)
        for place in range(1, count + 1)
    )
    return Accept(
        rows,
        name,
        encode_baseline(Baseline(name, sequence=max(1, count), balances=balances)),
        sum(len(row.payload) + ROW_BYTES for row in rows),
    )
