"""What goes wrong in a day, drawn from a seed: the same seed, the same day."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from random import Random

from poller.simulator import Fault, FaultKind
from poller.simulator.weights import Neighbour, NeighbourMode
from tests.simulation.world import World

MINUTE_S = 60.0

Deed = Callable[[World], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens at a moment of the day, seconds on the loop's clock."""

    at_s: float
    name: str
    deed: Deed


def faults_of(kind: FaultKind, random: Random, accounts: list[str]) -> list[Fault]:
    """Return faults of one kind, as bad as they may be while the fleet still gets through."""
    rate = random.choice([0.05, 0.2, 0.5])
    match kind:
        case FaultKind.LATENCY:
            return [Fault(kind, rate=rate, delay_s=2.0, jitter_s=20.0)]
        case FaultKind.STALL | FaultKind.STALL_WITHIN:
            return [Fault(kind, rate=rate, delay_s=random.choice([5.0, 60.0]))]
        case FaultKind.WAF | FaultKind.ERROR_OBJECT:
            return [Fault(kind, count=3, rate=rate)]
        case FaultKind.EMPTY_LIST:
            # The same lie twice in a row would be believed, as it is documented: one for each.
            return [Fault(kind, count=1, account=name) for name in random.sample(accounts, 40)]
        case FaultKind.BODY:
            return [Fault(kind, rate=rate, value=random.choice(['[{"asset":"BTC"}]', "", "[1", "null"]))]
        case FaultKind.WEIGHT_HEADER:
            lies = ["999999999", "0", "-1", "abc", "", None]
            return [Fault(kind, rate=0.2, value=lie) for lie in random.sample(lies, 3)]
        case FaultKind.RETRY_AFTER:
            return [Fault(kind, rate=0.5, value=random.choice(["0", "-5", "soon", None]))]
        case FaultKind.BOMB:
            return [Fault(kind, rate=rate, size_bytes=64)]
    return [Fault(kind, rate=rate)]


def a_day(seed: int, *, accounts: list[str], trouble_s: float) -> list[Event]:
    """Return what happens until ``trouble_s``, when all is repaired; in the order of time.

    Args:
        accounts: that there are; some of their keys are revoked for a while.
        trouble_s: length of the part of the day in which things go wrong.
    """
    random = Random(f"day/{seed}")
    events = [
        *_fault_events(random, accounts, trouble_s),
        *_neighbour_events(random, trouble_s),
        *_outages(random, trouble_s),
        *_clock_events(random, trouble_s),
        *_key_events(random, accounts, trouble_s),
        Event(trouble_s, "repaired", _repair),
    ]
    return sorted(events, key=lambda event: event.at_s)


async def live(world: World, events: list[Event]) -> None:
    """Let the events happen, each at its time."""
    for event in events:
        await asyncio.sleep(max(0.0, event.at_s - world.clock.monotonic_s()))
        if (waiting := event.deed(world)) is not None:
            await waiting


def _fault_events(random: Random, accounts: list[str], trouble_s: float) -> Iterator[Event]:
    kinds = list(FaultKind)
    random.shuffle(kinds)
    slot_s = trouble_s / (len(kinds) + 1)
    for place, kind in enumerate(kinds, 1):
        at_s = slot_s * (place + 0.3 * random.random())
        faults = faults_of(kind, random, accounts)
        yield Event(at_s, kind, lambda world, faults=faults: _set_faults(world, faults))  # type: ignore[misc]  # a default binds now
        yield Event(at_s + slot_s * 0.5, f"no {kind}", lambda world: _set_faults(world, []))


def _neighbour_events(random: Random, trouble_s: float) -> Iterator[Event]:
    modes: tuple[NeighbourMode, ...] = ("even", "bursts") * 3
    for place, mode in enumerate(modes):
        begin_s = trouble_s * (place + random.random() * 0.4) / len(modes)
        neighbour = Neighbour(random.choice([0.3, 0.6, 0.9]), mode, random.randrange(1000))
        yield Event(begin_s, mode, lambda world, n=neighbour: world.exchange.set_neighbour(n))  # type: ignore[misc]  # a default binds now
        yield Event(
            begin_s + trouble_s * 0.08, "alone", lambda world: world.exchange.set_neighbour(Neighbour())
        )


def _outages(random: Random, trouble_s: float) -> Iterator[Event]:
    for _ in range(3):
        yield Event(random.uniform(0.05, 0.9) * trouble_s, "crowd", lambda world: world.crowd(2_000))
    begin_s = random.uniform(0.1, 0.8) * trouble_s
    yield Event(begin_s, "maintenance", lambda world: _maintain(world, on=True))
    yield Event(begin_s + 0.02 * trouble_s, "no maintenance", lambda world: _maintain(world, on=False))
    for place in range(5):
        at_s = random.uniform(0.1, 0.95) * trouble_s
        reboot = place == 0
        yield Event(at_s, "restart", lambda world, r=reboot: world.restart(reboot=r))  # type: ignore[misc]  # a default binds now
        if place == 1:  # a crash loop
            for again in range(1, 8):
                yield Event(at_s + 7.0 * again, "restart", lambda world: world.restart())


def _clock_events(random: Random, trouble_s: float) -> Iterator[Event]:
    for step_s in (3600.0, -7200.0, 0.7, -0.7):
        at_s = random.uniform(0.1, 0.9) * trouble_s
        yield Event(at_s, "wall clock", lambda world, s=step_s: world.step_wall(s))  # type: ignore[misc]  # a default binds now
    for asleep_s in (45.0, 1800.0):
        at_s = random.uniform(0.1, 0.9) * trouble_s
        yield Event(at_s, "suspended", lambda world, s=asleep_s: world.suspend(s))  # type: ignore[misc]  # a default binds now
    # Forward only: the exchange's books stay in order, and records can be held against them.
    for place, skew_ms in enumerate((1_500.0, 30_000.0, 31_000.0), 1):
        at_s = (place / 4 + 0.1 * random.random()) * trouble_s
        yield Event(at_s, "skew", lambda world, s=skew_ms: world.skew(s))  # type: ignore[misc]  # a default binds now


def _key_events(random: Random, accounts: list[str], trouble_s: float) -> Iterator[Event]:
    for name in random.sample(accounts, 4):
        begin_s = random.uniform(0.05, 0.3) * trouble_s
        yield Event(begin_s, "revoked", lambda world, n=name: world.exchange.revoked.add(n))  # type: ignore[misc]  # a default binds now
        yield Event(
            begin_s + 0.4 * trouble_s,
            "restored",
            lambda world, n=name: world.exchange.revoked.discard(n),  # type: ignore[misc]  # a default binds now
        )


def _set_faults(world: World, faults: list[Fault]) -> None:
    world.exchange.faults.set(faults, world.exchange.now_us())


def _maintain(world: World, *, on: bool) -> None:
    world.exchange.is_in_maintenance = on


def _repair(world: World) -> None:
    world.exchange.faults.set([], world.exchange.now_us())
    world.exchange.set_neighbour(Neighbour())
    world.exchange.is_in_maintenance = False
    world.exchange.revoked.clear()
