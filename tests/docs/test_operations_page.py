"""What docs/operations.md says of exit codes and of the files in deploy/ is so."""

from __future__ import annotations

import re
from pathlib import Path

from poller.commands import command_line
from poller.commands.command_line import EXIT_CODES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_exit_code_is_explained_and_no_other() -> None:
    explained = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", section("Exit codes"), re.MULTILINE)
                 for code in row.split(",")}  # fmt: skip
    told = {
        int(code)
        for code in re.findall(r"^  (\d+) |\((\d+):", EXIT_CODES, re.MULTILINE)
        for code in code
        if code
    }
    constants = {
        value for name, value in vars(command_line).items() if name.isupper() and isinstance(value, int)
    }
    assert explained == told
    assert explained == constants | {130, 143}


def test_no_title_is_there_twice() -> None:
    titles = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    assert len(set(titles)) == len(titles)


def test_what_is_said_of_other_sections_is_there() -> None:
    pages = [PAGE, (ROOT / "docs" / "metrics.md").read_text()]
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }
    for page in pages:
        for anchor in re.findall(r"\((?:operations\.md)?#([\w-]+)\)", page):
            assert anchor in anchors
