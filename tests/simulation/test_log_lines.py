"""What a troubled fleet logs: a line for what changes, none for a poll, and each as docs/logs.md has it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from poller.logs import JsonFormatter
from poller.model import Account
from poller.simulator import Fault, FaultKind, SimulatorSettings
from poller.simulator.exchange import TIME_PATH
from poller.testing.virtual_time import VirtualTimeLoop
from tests.docs.test_logs_page import wrong_with
from tests.simulation.world import World

HOUR_S = 3600.0
ACCOUNTS = 8


class Collected(logging.Handler):
    """Every line as it would be written."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))

    def told(self) -> Counter[str]:
        return Counter(str(line["message"]) for line in self.lines)


@pytest.fixture
def collected() -> Iterator[Collected]:
    handler, logger = Collected(), logging.getLogger("poller")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def lived(interval_s: float, collected: Collected) -> tuple[int, list[dict[str, object]]]:
    """Let a fleet live through hours in which a lot fails all the time; return its polls and its lines."""
    settings = SimulatorSettings(accounts=ACCOUNTS, key_kinds=("hmac",), moves_per_s=0.1)
    accounts = [Account(f"sim-{n + 1:04d}", interval_s, stale_after_s=1200.0) for n in range(ACCOUNTS)]
    collected.lines.clear()
    counts: list[int] = []

    async def live() -> None:
        world = World(settings, accounts)
        world.exchange.revoked.update({"sim-0001", "sim-0002"})
        faults = [
            Fault(FaultKind.ERROR_HTML, status=502, rate=0.2),
            Fault(FaultKind.RESET, rate=0.2),
            Fault(FaultKind.TRUNCATED, rate=0.5, account="sim-0004"),
            Fault(FaultKind.ERROR, status=500, account="sim-0003"),
            Fault(FaultKind.ERROR, status=500, path=TIME_PATH, nth=9),
        ]
        world.exchange.faults.set(faults, world.exchange.now_us())
        await asyncio.sleep(HOUR_S)
        world.exchange.faults.set([], world.exchange.now_us())
        await asyncio.sleep(0.5 * HOUR_S)
        counts.append(len(world.journal.served))
        await world.daemon.kill()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(live())
    return counts[0], list(collected.lines)


def test_lines_do_not_grow_with_polls_and_are_as_documented(collected: Collected) -> None:
    few, lines_of_few = lived(60.0, collected)
    many, lines_of_many = lived(10.0, collected)
    assert many > 5 * few > 3000
    told = collected.told()
    # No more is said although so much more failed: what began, what ended, who changed its state.
    assert len(lines_of_many) <= len(lines_of_few) + 5 < 60, told
    # One of each kind, and of what is refused: an account by itself is a state.
    kinds = [line["error_kind"] for line in lines_of_many if line["message"] == "polls fail"]
    assert len(kinds) == len(set(kinds)) >= 4
    assert told["polls are good again"] == len(kinds) - 1  # two keys are refused to the end
    changed = [line["account"] for line in lines_of_many if line["message"] == "account changed its state"]
    assert Counter(changed) == {"sim-0001": 1, "sim-0002": 1, "sim-0003": 2}
    assert told["the exchange's clock could not be measured"] == 1
    assert told["the exchange's clock is measured again"] == 1
    assert [wrong for line in (*lines_of_few, *lines_of_many) for wrong in wrong_with(line)] == []
