"""The client that measures the simulator counts what was answered, and nothing else."""

from __future__ import annotations

import pytest

from bench.simulator import ACCOUNTS, HMAC_ONLY, POLL, SEED, drive
from poller.simulator import SimulatorSettings, serve

pytestmark = pytest.mark.real_time

SETTINGS = SimulatorSettings(
    accounts=ACCOUNTS, key_kinds=HMAC_ONLY, seed=SEED, weight_limit=10**9, latency_ms=(0, 0)
)


async def test_every_answer_that_is_counted_was_given() -> None:
    async with serve(SETTINGS) as simulator:
        rate, busy, body = await drive(simulator.url, 0.3)
        given = simulator.exchange.tally.statuses[f"POST {POLL}"]
    assert set(given) == {200}
    assert 0 < rate * 0.3 <= given[200]
    assert busy > 0
    assert body.startswith(b"[{")


async def test_requests_are_accepted_for_every_account() -> None:
    async with serve(SETTINGS) as simulator:
        await drive(simulator.url, 0.5)
        assert len(simulator.exchange.tally.polls) == ACCOUNTS
