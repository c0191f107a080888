"""How long silence lasts: the table, and both clocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.budget.pause import LONGEST_S, Pause, pause_s
from poller.clock import NS_PER_S
from poller.errors import BadRequest, Banned, Blocked, Maintenance, Overloaded, PollError, RateLimited

NOW_MS = 1_767_225_600_000


def limited(retry_after_s: float | None) -> RateLimited:
    return RateLimited("x", status=429, retry_after_s=retry_after_s)


def banned(retry_after_s: float | None = None, until_ms: int | None = None) -> Banned:
    return Banned("x", status=418, retry_after_s=retry_after_s, banned_until_ms=until_ms)


@pytest.mark.parametrize(
    ("error", "strikes", "length_s"),
    [
        (limited(35), 0, 35),
        (limited(0.2), 0, 1),
        (limited(None), 0, 60),
        (limited(None), 2, 240),
        (limited(0), 0, 60),
        (limited(-5), 1, 120),
        (limited(1e12), 0, LONGEST_S),
        (banned(179), 0, 179),
        (banned(179), 3, 179),
        (banned(179, NOW_MS + 500_000), 0, 501),
        (banned(900, NOW_MS + 500_000), 0, 900),
        (banned(None, NOW_MS + 500_000), 0, 501),
        (banned(None, NOW_MS - 500_000), 0, 1),
        (banned(), 0, 120),
        (banned(), 3, 960),
        (banned(0), 0, 120),
        (banned(-1), 0, 120),
        (banned(None, NOW_MS * 1000), 0, LONGEST_S),
        (Blocked("x", status=403), 0, 300),
        (Blocked("x", status=403), 1, 600),
        (Blocked("x", status=403), 20, 6 * 3600),
        (Blocked("x", status=403, retry_after_s=1000), 0, 1000),
        (Blocked("x", status=451), 0, 3600),
        (Blocked("x", status=451), 9, 86_400),
        (Maintenance("x", retry_after_s=90), 9, 90),
        (Maintenance("x"), 9, 60),
        (Overloaded("x", code=-1008), 0, 60),
        (Overloaded("x", code=-1008), 9, 600),
        (BadRequest("x", code=-1102), 0, 60),
    ],
)
def test_the_length_of_a_pause(error: PollError, strikes: int, length_s: float) -> None:
    assert pause_s(error, strikes=strikes, window_s=60.0, exchange_ms=NOW_MS) == length_s


@given(
    st.floats(allow_nan=False) | st.none(),
    st.integers(-(10**15), 10**15) | st.none(),
    st.integers(0, 10**6),
)
def test_no_answer_can_make_a_pause_too_short_or_endless(
    retry_after_s: float | None, until_ms: int | None, strikes: int
) -> None:
    for error in (banned(retry_after_s, until_ms), limited(retry_after_s)):
        assert 1 <= pause_s(error, strikes=strikes, window_s=60.0, exchange_ms=NOW_MS) <= LONGEST_S


def a_pause(length_s: float = 120.0) -> Pause:
    return Pause(
        "banned",
        length_s,
        until_ns=round((1000 + length_s) * NS_PER_S),
        until_uptime_s=50 + length_s,
        boot_id="b1",
    )


def test_within_one_boot_a_stepped_wall_clock_changes_nothing() -> None:
    for wall_s in (0, 1010, 10**6):
        assert a_pause().remaining_s(utc_ns=wall_s * NS_PER_S, uptime_s=60.0, boot_id="b1") == 110.0


def test_after_a_reboot_the_wall_clock_decides() -> None:
    assert a_pause().remaining_s(utc_ns=1030 * NS_PER_S, uptime_s=1.0, boot_id="b2") == 90.0
    assert a_pause().remaining_s(utc_ns=1120 * NS_PER_S, uptime_s=1.0, boot_id="b2") == 0.0


def test_a_clock_set_back_cannot_prolong_a_pause_beyond_its_length() -> None:
    assert a_pause().remaining_s(utc_ns=0, uptime_s=1.0, boot_id="b2") == 120.0


def test_without_a_name_for_the_boot_the_wall_clock_decides() -> None:
    pause = Pause("banned", 120.0, until_ns=1120 * NS_PER_S, until_uptime_s=170.0, boot_id="")
    assert pause.remaining_s(utc_ns=1030 * NS_PER_S, uptime_s=60.0, boot_id="") == 90.0


def test_a_pause_survives_being_written_and_read() -> None:
    assert Pause.from_dict(a_pause().to_dict()) == a_pause()
