"""Names out of a configuration, quickly: somebody waits at the prompt for a completion.

Reads the keys of the file and nothing else, without what loads a configuration, which takes several times as
long to import. Whatever cannot be read is left out, and nothing is said.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

MOST_BYTES = 8 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class _Names:
    """The entries of a file's top-level keys: of a mapping its keys, of a list its texts."""

    entries: dict[str, list[str]] = field(default_factory=dict)

    def of(self, key: str) -> list[str]:
        return [name for name in self.entries.get(key, []) if _NAME.fullmatch(name)]


def account_names(path: Path) -> list[str]:
    """Return the names of the accounts, those of included files too."""
    main = _read(path)
    names = set(main.of("accounts"))
    for file in _included(path, main.entries.get("include", [])):
        names.update(_read(file).of("accounts"))
    return sorted(names)


def sink_names(path: Path) -> list[str]:
    """Return the names of the sinks, in the order of the file."""
    return _read(path).of("sinks")


def _included(path: Path, patterns: list[str]) -> Iterator[Path]:
    for pattern in patterns:
        for match in sorted(glob.glob(pattern, root_dir=path.parent, recursive=True)):  # noqa: PTH207  # takes absolute patterns
            yield path.parent / match


def _read(path: Path) -> _Names:
    names = _Names()
    try:
        if path.is_file() and path.stat().st_size <= MOST_BYTES:
            _collect(path.read_text(encoding="utf-8-sig"), names)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        pass  # what was found before stays
    return names


def _collect(text: str, names: _Names) -> None:
    """Walk through the parser's events: keys and values take turns in a mapping."""
    key = ""
    # Of each open collection: whether a key comes next; of a list that is never so.
    opened: list[tuple[bool, bool]] = []
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            opened.append((is_mapping, is_mapping))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            opened.pop()
        elif not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
            continue
        if not opened:
            continue
        is_mapping, comes_key = opened[-1]
        if isinstance(event, yaml.ScalarEvent):
            if len(opened) == 1 and comes_key:
                key = event.value
                names.entries.setdefault(key, [])
            elif len(opened) == 2 and (comes_key or not is_mapping):
                names.entries.setdefault(key, []).append(event.value)
        opened[-1] = (is_mapping, is_mapping and not comes_key)
