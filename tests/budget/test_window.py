"""The weight window: exact waits, and never more than the limit however the exchange counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.budget.window import CATCH_UP, GUARD_S, Grant, WeightWindow

WEIGHT = 5


def fill(window: WeightWindow, now_s: float, requests: int) -> list[Grant]:
    return [window.grant(WEIGHT, now_s) for _ in range(requests)]


def test_share_is_of_the_limit_and_rounded_down() -> None:
    assert WeightWindow(limit=12_000, share=0.9).allowed == 10_800
    assert WeightWindow(limit=99, share=0.5).allowed == 49


def test_weight_occupies_the_window_from_the_grant_to_a_window_after_the_answer() -> None:
    window = WeightWindow(limit=10)
    first, _second = fill(window, 0.0, 2)
    assert window.own(0.0) == 10
    assert window.wait_s(WEIGHT, 1.0) == math.inf  # only an answer can make room
    window.answered(first, 2.0)
    assert window.wait_s(WEIGHT, 2.0) == pytest.approx(60.0 + GUARD_S)
    assert window.own(62.0) == 10
    assert window.own(62.0 + GUARD_S) == 5


def test_a_failed_request_is_not_refunded() -> None:
    window = WeightWindow(limit=5)
    [grant] = fill(window, 0.0, 1)
    window.answered(grant, 15.0, used_weight=None)
    assert window.wait_s(WEIGHT, 15.0) == pytest.approx(60.0 + GUARD_S)


def test_an_answer_given_back_twice_counts_once() -> None:
    window = WeightWindow(limit=10)
    [grant] = fill(window, 0.0, 1)
    window.answered(grant, 1.0)
    window.answered(grant, 30.0)
    assert window.own(61.0 + GUARD_S) == 0


def test_grants_are_paced_evenly_after_a_short_head_start() -> None:
    window = WeightWindow(limit=1200)  # 240 requests a minute, four a second
    now_s, granted = 0.0, []
    for _ in range(40):
        while (wait_s := window.wait_s(WEIGHT, now_s)) > 0:
            now_s += wait_s
        window.answered(window.grant(WEIGHT, now_s), now_s)
        granted.append(now_s)
    head_start = 60 * CATCH_UP / 0.25
    assert granted[: int(head_start) + 1] == [0.0] * 13
    assert [later - sooner for sooner, later in pairwise(granted[13:])] == pytest.approx([0.25] * 26)


def test_what_is_reported_beyond_our_own_shrinks_our_part_for_two_windows() -> None:
    window = WeightWindow(limit=100, share=0.9)
    [grant] = fill(window, 0.0, 1)
    window.answered(grant, 0.5, used_weight=45)
    assert (window.reported, window.foreign(0.5), window.capacity(0.5)) == (45, 44, 56)
    assert window.foreign(120.4) == 44
    assert (window.foreign(120.5), window.capacity(120.5)) == (0, 90)


def test_what_others_will_use_until_the_next_answers_is_added() -> None:
    window = WeightWindow(limit=12_000)
    [grant] = fill(window, 0.0, 1)
    window.answered(grant, 0.1, used_weight=4805)
    # 0.1 s under way and two spacings of 25 ms, of 60 s: a quarter of a per cent.
    assert window.foreign(0.1) == 4800 + 13


def test_in_the_first_window_what_rises_is_taken_to_go_on_rising() -> None:
    window = WeightWindow(limit=2000, window_s=10.0)
    used = 400
    for second in range(4):
        [grant] = fill(window, float(second), 1)
        used += WEIGHT
        window.answered(grant, float(second), used_weight=used + 80 * second)
    # 400 when we came, 640 now, 80 a second for the seven seconds that are left.
    assert window.foreign(3.0) == 640 + 560
    assert window.foreign(10.0) < 700


def test_a_report_below_our_own_count_changes_nothing() -> None:
    window = WeightWindow(limit=100)
    first, second = fill(window, 0.0, 2)
    window.answered(first, 0.5, used_weight=5)
    window.answered(second, 0.6, used_weight=0)
    assert (window.own(0.6), window.foreign(0.6), window.capacity(0.6)) == (10, 0, 100)


def test_the_largest_of_several_reports_holds_until_its_own_end() -> None:
    window = WeightWindow(limit=1000)
    for at_s, used in ((0.0, 305), (10.0, 110), (20.0, 215)):
        [grant] = fill(window, at_s, 1)
        window.answered(grant, at_s, used_weight=used)
    assert window.foreign(20.0) == 303
    assert window.foreign(120.0) == 203
    assert window.foreign(140.0) == 0


def test_an_old_answer_is_read_with_what_was_ours_at_its_time() -> None:
    window = WeightWindow(limit=1000)
    early = fill(window, 0.0, 20)
    for grant in early:
        window.answered(grant, 0.1)
    [slow] = fill(window, 59.0, 1)
    # Counted at 59 s, when the 100 of the first second were still in it; read at 61 s.
    window.answered(slow, 61.0, used_weight=105)
    assert window.foreign(61.0) == 0


def test_foreign_use_above_the_limit_stops_us_while_it_counts_and_then_leaves_us_a_little() -> None:
    window = WeightWindow(limit=100)
    [grant] = fill(window, 0.0, 1)
    window.answered(grant, 0.0, used_weight=5000)
    assert window.capacity(0.0) == 0
    assert window.wait_s(WEIGHT, 0.0) == pytest.approx(60.0)
    assert window.capacity(60.0 + GUARD_S) == 10
    assert window.wait_s(WEIGHT, 60.0 + GUARD_S) == 0.0
    assert window.capacity(120.0) == 100


def test_every_429_makes_us_expect_others_for_longer_until_it_was_calm() -> None:
    window = WeightWindow(limit=1000)

    def report(at_s: float, used: int) -> None:
        [grant] = fill(window, at_s, 1)
        window.answered(grant, at_s, used_weight=used)

    report(0.0, 305)
    window.overran(0.0)
    window.overran(30.0)  # the same moment's answers
    assert (window.foreign(239.9), window.foreign(240.0)) == (303, 0)
    report(250.0, 305)
    window.overran(250.0)
    assert (window.foreign(250.0 + 479.9), window.foreign(250.0 + 480.0)) == (303, 0)
    report(2000.0, 305)  # calm for long
    assert (window.foreign(2119.9), window.foreign(2120.0)) == (303, 0)


def test_after_a_pause_one_goes_alone_then_the_pace_grows() -> None:
    window = WeightWindow(limit=1200)
    window.resume(100.0)
    grant = window.grant(WEIGHT, 100.0)
    assert window.wait_s(WEIGHT, 100.1) == math.inf
    window.answered(grant, 100.2)
    window.went_well()
    assert window.wait_s(WEIGHT, 100.2) == pytest.approx(0.25 / 0.1 - 0.2)
    now_s, granted = 100.2, [100.0]
    while now_s < 160:
        now_s += window.wait_s(WEIGHT, now_s)
        window.answered(window.grant(WEIGHT, now_s), now_s)
        granted.append(now_s)
    first, last = (sum(a <= at < a + 10 for at in granted) for a in (100, 150))
    assert (first, last) == (7, 37)  # of forty at full pace


def test_weight_held_from_before_a_restart_leaves_at_its_time() -> None:
    window = WeightWindow(limit=100)
    window.hold(100, 30.0)
    assert window.wait_s(WEIGHT, 0.0) == pytest.approx(30.0)
    assert window.wait_s(WEIGHT, 30.0) == 0.0


@dataclass
class Counted:
    at_s: float
    weight: int


def heaviest(counted: list[Counted], window_s: float) -> int:
    """The most that any stretch of one window's length holds: what every way of cutting time must bear."""
    return max(
        (sum(c.weight for c in counted if start.at_s <= c.at_s < start.at_s + window_s) for start in counted),
        default=0,
    )


