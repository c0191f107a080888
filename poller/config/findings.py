"""Hold a part of the file against its model, and say in the operator's words what does not fit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from poller.config.document import Misread, Node, join, meaning, shown_key
from poller.config.settings import Place
from poller.errors import Problem
from poller.secrets import redact
from poller.units import UnitError

_SHOWN: Final = 60  # characters of a value that a message repeats
_EXPECTED: Final = "Input should be "
# pydantic's words and ours. Whatever it says beyond these is passed on as it is.
_WORDS: Final = {
    "a valid string": "a text",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid list": "a list, such as [a, b]",
    "a valid dictionary": "a mapping, such as {a: b}",
}
_LIKE_A_KEY = re.compile(r"[A-Za-z0-9+]{40,}(?:\.\.\.)?")
_TEXTS: Final = {"string_type", "path_type"}
_UNPARSED = re.compile(", unable to parse.*")
_NUMBER_BOUND = re.compile(r"(greater|less)_than(_equal)?")

Model = TypeVar("Model", bound=BaseModel)


class Findings:
    """The problems of one file as they are found. All go into the same list, whatever the file."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self._problems = problems

    def place(self, node: Node) -> Place:
        """Return where a part of this file stands."""
        return Place(self.file, node.line)

    def add(self, node: Node, key: str, message: str, remedy: str = "") -> None:
        """Report a problem with a part of this file.

        What looks like a key of the exchange is not repeated: it may have been pasted into the wrong line.
        """
        message, remedy = (_LIKE_A_KEY.sub("...", text) for text in (message, remedy))
        self._problems.append(Problem(self.file, node.line, key, message, remedy))

    def mapping(self, node: Node, path: str) -> dict[str, Node]:
        """Return the entries of what has to be a mapping; of nothing, none; of anything else, report it."""
        if not node.refused and node.value is not None and not isinstance(node.value, dict):
            # Not repeated: "api_key:abc" without a space is a text, and a secret.
            self.add(
                node, path, f"{meaning(node.value)} where a mapping belongs", "write it as 'key: value' lines"
            )
        return node.entries

    def unknown(self, node: Node, path: str, key: str, known: Collection[str]) -> None:
        """Report a key that means nothing here, with the one that was likely meant."""
        message = f"unknown key {shown_key(key)}"
        if ":" in key:
            self.add(node, join(path, key), message, "write a space after the colon")
        elif near := nearest(key, known):
            self.add(node, join(path, key), f"{message}, did you mean {near!r}?")
        elif not known:
            self.add(node, join(path, key), message, "remove it")
        else:
            self.add(node, join(path, key), message, f"known here: {', '.join(sorted(known))}")

    def check(
        self, model: type[Model], node: Node, path: str, *, nullable: Collection[str] = ()
    ) -> Model | None:
        """Return the mapping as its model; report what does not fit and return ``None``.

        ``nullable`` names the keys that may stand without a value.
        """
        entries = self.mapping(node, path)
        if node.refused or not isinstance(node.value, dict | None):
            return None
        values = {key: entry.plain() for key, entry in entries.items()}
        empty = [
            key
            for key, value in values.items()
            if value is None
            and not entries[key].refused
            and key in model.model_fields
            and key not in nullable
        ]
        for key in empty:
            self.add(entries[key], join(path, key), "has no value", "write one, or remove the line")
            del values[key]
        checked = self.validate(
            model, values, node, path, ignore=lambda loc: len(loc) == 1 and loc[0] in empty
        )
        return None if empty else checked

    def validate(
        self,
        model: type[Model],
        values: dict[str, Any],
        node: Node,
        path: str,
        *,
        known: Collection[str] = (),
        ignore: Callable[[tuple[int | str, ...]], bool] = lambda _: False,
        scrub: Callable[[str], str] = redact,
    ) -> Model | None:
        """Return ``values``, which stand in ``node``, as their model; report what does not fit.

        ``known`` names keys besides the model's that somebody may have meant. Errors at places for which
        ``ignore`` is true are left out; the result then is ``None`` all the same. ``scrub`` takes out
        of a message what must not be seen.
        """
        try:
            return model.model_validate(values)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if not ignore(detail["loc"]):
                    self._translate(detail, {*_keys(model), *known}, node, path, scrub)
        return None

    def _translate(
        self, detail: ErrorDetails, keys: Collection[str], node: Node, path: str, scrub: Callable[[str], str]
    ) -> None:
        found, where, rest = _locate(node, path, detail["loc"])
        if found.refused:
            return
        if detail["type"] == "extra_forbidden":
            parent = _locate(node, path, detail["loc"][:-1])[1]
            self.unknown(found, parent, str(detail["loc"][-1]), keys if len(detail["loc"]) == 1 else ())
        elif detail["type"] == "missing":
            key = str(rest[-1]) if rest else ""
            self.add(found, join(where, key) if key else where, "is required and missing", "add it")
        else:
            message, remedy = _explain(detail, found)
            self.add(found, where, scrub(message), scrub(remedy))


