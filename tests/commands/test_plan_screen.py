"""``poller plan`` as a user meets it: a table, a picture, a verdict, an exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from poller.cli import main

pytestmark = pytest.mark.real_time


def fleet(path: Path, text: str, **groups: tuple[int, str]) -> Path:
    """Write a configuration with so many accounts a group, with references to secrets that do not exist."""
    lines = [text, "accounts:"]
    for group, (number, settings) in groups.items():
        for n in range(number):
            name = f"{group}{n}"
            lines.append(
                f"  {name}: {{api_key: env:NO_KEY_{name}, secret: env:NO_SECRET_{name}, {settings}}}"
            )
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    """1,000 accounts at 60 s: 5,000 of 10,800."""
    return fleet(tmp_path / "accounts.yaml", "", a=(1000, "interval: 60s"))


def invoke(path: Path, *options: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["plan", "-c", str(path), *options], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def document(path: Path, *options: str) -> tuple[int, Any]:
    code, out, _ = invoke(path, "--json", *options)
    return code, json.loads(out)


def test_a_fleet_that_fits_is_shown_with_its_headroom(thousand: Path) -> None:
    code, out, err = invoke(thousand)
    assert (code, err) == (0, "")
    heading, row, _, picture, verdict, advice = (line.rstrip() for line in out.splitlines())
    assert heading.split() == [
        "egress",
        "priority",
        "accounts",
        "wanted",
        "given",
        "interval",
        "achieved",
        "stretch",
    ]
    assert re.split(r" {2,}", row) == ["default", "0", "1,000", "5,000", "5,000", "60 s", "60 s", "1.00"]
    assert picture == "default  " + "█" * 14 + "·" * 16 + "  46%"
    assert verdict == "1,000 accounts / 60 s = 5,000 weight per 60 s <= 10,800"
    assert advice == "fits, with room for 1,160 polls per 60 s more: 1,160 accounts at 60 s"


def test_a_fleet_that_does_not_fit_is_shown_with_the_sum_and_what_comes_of_it(tmp_path: Path) -> None:
    path = fleet(
        tmp_path / "accounts.yaml", "defaults: {interval: 20s}", low=(900, ""), high=(100, "priority: 7")
    )
    code, out, _ = invoke(path)
    assert code == 1
    _, high, low, _, picture, verdict, advice = (line.strip() for line in out.splitlines())
    assert re.split(r" {2,}", high) == ["default", "7", "100", "1,500", "1,500", "20 s", "20 s", "1.00"]
    assert re.split(r" {2,}", low) == ["0", "900", "13,500", "9,300", "20 s", "29 s", "1.45"]
    assert picture == "default  " + "█" * 21 + "▒" * 9 + "  139%"
    assert verdict == "1,000 accounts / 20 s = 15,000 weight per 60 s > 10,800"
    assert advice.startswith("does not fit: intervals stretch")


def test_accounts_are_added_to_see_whether_they_fit_too(thousand: Path) -> None:
    code, plan = document(thousand, "--add", "300", "--interval", "30s")
    assert (code, plan["fits"]) == (0, True)
    [address] = plan["addresses"]
    assert address["wanted"] == 5000 + 300 * 10
    assert address["headroom"] == {"weight": 2800, "polls": 560, "accounts": 280, "interval_s": 30}
    assert document(thousand, "--add", "580", "--interval", "30s")[0] == 0
    assert document(thousand, "--add", "581", "--interval", "30s")[0] == 1


def test_added_accounts_of_a_higher_priority_stretch_the_others_only(thousand: Path) -> None:
    code, plan = document(thousand, "--add", "100", "--interval", "5s", "--priority", "9")
    assert code == 1
    assert [
        (demand["priority"], demand["accounts"], demand["stretch"], demand["achieved_s"])
        for demand in plan["addresses"][0]["priorities"]
    ] == [(9, 100, 1.0, [5, 5]), (0, 1000, 1.0417, [62.5, 62.5])]


def test_each_address_has_a_budget_of_its_own(tmp_path: Path) -> None:
    path = fleet(
        tmp_path / "accounts.yaml",
        "budget: {weight_limit: 1000, share: 50%}\negress: {one: {local_address: 127.0.0.1}, two: {local_address: 127.0.0.2}, idle: {local_address: 127.0.0.3}}",
        a=(80, "egress: one"),
        b=(120, "egress: two"),
    )
    code, plan = document(path)
    assert code == 1
    assert [(address["egress"], address["fits"], address["use"]) for address in plan["addresses"]] == [
        ("one", True, 0.8),
        ("two", False, 1.2),
    ]
    added = document(path, "--add", "1", "--egress", "idle")[1]["addresses"]
    assert [(address["egress"], address["accounts"]) for address in added] == [
        ("one", 80),
        ("two", 120),
        ("idle", 1),
    ]


def test_accounts_are_added_where_all_others_are(tmp_path: Path) -> None:
    path = fleet(
        tmp_path / "accounts.yaml", "egress: {tokyo: {local_address: 127.0.0.2}}", a=(3, "egress: tokyo")
    )
    [address] = document(path, "--add", "2")[1]["addresses"]
    assert (address["egress"], address["accounts"]) == ("tokyo", 5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--egress", "mars"), "error: --egress: there is no 'mars'; known here: default\n"),
        (("--interval", "30"), "error: --interval: '30' is not a duration; write 30s\n"),
        (("--interval", "0s"), "error: --interval: '0s' is out of range; write 100ms to 7d\n"),
        (("--interval", "8d"), "error: --interval: '8d' is out of range; write 100ms to 7d\n"),
    ],
)
def test_an_option_that_makes_no_sense_is_a_mistake_with_a_remedy(
    thousand: Path, options: tuple[str, str], told: str
) -> None:
    assert invoke(thousand, *options) == (2, "", told)


def test_check_shows_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fleet(tmp_path / "accounts.yaml", "", a=(2, "interval: 1s"))
    for n in range(2):
        monkeypatch.setenv(f"NO_KEY_a{n}", f"key-{n}")
        monkeypatch.setenv(f"NO_SECRET_a{n}", f"secret-{n}")
    result = CliRunner().invoke(main, ["check", "-c", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "default: 6%, 2 accounts / 1 s = 600 weight per 60 s <= 10,800" in result.stdout


def test_what_operations_shows_is_what_it_prints(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    shown = page.partition("$ poller plan\n")[2].partition("$ ")[0]
    path = fleet(
        tmp_path / "accounts.yaml", "defaults: {interval: 20s}", low=(900, ""), high=(100, "priority: 7")
    )
    printed = [line.rstrip() for line in invoke(path)[1].splitlines()]
    assert shown.splitlines() == printed
