"""A YAML file as a tree of values that know where they stand.

Only a plain part of YAML is taken: one document, keys that are texts and stand once, no aliases,
anchors, merge keys or tags. The tree is built from the parser's events and not by ``yaml.compose``:
composed nodes no longer show an anchor, an alias looks like the node it copies, the composer recurses
as deep as the file is nested and quotes what it could not resolve; and events are several times faster.

No message repeats a value: in the place where it stands it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import yaml
from yaml.reader import Reader
from yaml.resolver import Resolver

from poller.errors import Problem
from poller.secrets import may_be_secret

# The C parser comes with every wheel, but not with every build.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MAX_DEPTH: Final = 16  # the deepest key we know stands four levels down
_SHOWN_KEY: Final = 70  # characters of a key that a message repeats
_resolve: Callable[..., str] = Resolver().resolve
_PREFIX = "tag:yaml.org,2002:"
_LONGEST_WORD: Final = len("false")  # of those that YAML takes for something else
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,14})")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,15}")
_KEY = re.compile(r"[A-Za-z0-9_\-]{1,64}|\?|<<")
_TRUE: Final = frozenset({"yes", "true", "on"})
_QUOTED = re.compile(r" '[^'\s]{2,}'")
_MEANINGS: Final[Mapping[type, str]] = {
    str: "a text",
    int: "a number",
    float: "a number",
    dict: "a mapping",
    list: "a list",
    type(None): "nothing",
}


@dataclass(frozen=True, slots=True)
class Misread:
    """A scalar that YAML takes for something nobody means in a configuration.

    ``0123`` is 83 to it, ``1:30`` is 90, ``2026-01-01`` a date. No field accepts it.

    Attributes:
        meaning: what YAML takes it for, such as ``a number``.
    """

    meaning: str


Value = str | int | float | bool | None | Misread | dict[str, "Node"] | list["Node"]


@dataclass(slots=True)
class Node:
    """One value of the file.

    Attributes:
        value: texts, numbers, truth values, ``None``, or further nodes.
        line: where its key stands (of an entry of a list: where it begins), counted from 1.
        text: a scalar as it is written, without its quotes.
        refused: a problem was reported already, the value means nothing.
    """

    value: Value
    line: int
    text: str = ""
    refused: bool = False

    @property
    def entries(self) -> dict[str, Node]:
        """The entries of a mapping; none of any other value."""
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> object:
        """Return the value as Python's own types all the way down."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def read_document(text: str, file: str, problems: list[Problem]) -> Node | None:
    """Return the document as a tree, and add to ``problems`` whatever is not taken.

    ``None`` means that the file is not YAML at all, so that there is nothing to look at further. What
    is refused on the way (a second key of the same name, an alias) is left out of the tree or marked.
    """
    if match := Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, match.start()) + 1
        message = f"not valid YAML: the character U+{ord(match.group()):04X} is not allowed"
        problems.append(Problem(file, line, "", message, "remove it"))
        return None
    builder = _Builder(file, problems)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if not builder.take(event):
                return None
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax_problem(error, text, file))
        return None
    except (yaml.YAMLError, RecursionError):
        problems.append(Problem(file, 0, "", "not valid YAML"))
        return None
    return builder.root


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    lines = text.splitlines()
    # Some of the parser's messages quote a name out of the file.
    cause = _QUOTED.sub("", error.problem or "it cannot be read")
    remedy = ""
    if 0 < line <= len(lines) and lines[line - 1].lstrip(" ").startswith("\t"):
        remedy = "indent with spaces, not with tabs"
    elif "cannot start any token" in cause:
        remedy = "put a text that begins so into quotes"
    return Problem(file, line, "", f"not valid YAML: {cause}", remedy)


@dataclass(slots=True)
class _Open:
    """A mapping or a list whose end was not seen yet.

    Attributes:
        key: of a mapping, the last key seen.
        expects_key: of a mapping: a key comes next, not a value.
        drop: the value that comes belongs to a refused key: looked at, not kept.
    """

    node: Node
    key: str = ""
    key_line: int = 0
    expects_key: bool = True
    drop: bool = False


