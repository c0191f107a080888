"""What the comparison with published limiters rests on: pauses, loops, and the arithmetic of a row."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from bench.limiters import Answer, Case, Pauses, Surroundings, judge, keep_polling, sending
from bench.simulator import HMAC_ONLY, POLL, SEED, fleet
from poller.simulator import SimulatedAccount, SimulatorSettings, serve

FIRST, SECOND = fleet(2)


async def seconds_until_over(pauses: Pauses, account: SimulatedAccount) -> float:
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    await pauses.over(account)
    return loop.time() - started_s


async def test_a_pause_of_ones_own_holds_nobody_else() -> None:
    pauses = Pauses(shared=False)
    pauses.begin(FIRST, 10)
    assert await seconds_until_over(pauses, SECOND) == 0
    assert await seconds_until_over(pauses, FIRST) == pytest.approx(10)


async def test_a_shared_pause_holds_everybody_and_the_longest_decides() -> None:
    pauses = Pauses(shared=True)
    pauses.begin(FIRST, 10)
    pauses.begin(SECOND, 3)
    assert await seconds_until_over(pauses, SECOND) == pytest.approx(10)


async def test_a_pause_that_is_prolonged_meanwhile_is_waited_for() -> None:
    pauses = Pauses(shared=True)
    pauses.begin(FIRST, 10)
    asyncio.get_running_loop().call_later(4, pauses.begin, FIRST, 10)
    assert await seconds_until_over(pauses, FIRST) == pytest.approx(14)


async def test_an_account_is_polled_again_after_its_interval_or_its_pause() -> None:
    loop = asyncio.get_running_loop()
    pauses, banned = Pauses(shared=False), asyncio.Event()
    answers = iter([Answer(200), Answer(429, retry_after_s=20), Answer(200), Answer(418, retry_after_s=120)])
    polled_s: list[float] = []

    async def poll(account: SimulatedAccount) -> Answer:
        await pauses.over(account)
        polled_s.append(loop.time() - started_s)
        await asyncio.sleep(1)
        return next(answers)

    started_s = loop.time()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keep_polling(poll, FIRST, 5, pauses, banned))
        await banned.wait()
        task.cancel()
    assert polled_s == pytest.approx([0, 6, 27, 33])


def status(time_s: float, codes: Mapping[str, int], polls: Mapping[str, int]) -> dict[str, Any]:
    return {"time_us": time_s * 1e6, "requests": {f"POST {POLL}": codes}, "polls": polls}


def test_what_is_used_is_a_share_of_what_the_neighbour_leaves() -> None:
    settled = status(100, {"200": 400, "429": 3}, {"sim-0001": 2})
    last = status(110, {"200": 520, "429": 4}, {"sim-0001": 4})
    result = judge(Case("a neighbour", "fixed", neighbour=0.4), settled, last, 60, None)
    assert result.used == pytest.approx(120 * 5 / (2000 * 0.6))
    assert (result.limited, result.limited_later) == (4, 1)
    assert (result.least, result.most) == (0, 4)


def test_after_a_ban_the_rest_of_the_time_counts_as_unused() -> None:
    settled = status(100, {"200": 400}, {})
    last = status(110, {"200": 800, "418": 1}, {})
    result = judge(Case("alone", "fixed"), settled, last, 60, 25.0)
    assert result.used == pytest.approx(400 * 5 / 12_000)


async def test_an_answer_that_is_neither_success_nor_limit_ends_the_run() -> None:
    async def poll(account: SimulatedAccount) -> Answer:
        return Answer(400)

    with pytest.raises(RuntimeError, match="answered with 400"):
        await keep_polling(poll, FIRST, 5, Pauses(shared=True), asyncio.Event())


@pytest.mark.real_time
async def test_what_it_sends_is_accepted_and_retry_after_is_read() -> None:
    settings = SimulatorSettings(
        accounts=2, key_kinds=HMAC_ONLY, seed=SEED, weight_limit=5, window="rolling", latency_ms=(0, 0)
    )
    async with (
        serve(settings) as simulator,
        sending(Surroundings(simulator.url, fleet(2), Pauses(shared=True))) as send,
    ):
        assert await send(FIRST) == Answer(200)
        refused = await send(SECOND)
    assert refused.status == 429
    assert 58 <= refused.retry_after_s <= 60
