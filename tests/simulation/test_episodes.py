"""The window and the budget through thousands of short lives, against references that are slow and obviously right.

An episode is a list of steps: polls with their latencies, neighbours, lies in the exchange's count,
silences, restarts, stepped clocks, a suspended machine. ``POLLER_EPISODES`` says how many are lived
(``make episodes``); hypothesis shrinks the one that fails to the shortest that still does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from poller.budget import Grant, WeightBudget, WeightWindow
from poller.errors import Banned, Blocked, Overloaded, PollError, RateLimited
from poller.metrics import Metrics
from poller.testing.virtual_time import VirtualClock, VirtualTimeLoop

EPISODES = int(os.environ.get("POLLER_EPISODES", "5000"))
pytestmark = pytest.mark.timeout(max(600, EPISODES // 10))
OF_THE_WINDOW = EPISODES // 5  # each of these takes longer
WEIGHT = 5
TIMEOUT_S = 15.0
SAVING_S = 0.005
REMEMBERED = 2  # windows for which others' use is expected to come again, and no longer
SLACK_S = 0.1  # beyond a window's length, for guards and rounding: own weight may be counted so much longer

LATENCIES_S = st.sampled_from([0.0, 0.02, 0.5, 3.0, 12.0])
PLACES = st.sampled_from([0.0, 0.1, 0.5, 1.0])  # when in that time the exchange counts it


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "poller")


@dataclass(slots=True)
class SlowExchange:
    """Counts by looking at everything that ever happened."""

    window_s: float
    aligned: bool
    ours: list[float] = field(default_factory=list)  # when each of our requests was counted
    theirs: list[tuple[float, int]] = field(default_factory=list)

    def used(self, at_s: float) -> int:
        begin_s = at_s // self.window_s * self.window_s if self.aligned else at_s - self.window_s
        others = sum(weight for other_s, weight in self.theirs if begin_s < other_s <= at_s)
        return others + WEIGHT * sum(begin_s < our_s <= at_s for our_s in self.ours)

    def own(self, now_s: float) -> int:
        """Return our weight of the last window's length."""
        return WEIGHT * sum(now_s - self.window_s < our_s <= now_s for our_s in self.ours)

    def heaviest(self) -> int:
        """Return the most of our weight that any stretch of a window's length holds."""
        stretches = (
            sum(begin_s <= our_s < begin_s + self.window_s for our_s in self.ours) for begin_s in self.ours
        )
        return WEIGHT * max(stretches, default=0)


def lie(kind: str, truth: int) -> int | None:
    """Return what an answer's header says."""
    return {"honest": truth, "absent": None, "zero": 0, "half": truth // 2, "double": 2 * truth}.get(
        kind, 999_999_999
    )


LIES = st.sampled_from(["honest", "honest", "absent", "zero", "half", "double", "huge"])