class _Builder:
    """Puts events together, on a stack of its own instead of by recursion: no file can exhaust it."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.root: Node | None = None
        self._file = file
        self._problems = problems
        self._open: list[_Open] = []

    def take(self, event: yaml.Event) -> bool:
        """Take the next event. ``False`` ends it: what comes cannot be made sense of."""
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._place(event, Node(None, 0, refused=True))
            self._refuse(event, "aliases (*name) are not supported", "write the value out")
        elif isinstance(event, yaml.CollectionStartEvent):
            return self._collection(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            self._refuse(event, "a second document (---) begins here", "keep one document in a file")
            return False
        elif isinstance(event, yaml.StreamEndEvent) and self.root is None:
            self.root = Node(None, 1)
        return True

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        top = self._open[-1] if self._open else None
        if top is not None and top.expects_key and isinstance(top.node.value, dict):
            self._key(event, top, top.node.value)
            return
        node = Node(_value(event), 0, event.value)
        self._place(event, node)
        node.refused = self._refuse_decoration(event)

    def _collection(self, event: yaml.CollectionStartEvent) -> bool:
        node = Node({} if isinstance(event, yaml.MappingStartEvent) else [], 0)
        self._place(event, node)
        if len(self._open) == _MAX_DEPTH:
            self._refuse(event, "nested too deeply")
            return False
        node.refused = self._refuse_decoration(event)
        self._open.append(_Open(node))
        return True

    def _key(self, event: yaml.ScalarEvent, top: _Open, entries: dict[str, Node]) -> None:
        before = entries.get(event.value)
        top.key, top.key_line, top.expects_key, top.drop = event.value, _line(event), False, False
        if before is not None:
            top.drop = True
            self._refuse(event, f"this key stands on line {before.line} already", "remove one of the two")
        elif event.value == "<<" and event.implicit[0]:
            top.drop = True
            self._refuse(event, "merge keys (<<) are not supported", "write the keys out")
        elif not self._refuse_decoration(event) and not isinstance(value := _value(event), str):
            # It is kept under the text that was meant, so that its entries are looked at all the same.
            self._refuse(event, f"YAML takes this key for {meaning(value)}", "put it into quotes")

    def _place(self, event: yaml.NodeEvent, node: Node) -> None:
        """Hang the node below what is open."""
        node.line = _line(event)
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        if isinstance(top.node.value, list):
            top.node.value.append(node)
        elif top.expects_key:
            top.key, top.key_line, top.expects_key, top.drop = "?", node.line, False, True
            self._refuse(event, "a key has to be a text")
        elif isinstance(top.node.value, dict):
            node.line, top.expects_key = top.key_line, True
            if not top.drop:
                top.node.value[top.key] = node

    def _refuse_decoration(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> bool:
        """Refuse an anchor or a tag, and tell whether there was one."""
        if event.anchor is None and event.tag is None:
            return False
        if event.anchor is not None:
            self._refuse(
                event, "anchors (&name) are not supported", "remove it, or quote a text that begins so"
            )
        if event.tag is not None:
            self._refuse(event, "tags (!name) are not supported", "remove it, or quote a text that begins so")
        return True

    def _refuse(self, event: yaml.Event, message: str, remedy: str = "") -> None:
        self._problems.append(Problem(self._file, _line(event), self._path(), message, remedy))

    def _path(self) -> str:
        path = ""
        for level in self._open:
            if isinstance(level.node.value, list):
                path += f"[{max(0, len(level.node.value) - 1)}]"
            else:
                path = join(path, level.key)
        return path


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _value(event: yaml.ScalarEvent) -> Value:
    """Return what YAML takes the scalar for."""
    text: str = event.value
    # In quotes, or a block; or a word too long to be one of YAML's, which spares most the resolver's patterns.
    if not event.implicit[0] or (len(text) > _LONGEST_WORD and text[0].isalpha()):
        return text
    tag = _resolve(yaml.ScalarNode, text, (True, False)).removeprefix(_PREFIX)
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() in _TRUE
    if tag == "int":
        return int(text) if _INTEGER.fullmatch(text) else Misread("a number")
    if tag == "float":
        return float(text) if _DECIMAL.fullmatch(text) else Misread("a number")
    return Misread("a date") if tag == "timestamp" else text


def meaning(value: Value) -> str:
    """Say what a value is, for messages."""
    if isinstance(value, Misread):
        return value.meaning
    if isinstance(value, bool):
        return "true" if value else "false"
    return _MEANINGS[type(value)]


def join(path: str, key: str) -> str:
    """Return the dotted path of a key below a path, as it is shown."""
    shown = key if _KEY.fullmatch(key) and not may_be_secret(key) else "?"
    return f"{path}.{shown}" if path else shown


def shown_key(key: str) -> str:
    """Return a key in quotes, for messages, without what can be a secret.

    In ``{secret:abc}`` the space after the colon is missing, and the whole is one key.
    """
    before, colon, _ = key.partition(":")
    if colon:
        return f"{shown_key(before)[:-1]}:...'"
    return (
        "'...'" if may_be_secret(key) else repr(key[:_SHOWN_KEY] + ("..." if len(key) > _SHOWN_KEY else ""))
    )
