"""How long the oldest record of each sink has waited, from the file itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from poller.metrics import Metrics
from poller.outbox import Outbox
from poller.outbox.ages import Ages
from poller.testing.sink_contract import make_records
from poller.testing.virtual_time import VirtualClock


async def test_ages_follow_the_oldest_record_that_waits(tmp_path: Path, clock: VirtualClock) -> None:
    outbox = await Outbox.open(tmp_path / "outbox.db", clock, metrics=Metrics())
    await outbox.register({"slow": "oldest", "quick": "oldest"})
    ages = Ages(outbox, clock)
    looking = asyncio.create_task(ages.run())
    await asyncio.sleep(1)
    assert ages.waits_s("slow") == 0.0
    await outbox.accept(None, make_records(2))
    await asyncio.sleep(10)
    await outbox.accept(None, make_records(4)[2:])
    await outbox.acknowledge("quick", 4)
    await asyncio.sleep(5)
    assert ages.waits_s("slow") == 15.0
    assert ages.waits_s("quick") == 0.0, "nothing waits"
    await outbox.acknowledge("slow", 2)
    await asyncio.sleep(2.5)
    assert ages.waits_s("slow") == 7.5, "the oldest now is the third"
    await outbox.acknowledge("slow", 4)
    assert ages.waits_s("slow") == 0.0, "at once, without a look"
    assert ages.waits_s("unknown") == 0.0
    await outbox.accept(None, make_records(5)[4:])
    await outbox.close()
    await asyncio.wait_for(looking, 5)  # ends by itself: there is nothing to look into any more


async def test_an_age_outlives_the_process(tmp_path: Path, clock: VirtualClock) -> None:
    outbox = await Outbox.open(tmp_path / "outbox.db", clock, metrics=Metrics())
    await outbox.register({"down": "oldest"})
    await outbox.accept(None, make_records(1))
    await outbox.close()
    await asyncio.sleep(3600)
    outbox = await Outbox.open(tmp_path / "outbox.db", clock, metrics=Metrics())
    await outbox.register({"down": "oldest"})
    ages = Ages(outbox, clock)
    await ages.look()
    assert ages.waits_s("down") == 3600.0
    await outbox.close()