class WindowEpisode(RuleBasedStateMachine):
    """The window alone, step by step: it needs no loop, so every step is compared."""

    @initialize(
        aligned=st.booleans(),
        limit=st.sampled_from([5, 12, 60, 300]),
        share=st.sampled_from([1.0, 0.9, 0.5]),
        window_s=st.sampled_from([10.0, 60.0]),
    )
    def begin(self, aligned: bool, limit: int, share: float, window_s: float) -> None:
        self.now_s = 1000.0
        self.window = WeightWindow(limit=limit, share=share, window_s=window_s)
        self.exchange = SlowExchange(window_s, aligned)
        self.under_way: list[Grant] = []
        self.answered_s: list[float] = []
        self.held: list[tuple[float, int]] = []
        self.alone = True  # nobody else and no lies so far

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.4, 3.0, 11.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(wanted=st.sampled_from([1, 3, 30]))
    def ask(self, wanted: int) -> None:
        for _ in range(wanted):
            if self.window.wait_s(WEIGHT, self.now_s) > 0:
                return
            assert self._own(0.0) + WEIGHT <= self.window.allowed
            self.under_way.append(self.window.grant(WEIGHT, self.now_s))

    @precondition(lambda self: self.window.wait_s(WEIGHT, self.now_s) < math.inf)
    @rule()
    def wait_as_told(self) -> None:
        """Time is jumped to when it is worth asking again: soon enough there is room."""
        for _ in range(200):
            wait_s = self.window.wait_s(WEIGHT, self.now_s)
            if wait_s in {0.0, math.inf}:
                return
            self.now_s += wait_s
        raise AssertionError("waits without end")

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 99), place=PLACES, lying=LIES)
    def an_answer_comes(self, which: int, place: float, lying: str) -> None:
        grant = self.under_way.pop(which % len(self.under_way))
        counted_s = grant.granted_s + place * (self.now_s - grant.granted_s)
        self.exchange.ours.append(counted_s)
        self.alone = self.alone and lying in {"honest", "absent"}
        self.window.answered(grant, self.now_s, lie(lying, self.exchange.used(counted_s)))
        self.answered_s.append(self.now_s)

    @rule(weight=st.sampled_from([1, 40, 500]))
    def a_neighbour_comes(self, weight: int) -> None:
        self.alone = False
        self.exchange.theirs.append((self.now_s, weight))

    @rule(weight=st.sampled_from([5, 100]), left_s=st.sampled_from([0.5, 60.0]))
    def weight_is_held(self, weight: int, left_s: float) -> None:
        self.held.append((self.now_s + left_s, weight))
        self.window.hold(weight, self.now_s + left_s)

    @rule()
    def a_pause_ends(self) -> None:
        self.window.resume(self.now_s)

    @rule()
    def it_goes_well(self) -> None:
        self.window.went_well()

    @invariant()
    def own_weight_is_known(self) -> None:
        if hasattr(self, "window"):
            assert self._own(0.0) <= self.window.own(self.now_s) <= self._own(SLACK_S)

    @invariant()
    def others_only_make_it_less(self) -> None:
        if hasattr(self, "window"):
            assert 0 <= self.window.capacity(self.now_s) <= self.window.allowed
            if self.alone and not self.held:
                assert self.window.capacity(self.now_s) == self.window.allowed

    def teardown(self) -> None:
        if not hasattr(self, "window"):
            return
        for grant in self.under_way:
            self.exchange.ours.append(self.now_s)
            self.window.answered(grant, self.now_s)
        assert self.exchange.heaviest() <= self.window.allowed
        # Soon after the last request, the last neighbour and the last lie there is all the room again.
        last_s = max([self.now_s, *(until_s for until_s, _ in self.held)])
        assert self.window.own(last_s + self.window.window_s + SLACK_S) == 0
        assert self.window.capacity(last_s + REMEMBERED * self.window.window_s) == self.window.allowed

    def _own(self, slack_s: float) -> int:
        begin_s = self.now_s - self.window.window_s - slack_s
        answered = sum(answered_s > begin_s for answered_s in self.answered_s)
        held = sum(weight for until_s, weight in self.held if until_s > self.now_s - slack_s)
        return WEIGHT * (len(self.under_way) + answered) + held


TestWindow = WindowEpisode.TestCase
TestWindow.settings = settings(max_examples=OF_THE_WINDOW, stateful_step_count=20)


METRICS = Metrics()  # one for all: what they count is not looked at here


def a_silence(kind: int) -> tuple[PollError, float]:
    """Return an error and for how long it demands silence, at least."""
    return [
        (RateLimited("429", status=429, retry_after_s=7.0), 7.0),
        (RateLimited("429", status=429), 10.0),
        (Banned("418", status=418, retry_after_s=150.0), 150.0),
        (Blocked("403", status=403), 300.0),
        (Overloaded("-1008", code=-1008), 60.0),
    ][kind]


