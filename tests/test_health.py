"""Stale, refused, quarantined: exact thresholds."""

from __future__ import annotations

import math

from poller.health import CONFIRM_AFTER_S, PROBE_FIRST_S, Health
from poller.model import Account, State


def watch(count: int = 1, state: State = State.OK) -> Health:
    health = Health()
    for number in range(count):
        health.add(Account(f"a{number}", 60.0, stale_after_s=180.0), state, 0.0)
    return health


def test_an_account_is_stale_after_its_limit_without_a_good_answer() -> None:
    health = watch()
    assert health.next_stale_s() == 180.0
    assert health.stale(179.9) == []
    assert [account.name for account in health.stale(180.0)] == ["a0"]
    health.good("a0", 100.0)
    assert health.stale(180.0) == []
    assert health.next_stale_s() == 280.0


def test_where_intervals_stretch_staleness_waits_with_them() -> None:
    health = watch()
    health.set_stretch({0: 4.0})
    assert health.next_stale_s() == 720.0
    assert health.stale(719.9) == []
    assert [account.name for account in health.stale(720.0)] == ["a0"]
    health.set_stretch({0: 0.5, 1: 9.0})
    assert health.next_stale_s() == 180.0


def test_an_account_is_called_stale_once() -> None:
    health = watch()
    health.turn("a0", State.STALE)
    assert health.stale(1e6) == []
    assert health.next_stale_s() == math.inf


def test_a_refusal_is_confirmed_twice_then_probed_ever_more_rarely() -> None:
    health = watch()
    waits = []
    quarantined = []
    for _ in range(9):
        waits.append(health.refused("a0"))
        quarantined.append(health.is_quarantined("a0"))
    assert waits == [60, 60, 900, 1800, 3600, 7200, 14_400, 21_600, 21_600]
    assert quarantined == [False, False] + [True] * 7


def test_a_good_answer_ends_a_quarantine() -> None:
    health = watch()
    for _ in range(5):
        health.refused("a0")
    health.good("a0", 10.0)
    assert not health.is_quarantined("a0")
    assert health.refused("a0") == 60.0


def test_after_a_restart_a_quarantined_account_needs_one_probe_and_no_new_confirmation() -> None:
    health = watch(state=State.QUARANTINED)
    assert not health.is_quarantined("a0")
    assert health.refused("a0") == 900.0
    assert health.is_quarantined("a0")


def test_half_of_the_fleet_refused_is_not_the_accounts_fault() -> None:
    health = watch(20)
    for number in range(20):
        health.good(f"a{number}", 0.0)
    for number in range(9):
        health.refused(f"a{number}")
    assert not health.alike()
    health.refused("a9")
    assert health.alike()


def test_a_few_bad_keys_in_a_small_fleet_are_the_accounts_fault() -> None:
    health = watch(4)
    for number in range(4):
        health.refused(f"a{number}")
    assert not health.alike()


def test_what_was_not_the_accounts_fault_is_forgiven() -> None:
    health = watch(6)
    for number in range(6):
        health.refused(f"a{number}")
        health.refused(f"a{number}")
    health.forgive()
    assert health.refused("a0") == 60.0
    assert not health.is_quarantined("a0")


def test_an_account_that_was_removed_is_watched_no_more() -> None:
    health = watch(2)
    health.remove("a0")
    assert [account.name for account in health.stale(1e6)] == ["a1"]
    assert list(health.states()) == [State.OK]


def test_another_key_has_to_be_refused_as_often_as_the_first() -> None:
    health = watch()
    health.refused("a0")
    health.refused("a0")
    health.renewed("a0")
    assert health.refused("a0") == CONFIRM_AFTER_S
    assert not health.is_quarantined("a0")


def test_another_key_of_a_quarantined_account_is_judged_by_its_first_answer() -> None:
    health = watch(state=State.QUARANTINED)
    for _ in range(5):
        health.refused("a0")
    health.renewed("a0")
    assert not health.is_quarantined("a0")
    assert health.refused("a0") == PROBE_FIRST_S
    assert health.is_quarantined("a0")


def test_changed_settings_hold_from_now_on() -> None:
    health = watch()
    health.change(Account("a0", 60.0, stale_after_s=20.0))
    assert health.next_stale_s() == 20.0
    health.set_stretch({0: 3.0})
    assert (health.stretch(0), health.stretch(1)) == (3.0, 1.0)


def test_a_good_answer_says_how_old_the_one_before_it_was() -> None:
    health = watch(2)
    assert health.good("a0", 100.0) is None, "the first: nobody knows"
    assert health.good("a0", 112.5) == 12.5
    assert [(each.account.name, each.state, each.silent_s) for each in health.each(120.0)] == [
        ("a0", State.OK, 7.5),
        ("a1", State.OK, 120.0),
    ]
