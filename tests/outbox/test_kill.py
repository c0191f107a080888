"""``kill -9`` while records are accepted: whatever was promised is there."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from poller.clock import SystemClock
from poller.metrics import Metrics
from poller.outbox import Outbox

ALL = {"max_records": 1_000_000, "max_bytes": 1 << 30}
ROUNDS = 20

ACCEPT_FOR_EVER = """
import asyncio, itertools, sys
from pathlib import Path
from poller.clock import SystemClock
from poller.clock import SystemClock
from poller.metrics import Metrics
from poller.model import Baseline
from poller.outbox import Outbox
from poller.testing.sink_contract import make_records

async def accept(outbox, account):
    sequence = (await outbox.baselines()).get(account, Baseline(account)).sequence
    while True:
        records = make_records(2, account=account, first=sequence + 1)
        sequence += 2
        await outbox.accept(Baseline(account, sequence=sequence), records)
        # One write to the pipe: what was promised is known outside, whenever the end comes.
        sys.stdout.write(f"{account} {sequence}\\n")
        sys.stdout.flush()

async def acknowledge(outbox):
    while True:
        batch = await outbox.next_batch("sink", max_records=100, max_bytes=1 << 20)
        await outbox.acknowledge("sink", batch[-1].position)
        sys.stdout.write(f"cursor {batch[-1].position}\\n")
        sys.stdout.flush()

async def main(path):
    outbox = await Outbox.open(path, SystemClock(), metrics=Metrics())
    await outbox.register({"sink": "oldest", "slow": "oldest"})
    await asyncio.gather(acknowledge(outbox), *(accept(outbox, f"account-{n}") for n in range(5)))

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.real_time
async def test_what_was_accepted_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    dice = random.Random(20260101)
    promised: dict[str, int] = {}
    for _ in range(ROUNDS):
        with subprocess.Popen(
            [sys.executable, "-c", ACCEPT_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(dice.randrange(1, 300)):
                name, number = process.stdout.readline().split()
                promised[name] = int(number)
            process.kill()
            # What it had written before the end was promised as well; a torn last line was not.
            for line in process.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    name, number = line.split()
                    promised[name] = int(number)

        outbox = await Outbox.open(path, SystemClock(), metrics=Metrics())
        assert outbox.set_aside is None
        assert outbox.cursor("sink") >= promised.get("cursor", 0)
        baselines = await outbox.baselines()
        records = await outbox.next_batch("slow", **ALL)
        await outbox.close()

        assert [record.position for record in records] == list(range(1, len(records) + 1))
        for account in {record.account for record in records}:
            sequences = [record.sequence for record in records if record.account == account]
            # Every one, once, in order, and exactly as far as the baseline says: no half of a commit.
            assert sequences == list(range(1, len(sequences) + 1))
            assert baselines[account].sequence == len(sequences) >= promised.get(account, 0)
    assert len(promised) == 6