# One request: how long we idle before asking, how long it is under way, when in that time it is counted.
requests = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.3, 5.0, 40.0]),
        st.sampled_from([0.0, 0.02, 0.5, 3.0, 12.0]),
        st.sampled_from([0.0, 0.5, 1.0]),
    ),
    min_size=1,
    max_size=80,
)


@given(requests, st.sampled_from([10.0, 60.0]), st.sampled_from([5, 12, 30, 100]))
@settings(max_examples=500)
def test_no_stretch_of_a_windows_length_ever_exceeds_the_limit(
    asked: list[tuple[float, float, float]], window_s: float, limit: int
) -> None:
    window = WeightWindow(limit=limit, window_s=window_s)
    now_s = 0.0
    under_way: list[tuple[float, Grant]] = []
    counted: list[Counted] = []

    def advance(to_s: float) -> None:
        for answered_s, grant in sorted(under_way, key=lambda entry: entry[0]):
            if answered_s <= to_s:
                window.answered(grant, answered_s)
                under_way.remove((answered_s, grant))

    for idle_s, latency_s, place in asked:
        now_s += idle_s
        advance(now_s)
        while (wait_s := window.wait_s(WEIGHT, now_s)) > 0:
            next_answer_s = min((answered_s for answered_s, _ in under_way), default=math.inf)
            now_s = min(now_s + wait_s, next_answer_s)
            assert now_s < math.inf
            advance(now_s)
        grant = window.grant(WEIGHT, now_s)
        under_way.append((now_s + latency_s, grant))
        counted.append(Counted(now_s + latency_s * place, WEIGHT))
    assert heaviest(counted, window_s) <= limit


