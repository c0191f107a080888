from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from poller.config import document
from poller.config.document import Misread, Node, join, read_document, shown_key
from poller.errors import Problem

KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"


@pytest.fixture(autouse=True, params=["CSafeLoader", "SafeLoader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers: the C one is not in every build of PyYAML."""
    name: str = request.param
    monkeypatch.setattr(document, "_Loader", getattr(yaml, name))
    return name


def read(text: str) -> tuple[object, list[str]]:
    found: list[Problem] = []
    root = read_document(text, "f", found)
    return (root.plain() if root is not None else "nothing"), [str(problem) for problem in found]


def test_a_document_becomes_values() -> None:
    text = "a: {b: [1, -2, 1.5, yes, FALSE, off, ~, x, '1', \"no\"], c: }\nd: |\n  e\n"
    assert read(text) == (
        {"a": {"b": [1, -2, 1.5, True, False, False, None, "x", "1", "no"], "c": None}, "d": "e\n"},
        [],
    )


def test_every_value_knows_the_line_of_its_key() -> None:
    root = read_document("\na:\n  b:\n    - x\n    -\n      c: 1\n", "f", [])
    assert root is not None
    a = root.entries["a"]
    b = a.entries["b"]
    assert isinstance(b.value, list)
    assert (root.line, a.line, b.line, b.value[0].line, b.value[1].entries["c"].line) == (2, 2, 3, 4, 6)


@pytest.mark.parametrize(
    "text",
    ["0123", "0x1f", "0b11", "1_000", "1:30", "12:30:00", ".inf", ".nan", "1.5e+3", "190:20:30.15", "9" * 16],
)
def test_numbers_in_forms_that_nobody_means_are_marked(text: str) -> None:
    assert read(f"a: {text}") == ({"a": Misread("a number")}, [])
    assert read(f"a: '{text}'") == ({"a": text}, [])


@pytest.mark.parametrize("text", ["2026-01-01", "2026-01-01 10:00:00"])
def test_dates_are_marked(text: str) -> None:
    assert read(f"a: {text}") == ({"a": Misread("a date")}, [])


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~"])
def test_an_empty_document_is_nothing(text: str) -> None:
    assert read(text) == (None, [])


@pytest.mark.parametrize(
    ("text", "value", "problems"),
    [
        ("a: 1\nb: 2\na: 3", {"a": 1, "b": 2},
         ["f:3: a: this key stands on line 1 already; remove one of the two"]),
        ("a: {b: 1, b: {c: 1, c: 2}}", {"a": {"b": 1}},
         ["f:1: a.b: this key stands on line 1 already; remove one of the two",
          "f:1: a.b.c: this key stands on line 1 already; remove one of the two"]),
        ("'on': 1\n\"on\": 2", {"on": 1}, ["f:2: on: this key stands on line 1 already; remove one of the two"]),
        (f"a: &{KEY} 1\nb: *{KEY}", {"a": 1, "b": None},
         ["f:1: a: anchors (&name) are not supported; remove it, or quote a text that begins so",
          "f:2: b: aliases (*name) are not supported; write the value out"]),
        (f"a: *{KEY}", {"a": None}, ["f:1: a: aliases (*name) are not supported; write the value out"]),
        ("a: &x {b: 1}", {"a": {"b": 1}},
         ["f:1: a: anchors (&name) are not supported; remove it, or quote a text that begins so"]),
        ("<<: {a: 1}\nb: 2", {"b": 2},
         ["f:1: <<: merge keys (<<) are not supported; write the keys out"]),
        ("'<<': 1", {"<<": 1}, []),
        (f"a: !{KEY} x\nb: !!str 5\nc: ! x", {"a": "x", "b": "5", "c": "x"},
         [f"f:{line}: {key}: tags (!name) are not supported; remove it, or quote a text that begins so"
          for line, key in ((1, "a"), (2, "b"), (3, "c"))]),
        ("- 1\n- !x [2]\n- *y", [1, [2], None],
         ["f:2: [1]: tags (!name) are not supported; remove it, or quote a text that begins so",
          "f:3: [2]: aliases (*name) are not supported; write the value out"]),
        ("&x a: 1\n!y b: 2", {"a": 1, "b": 2},
         ["f:1: a: anchors (&name) are not supported; remove it, or quote a text that begins so",
          "f:2: b: tags (!name) are not supported; remove it, or quote a text that begins so"]),
        ("on: 1\n007: 2\n1.5: 3\n~: 4\n2026-01-01: 5", {"on": 1, "007": 2, "1.5": 3, "~": 4, "2026-01-01": 5},
         ["f:1: on: YAML takes this key for true; put it into quotes",
          "f:2: 007: YAML takes this key for a number; put it into quotes",
          "f:3: ?: YAML takes this key for a number; put it into quotes",
          "f:4: ?: YAML takes this key for nothing; put it into quotes",
          "f:5: 2026-01-01: YAML takes this key for a date; put it into quotes"]),
        ("{[1, 2]: 3, a: 4}", {"a": 4}, ["f:1: ?: a key has to be a text"]),
        ("? {x: 1}\n: {y: 2}\na: 4", {"a": 4}, ["f:1: ?: a key has to be a text"]),
        ("a: 1\n---\nb: 2", "nothing",
         ["f:2: a second document (---) begins here; keep one document in a file"]),
        ("a: b: c", "nothing", ["f:1: not valid YAML: mapping values are not allowed in this context"]),
        ("a:\n\tb: c", "nothing",
         ["f:2: not valid YAML: found character that cannot start any token; indent with spaces, not with tabs"]),
        (f"a: @{KEY}", "nothing",
         ["f:1: not valid YAML: found character that cannot start any token; put a text that begins so into quotes"]),
        ("a: x\nb: \x07", "nothing",
         ["f:2: not valid YAML: the character U+0007 is not allowed; remove it"]),
        (f"a: !{KEY}!x y", "nothing", ["f:1: not valid YAML: found undefined tag handle"]),
        ("[" * 17, "nothing", ["f:1: " + "[0]" * 16 + ": nested too deeply"]),
        ("a: {" * 17, "nothing", ["f:1: " + ".".join("a" * 16) + ": nested too deeply"]),
    ],
)  # fmt: skip
def test_what_is_not_taken_is_reported_with_its_line_and_without_its_value(
    text: str, value: object, problems: list[str], loader: str
) -> None:
    read_value, found = read(text)
    assert read_value == value
    if loader == "SafeLoader" and any("not valid YAML" in line for line in problems):
        # The parser in Python says the same in other words.
        assert [line.split(":")[:3] for line in found] == [line.split(":")[:3] for line in problems]
    else:
        assert found == problems
    assert KEY not in "".join(found)


def test_a_refused_value_is_marked_so_that_nobody_complains_twice() -> None:
    root = read_document("a: *x\nb: !y 1\nc: 1", "f", [])
    assert root is not None
    assert {key: node.refused for key, node in root.entries.items()} == {"a": True, "b": True, "c": False}


def test_no_nesting_exhausts_the_stack() -> None:
    assert read("[" * 100_000)[1][-1].endswith("nested too deeply")


def test_only_what_can_be_a_name_is_shown_of_a_key() -> None:
    assert join("accounts", "sub-001") == "accounts.sub-001"
    assert join("", "accounts") == "accounts"
    assert join("accounts", "api_key:abc") == "accounts.?"
    assert join("accounts", KEY) == "accounts.?"
    assert shown_key("intervall") == "'intervall'"
    assert shown_key("a b") == "'a b'"
    assert shown_key("secret:abc") == "'secret:...'"
    assert shown_key(KEY) == "'...'"
    assert shown_key(f"{KEY}:x") == "'...:...'"
    assert shown_key("x y" * 40) == repr(("x y" * 40)[:70] + "...")


@given(st.text())
def test_any_text_is_a_document_or_refused(text: str) -> None:
    found: list[Problem] = []
    root = read_document(text, "f", found)
    assert isinstance(root, Node) or len(found) >= 1


pieces = st.sampled_from(
    ["a", "b: ", ": ", "- ", "\n", "\n  ", "{", "}", "[", "]", ", ", "&x ", "*x", "!y ", "<<: ", "? ", "'", '"', "|\n", "#", "---\n", "...\n", "0123", "~", "%", "@", "\t"]
)  # fmt: skip


@given(st.lists(pieces, max_size=25).map("".join))
def test_any_mix_of_yaml_is_a_document_or_refused(text: str) -> None:
    found: list[Problem] = []
    root = read_document(text, "f", found)
    assert isinstance(root, Node) or len(found) >= 1
    assert all(problem.file == "f" and problem.message for problem in found)
