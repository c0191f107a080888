"""The exchange's clock: a failure to measure it is said once for each kind of error, and so is its end."""

from __future__ import annotations

import logging

import pytest

from poller.errors import NoResponse, PollError, Unavailable
from poller.testing.virtual_time import VirtualClock
from poller.timekeeping import TimeKeeper


async def test_a_clock_that_cannot_be_measured_is_one_line_and_its_end_another(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "poller.timekeeping")
    error: PollError | None = NoResponse("timed out", cause="timeout")
    blamed: list[PollError] = []

    async def measure() -> None:
        if error is not None:
            raise error

    async def blame(error: PollError) -> None:
        blamed.append(error)

    keeper = TimeKeeper(measure, blame, clock)
    assert [await keeper.refresh() for _ in range(5)] == [False] * 5
    error = Unavailable("HTTP 502", status=502)
    assert [await keeper.refresh() for _ in range(5)] == [False] * 5
    error = None
    assert await keeper.refresh()
    assert len(blamed) == 10
    assert [(line.message, line.__dict__["error_kind"]) for line in caplog.records] == [
        ("the exchange's clock could not be measured", "no_response"),
        ("the exchange's clock could not be measured", "unavailable"),
        ("the exchange's clock is measured again", "unavailable"),
    ]
