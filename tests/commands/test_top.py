"""``poller top`` in a real terminal; and what it draws and what keys do, exactly."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from poller.cli import main
from poller.commands.keyboard import Keys
from poller.commands.top_screen import _rounded, frame
from poller.commands.top_view import SORTS, View
from poller.overview import Happening, Status
from tests.commands.fleets import AT, FixedOverview, desk, serving, summary, write_configuration
from tests.commands.terminals import Terminal

pytestmark = pytest.mark.real_time

SHOWN, LEFT = "\x1b[?1049h", "\x1b[?1049l"
CURSOR = "\x1b[?25h"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_configuration(tmp_path)


@contextmanager
def watching(config: Path, fleet: FixedOverview | None = None, **options: Any) -> Iterator[Terminal]:
    """A terminal that shows the fleet."""
    with serving(config.parent, fleet or desk()), Terminal("top", cwd=config.parent, **options) as terminal:
        terminal.wait_for("q quit")
        yield terminal


# In a terminal -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda terminal: terminal.type("q"), 0),
        (lambda terminal: terminal.type("\x03"), 0),
        (lambda terminal: terminal.type("\x1c"), 131),
        (lambda terminal: terminal.process.send_signal(signal.SIGTERM), 143),
        (lambda terminal: terminal.process.send_signal(signal.SIGHUP), 129),
    ],
    ids=["q", "Ctrl-C", "Ctrl-backslash", "SIGTERM", "SIGHUP"],
)
def test_the_terminal_is_as_it_was_after_every_end(config: Path, end: Any, code: int) -> None:
    with watching(config) as terminal:
        assert terminal.modes() != terminal.before
        end(terminal)
        assert terminal.end() == code
        assert terminal.modes() == terminal.before
        assert LEFT in terminal.output
        assert CURSOR in terminal.output
        assert "Traceback" not in terminal.output


CRASH = """
import sys
from poller.commands import top_live
drawn = top_live.frame
def frame(view, width, height):
    if view.sort == "late":
        raise RuntimeError("a bug")
    return drawn(view, width, height)