ask = st.tuples(st.just("ask"), st.sampled_from([1, 2, 6, 30]), LATENCIES_S, PLACES)
idle = st.tuples(st.just("idle"), st.sampled_from([0.003, 0.3, 2.0, 9.0, 31.0, 90.0]))
step = st.one_of(
    ask,
    idle,
    ask,
    idle,
    st.tuples(st.just("neighbour"), st.sampled_from([1, 40, 500])),
    st.tuples(st.just("say"), LIES),
    st.tuples(st.just("silence"), st.integers(0, 4)),
    st.tuples(st.just("restart"), st.booleans()),
    st.tuples(st.just("restart"), st.just(False)),  # twice as often: what is lost then is lost for good
    st.tuples(st.just("wall"), st.sampled_from([-7200.0, -1.0, 1.0, 7200.0])),
    st.tuples(st.just("suspend"), st.sampled_from([0.5, 20.0, 4000.0])),
)


class BudgetEpisode:
    """Processes that come and go on one address, and what the exchange saw of them.

    Times are those that really passed: uptime of a machine that never forgets.
    """

    def __init__(self, *, aligned: bool, limit: int, share: float, window_s: float, saved_late: bool) -> None:
        self.clock = VirtualClock()
        self.exchange = SlowExchange(window_s, aligned)
        self.limit, self.share, self.window_s = limit, share, window_s
        self.saved_late = saved_late
        self.disk: bytes | None = None
        self.said = "honest"
        self.silent_until_s = -math.inf
        self.boots = 1
        self.restarted = False
        self.stepped = False
        self.polls: set[asyncio.Task[None]] = set()
        self.waiting: set[asyncio.Task[None]] = set()
        self.on_the_wire: list[tuple[asyncio.TimerHandle, list[int | None]]] = []
        self.start()

    def start(self) -> None:
        window = WeightWindow(limit=self.limit, share=self.share, window_s=self.window_s)
        self.budget = WeightBudget(
            "default", window, self.clock, self.save, metrics=METRICS, in_flight_s=TIMEOUT_S
        )
        self.budget.restore(self.disk)
        self.allowed = window.allowed

    async def save(self, state: bytes) -> None:
        if not self.saved_late:
            self.disk = state  # durable, though nobody lives to hear of it
        await asyncio.sleep(SAVING_S)
        self.disk = state

    async def live(self, steps: Sequence[tuple[object, ...]]) -> None:
        for name, *values in steps:
            await getattr(self, str(name))(*values)
            assert self.budget.status().own >= self.exchange.own(self.clock.uptime_s())
        await self.calm_down()

    async def ask(self, polls: int, latency_s: float, place: float) -> None:
        for _ in range(polls):
            task = asyncio.create_task(self.poll(latency_s, place))
            self.polls.add(task)
            self.waiting.add(task)
            task.add_done_callback(self.polls.discard)
        await asyncio.sleep(0)

    async def poll(self, latency_s: float, place: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        budget = self.budget
        try:
            grant = await budget.acquire(WEIGHT)
        finally:
            self.waiting.discard(task)
        if grant is None:
            assert self.clock.uptime_s() < self.silent_until_s  # nobody was told to wait for nothing
            return
        assert self.clock.uptime_s() >= self.silent_until_s
        headers: list[int | None] = []
        # It arrives whether or not we live to hear of it.
        arrival = asyncio.get_running_loop().call_later(latency_s * place, self.arrive, headers)
        self.on_the_wire.append((arrival, headers))
        await asyncio.sleep(latency_s + 1e-6)
        lost = latency_s > 10
        budget.answered(grant, used_weight=None if lost else headers[0], good=not lost)

    def arrive(self, headers: list[int | None]) -> None:
        self.on_the_wire = [(arrival, whose) for arrival, whose in self.on_the_wire if whose is not headers]
        now_s = self.clock.uptime_s()
        self.exchange.ours.append(now_s)
        headers.append(lie(self.said, self.exchange.used(now_s)))

    async def idle(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def neighbour(self, weight: int) -> None:
        self.exchange.theirs.append((self.clock.uptime_s(), weight))

    async def say(self, lying: str) -> None:
        self.said = lying

    async def silence(self, kind: int) -> None:
        error, least_s = a_silence(kind)
        begun_s = self.clock.uptime_s()
        self.silent_until_s = max(self.silent_until_s, begun_s + least_s)
        await self.budget.pause(error, exchange_ms=self.clock.utc_ns() / 1e6)
        # It may have grown with repetition; never did it shrink.
        left_s = self.budget.pause_left_s()
        assert left_s >= self.silent_until_s - self.clock.uptime_s() - 1e-6
        self.silent_until_s = self.clock.uptime_s() + left_s - 1e-6

    async def restart(self, reboot: bool) -> None:
        await self.end(set(self.polls))
        if reboot and not self.stepped:  # what only the wall clock can tell, is as right as it is
            passed_s = self.clock.suspended_s
            self.boots += 1
            self.clock = VirtualClock(boot=f"boot-{self.boots}")
            self.clock.suspended_s = passed_s
        self.restarted = True
        self.start()

    async def wall(self, seconds: float) -> None:
        if self.boots > 1:  # see ``restart``
            return
        self.stepped = True
        self.clock.wall_step_s += seconds

    async def suspend(self, seconds: float) -> None:
        for arrival, headers in list(self.on_the_wire):  # the network does not sleep
            arrival.cancel()
            self.arrive(headers)
        self.clock.suspended_s += seconds

    async def end(self, tasks: set[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            assert end is None or isinstance(end, asyncio.CancelledError), repr(end)

    async def calm_down(self) -> None:
        """Nobody else is there, and nobody lies: soon there is room again."""
        await self.end(set(self.waiting))
        await asyncio.gather(*self.polls)
        assert self.exchange.heaviest() <= self.allowed
        await self.budget.resumed()
        assert self.clock.uptime_s() >= self.silent_until_s
        # What a restart cannot know is taken for as late as it may have been: half sent, then under way.
        unknown_s = self.window_s / 60 + TIMEOUT_S if self.restarted else 0.0
        begun_s = self.clock.monotonic_s()
        grant = await self.budget.acquire(WEIGHT)
        assert grant is not None
        assert self.clock.monotonic_s() - begun_s <= REMEMBERED * self.window_s + unknown_s + SLACK_S
        self.budget.answered(grant, used_weight=WEIGHT, good=True)


@given(
    st.lists(step, min_size=1, max_size=25),
    st.booleans(),
    st.sampled_from([(60, 1.0), (100, 0.9), (400, 0.5)]),
    st.sampled_from([10.0, 60.0]),
    st.booleans(),
)
@example(
    [("ask", 1, 12.0, 1.0), ("idle", 9.0), ("restart", False), ("idle", 9.0)], False, (60, 1.0), 10.0, False
)
@example(
    [("silence", 2), ("restart", True), ("ask", 1, 0.0, 0.0), ("idle", 90.0)], False, (60, 1.0), 10.0, False
)
@settings(max_examples=EPISODES - OF_THE_WINDOW)
def test_a_budget_never_overspends_never_speaks_in_a_silence_and_never_stays_blocked(
    steps: list[tuple[object, ...]],
    aligned: bool,
    limit: tuple[int, float],
    window_s: float,
    saved_late: bool,
) -> None:
    async def live() -> None:
        episode = BudgetEpisode(
            aligned=aligned, limit=limit[0], share=limit[1], window_s=window_s, saved_late=saved_late
        )
        await episode.live(steps)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as loop:
        loop.run(live())


async def test_what_is_granted_from_a_reservation_made_before_the_machine_slept_is_remembered() -> None:
    episode = BudgetEpisode(aligned=False, limit=600, share=1.0, window_s=60.0, saved_late=False)
    await episode.ask(1, 0.0, 0.0)
    await asyncio.sleep(0.01)  # a block of two is reserved, and one of it granted
    await episode.suspend(4000.0)
    await episode.ask(1, 0.0, 0.0)
    await asyncio.sleep(0.01)
    await episode.restart(False)
    assert episode.budget.status().own >= episode.exchange.own(episode.clock.uptime_s()) == WEIGHT
