"""docs/logs.md lists what the daemon logs: every message with its levels and fields, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "logs.md"
# The exchange's stand-in logs nothing, and says so here if that changes.
PACKAGE = ROOT / "poller"
# They pass on a message that their callers name: those calls are collected instead.
PASSED_ON = {("outcomes.py", "complain")}
LEVELS = {"debug", "info", "warning", "error", "critical"}
OF_EVERY_LINE = {"time", "level", "logger", "message", "traceback"}
TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "true or false": (bool,),
    "list of texts": (list,),
    "object": (dict,),
}


class Said(NamedTuple):
    """One call that logs."""

    place: str
    message: str
    levels: frozenset[str]
    fields: frozenset[str]


def rows(section: str) -> list[list[str]]:
    """The tables of a section, row by row, without their heads."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return [row for row in cells if row[0].startswith("`")]


def documented() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Levels and fields by message."""
    found = {}
    for message, levels, fields, meaning, _ in rows("Messages"):
        assert message not in found, message
        assert meaning or fields or levels
        found[message.strip("`")] = (
            frozenset(levels.split(", ")),
            frozenset(re.findall(r"`(\w+)`", fields)),
        )
    return found


def text_of(node: ast.expr | None, place: str) -> str:
    assert isinstance(node, ast.Constant), f"{place}: a message or a field's name is to be a plain text"
    assert isinstance(node.value, str), place
    return node.value


def levels_of(call: ast.Call, method: str) -> frozenset[str]:
    if method == "log":
        named = [node.attr for node in ast.walk(call.args[0]) if isinstance(node, ast.Attribute)]
        return frozenset(name.lower() for name in named) & LEVELS
    return frozenset({"error" if method == "exception" else method})


def said_in(path: Path) -> Iterator[Said]:
    tree = ast.parse(path.read_text())
    passing_on = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and (path.name, function.name) in PASSED_ON
        for node in ast.walk(function)
    }
    for call in ast.walk(tree):
        if (
            not isinstance(call, ast.Call)
            or not isinstance(call.func, ast.Attribute)
            or id(call) in passing_on
        ):
            continue
        place = f"{path.relative_to(ROOT)}:{call.lineno}"
        owner, method = call.func.value, call.func.attr
        if method == "complain":
            message = text_of(call.args[1], place)
            fields = {"egress", "error", *(keyword.arg or "?" for keyword in call.keywords)}
            yield Said(place, message, frozenset({"warning"}), frozenset(fields))
        elif isinstance(owner, ast.Name) and owner.id == "logger":
            [extra] = [keyword.value for keyword in call.keywords if keyword.arg == "extra"] or [
                ast.Dict([], [])
            ]
            assert isinstance(extra, ast.Dict), f"{place}: extra is to be written out"
            fields = {text_of(key, place) for key in extra.keys}
            message = text_of(call.args[method == "log"], place)
            yield Said(place, message, levels_of(call, method), frozenset(fields))


def all_said() -> list[Said]:
    return [said for path in sorted(PACKAGE.rglob("*.py")) for said in said_in(path)]


def test_everything_that_is_logged_is_collected() -> None:
    calls = sum(
        len(re.findall(r"\blogger\.(?:debug|info|warning|error|exception|critical|log)\(", path.read_text()))
        for path in PACKAGE.rglob("*.py")
    )
    collected = [said for path in PACKAGE.rglob("*.py") for said in said_in(path)]
    by_loggers = [said for said in collected if "complain(" not in source_line(said)]
    assert len(by_loggers) == calls - len(PASSED_ON)
    named = {
        name
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(r"(\w+) = logging\.getLogger\(__", path.read_text())
    }
    assert named == {"logger"}


def source_line(said: Said) -> str:
    name, _, number = said.place.rpartition(":")
    return (ROOT / name).read_text().splitlines()[int(number) - 1]


def test_every_message_is_documented_with_its_levels_and_nothing_else_is() -> None:
    levels: dict[str, set[str]] = {}
    for said in all_said():
        levels.setdefault(said.message, set()).update(said.levels)
    assert {message: set(told[0]) for message, told in documented().items()} == levels


@pytest.mark.parametrize("said", all_said(), ids=lambda said: said.place)
def test_a_message_has_the_documented_fields_wherever_it_is_said(said: Said) -> None:
    assert said.fields == documented()[said.message][1]


def test_every_field_is_explained_once_and_is_used() -> None:
    explained = [row[0].strip("`") for row in rows("Fields")]
    assert explained == sorted(set(explained))
    assert set(explained) == {name for _, fields in documented().values() for name in fields}
    assert not set(explained) & OF_EVERY_LINE


def test_every_field_has_a_type_and_those_with_a_unit_in_their_name_have_that() -> None:
    for name, kind, unit, meaning in rows("Fields"):
        assert kind in TYPES, name
        assert meaning, name
        assert name.strip("`").endswith("_s") == (unit == "seconds"), name
        assert name.strip("`").endswith("bytes") == (unit == "bytes"), name


def wrong_with(line: dict[str, Any]) -> list[str]:
    """What in a line that was written is not as the page says."""
    if not str(line["logger"]).startswith("poller"):
        return []
    message = line["message"]
    told = documented().get(message)
    if told is None:
        return [f"{message}: not documented"]
    wrong = []
    if line["level"] not in told[0]:
        wrong.append(f"{message}: level {line['level']}")
    fields = line.keys() - OF_EVERY_LINE
    if fields != told[1]:
        wrong.append(f"{message}: fields {sorted(fields)}")
    types = {row[0].strip("`"): row[1] for row in rows("Fields")}
    wrong += [
        f"{message}: {name} is {line[name]!r}"
        for name in fields & types.keys()
        if not isinstance(line[name], TYPES[types[name]])
        or (isinstance(line[name], bool) and types[name] != "true or false")
    ]
    return wrong
