"""Publish the records of a batch: an account's one after the other, many accounts side by side.

For destinations that acknowledge every message on its own and may refuse one and take the next. To send
an account's records without waiting would be quicker, but if the second of three failed and the third did not,
readers would find a hole where the second belongs.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from poller.model import Record

LAST_PATIENCE_S = 1.0  # for tasks that were cancelled


async def publish_in_turn(
    batch: Sequence[Record], publish: Callable[[Record], Awaitable[None]], *, in_flight: int
) -> None:
    """Call ``publish`` for every record; what it raises first ends the whole.

    Args:
        in_flight: most calls at the same time.
    """
    accounts: defaultdict[str, list[Record]] = defaultdict(list)
    for record in batch:
        accounts[record.account].append(record)
    window = asyncio.Semaphore(in_flight)

    async def chain(records: Sequence[Record]) -> None:
        for record in records:
            async with window:
                await publish(record)

    tasks = [asyncio.create_task(chain(records)) for records in accounts.values()]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=LAST_PATIENCE_S)
