"""A heavier weight and a lower limit are learned, never the other way round."""

from __future__ import annotations

import pytest

from poller.budget.terms import ALIKE, Terms


def lone(terms: Terms, figures: list[int], *, every_s: float = 0.3) -> list[int | None]:
    """Answers one after another, with nothing between."""
    return [
        terms.answered(5, used, number=n, granted_s=n * every_s, now_s=n * every_s + 0.1, alone=True)
        for n, used in enumerate(figures, 1)
    ]


def test_steps_that_agree_on_a_heavier_weight_convince() -> None:
    terms = Terms(12_000)
    told = lone(terms, [10 * n for n in range(1, ALIKE + 2)])
    assert told == [None] * ALIKE + [10]
    assert terms.charged(5) == 10
    assert terms.charged(1) == 1


def test_the_documented_weight_and_less_teach_nothing() -> None:
    for step in (1, 5):
        terms = Terms(12_000)
        lone(terms, [step * n for n in range(1, 200)])
        assert terms.charged(5) == 5


def test_a_neighbour_who_is_not_always_there_teaches_nothing() -> None:
    terms = Terms(12_000)
    figures, used = [], 0
    for n in range(1, 800):
        used += 5 if n % 40 == 0 else 45
        figures.append(used)
    lone(terms, figures)
    assert terms.charged(5) == 5


def test_answers_with_others_between_or_long_after_teach_nothing() -> None:
    terms = Terms(12_000)
    lone(terms, [10 * n for n in range(1, 200)], every_s=5.0)
    for n in range(1, 200):
        terms.answered(5, 10 * n, number=2 * n, granted_s=n * 0.5, now_s=n * 0.5 + 0.1, alone=True)
    for n in range(1, 200):
        terms.answered(5, 10 * n, number=n, granted_s=n * 0.5, now_s=n * 0.5 + 0.1, alone=n % 2 == 0)
    assert terms.charged(5) == 5


def test_a_window_that_turns_is_no_step() -> None:
    terms = Terms(12_000)
    lone(terms, [10 * n % 200 for n in range(1, 2 * ALIKE)])
    assert terms.charged(5) == 10


def test_what_was_believed_wrongly_is_corrected() -> None:
    terms = Terms(12_000)
    lone(terms, [45 * n for n in range(1, ALIKE + 2)])
    assert terms.charged(5) == 45
    told = lone(terms, [5 * n for n in range(1, ALIKE + 3)])
    assert (terms.charged(5), told[-1] or told[-2]) == (5, 5)


@pytest.mark.parametrize(
    ("used", "limit"),
    [
        (6005, 6000),
        (12_005, 12_000),
        (20_000, 12_000),
        (None, 12_000),
        (0, 12_000),
        (1100, 12_000),
        (1205, 1200),
    ],
)
def test_two_429s_below_the_limit_show_a_lower_one(used: int | None, limit: int) -> None:
    terms = Terms(12_000)
    assert terms.limited(used, 5) is None
    terms.limited(used, 5)
    assert terms.limit == limit


def test_one_429_or_two_that_disagree_teach_nothing() -> None:
    terms = Terms(12_000)
    for used in (2000, 9000, 3000, 6000):
        terms.limited(used, 5)
    assert terms.limit == 12_000


def test_a_learned_limit_is_lowered_further_and_never_raised() -> None:
    terms = Terms(12_000)
    figures = [(6005, None), (6105, 6100), (9005, None), (9005, None), (4005, None), (4005, 4000)]
    assert [terms.limited(used, 5) for used, _ in figures] == [limit for _, limit in figures]


def test_two_429s_around_the_limit_never_raise_it() -> None:
    terms = Terms(12_000)
    assert terms.limited(12_600, 5) is None
    assert terms.limited(11_900, 5) is None
    assert terms.limit == 12_000


def test_a_limit_from_before_a_restart_is_taken_over_unless_it_makes_no_sense() -> None:
    for kept, limit in ((6000, 6000), (50, 12_000), (20_000, 12_000)):
        terms = Terms(12_000)
        terms.restore(kept)
        assert terms.limit == limit
