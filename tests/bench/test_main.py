"""Which options of `python -m bench` reach which measurement."""

from __future__ import annotations

import pytest

from bench import budget, bursts, limiters
from bench.__main__ import main, split, unknown


def test_names_come_first_and_options_after_them() -> None:
    assert split(["budget", "limiters", "--only", "alone"]) == (["budget", "limiters"], ["--only", "alone"])
    assert split(["--only", "alone"]) == ([], ["--only", "alone"])


def test_an_option_has_to_be_known_to_one_of_the_named() -> None:
    options = ["--only", "alone", "--real", "--client", "ccxt"]
    assert unknown([budget, limiters], options) == set()
    assert unknown([budget], options) == {"--client", "ccxt"}
    assert unknown([bursts], ["--real"]) == {"--real"}
    with pytest.raises(SystemExit, match="none of bursts, budget knows --speed"):
        main(["bursts", "budget", "--speed"])


def test_both_tables_come_out_of_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    main(["budget", "limiters", "--only", "no such case", "--real"])
    printed = capsys.readouterr().out
    assert printed.index("== budget: ") < printed.index("== limiters: ")
    assert printed.count("window ") == 2


def test_the_cases_of_both_have_the_same_names() -> None:
    ours = {(case.name, case.window) for case in budget.cases()}
    theirs = {(case.name, case.window) for case in limiters.cases()}
    assert {case for case in theirs - ours if case[0] != "alone, no latency"} == set()
    assert {name for name, _ in ours - theirs} == {"alone, share 90 %", "5 restarts by SIGKILL"}
