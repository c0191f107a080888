"""``status``, ``explain`` and ``balances`` against a daemon's socket, and without a daemon."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import threading
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from poller.cli import main
from poller.clock import SystemClock
from poller.commands import asking
from poller.control import balances_verbs
from poller.locks import FileLock
from poller.metrics import Metrics
from poller.model import Balance, Baseline, State
from poller.outbox import Outbox
from poller.overview import Check, ConfigurationSeen, Discovery
from tests.commands.fleets import FixedOverview, desk, egress, serving, sink, summary, write_configuration
from tests.commands.terminals import Terminal

pytestmark = pytest.mark.real_time


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_configuration(tmp_path)


def invoke(config: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(main, [*arguments, "-c", str(config)], catch_exceptions=False)
    assert "Traceback" not in result.output
    return result


def words(output: str) -> str:
    return re.sub(r"\s+", " ", output)


# status ------------------------------------------------------------------------------------------


def test_status_says_first_what_is_wrong_and_exits_with_1(config: Path) -> None:
    with serving(config.parent, desk()):
        result = invoke(config, "status")
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()[:2]
    assert first == "NOT READY  poller 0.1.0, up 4 h, 2026-01-01 12:00:00 UTC"
    assert second == "  ✗ polls: 1 of 2 egress addresses pauses: nat-b"
    said = words(result.stdout)
    assert "accounts 4: 2 ok, 1 quarantined, 1 stale; 1 overdue; 12.5 BTC and 1 not valued" in said
    assert "sub-001 quarantined 42 min ago nat-b its key is refused: -2015 Invalid API-key" in said
    assert "sub-003 overdue 25 s ago default no good answer for 2.5 intervals, due for 5 s" in said
    assert "nat-b: pauses 42 s more: rate_limited" in said
    assert "bus nats 312 1 min 35 s 0.0/s 2 0" in said
    assert (
        "bus: fails for 1 min 35 s, single records are tried: nats.example:4222: connection refused" in said
    )


def test_status_of_a_fleet_that_is_well_is_short_and_exits_with_0(config: Path) -> None:
    fleet = FixedOverview([summary()], [egress()], [sink()])
    with serving(config.parent, fleet):
        result = invoke(config, "status")
    assert result.exit_code == 0
    assert result.stdout.startswith("ready  poller 0.1.0")
    assert "last good" not in result.stdout
    # 5,400 and 1,200 of 12,000 on 24 cells, drawn up to the exchange's limit.
    assert f" {'█' * 11}{'▒' * 2}{'·' * 11} " in result.stdout


def test_status_as_json_is_what_the_daemon_said_and_the_worst_accounts(config: Path) -> None:
    fleet = desk()
    with serving(config.parent, fleet):
        result = invoke(config, "status", "--json")
    document = json.loads(result.stdout)
    assert document["status"] == asdict(fleet.status())
    assert document["egress"] == [asdict(one) for one in fleet.egress()]
    assert document["sinks"] == [asdict(one) for one in fleet.sinks()]
    assert [row["account"] for row in document["worst"]] == ["sub-001", "sub-002", "sub-003"]


def test_at_most_ten_accounts_are_shown_the_longest_waiting_first(config: Path) -> None:
    fleet = FixedOverview(
        [
            summary(f"a{second:02}", good_at=f"2026-01-01T11:59:{second:02}.000000Z", interval_s=1.0)
            for second in range(59)
        ]
    )
    with serving(config.parent, fleet):
        document = json.loads(invoke(config, "status", "--json").stdout)
    assert [row["account"] for row in document["worst"]] == [f"a{second:02}" for second in range(10)]


def test_an_account_that_never_answered_waits_since_the_start(config: Path) -> None:
    with serving(config.parent, FixedOverview([summary(good_at=None)])):
        said = words(invoke(config, "status").stdout)
    assert "treasury overdue never default no good answer for 1440.0 intervals" in said


def test_status_shows_refused_reloads_and_discoveries(config: Path) -> None:
    fleet = FixedOverview(
        [summary()],
        configuration=ConfigurationSeen(
            "accounts.yaml",
            "2026-01-01T08:00:00.000000Z",
            [f"account a{number} was added" for number in range(7)],
            ["accounts.yaml:5: accounts.x: [bold]no[/bold]"],
            "2026-01-01T09:00:00.000000Z",
        ),
        discoveries=[Discovery("master", None, "not asked yet", 7, ["d", "e"], [], ["f"])],
    )
    with serving(config.parent, fleet):
        said = words(invoke(config, "status").stdout)
    assert "changed: account a4 was added and 2 changes more" in said
    assert "the last reload at 2026-01-01 09:00:00 UTC was refused:" in said
    assert "accounts.yaml:5: accounts.x: [bold]no[/bold]" in said
    assert "discovery master: 7 sub-accounts; 2 missing: d, e; 1 gone: f; not asked yet" in said


def test_what_a_destination_said_cannot_move_the_cursor(config: Path) -> None:
    hostile = "\x1b[2J\x1b]0;title\x07\r\u202e[red]"
    fleet = FixedOverview(
        [summary(state="stale", reason=hostile)],
        [egress(pause_s=1.0, pause_cause=hostile)],
        [sink(error=hostile)],
        ready=[Check(hostile, ok=False, text=hostile)],
    )
    with serving(config.parent, fleet):
        for command in (("status",), ("explain", "treasury")):
            output = invoke(config, *command).stdout
            assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", output)
            assert r"\x1b[2J\x1b]0;title\x07\r\u202e[red]" in output


# explain -----------------------------------------------------------------------------------------


def test_status_says_of_a_stale_account_what_it_answers_instead(config: Path) -> None:
    refused = "HTTP 400, code -2015: Invalid API-key, IP, or permissions for action."
    stale = summary("treasury", state="stale", reason="no good answer for 30 s", error=refused, failures=1)
    with serving(config.parent, FixedOverview([stale])):
        said = words(invoke(config, "status").stdout)
    assert refused in said
    assert "no good answer for 30 s" not in said


def test_explain_says_why(config: Path) -> None:
    with serving(config.parent, desk()):
        result = invoke(config, "explain", "sub-001")
    assert result.exit_code == 0
    said = words(result.stdout)
    assert said.startswith("sub-001 quarantined since 2026-01-01 11:20:00 UTC its key is refused: -2015")
    assert "• bus has not got its last record yet." in said
    assert "interval 10 s; priority 0, egress nat-b labels desk=mm" in said
    assert "2026-01-01 11:25:00 access_denied 10 ms 42 -2015 Invalid" in said


def test_explain_as_json_is_the_document(config: Path) -> None:
    fleet = desk()
    expected = fleet.account("treasury")
    assert expected is not None
    with serving(config.parent, fleet):
        result = invoke(config, "explain", "treasury", "--json")
    assert json.loads(result.stdout) == asdict(expected)


def test_explain_of_nobody_names_the_nearest(config: Path) -> None:
    with serving(config.parent, desk()):
        result = invoke(config, "explain", "tresury")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: there is no account 'tresury'; did you mean 'treasury'?")


# Without a daemon --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("status",), ("explain", "treasury"), ("status", "--json")])
def test_without_a_daemon_the_remedy_is_named(config: Path, command: tuple[str, ...]) -> None:
    result = invoke(config, *command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: no daemon answers at {config.parent}/data/outbox.db.sock: No such file or directory;"
        f" start it: poller run -c {config}\n"
    )


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not say who has a lock")
def test_a_daemon_that_runs_without_answering_is_named(config: Path) -> None:
    (config.parent / "data").mkdir()
    lock = FileLock(config.parent / "data" / "outbox.db.lock")
    try:
        result = invoke(config, "status")
    finally:
        lock.release()
    assert result.exit_code == 1
    assert f"process {os.getpid()} has the outbox, but does not answer" in result.stderr


def test_status_works_while_somebody_edits_the_configuration(config: Path) -> None:
    config.write_text(config.read_text() + "sinks_: {}\n")
    with serving(config.parent, desk()):
        assert invoke(config, "status").stdout.startswith("NOT READY")
    config.write_text("outbox: {path: 5}\n")
    result = invoke(config, "status")
    assert result.exit_code == 2
    assert "outbox.path" in result.stderr


LOOKING: list[tuple[str, ...]] = [
    ("status",),
    ("explain", "treasury"),
    ("balances",),
    ("history", "treasury"),
    ("outbox", "ls"),
    ("reload",),
]


@pytest.mark.parametrize("command", LOOKING, ids=lambda command: command[0])
@pytest.mark.parametrize(
    "text", [None, "accounts: [1", "outbox: {path: 5}\n"], ids=["missing", "cut", "wrong"]
)
def test_a_broken_configuration_is_named_and_nobody_speaks_of_starting(
    config: Path, command: tuple[str, ...], text: str | None
) -> None:
    config.unlink()
    if text is not None:
        config.write_text(text)
    result = invoke(config, *command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {config}:")
    assert re.search(r"\n[12] problems?; correct the configuration\n\Z", result.stderr)


def test_balances_without_a_daemon_and_an_outbox_say_what_makes_one(config: Path) -> None:
    result = invoke(config, "balances")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: {config.parent}/data/outbox.db: there is no outbox yet; 'poller run' makes it\n"
    )


def test_history_without_its_file_says_who_makes_it(config: Path) -> None:
    result = invoke(config, "history", "treasury")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {config.parent}/data/history.db")


@pytest.mark.parametrize("command", ["run", "once"])
def test_what_would_have_polled_says_that_nothing_was_started(config: Path, command: str) -> None:
    config.write_text("accounts: [1")
    assert invoke(config, command).stderr.endswith("\n1 problem; nothing was started\n")


def test_a_daemon_of_another_version_says_so(config: Path) -> None:
    with serving(config.parent, {}):
        result = invoke(config, "status")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: unknown verb; known: \n"


def test_a_daemon_that_hangs_is_not_waited_for_without_end(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(arguments: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asking, "PATIENCE_S", 0.1)
    with serving(config.parent, {"fleet.status": hang}):
        result = invoke(config, "status")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == ("error: the daemon does not answer within 0.1 s; see its log, and its process\n")


def test_a_daemon_that_hangs_up_is_not_ready(config: Path) -> None:
    (config.parent / "data").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(config.parent / "data" / "outbox.db.sock"))
        listening.listen()

        def hang_up() -> None:
            connection, _ = listening.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        result = invoke(config, "status")
        thread.join()
    assert result.exit_code == 1
    assert "the daemon did not answer" in result.stderr


# balances ----------------------------------------------------------------------------------------

LONG = "123456789012345678901234567890.000000000000000000000000000001"
HELD = {
    "treasury": Baseline(
        "treasury",
        4,
        (
            Balance("BTC", Decimal("1.5"), Decimal("0.25"), btc_valuation=Decimal("1.75")),
            Balance("USDT", Decimal("0.1"), btc_valuation=Decimal("0.000001")),
        ),
    ),
    "sub-001": Baseline(
        "sub-001", 2, (Balance("USDT", Decimal(LONG)),), None, State.QUARANTINED, 1_767_225_600_000_000_000
    ),
    "sub-002": Baseline("sub-002", 1, (Balance("USDT", Decimal("0.2"), btc_valuation=Decimal("0.000002")),)),
    "gone": Baseline("gone", 9, (Balance("BTC", Decimal(1)),)),
}


@pytest.fixture
def held(config: Path) -> Path:
    """The configuration with an outbox beside it; ``sub-003`` was never polled."""

    async def fill() -> None:
        outbox = await Outbox.open(config.parent / "data" / "outbox.db", SystemClock(), metrics=Metrics())
        for baseline in HELD.values():
            await outbox.accept(baseline, [])
        await outbox.close()

    asyncio.run(fill())
    return config


def balances(config: Path, *arguments: str) -> Any:
    result = invoke(config, "balances", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_balances_are_added_exactly_without_a_daemon(held: Path) -> None:
    document = balances(held)
    assert (document["accounts"], document["unvalued"], document["total_btc"]) == (3, 1, "1.750003")
    assert document["doubtful"] == ["sub-001"]
    assert document["never_polled"] == ["sub-003"]
    assert document["not_configured"] == ["gone"]
    assert [(row["account"], row["total_btc"], row["unvalued"]) for row in document["rows"]] == [
        ("treasury", "1.750001", 0),
        ("sub-001", "0", 1),
        ("sub-002", "0.000002", 0),
    ]


def test_an_asset_of_the_whole_fleet_is_added_to_the_last_digit(held: Path) -> None:
    document = balances(held, "--by", "asset")
    bitcoin, tether = document["rows"]
    assert (bitcoin["asset"], bitcoin["free"], bitcoin["locked"], bitcoin["total"]) == (
        "BTC",
        "1.5",
        "0.25",
        "1.75",
    )
    assert tether["total"] == "123456789012345678901234567890.300000000000000000000000000001"
    assert (tether["accounts"], tether["total_btc"], tether["unvalued"]) == (3, "0.000003", 1)


@pytest.mark.parametrize(
    ("options", "accounts"),
    [
        (("--label", "desk=mm"), ["treasury", "sub-001"]),
        (("--label", "desk=otc"), ["sub-002"]),
        (("--account", "sub-*"), ["sub-001", "sub-002"]),
        (("--account", "treasury", "--account", "sub-002"), ["treasury", "sub-002"]),
        (("--account", "sub-*", "--label", "desk=mm"), ["sub-001"]),
    ],
)
def test_accounts_are_chosen_by_label_and_name(
    held: Path, options: tuple[str, ...], accounts: list[str]
) -> None:
    assert [row["account"] for row in balances(held, *options)["rows"]] == accounts


def test_an_asset_that_nobody_holds_is_no_bare_zero(held: Path) -> None:
    result = invoke(held, "balances", "--asset", "btc", "--json")
    assert json.loads(result.stdout)["total_btc"] == "0"
    assert result.stderr == (
        "nobody of these holds 'btc'; names of assets are as the exchange writes them, such as BTC\n"
    )
    assert invoke(held, "balances", "--asset", "BTC").stderr == ""


def test_one_asset_alone(held: Path) -> None:
    document = balances(held, "--asset", "USDT")
    assert [row["total"] for row in document["rows"]] == ["0.1", LONG, "0.2"]
    assert [row["total"] for row in balances(held, "--asset", "ETH")["rows"]] == ["0", "0", "0"]


def test_balances_for_people_flag_what_may_be_old(held: Path) -> None:
    said = words(invoke(held, "balances").stdout)
    assert re.search(r"treasury 2 1\.750001 sub-001 1 0 1 quarantined for \d+ d", said)
    assert "3 accounts 1.750003 1" in said
    assert "1 not ok: what is shown may be old: sub-001" in said
    assert "1 never polled, and not counted: sub-003" in said
    assert "1 configured no more, and not counted: gone" in said
    assert "USDT 3 123456789012345678901234567890.300000000000000000000000000001 0 " in words(
        invoke(held, "balances", "--by", "asset").stdout
    )


def test_a_narrow_terminal_folds_amounts_and_cuts_none_off(held: Path) -> None:
    with Terminal("balances", "--by", "asset", cwd=held.parent, size=(100, 24)) as terminal:
        assert terminal.end() == 0
        lines = [line for line in terminal.text().splitlines() if line.strip()]
    # The column of totals, put together again.
    heading = lines[0]
    end = heading.index("total") + len("total")
    total = "".join(
        line[heading.index("locked") + len("locked") : end].strip() for line in lines if "BTC" not in line
    )
    assert "123456789012345678901234567890.300000000000000000000000000001" in total, lines


def test_balances_as_csv(held: Path) -> None:
    lines = invoke(held, "balances", "--csv", "--account", "treasury").stdout.splitlines()
    assert lines == [
        "account,asset,free,locked,freeze,withdrawing,ipoable,total,btc_valuation,sequence,state",
        "treasury,BTC,1.5,0.25,0,0,0,1.75,1.75,4,ok",
        "treasury,USDT,0.1,0,0,0,0,0.1,0.000001,4,ok",
    ]
    assert invoke(held, "balances", "--csv", "--by", "asset", "--asset", "BTC").stdout.splitlines() == [
        "asset,accounts,free,locked,freeze,withdrawing,ipoable,total,total_btc,unvalued",
        "BTC,1,1.5,0.25,0,0,0,1.75,1.75,0",
    ]


def test_beside_a_daemon_it_is_asked(held: Path) -> None:
    alone = balances(held)

    asked = []

    async def answer(arguments: Any) -> Any:
        asked.append(arguments)
        outbox = await Outbox.open(held.parent / "data" / "outbox.db", SystemClock(), metrics=Metrics())
        try:
            return await balances_verbs(outbox)["fleet.balances"](arguments)
        finally:
            await outbox.close()

    with serving(held.parent, {"fleet.balances": answer}):
        assert balances(held) == alone
    assert asked == [{}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--label", "desk"), "--label desk: write NAME=TEXT, such as desk=mm"),
        (("--label", "desk=x"), "--label desk=x: no configured account matches"),
        (("--account", "no-*"), "--account no-*: no configured account matches"),
        (("--json", "--csv"), "give one of --json and --csv"),
    ],
)
def test_a_mistake_is_a_message(held: Path, options: tuple[str, ...], said: str) -> None:
    result = invoke(held, "balances", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {said}\n")


def test_without_any_outbox_the_remedy_is_named(config: Path) -> None:
    result = invoke(config, "balances")
    assert result.exit_code == 2
    assert "there is no outbox yet; 'poller run' makes it" in result.stderr
    assert not (config.parent / "data").exists()
