"""What is said of records that a sink refuses for good: at once, then once a minute with all since."""

from __future__ import annotations

import asyncio
import logging

import pytest

from poller.delivery.trouble import Refusals
from poller.model import Record
from poller.outbox import DeadLetter
from poller.testing.sink_contract import make_records
from poller.testing.virtual_time import VirtualClock


def dead(record: Record) -> DeadLetter:
    return DeadLetter(record, "too large")


async def test_a_sink_that_refuses_in_every_write_is_a_line_a_minute(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "poller.delivery")
    refusals, records = Refusals("bus", clock), make_records(100)
    for record in records:
        refusals.note([dead(record)])
        await asyncio.sleep(1.0)
    told = [(line.__dict__["records"], line.__dict__["record"]) for line in caplog.records]
    assert told == [(1, records[0].id), (60, records[1].id)]
    await asyncio.sleep(60.0)
    refusals.note([])  # a write that went well says what was not said yet
    last = caplog.records[-1].__dict__
    assert (last["sink"], last["records"], last["record"], last["error"]) == (
        "bus",
        39,
        records[61].id,
        "too large",
    )
    await asyncio.sleep(600.0)
    refusals.note([])
    assert len(caplog.records) == 3
