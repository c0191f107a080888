"""A day of a whole fleet, in seconds: everything goes wrong at some time, and the promises hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from poller.model import Account, Kind, State
from poller.simulator import FaultKind, SimulatorSettings
from poller.simulator.weights import Neighbour, WindowKind
from poller.testing.books import last_states_differ, mismatches
from poller.testing.virtual_time import VirtualTimeLoop
from tests.simulation.scenario import a_day, live
from tests.simulation.world import TIMEOUT_S, World

HOUR_S = 3600.0
SLOW_S = 2 * HOUR_S
LATENCY_S = 0.08
# After the exchange's clock was set, records are off by as much until it is measured again.
REMEASURED_S = 900.0


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "poller")  # a day's complaints would all be kept in memory


def fleet(count: int, *, slow: int, often: int) -> list[Account]:
    """Return so many accounts: the first ``slow`` every two hours, the last ``often`` every minute."""

    def interval_s(place: int) -> float:
        return SLOW_S if place < slow else 60.0 if place >= count - often else 600.0

    return [
        Account(
            f"sim-{place + 1:04d}",
            interval_s(place),
            priority=int(place >= count - often),
            stale_after_s=3 * interval_s(place),
        )
        for place in range(count)
    ]


def make_world(accounts: list[Account], *, window: WindowKind, limit: int, seed: int) -> World:
    settings = SimulatorSettings(
        accounts=len(accounts),
        key_kinds=("hmac",),
        seed=seed,
        window=window,
        weight_limit=limit,
        moves_per_s=0.1,
        ban_max_s=1800.0,
    )
    return World(settings, accounts)


async def spend(world: World, seed: int, *, trouble_s: float) -> float:
    """Live through the troubles and two intervals more; return when nothing stood in the way any more."""
    names = [account.name for account in world.accounts]
    await live(world, a_day(seed, accounts=names, trouble_s=trouble_s))
    await world.daemon.budget.resumed()
    healed_s = world.clock.uptime_s()
    await asyncio.sleep(2 * longest_s(world) + 1.0)
    return healed_s


async def settle(world: World) -> None:
    """Let nothing move any more, everybody be asked once again, and the process end."""
    world.exchange.freeze()
    # Others who were there a moment ago are still expected, and intervals stretch by it.
    await asyncio.sleep(3 * longest_s(world) + 120.0)
    await world.daemon.kill()


def longest_s(world: World) -> float:
    return max(account.interval_s for account in world.accounts)


def assert_nothing_was_overspent_or_ignored(world: World) -> None:
    window_s = world.settings.window_s
    assert 0 < world.journal.heaviest(window_s) <= world.allowed
    assert world.journal.heaviest_minute(window_s) <= world.allowed
    assert world.journal.into_silence() == []


def assert_everybody_came_back(world: World, healed_s: float) -> None:
    """Each account has a good answer of the two intervals since; whoever was refused for long, at last."""
    count = len(world.accounts)
    assert [account.name for account in world.accounts if world.good_s[account.name] < healed_s] == []
    assert world.states() == {State.OK: count, State.STALE: 0, State.QUARANTINED: 0}
    told = {record.reason for _, record in world.disk.records if record.kind is Kind.STATUS}
    assert State.QUARANTINED in told


def assert_the_books_were_told_as_they_are(world: World) -> None:
    books = world.books()
    documents = [record.document for record in world.disk.snapshots()]
    excused = {
        _named(record.document)
        for at_s, record in world.disk.records
        if record.kind is Kind.SNAPSHOT
        and any(begin_s <= at_s < begin_s + REMEASURED_S for begin_s in world.skewed_s)
    }
    wrong = mismatches(documents, books)
    assert [text for text in wrong if not _is_excused(text, excused)] == []
    assert last_states_differ(documents, books) == []


def _named(document: Mapping[str, Any]) -> str:
    return f"{document['account']} sequence {document['sequence']} observed {document['observed_at']}"


def _is_excused(text: str, excused: set[str]) -> bool:
    return text.removesuffix(": the books held something else") in excused


@pytest.mark.timeout(300)
async def test_a_day_of_two_thousand_accounts() -> None:
    accounts = fleet(2_000, slow=1_940, often=3)
    world = make_world(accounts, window="rolling", limit=1_000, seed=1)
    healed_s = await spend(world, 1, trouble_s=17 * HOUR_S)
    assert_everybody_came_back(world, healed_s)
    await settle(world)

    assert_nothing_was_overspent_or_ignored(world)
    assert_the_books_were_told_as_they_are(world)
    # A fault that comes while the address is silent meets nobody.
    assert len(world.exchange.faults.given) >= len(FaultKind) * 2 / 3
    assert set(world.exchange.tally.polls) == {account.name for account in accounts}
    record = world.exchange.weights.record
    assert record.bans == 3  # the crowd's: ours would be one more
    assert record.longest_into_warning_us <= (TIMEOUT_S + 2 * LATENCY_S) * 1e6


@pytest.mark.parametrize("window", ["fixed", "rolling"])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_eight_hours_of_a_small_fleet(window: WindowKind, seed: int) -> None:
    world = make_world(fleet(60, slow=0, often=3), window=window, limit=150, seed=seed)
    healed_s = await spend(world, seed, trouble_s=6 * HOUR_S)
    assert_everybody_came_back(world, healed_s)
    await settle(world)
    assert_nothing_was_overspent_or_ignored(world)
    assert_the_books_were_told_as_they_are(world)


def trace_of_a_short_day(seed: int) -> str:
    """Return the fingerprint of a day that was lived through on a loop of its own, from zero."""

    async def day() -> str:
        world = make_world(fleet(40, slow=0, often=4), window="fixed", limit=150, seed=1)
        await spend(world, seed, trouble_s=2 * HOUR_S)
        await world.daemon.kill()
        return world.journal.digest()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as loop:
        return loop.run(day())


def test_the_same_seed_gives_the_same_day_to_the_last_answer() -> None:
    assert trace_of_a_short_day(7) == trace_of_a_short_day(7)


def test_another_seed_gives_another_day() -> None:
    assert trace_of_a_short_day(8) != trace_of_a_short_day(7)


@pytest.mark.parametrize("window", ["fixed", "rolling"])
async def test_a_warning_caused_by_a_neighbour_is_obeyed_within_the_time_it_takes_to_hear_it(
    window: WindowKind,
) -> None:
    """The neighbour comes in bursts of more than we leave: nothing we could have foreseen."""
    world = make_world(fleet(60, slow=0, often=60), window=window, limit=500, seed=1)
    # Under aligned windows it takes a large one: what it used in one is left to it in the next.
    world.exchange.set_neighbour(Neighbour(0.9 if window == "fixed" else 0.6, "bursts"))
    await asyncio.sleep(HOUR_S)
    await world.daemon.kill()
    record = world.exchange.weights.record
    assert record.warnings > 0
    assert record.bans == 0
    assert len(world.journal.served) > 300
    # An answer is on its way back while another request is on its way there.
    assert record.longest_into_warning_us <= 2 * LATENCY_S * 1e6
    assert_nothing_was_overspent_or_ignored(world)


async def test_the_clock_of_the_exchange_may_go_back() -> None:
    """Stamps from the future are refused; the clock is measured, and everybody goes on."""
    world = make_world(fleet(20, slow=0, often=20), window="fixed", limit=1_000, seed=1)
    await asyncio.sleep(100.0)
    world.exchange.set_skew_ms(-30_000.0)
    await asyncio.sleep(121.0)
    assert all(world.good_s[account.name] > 100.0 for account in world.accounts)
    refused = world.exchange.tally.codes[-1021]
    await asyncio.sleep(HOUR_S)
    await world.daemon.kill()
    assert 0 < refused == world.exchange.tally.codes[-1021]
