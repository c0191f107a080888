"""Spells of failing polls: two lines, however many polls fail and however often it comes and goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from poller.spells import QUIET_S, Spells

A_WHILE_S = QUIET_S


def test_a_spell_begins_with_the_first_failure_of_its_kind_whoevers_it_is() -> None:
    spells = Spells()
    assert spells.failed("a", "no_response", 0.0)
    assert not spells.failed("a", "no_response", 10.0)
    assert not spells.failed("b", "no_response", 11.0)
    assert spells.failed("b", "unavailable", 12.0)


def test_it_is_over_when_nobody_fails_so_and_nobody_has_for_a_while() -> None:
    spells = Spells()
    spells.failed("a", "no_response", 0.0)
    spells.failed("b", "no_response", 30.0)
    spells.good("a")
    assert spells.over(30.0 + A_WHILE_S) == []  # b still fails so
    spells.good("b")
    assert spells.over(29.0 + A_WHILE_S) == []
    [spell] = spells.over(30.0 + A_WHILE_S)
    assert (spell.kind, spell.lasted_s, spell.failures, spell.accounts) == (
        "no_response",
        30.0,
        2,
        {"a", "b"},
    )
    assert spells.over(1e9) == []
    assert spells.failed("a", "no_response", 1e9)


def test_who_fails_otherwise_does_not_fail_so_any_more() -> None:
    spells = Spells()
    spells.failed("a", "no_response", 0.0)
    spells.failed("a", "unavailable", 1.0)
    assert [spell.kind for spell in spells.over(A_WHILE_S)] == ["no_response"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["good", "x", "y"]), st.floats(0.1, 120.0)))
)
def test_lines_are_bounded_by_time_whatever_comes_and_goes(polls: list[tuple[str, str, float]]) -> None:
    spells, now_s, begun = Spells(), 0.0, 0
    for account, outcome, wait_s in polls:
        now_s += wait_s
        if outcome == "good":
            spells.good(account)
        else:
            begun += spells.failed(account, outcome, now_s)
        spells.over(now_s)
    assert begun <= 2 * (1 + now_s // A_WHILE_S)
