from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.exchange.server_time import Sample, ServerTime, estimate
from poller.testing.virtual_time import START_UTC_S, VirtualClock

START_MS = START_UTC_S * 1000


def sample(sent_s: float, server_ms: int, round_trip_s: float) -> Sample:
    return Sample(sent_s, server_ms, sent_s + round_trip_s)


def test_the_quickest_sample_is_believed() -> None:
    samples = [sample(0.0, 10_000, 0.8), sample(1.0, 5_000, 0.1), sample(2.0, 20_000, 0.3)]
    found = estimate(samples)
    assert found is not None
    assert (found.server_ns, found.at_s) == (5_000_500_000, 1.05)
    assert found.uncertainty_ms == pytest.approx(50.5)


def test_samples_slower_than_a_second_tell_nothing() -> None:
    assert estimate([sample(0.0, 1, 1.01), sample(5.0, 1, 3.0)]) is None
    assert estimate([]) is None
    assert estimate([sample(0.0, 1, 1.0)]) is not None


def test_a_clock_that_went_backwards_between_question_and_answer_tells_nothing() -> None:
    assert estimate([sample(5.0, 1, -0.5)]) is None


@given(
    st.integers(1_500_000_000_000, 2_000_000_000_000),
    st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)), min_size=1, max_size=6),
)
def test_the_truth_is_within_the_uncertainty_however_unlike_the_two_ways(
    true_offset_ms: int, ways: list[tuple[float, float]]
) -> None:
    # The exchange's clock shows true_offset_ms at monotonic zero, and whole milliseconds only.
    samples = [
        Sample(float(at), math.floor(true_offset_ms + (at + there_s) * 1000), at + there_s + back_s)
        for at, (there_s, back_s) in enumerate(ways)
    ]
    found = estimate(samples)
    assert found is not None
    true_ns = true_offset_ms * 10**6 + round(found.at_s * 10**9)
    assert abs(found.server_ns - true_ns) <= found.uncertainty_ms * 10**6 + 1_000


@pytest.fixture
def server_time(clock: VirtualClock) -> ServerTime:
    return ServerTime(clock)


async def test_before_the_first_measurement_it_is_the_wall_clock_with_a_large_uncertainty(
    clock: VirtualClock, server_time: ServerTime
) -> None:
    await asyncio.sleep(2)
    assert server_time.now_ns() == clock.utc_ns()
    assert server_time.now_ms() == START_MS + 2_000 - 500
    assert server_time.uncertainty_ms == 1_000
    assert server_time.age_s == math.inf
    assert server_time.at_ns(clock.monotonic_s() - 1.5) == (START_MS + 500) * 10**6


async def test_it_goes_on_from_the_measurement(server_time: ServerTime) -> None:
    assert server_time.update([sample(0.0, START_MS + 60_000, 0.2)])
    assert server_time.at_ns(0.1) == (START_MS + 60_000) * 10**6 + 500_000
    await asyncio.sleep(10)
    assert server_time.now_ns() == (START_MS + 69_900) * 10**6 + 500_000


async def test_a_step_of_the_wall_clock_changes_nothing(clock: VirtualClock, server_time: ServerTime) -> None:
    server_time.update([sample(0.0, START_MS, 0.2)])
    before = server_time.now_ns(), server_time.now_ms()
    clock.wall_step_s = -3_600
    assert (server_time.now_ns(), server_time.now_ms()) == before


async def test_sleep_of_the_machine_is_counted(clock: VirtualClock, server_time: ServerTime) -> None:
    server_time.update([sample(0.0, START_MS, 0.2)])
    before_ns = server_time.now_ns()
    clock.suspended_s = 6 * 3_600.0
    assert server_time.now_ns() - before_ns == 6 * 3_600 * 10**9
    assert server_time.age_s == pytest.approx(6 * 3_600 - 0.1)


async def test_stamps_are_behind_by_what_is_uncertain(server_time: ServerTime) -> None:
    server_time.update([sample(0.0, START_MS, 0.0)])
    assert server_time.uncertainty_ms == 0.5
    assert server_time.now_ms() == START_MS  # half a millisecond ahead as guessed, half behind as stamped
    server_time.update([sample(0.0, START_MS, 0.2)])
    assert server_time.now_ns() == (START_MS - 100) * 10**6 + 500_000
    assert server_time.now_ms() == START_MS - 200


@given(st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_fresh_stamp_is_never_ahead_of_the_exchange(there_s: float, back_s: float) -> None:
    class Frozen(VirtualClock):
        def monotonic_s(self) -> float:
            return there_s + back_s

    server_time = ServerTime(Frozen())
    server_time.update([Sample(0.0, math.floor(START_MS + there_s * 1000), there_s + back_s)])
    assert server_time.now_ms() <= START_MS + (there_s + back_s) * 1000


async def test_stamps_are_never_behind_by_more_than_half_a_second(server_time: ServerTime) -> None:
    server_time.update([sample(0.0, START_MS, 1.0)])
    await asyncio.sleep(86_400)
    assert server_time.uncertainty_ms > 4_000
    assert server_time.now_ms() == server_time.now_ns() // 10**6 - 500


async def test_the_uncertainty_grows_while_nobody_measures(server_time: ServerTime) -> None:
    server_time.update([sample(0.0, START_MS, 0.2)])
    assert server_time.uncertainty_ms == pytest.approx(100.5)
    await asyncio.sleep(600)
    assert server_time.age_s == pytest.approx(599.9)
    assert server_time.uncertainty_ms == pytest.approx(100.5 + 30, abs=0.01)


async def test_a_failed_measurement_leaves_the_last_one(server_time: ServerTime) -> None:
    server_time.update([sample(0.0, START_MS + 60_000, 0.2)])
    before_ns = server_time.now_ns()
    assert not server_time.update([sample(0.0, 1, 2.0)])
    assert server_time.now_ns() == before_ns


async def test_a_new_measurement_replaces_the_old(server_time: ServerTime) -> None:
    server_time.update([sample(0.0, START_MS, 0.2)])
    server_time.update([sample(0.0, START_MS + 5_000, 0.4)])
    assert server_time.at_ns(0.2) == (START_MS + 5_000) * 10**6 + 500_000