def server_count(
    counted: list[Counted], at_s: float, window_s: float, *, aligned: bool, offset_s: float
) -> int:
    """What the exchange would report at a moment: of its current minute, or of the last sixty seconds."""
    begin_s = ((at_s - offset_s) // window_s) * window_s + offset_s if aligned else at_s - window_s
    return sum(c.weight for c in counted if begin_s < c.at_s <= at_s)


traffic = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 1.0, 7.0, 30.0]),  # idle before
        st.sampled_from([0.0, 0.02, 0.5, 3.0, 12.0]),  # under way
        st.sampled_from([0.1, 0.5, 1.0]),  # when in that time it is counted
        st.sampled_from([0, 0, 1, 40]),  # requests of a neighbour, at the same moment
    ),
    min_size=1,
    max_size=60,
)


@given(traffic, st.booleans(), st.floats(0, 60), st.booleans())
@settings(max_examples=500)
def test_reports_never_show_a_neighbour_who_is_not_there_nor_hide_one_who_is(
    seen: list[tuple[float, float, float, int]], aligned: bool, offset_s: float, neighbour: bool
) -> None:
    window = WeightWindow(limit=10**6)
    now_s = 0.0
    ours: list[Counted] = []
    theirs: list[Counted] = []
    answers: list[tuple[float, float, Grant]] = []
    for idle_s, latency_s, place, others in seen:
        now_s += idle_s
        counted_s = now_s + latency_s * place
        grant = window.grant(WEIGHT, now_s)
        ours.append(Counted(counted_s, WEIGHT))
        if neighbour:
            theirs.append(Counted(counted_s, WEIGHT * others))
        answers.append((now_s + latency_s, counted_s, grant))
    # Grants and answers reach the window in the order of time.
    events = [(grant.granted_s, 0, grant, 0.0) for _, _, grant in answers]
    events += [(answered_s, 1, grant, counted_s) for answered_s, counted_s, grant in answers]
    replay = WeightWindow(limit=10**6)
    regranted: dict[int, Grant] = {}
    for at_s, what, grant, counted_s in sorted(events, key=lambda event: event[:2]):
        if what == 0:
            regranted[grant.number] = replay.grant(WEIGHT, at_s)
            continue
        report = server_count(ours + theirs, counted_s, 60.0, aligned=aligned, offset_s=offset_s)
        known = replay.foreign(at_s)
        replay.answered(regranted[grant.number], at_s, report)
        if not neighbour:
            assert replay.foreign(at_s) == 0
        elif replay.foreign(at_s) > known and not aligned:  # this report told something new, and all of it
            assert replay.foreign(at_s) >= server_count(theirs, counted_s, 60.0, aligned=False, offset_s=0)


def test_requests_to_other_endpoints_occupy_the_window_but_hide_no_neighbour() -> None:
    window = WeightWindow(limit=1000)
    for second in range(60):
        window.answered(window.grant(5, float(second), reported=False), float(second))
    assert window.own(60.0) == 300
    [grant] = fill(window, 60.0, 1)
    window.answered(grant, 60.0, used_weight=205)
    assert window.foreign(60.0) >= 200
