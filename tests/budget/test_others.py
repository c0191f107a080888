"""What others have in a rolling window, read from answers; and that aligned windows are told apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from poller.budget.others import REMEMBERED_WINDOWS, RollingUse

WINDOW_S = 10.0


def watch(use: RollingUse, shown: dict[float, int], *, rate: float = 0.0) -> None:
    """Give answers that left nothing open, each counted and heard at its moment."""
    for at_s, foreign in shown.items():
        use.learn(foreign, foreign, granted_s=at_s, now_s=at_s, rate=rate)


def test_a_burst_leaves_when_it_is_a_window_old_and_another_one_is_expected() -> None:
    use = RollingUse(WINDOW_S)
    watch(use, {0.0: 0, 1.0: 800})
    assert (use.expected(1.0, 0.0), use.burst(1.0)) == (1600, 800)
    assert use.next_end_s(1.0) == 11.0
    assert use.expected(11.0, 0.0) == 800
    assert use.burst(1.0 + REMEMBERED_WINDOWS * WINDOW_S) == 0


def test_a_second_burst_is_there_beside_the_first() -> None:
    use = RollingUse(WINDOW_S)
    watch(use, {0.0: 0, 1.0: 800, 5.0: 1600, 11.5: 800})
    assert use.expected(11.5, 0.0) == 800 + 800
    assert use.expected(15.0, 0.0) == 800


def test_what_was_there_when_we_came_is_no_burst() -> None:
    use = RollingUse(WINDOW_S)
    watch(use, {0.0: 800, 0.1: 800})
    assert (use.expected(0.1, 0.0), use.burst(0.1)) == (800, 0)


def test_what_comes_at_the_rate_that_is_expected_is_no_burst_and_goes_on_unseen() -> None:
    use = RollingUse(WINDOW_S)
    watch(use, {0.0: 0, 1.0: 80, 2.0: 160}, rate=80.0)
    assert use.burst(2.0) == 0
    assert use.expected(4.0, 80.0) == 160 + 2 * 80
    assert use.expected(1000.0, 80.0) == 800


def test_an_answer_to_an_older_request_does_not_take_back_what_a_newer_one_showed() -> None:
    use = RollingUse(WINDOW_S)
    watch(use, {0.0: 0, 1.0: 800})
    use.learn(0, 0, granted_s=0.9, now_s=1.1, rate=0.0)
    assert use.expected(1.1, 0.0) == 1600
    assert not use.refuted


def test_it_is_taken_to_roll_once_two_windows_showed_no_sign_of_the_other() -> None:
    use = RollingUse(WINDOW_S)
    watch(use, {0.0: 0, 19.9: 0})
    assert not use.rolls
    watch(use, {20.0: 0})
    assert use.rolls


def test_a_window_that_lacks_our_own_weight_does_not_roll() -> None:
    use = RollingUse(WINDOW_S)
    watch(use, {0.0: 0, 20.0: 0})
    use.learn(-400, -300, granted_s=21.0, now_s=21.0, rate=0.0)
    assert (use.rolls, use.refuted) == (False, True)
    watch(use, {40.9: 0})
    assert not use.rolls
    watch(use, {41.0: 0})  # configured otherwise meanwhile, as it seems
    assert use.rolls


def test_a_window_that_lacks_a_burst_of_a_moment_ago_does_not_roll() -> None:
    use = RollingUse(WINDOW_S)
    watch(use, {0.0: 0, 1.0: 800, 3.0: 0})
    assert use.refuted


@given(
    st.lists(
        st.tuples(st.sampled_from([0.01, 0.3, 2.0, 7.0]), st.sampled_from([0, 0, 1, 40, 800])), max_size=60
    ),
    st.lists(st.tuples(st.sampled_from([0.02, 0.08, 1.0]), st.floats(0, 1)), min_size=60, max_size=60),
)
def test_a_rolling_window_is_never_refuted_and_nothing_that_was_shown_is_forgotten_early(
    steps: list[tuple[float, int]], flights: list[tuple[float, float]]
) -> None:
    """Answers overlap and come in any order; others come at any moment."""
    use = RollingUse(WINDOW_S)
    theirs: list[tuple[float, int]] = []
    answers: list[tuple[float, float, float]] = []  # (heard, granted, counted)
    now_s = 100.0
    for (idle_s, weight), (latency_s, place) in zip(steps, flights, strict=False):
        now_s += idle_s
        theirs.append((now_s, weight))
        granted_s = now_s - 0.005
        answers.append((granted_s + latency_s, granted_s, granted_s + place * latency_s))
    for heard_s, granted_s, counted_s in sorted(answers):
        shown = sum(weight for at_s, weight in theirs if counted_s - WINDOW_S < at_s <= counted_s)
        use.learn(shown, shown, granted_s=granted_s, now_s=heard_s, rate=0.0)
        assert not use.refuted
        if granted_s >= max(granted for heard, granted, _ in answers if heard <= heard_s):
            still_s = heard_s - WINDOW_S  # what has surely not left since
            there = sum(weight for at_s, weight in theirs if still_s < at_s <= counted_s)
            assert use.expected(heard_s, 0.0) >= there