top_live.frame = frame
from poller.cli import main
main(prog_name="poller")
"""


def test_the_terminal_is_as_it_was_after_a_crash(config: Path) -> None:
    with watching(config, module=("-c", CRASH)) as terminal:
        terminal.type("ss")
        assert terminal.end() == 1
        assert terminal.modes() == terminal.before
        before, left, after = terminal.output.partition(LEFT)
        assert left
        assert "RuntimeError: a bug" in after
        assert "Traceback" not in before


def test_it_can_be_stopped_and_continued(config: Path) -> None:
    with watching(config) as terminal:
        terminal.type("\x1a")
        _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert terminal.modes() == terminal.before
        terminal.wait_for(lambda: LEFT in terminal.output)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for(lambda: SHOWN in terminal.output)
        terminal.wait_for("q quit")
        assert terminal.modes() != terminal.before
        terminal.type("q")
        assert terminal.end() == 0
        assert terminal.modes() == terminal.before


def test_keys_sort_filter_and_scroll(config: Path) -> None:
    fleet = desk()
    for number in range(40):
        fleet.put(summary(f"bot-{number:02}"))
    with watching(config, fleet) as terminal:
        terminal.type("s")
        terminal.wait_for("by name, 44 of 44")
        terminal.type("\x1b[F")
        terminal.wait_for("treasury ok")
        terminal.type("\x1b[5~\x1b[5~\x1b[5~\x1b[5~\x1b[5~\x1b[A")
        terminal.wait_for("bot-00 ")
        terminal.type("/quarantined")
        terminal.wait_for("/quarantined█")
        terminal.type("\r")
        terminal.wait_for("by name, 1 of 44")
        terminal.type("\x1b")
        terminal.wait_for("by name, 44 of 44")
        terminal.type("q")
        assert terminal.end() == 0


def test_it_follows_the_size_of_the_terminal(config: Path) -> None:
    with watching(config, size=(80, 24)) as terminal:
        assert "egress" not in terminal.text()
        terminal.resize(160, 40)
        terminal.wait_for("every by worst, 4 of 4")


@pytest.mark.parametrize("no_color", [False, True])
def test_no_color_is_respected(config: Path, no_color: bool) -> None:
    # An empty variable is one that is not set, by the convention.
    no_color_is = "1" if no_color else ""
    with serving(config.parent, desk()), Terminal("top", cwd=config.parent, NO_COLOR=no_color_is) as terminal:
        terminal.wait_for("q quit")
        terminal.type("q")
        assert terminal.end() == 0
        colours = re.findall(r"\x1b\[(?:[0-9]+;)*(?:3[0-7]|4[0-7])m", terminal.everything)
    assert bool(colours) is not no_color


def test_it_waits_for_a_daemon_that_is_restarted(config: Path) -> None:
    class Restarted(FixedOverview):
        def status(self) -> Status:
            return replace(super().status(), started_at="2026-01-01T11:59:00.000000Z")

    first = FixedOverview([summary("old-one"), summary("old-two")])
    first.happen(Happening(0, AT, "status", "old-one", 1, "stale", "before", []))
    with Terminal("top", cwd=config.parent) as terminal:
        with serving(config.parent, first):
            terminal.wait_for("2 of 2")
        terminal.wait_for("waiting for the daemon: nobody answers at")
        with serving(config.parent, Restarted([summary("new-one")])):
            terminal.wait_for("new-one ok")
            terminal.wait_for("1 of 1")
            terminal.wait_for("q quit")
            assert "old-one" not in terminal.text()
            terminal.type("q")
            assert terminal.end() == 0


def test_without_a_daemon_the_remedy_is_named_and_nothing_is_drawn(config: Path) -> None:
    with Terminal("top", cwd=config.parent) as terminal:
        assert terminal.end() == 1
        assert SHOWN not in terminal.output
        assert "start it: poller run -c accounts.yaml" in re.sub(r"\s+", " ", terminal.text())


def test_a_daemon_of_another_version_is_said(config: Path) -> None:
    async def odd(arguments: Any) -> Any:
        return {"status": {"started_at": AT}, "egress": 5}

    verbs = {f"fleet.{name}": odd for name in ("status", "accounts", "happenings")}
    with serving(config.parent, verbs), Terminal("top", cwd=config.parent) as terminal:
        assert terminal.end() == 1
        assert terminal.modes() == terminal.before
        said = re.sub(r"\s+", " ", terminal.text().partition("the daemon's answer")[2])
        assert "is not understood (KeyError('" in said
        assert "it is of another version: restart it" in said


def test_what_is_no_terminal_is_told_of_status(config: Path) -> None:
    result = CliRunner().invoke(main, ["top", "-c", str(config)])
    assert result.exit_code == 2
    assert result.stderr == "error: top needs a terminal; for programs and pipes there is 'poller status'\n"
    with Terminal("top", cwd=config.parent, TERM="dumb") as terminal:
        assert terminal.end() == 2
        assert "use 'poller status'" in terminal.text()


# What is drawn -----------------------------------------------------------------------------------


def view(fleet: FixedOverview) -> View:
    made = View()
    made.take_status(
        {
            "status": asdict(fleet.status()),
            "egress": [asdict(one) for one in fleet.egress()],
            "sinks": [asdict(one) for one in fleet.sinks()],
        }
    )
    take(made, fleet)
    made.take_happenings([asdict(one) for one in fleet.happenings(after=made.happened)])
    return made


def take(made: View, fleet: FixedOverview) -> None:
    number, changed = fleet.changed(after=made.number)
    accounts = [asdict(one) for one in fleet.summaries(changed)]
    made.take_accounts({"number": number, "at": AT, "names": fleet.names(), "accounts": accounts})


def drawn(made: View, width: int = 80, height: int = 24) -> list[str]:
    return [line.plain.rstrip() for line in frame(made, width, height)]


def test_the_screen_of_80_by_24() -> None:
    assert drawn(view(desk())) == [
        "NOT READY  poller 0.1.0, up 4 h, 2026-01-01 12:00:00 UTC  3.5 polls/s  outbox 3…",
        "accounts 4: 2 ok, 1 quarantined, 1 stale; 1 overdue; 12.5 BTC and 1 not valued",
        "✗ polls: 1 of 2 egress addresses pauses: nat-b",
        "nat-b   ██·················· 900 of 10,800  pauses 42 s more: rate_limited",
        "default █████████▒▒········· 6,600 of 10,800",
        "bus     backlog 312, lag 1 min 35 s, 0.0/s, 2 dead  fails for 1 min 35 s, singl…",
        "history backlog 0, lag 0 s, 4.5/s",
        "account  state       last good     due   late            BTC by worst, 4 of 4",
        "sub-001  quarantined    42 min  25 min  0.0 s           0.75 its key is refused…",
        "sub-002  stale           1 min    -2 s  0.0 s           12.5 no answer within 1…",
        "sub-003  overdue          25 s    -5 s  0.0 s              ? no good answer for…",
        "treasury ok                4 s     6 s  0.0 s           12.5",
        *[""] * 6,
        "─ what happened ───────────────────────────────────────────────────────────────…",
        "11:59:56 treasury BTC free 11.75 → 12",
        "11:59:10 sub-002 turned stale: no good answer for 50 s",
        *[""] * 2,
        "q quit  s sort  / filter  ↑↓ PgUp PgDn Home End scroll",
    ]


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("12.5", "12.5"),
        ("0.12345678901234567", "0.123456789012"),
        ("12345678901234.5", "12345678901234"),
        ("1234567890123.5", "1234567890123"),
        ("123456789012345", "1.234568e+14"),
        ("-123456789012345678901234567890.5", "-1.234568e+29"),
    ],
)
def test_no_digit_before_the_point_is_cut_off(amount: str, shown: str) -> None:
    assert _rounded(amount, 14) == shown


hostile = st.text(max_size=300)


@given(
    width=st.integers(1, 250),
    height=st.integers(1, 80),
    keys=st.lists(
        st.sampled_from(
            ["up", "down", "page down", "page up", "home", "end", "s", "/", "b", "escape", "enter"]
        )
    ),
    accounts=st.integers(0, 60),
    said=hostile,
)
def test_every_screen_has_its_size_whatever_is_pressed_and_said(
    width: int, height: int, keys: list[str], accounts: int, said: str
) -> None:
    fleet = desk()
    for number in range(accounts):
        fleet.put(summary(f"bot-{number}", reason=said, error=said, labels={"a": said}, state="stale"))
    made = view(fleet)
    for key in keys:
        assert made.press(key, height)
    for waiting in ("", said):
        made.waiting = waiting
        lines = frame(made, width, height)
        assert len(lines) == height
        assert all(line.cell_len <= width for line in lines)
        assert not re.search(r"[\x00-\x1f\x7f]", "".join(line.plain for line in lines))


def test_accounts_are_kept_until_they_are_named_no_more() -> None:
    fleet = FixedOverview([summary("a"), summary("b"), summary("c")])
    made = view(fleet)
    fleet.put(summary("b", state="stale"))
    fleet.remove("c")
    take(made, fleet)
    assert {name: seen.account["state"] for name, seen in made.accounts.items()} == {"a": "ok", "b": "stale"}
    assert made.number == 4


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("worst", ["ill", "old", "rich", "slow"]),
        ("name", ["ill", "old", "rich", "slow"]),
        ("late", ["slow", "ill", "old", "rich"]),
        ("value", ["rich", "ill", "old", "slow"]),
    ],
)
def test_accounts_are_sorted(sort: str, names: list[str]) -> None:
    made = view(
        FixedOverview(
            [
                summary("slow", lateness_s=3.0, total_btc=None),
                summary("rich", total_btc="1000.000000000000000000001"),
                summary("old", good_at="2026-01-01T11:00:00.000000Z"),
                summary("ill", state="quarantined"),
            ]
        )
    )
    made.sort = sort
    assert [seen.account["account"] for seen in made.chosen()] == names


@pytest.mark.parametrize(
    ("search", "names"),
    [
        ("SUB", ["sub-001", "sub-002", "sub-003"]),
        ("desk=otc", ["sub-002"]),
        ("nat-b", ["sub-001", "sub-002"]),
        ("no_response", ["sub-002"]),
        ("nobody", []),
    ],
)
def test_accounts_are_found_by_name_label_egress_and_error(search: str, names: list[str]) -> None:
    made = view(desk())
    for key in ["/", *search, "enter"]:
        made.press(key, 24)
    assert [seen.account["account"] for seen in made.chosen()] == names
    made.press("escape", 24)
    assert len(made.chosen()) == 4


def test_q_quits_but_not_while_it_is_typed() -> None:
    made = view(desk())
    assert made.press("/", 24)
    assert made.press("q", 24)
    assert made.search == "q"
    assert made.press("backspace", 24)
    assert made.press("enter", 24)
    assert not made.press("q", 24)


def test_sorts_go_round() -> None:
    made = view(desk())
    seen = []
    for _ in SORTS:
        seen.append(made.sort)
        made.press("s", 24)
    assert tuple(seen) == SORTS
    assert made.sort == SORTS[0]


# Keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B\x1bOA\x1bOB", ["up", "down", "up", "down"]),
        (b"\x1b[5~\x1b[6~", ["page up", "page down"]),
        (b"\x1b[H\x1b[F\x1b[1~\x1b[4~", ["home", "end", "home", "end"]),
        (b"\x1b[1;5C\x1b[200~a", ["a"]),
        (b"\r\x7f\x15", ["enter", "backspace", "clear"]),
        ("é→".encode(), ["é", "→"]),
        (b"\x1bq", ["escape", "q"]),
        (b"\x00\x07\xff", []),
    ],
)
@pytest.mark.parametrize("part", [1, 2, 100])
def test_keys_are_known_however_they_arrive(sent: bytes, keys: list[str], part: int) -> None:
    decoder = Keys()
    found: list[str] = []
    for at in range(0, len(sent), part):
        found += decoder.feed(sent[at : at + part])
    assert found + decoder.flush() == keys


def test_an_escape_alone_is_one_when_nothing_follows() -> None:
    decoder = Keys()
    assert (decoder.feed(b"\x1b"), decoder.is_open) == ([], True)
    assert (decoder.flush(), decoder.is_open, decoder.flush()) == (["escape"], False, [])


@given(st.binary(max_size=200))
def test_whatever_is_sent_makes_keys(sent: bytes) -> None:
    decoder = Keys()
    for key in decoder.feed(sent) + decoder.flush():
        assert key.isprintable()