def in_order(problems: list[Problem]) -> list[Problem]:
    """Return the problems by file, in the order the files were read, and by line."""
    files = list(dict.fromkeys(problem.file for problem in problems))
    return sorted(problems, key=lambda problem: (files.index(problem.file), problem.line))


def suggestion(text: str, known: Collection[str], heading: str) -> str:
    """Return a remedy for a name that does not exist: the one likely meant, and all there are."""
    near = nearest(text, known)
    return (f"did you mean {near!r}? " if near else "") + f"{heading}: {', '.join(sorted(known))}"


def nearest(text: str, known: Collection[str]) -> str | None:
    """Return the one of ``known`` that was likely meant, if there is such a one."""
    return next(iter(difflib.get_close_matches(text, known, n=1)), None)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _locate(node: Node, path: str, loc: Sequence[int | str]) -> tuple[Node, str, list[int | str]]:
    """Follow pydantic's path as far as the file has it.

    Its steps that are no part of the file (the chosen member of a union, a validator's name) are skipped
    and returned at the end.
    """
    skipped: list[int | str] = []
    for step in loc:
        if isinstance(node.value, dict) and isinstance(step, str) and step in node.value:
            node, path = node.value[step], join(path, step)
        elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
            node, path = node.value[step], f"{path}[{step}]"
        else:
            skipped.append(step)
    return node, path, skipped


def _explain(detail: ErrorDetails, node: Node) -> tuple[str, str]:
    """Return what is wrong with a value, and what to write instead."""
    cause = detail.get("ctx", {}).get("error")
    shown = _shown(node)
    taken = f"YAML takes {shown} for {meaning(node.value)}"
    if isinstance(cause, ValueError):
        # Only of a quantity is it certain that what stands there is no secret.
        misread = isinstance(cause, UnitError) and isinstance(node.value, Misread)
        return taken if misread else str(cause), getattr(cause, "remedy", "")
    if detail["type"] in _TEXTS and isinstance(node.value, Misread | bool | int | float):
        return taken, "put it into quotes"
    if detail["type"] == "path_type":
        return f"{shown} does not fit", "write a path"
    expected = _UNPARSED.sub("", detail["msg"].removeprefix(_EXPECTED))
    if not detail["msg"].startswith(_EXPECTED):
        return f"{shown}: {expected}", ""
    if _NUMBER_BOUND.fullmatch(detail["type"]):
        expected = f"a number {expected}"
    return f"{shown} does not fit", f"write {_WORDS.get(expected, expected)}"


def _shown(node: Node) -> str:
    if isinstance(node.value, dict | list | None):
        return meaning(node.value)
    return node.text if len(node.text) <= _SHOWN else f"{node.text[:_SHOWN]}..."
