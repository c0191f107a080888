"""The beat: who has not turned for too long hangs, unless there still is a reason to wait."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.beat import HANGS_AFTER_S, TURN_EVERY_S, Beat


def test_all_is_well_while_nobody_exists_and_while_everybody_turns() -> None:
    beat = Beat()
    assert beat.trouble(1e6) == ""
    beat.touch("default", 100.0)
    beat.touch("nat-b", 110.0)
    assert beat.trouble(100.0 + HANGS_AFTER_S) == ""


def test_each_one_that_has_not_turned_is_named_with_what_it_was_doing() -> None:
    beat = Beat()
    beat.touch("default", 0.0, "waiting for room in the outbox")
    beat.touch("nat-b", 30.0)
    beat.touch("frankfurt", 3.0)
    assert beat.trouble(31.4) == (
        "the dispatcher of default has not turned for 31 s; it was last seen waiting for room in the outbox, "
        "and the dispatcher of frankfurt has not turned for 28 s"
    )
    beat.touch("default", 31.4)
    beat.forget("frankfurt")
    beat.forget("frankfurt")
    assert beat.trouble(31.4) == ""


def test_who_waits_hangs_only_once_the_reason_is_gone() -> None:
    left_s = math.inf
    beat = Beat()
    beat.waits("default", 0.0, "waiting for weight", lambda: left_s)
    for now_s in range(0, 3600, 5):
        assert beat.trouble(now_s) == ""
    left_s = 0.0
    assert beat.trouble(3595.0 + HANGS_AFTER_S) == ""
    assert beat.trouble(3596.0 + HANGS_AFTER_S) == (
        "the dispatcher of default has not turned for 21 s; it was last seen waiting for weight"
    )
    left_s = 1.0
    assert beat.trouble(3700.0) == ""
    beat.touch("default", 3701.0)  # it waits no more: reasons do not count
    assert beat.trouble(3800.0) == "the dispatcher of default has not turned for 99 s"


def test_a_limit_that_a_waiting_dispatcher_would_exceed_is_none() -> None:
    with pytest.raises(ValueError, match="a dispatcher turns every 5 s: 9 s is no limit for it"):
        Beat(9.0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.0, 12.0)), max_size=40))
def test_it_is_quiet_exactly_while_everybody_has_turned_within_the_limit(
    turns: list[tuple[str, float]],
) -> None:
    beat, now_s = Beat(2 * TURN_EVERY_S), 0.0
    last: dict[str, float] = {}
    for name, passed_s in turns:
        now_s += passed_s
        hanging = {other for other, at_s in last.items() if now_s - at_s > 2 * TURN_EVERY_S}
        trouble = beat.trouble(now_s)
        assert {other for other in last if f"dispatcher of {other} " in trouble} == hanging
        beat.touch(name, now_s)
        last[name] = now_s
