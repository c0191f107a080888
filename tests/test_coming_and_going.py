"""Accounts that come and go in the middle of everything else: on virtual time, an address by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from poller.acceptance import Acceptance
from poller.assembly import Assembly
from poller.budget import WeightBudget, WeightWindow
from poller.checking import KeyChecker, KeyPolicy
from poller.config import ExchangeSettings
from poller.egress import Egress
from poller.errors import AccessDenied, Banned, NoResponse, PollError, StaleConnection
from poller.exchange.client import Answer, Restrictions
from poller.metrics import Metrics
from poller.model import Account, Balance, Baseline, Record, Snapshot, State
from poller.outcomes import Outcomes
from poller.polling import Dispatcher
from poller.schedule import Schedule
from poller.testing.virtual_time import START_UTC_S, VirtualClock
from poller.timekeeping import TimeKeeper

KNOWN_PAST = b'{"version":1,"boot_id":"boot-1","blocks":[],"pause":null,"strikes":0}'
READING = Restrictions(reading=True, ip_restricted=True, beyond_reading=())
TRADING = Restrictions(reading=True, ip_restricted=True, beyond_reading=("enableSpotAndMarginTrading",))


class SlowOutbox:
    """Takes 5 s for every commit."""

    is_full = False

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def accept(self, baseline: Baseline, records: Sequence[Record]) -> None:
        await asyncio.sleep(5)
        self.records.extend(records)

    async def wait_for_room(self) -> None:
        return

    def states(self, account: str) -> list[str]:
        return [
            record.document["state"]
            for record in self.records
            if record.account == account and record.kind == "status"
        ]


class OneAddress:
    """An egress whose exchange answers every poll after a while, well or with an error."""

    def __init__(self, clock: VirtualClock, accounts: Sequence[Account], policy: KeyPolicy = "off") -> None:
        self.clock = clock
        self.outbox = SlowOutbox()
        self.metrics = Metrics()
        self.asked: list[str] = []
        self.under_way: list[str] = []
        self.most_at_once = 0
        self.latency_s = 0.05
        self.error: PollError | None = None
        self.restrictions: Restrictions | PollError = READING
        acceptance = Acceptance(self.outbox, clock, metrics=self.metrics)
        self.budget = WeightBudget(
            "default", WeightWindow(limit=12_000), clock, self._save, metrics=self.metrics
        )
        self.budget.restore(KNOWN_PAST)
        self.outcomes = Outcomes(
            "default",
            accounts,
            self.budget,
            acceptance,
            exchange_ns=clock.utc_ns,
            clock=clock,
            metrics=self.metrics,
        )
        self.schedule = Schedule(now_s=clock.monotonic_s(), utc_s=START_UTC_S)
        self.timekeeper = TimeKeeper(self._measure, self.outcomes.blame, clock)
        self.dispatcher = Dispatcher(
            "default",
            self.schedule,
            self.budget,
            self,
            self.outcomes,
            self.timekeeper,
            room=self.outbox,
            clock=clock,
            metrics=self.metrics,
        )
        checker = KeyChecker(self.budget, self._what_it_may, self.outcomes.blame)
        self.egress = Egress(
            accounts,
            self.budget,
            self.outcomes,
            self.schedule,
            self.dispatcher,
            checker,
            acceptance,
            key_policy=policy,
            clock=clock,
        )

    async def user_assets(self, account: Account) -> Answer:
        sent_s = self.clock.monotonic_s()
        self.asked.append(account.name)
        self.under_way.append(account.name)
        self.most_at_once = max(self.most_at_once, self.under_way.count(account.name))
        await asyncio.sleep(self.latency_s)
        self.under_way.remove(account.name)
        holdings = Snapshot(account.name, (Balance("BTC", Decimal(1)),), self.clock.utc_ns(), 1.0, 1.0)
        return Answer(self.error or holdings, None, sent_s, self.clock.monotonic_s())

    async def _measure(self) -> None: ...

    async def _save(self, state: bytes) -> None: ...

    async def _what_it_may(self, account: Account) -> Restrictions:
        if isinstance(self.restrictions, PollError):
            raise self.restrictions
        return self.restrictions

    async def run(self, meanwhile: Awaitable[object]) -> None:
        """Poll as long as something else takes; whatever fails in the background fails here."""
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self.timekeeper.run())
            watching = tasks.create_task(self.egress.watch_keys(self.timekeeper.ready))
            tasks.create_task(self.dispatcher.run())
            self.egress.start()
            await meanwhile
            self.dispatcher.stop()
            for task in (keeping, watching):
                task.cancel()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # what it waits for sets no event
        await asyncio.sleep(0.01)


MakeAddress = Callable[..., OneAddress]


@pytest.fixture
def address(clock: VirtualClock) -> MakeAddress:
    def make(*accounts: Account, policy: KeyPolicy = "off") -> OneAddress:
        return OneAddress(clock, accounts, policy)

    return make


ALICE, BOB, CAROL = (Account(name, 10.0, stale_after_s=25.0) for name in ("alice", "bob", "carol"))


async def test_who_is_removed_while_others_are_called_stale_is_not_missed(address: MakeAddress) -> None:
    here = address(ALICE, BOB, CAROL)
    here.error = NoResponse("nobody answers", cause="timeout")

    async def remove_all_but_one() -> None:
        await asyncio.sleep(27)  # alice is being called stale since 25 s, bob is next
        await asyncio.gather(here.egress.remove("alice"), here.egress.remove("bob"))
        await asyncio.sleep(30)

    await here.run(remove_all_but_one())
    assert here.outbox.states("alice") == ["stale", "removed"]
    assert here.outbox.states("bob") == ["removed"]
    assert here.outbox.states("carol") == ["stale"]


async def test_who_answers_while_others_are_called_stale_is_not_stale(address: MakeAddress) -> None:
    here = address(ALICE, BOB)
    here.error = NoResponse("nobody answers", cause="timeout")

    async def answer_again() -> None:
        await asyncio.sleep(25.1)
        here.error = None
        here.outcomes._health.good("bob", here.clock.monotonic_s())
        await asyncio.sleep(10)

    await here.run(answer_again())
    assert here.outbox.states("alice")[0] == "stale"
    assert here.outbox.states("bob") == []


async def test_who_is_removed_while_its_key_is_refused_by_the_policy_is_removed(address: MakeAddress) -> None:
    here = address(ALICE, BOB, policy="require_read_only")
    here.restrictions = TRADING

    async def remove() -> None:
        await asyncio.sleep(2)  # its state is being committed
        await here.egress.remove("alice")
        await asyncio.sleep(20)

    await here.run(remove())
    assert here.outbox.states("alice") == ["quarantined", "removed"]
    assert here.outbox.states("bob") == ["quarantined"]
    assert here.asked == []


@pytest.mark.parametrize("way", ["another key", "came back"])
async def test_what_was_held_against_one_key_is_not_held_against_the_next(
    address: MakeAddress, way: str
) -> None:
    here = address(ALICE, policy="require_read_only")
    here.restrictions = TRADING

    async def renew() -> None:
        await until(lambda: here.outbox.states("alice"))
        here.restrictions = NoResponse("no answer about the new key", cause="timeout")
        if way == "another key":
            here.egress.renewed("alice")
        else:
            await here.egress.remove("alice")
            here.egress.add(ALICE)
        await asyncio.sleep(30)

    await here.run(renew())
    assert here.asked  # as an account that is new would be: not to know is no refusal


async def test_who_is_let_in_again_is_not_polled_twice_at_once(address: MakeAddress) -> None:
    here = address(ALICE)
    here.latency_s = 60.0

    async def change_the_policy() -> None:
        await asyncio.sleep(12)
        assert here.under_way == ["alice"]
        here.restrictions = TRADING
        here.egress.set_policy("require_read_only")
        await asyncio.sleep(10)
        here.restrictions = READING
        here.egress.set_policy("warn")
        await asyncio.sleep(200)

    await here.run(change_the_policy())
    assert here.most_at_once == 1
    assert len(here.asked) >= 3


async def test_a_key_that_is_exchanged_while_the_old_one_is_refused_is_tried_soon(
    address: MakeAddress,
) -> None:
    here = address(ALICE)
    here.error = AccessDenied("-2015", code=-2015)

    async def exchange() -> None:
        await asyncio.sleep(200)  # refused for good: it is committing that
        refused = len(here.asked)
        await until(lambda: len(here.asked) > refused)  # the next probe is under way
        here.egress.renewed("alice")
        await until(lambda: not here.under_way)
        here.error = None
        await asyncio.sleep(30)

    await here.run(exchange())
    assert here.outbox.states("alice")[-1] == State.OK


async def test_a_removal_does_not_wait_for_the_weight_of_a_request_more(address: MakeAddress) -> None:
    here = address(ALICE, BOB)
    here.error = StaleConnection("reset")
    begun_s = 0.0

    async def remove_while_nothing_is_left() -> None:
        nonlocal begun_s
        await until(lambda: here.under_way)
        here.budget._window.hold(12_000, here.clock.monotonic_s() + 600)
        [name] = set(here.under_way)
        await asyncio.sleep(1)  # it has failed, and waits for the weight of its second request
        assert here.dispatcher.is_polling(name)
        begun_s = here.clock.monotonic_s()
        await here.egress.remove(name)
        assert here.clock.monotonic_s() == begun_s + 5  # the commit alone
        assert here.outbox.states(name) == ["removed"]

    await here.run(remove_while_nothing_is_left())
    assert here.clock.monotonic_s() < begun_s + 10


class Way:
    """A client that measures the exchange's clock at once; every address but those that are gone is reachable."""

    def __init__(self) -> None:
        self.measured: list[str] = []

    def is_reachable(self, egress: str) -> bool:
        return True

    async def synchronise(self, egress: str, permit: Callable[[], Awaitable[None]]) -> None:
        await permit()
        self.measured.append(egress)


async def test_the_clock_is_measured_through_an_address_that_comes_while_the_others_pause(
    clock: VirtualClock, address: MakeAddress
) -> None:
    assembly = Assembly(cast("Any", SimpleNamespace(exchange=ExchangeSettings())), None, clock, Metrics())  # type: ignore[arg-type]  # not looked at
    first, second, client = address(ALICE).egress, address(BOB).egress, Way()
    addresses = {"first": first}
    timekeeper = assembly.timekeeper(cast("Any", client), cast("Any", addresses))
    await first.budget.pause(Banned("418", retry_after_s=3600.0), exchange_ms=0.0)
    measuring = asyncio.create_task(timekeeper.refresh())
    await asyncio.sleep(60)
    assert client.measured == []
    del addresses["first"]
    addresses["second"] = second
    assert await measuring
    assert client.measured == ["default"]
    assert clock.monotonic_s() <= 65
