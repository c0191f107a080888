"""What docs/commands.md shows of each command is what it prints, of a fixed fleet."""

from __future__ import annotations

import asyncio
import re
import shlex
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from poller.cli import main
from poller.clock import SystemClock
from poller.control import fleet_verbs
from poller.metrics import Metrics
from poller.model import Account, Balance, Baseline, Reason, Snapshot, State
from poller.outbox import Outbox
from poller.records import record_id, snapshot_record
from poller.sinks.sqlite import SqliteOptions, SqliteSink
from tests.commands.fleets import desk, serving, write_configuration
from tests.commands.test_top import drawn, view

pytestmark = pytest.mark.real_time

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
START_NS = 1_767_225_600_000_000_000  # 2026-01-01
NEEDS_A_DAEMON = {"status", "explain"}


def shown() -> list[tuple[str, list[str]]]:
    """Return every command of the page with the lines that are shown below it."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
    return found


def balance(asset: str, free: str, locked: str = "0", value: str | None = None) -> Balance:
    return Balance(
        asset, Decimal(free), Decimal(locked), btc_valuation=None if value is None else Decimal(value)
    )


HELD = [
    Baseline(
        "treasury",
        42,
        (
            balance("BTC", "12", "0.5", "12.5"),
            balance("NEW", "1000"),
            balance("USDT", "250000.75", value="2.5"),
        ),
    ),
    Baseline("sub-001", 7, (balance("BTC", "0.75", value="0.75"),), None, State.QUARANTINED, START_NS),
    Baseline("sub-002", 9, (balance("USDT", "0.00000001", value="0"),)),
]


async def fill(directory: Path) -> None:
    """Make the outbox and the history that the page speaks of."""
    outbox = await Outbox.open(directory / "data" / "outbox.db", SystemClock(), metrics=Metrics())
    for baseline in HELD:
        await outbox.accept(baseline, [])
    await outbox.close()
    sink = SqliteSink(SqliteOptions(path=directory / "data" / "history.db"))
    await sink.open()
    held = ("10", "10.25", "9", "11", "14", "13.5", "12.75", "12.5")
    await sink.write(
        [
            snapshot_record(
                Account("treasury", 10.0),
                Snapshot(
                    "treasury",
                    (balance("BTC", free, value=free),),
                    START_NS + hour * 3_600_000_000_000,
                    1.0,
                    2.0,
                ),
                id=record_id(hour, bytes(10)),
                sequence=35 + hour,
                reason=Reason.CHANGED,
                changes=[],
            )
            for hour, free in enumerate(held)
        ]
    )
    await sink.close()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("desk")
    write_configuration(directory)
    asyncio.run(fill(directory))
    return directory


@pytest.fixture
def inside(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(directory)
    for name in ("TREASURY", "SUB_001", "SUB_002", "SUB_003"):
        monkeypatch.setenv(f"{name}_KEY", "k")
        monkeypatch.setenv(f"{name}_SECRET", "s")
    return directory


def printed(directory: Path, line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    assert words[0] == "poller"
    if words[1] in NEEDS_A_DAEMON:
        with serving(directory, fleet_verbs(desk())):
            result = CliRunner().invoke(main, words[1:])
    else:
        result = CliRunner().invoke(main, words[1:])
    return [line.rstrip() for line in result.output.rstrip("\n").splitlines()]


def pattern(lines: list[str]) -> str:
    """Return what output has to match: ``...`` stands for anything in a line, alone for any lines."""
    parts = [
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*?") + r"\n"
        for line in lines
    ]
    return "".join(parts)


@pytest.mark.parametrize(("line", "lines"), shown(), ids=[line for line, _ in shown()])
def test_a_command_prints_what_is_shown(inside: Path, line: str, lines: list[str]) -> None:
    if not lines:
        return  # only named; that it exists and takes these options is tried for every page
    output = "\n".join(printed(inside, line)) + "\n"
    assert re.fullmatch(pattern(lines), output), output


def test_the_screen_of_top_is_what_it_draws() -> None:
    [screen] = re.findall(r"^```\n(NOT READY.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert screen.splitlines() == [line.rstrip() for line in drawn(view(desk()))]


def test_every_command_for_operators_is_on_the_page() -> None:
    described = re.findall(r"^## `poller ([a-z]+)", PAGE, re.MULTILINE)
    assert set(described) == {"status", "top", "explain", "balances", "history", "doctor", "completion"}
    for name in described:
        assert any(line.split()[1] == name for line, _ in shown()) or name == "top"


@pytest.mark.parametrize(
    "line",
    [
        "poller status --json",
        "poller explain sub-001 --json",
        "poller balances --json",
        "poller history treasury --since 2026-01-01 --json",
        "poller doctor --json",
    ],
)
def test_fields_that_the_page_names_are_there(inside: Path, line: str) -> None:
    output = "\n".join(printed(inside, line))
    section = PAGE.partition(f"## `{' '.join(line.split()[:2])}`")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+) \|$", section, re.MULTILINE)
    fields = [name for row in rows for name in re.findall(r"`([a-z_]+)`", row)]
    assert fields
    for name in fields:
        assert f'"{name}":' in output, name
