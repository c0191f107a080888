"""``poller history`` on the file of a real sink: exact values in every form, and mistakes."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from poller.cli import main
from poller.commands.history_screen import instant
from poller.commands.plot import plot
from tests.commands.fleets import CONFIGURATION, write_configuration
from tests.test_history import LONG, RECORDS, write

pytestmark = pytest.mark.real_time

ALWAYS = ("--since", "2026-01-01")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    async def fill() -> None:
        await (await write(tmp_path / "data" / "history.db", RECORDS)).close()

    asyncio.run(fill())
    return write_configuration(tmp_path)


def invoke(config: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(main, ["history", *arguments, "-c", str(config)], catch_exceptions=False)
    assert "Traceback" not in result.output
    return result


def test_a_table_shows_every_digit_and_what_changed(config: Path) -> None:
    result = invoke(config, "treasury", "--asset", "BTC", *ALWAYS)
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["at", "sequence", "BTC", "BTC", "value", "difference"],
        ["2026-01-01", "00:00:00.000", "1", "1.5", "1.5"],
        ["2026-01-01", "00:01:00.000", "2", "2", "2", "+0.5"],
        ["2026-01-01", "00:02:00.000", "3", "0", "0", "-2"],
    ]
    limited = invoke(config, "treasury", *ALWAYS, "--limit", "1").stdout.splitlines()
    assert limited[1].split() == ["2026-01-01", "00:02:00.000", "3", "0.25"]
    assert limited[2] == "the last 1 of 3 snapshots; --limit shows more"


def test_an_asset_that_was_never_held_is_no_bare_zero(config: Path) -> None:
    result = invoke(config, "treasury", "--asset", "btc", *ALWAYS, "--json")
    assert {point["total"] for point in json.loads(result.stdout)["points"]} <= {None, "0"}
    assert result.stderr == (
        "treasury held no 'btc' then; names of assets are as the exchange writes them, such as BTC\n"
    )


def test_json_and_csv_have_the_points(config: Path) -> None:
    document = json.loads(invoke(config, "treasury", "--asset", "XYZ", *ALWAYS, "--json").stdout)
    points = document.pop("points")
    assert document == {
        "account": "treasury",
        "asset": "XYZ",
        "sink": "history",
        "since": "2026-01-01T00:00:00.000000Z",
        "until": None,
    }
    assert points[1] == {
        "at": "2026-01-01T00:01:00.000000Z",
        "total": f"{LONG:f}",
        "total_btc": None,
        "sequence": 2,
    }
    assert invoke(
        config, "treasury", *ALWAYS, "--until", "2026-01-01T00:01Z", "--csv"
    ).stdout.splitlines() == [
        "at,account,asset,total,total_btc,sequence",
        "2026-01-01T00:00:00.000000Z,treasury,,,1.5,1",
        "2026-01-01T00:01:00.000000Z,treasury,,,,2",
    ]


def test_a_plot_has_labels_and_the_width_it_is_given(config: Path) -> None:
    lines = invoke(config, "treasury", "--asset", "BTC", *ALWAYS, "--plot").stdout.splitlines()
    assert lines[0] == "treasury: BTC, 3 snapshots, UTC"
    assert lines[1].startswith("2.000 ┤")
    assert lines[7].startswith("1.000 ┤")
    assert lines[12].startswith("0.000 ┤")
    assert re.fullmatch(r" +2026-01-01 00:00:00 +2026-01-01 00:02:00", lines[14])
    assert {len(line) for line in lines[1:14]} == {79}


def test_a_time_without_snapshots_is_said(config: Path) -> None:
    result = invoke(config, "treasury", "--since", "2026-01-02")
    assert (result.exit_code, result.stdout) == (0, "treasury: no snapshot from 2026-01-02 00:00:00 UTC\n")
    assert json.loads(invoke(config, "treasury", "--since", "2026-01-02", "--json").stdout)["points"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("tresury",),
            2,
            "there is no account 'tresury'; did you mean 'treasury'? accounts: alice, treasury",
        ),
        (("treasury", "--since", "x"), 2, "--since: 'x' is no time; write how long ago, such as 24h or 7d"),
        (("treasury", "--until", "9"), 2, "--until: '9' is no time"),
        (("treasury", "--since", "1m", "--until", "2m"), 2, "--until: '2m' is not after --since '1m'"),
        (("treasury", "--sink", "bus"), 2, "--sink: there is no sqlite sink 'bus'; known here: history"),
        (("treasury", "--plot", "--json"), 2, "give one of --plot, --json and --csv"),
    ],
)
def test_a_mistake_is_a_message(config: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    result = invoke(config, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_which_sink_is_read(config: Path) -> None:
    config.write_text(CONFIGURATION + "  copy: {kind: sqlite, path: data/copy.db}\n")
    result = invoke(config, "treasury", *ALWAYS)
    assert result.exit_code == 2
    assert "there are several sqlite sinks; give one with --sink: history, copy" in result.stderr
    assert invoke(config, "treasury", *ALWAYS, "--sink", "history").exit_code == 0
    result = invoke(config, "treasury", *ALWAYS, "--sink", "copy")
    assert result.exit_code == 1
    assert "copy.db: there is no history yet" in result.stderr
    config.write_text(CONFIGURATION.partition("sinks:")[0])
    result = invoke(config, "treasury")
    assert result.exit_code == 2
    assert "no sqlite sink is configured; a history begins with one" in result.stderr


NOW_NS = 1_767_225_600_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", "2026-01-01T00:00:00.000000Z"),
        ("7d", "2025-12-25T00:00:00.000000Z"),
        ("36500d", "1970-01-01T00:00:00.000000Z"),
        ("2026-02-03", "2026-02-03T00:00:00.000000Z"),
        ("2026-02-03T04:05:06.000007Z", "2026-02-03T04:05:06.000007Z"),
        ("2026-02-03 04:05", "2026-02-03T04:05:00.000000Z"),
        ("2026-02-03T04:05+02:00", "2026-02-03T02:05:00.000000Z"),
    ],
)
def test_a_time_is_so_long_ago_or_a_date(text: str, expected: str) -> None:
    assert instant("--since", text, NOW_NS) == expected


# The drawing -------------------------------------------------------------------------------------


def test_a_step_is_drawn_as_one() -> None:
    drawn = plot([(0, 0.0), (5, 1.0), (10, 1.0)], cells=10, lines=2, first="a", last="b")
    assert drawn == [
        "1.000 ┤⠀⡏",
        "0.000 ┤⣀⡇",
        "      └──",
        "       ab",
    ]


def test_what_is_not_known_is_left_out() -> None:
    drawn = plot([(0, 1.0), (4, None), (8, 1.0), (9, 1.0)], cells=14, lines=1, first="", last="")
    assert drawn[0] == "1 ┤⠤⠤⠤⠤⠄⠀⠀⠀⠠⠤"


def test_a_single_point_is_drawn() -> None:
    assert plot([(3, 2.5)], cells=10, lines=1, first="", last="")[0] == "2.5 ┤⠤⠤⠤⠤"


@given(
    values=st.lists(st.one_of(st.none(), st.floats(0, 1e30)), min_size=1).filter(
        lambda values: any(value is not None for value in values)
    ),
    cells=st.integers(1, 200),
    lines=st.integers(1, 30),
)
def test_whatever_is_drawn_has_its_size(values: list[float | None], cells: int, lines: int) -> None:
    points = [(float(second), value) for second, value in enumerate(values)]
    drawn = plot(points, cells=cells, lines=lines, first="from", last="to")
    assert len(drawn) == lines + 2
    assert len({len(line) for line in drawn[:-1]}) == 1
    assert any(0x2800 < ord(char) < 0x2900 for line in drawn for char in line)
