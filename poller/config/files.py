"""Read the files of the configuration: the main one, and those that it includes."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poller.config.document import Node, read_document
from poller.config.findings import Findings
from poller.errors import Problem


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the configuration, read.

    Attributes:
        path: as the operator named it.
        root: the file's mapping.
        directory: where the file is, absolute; what paths in it are relative to.
    """

    path: Path
    root: Node
    directory: Path
    findings: Findings


def read_source(path: Path, problems: list[Problem]) -> Source | None:
    """Read one file. ``None`` if there is nothing in it that could be looked at further."""
    file = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        problems.append(Problem(file, 0, "", f"cannot be read: {error.strerror}"))
        return None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problems.append(Problem(file, line, "", "not UTF-8 text", "save the file as UTF-8"))
        return None
    root = read_document(text, file, problems)
    if root is None:
        return None
    findings = Findings(file, problems)
    if root.value is not None and not isinstance(root.value, dict):
        findings.mapping(root, "")
        return None
    return Source(path, root, path.parent.absolute(), findings)


def read_included(main: Source, problems: list[Problem]) -> Iterator[Source]:
    """Read the files that ``include`` names, each once, in the order of its patterns and then of their names."""
    node, findings = main.root.entries.get("include", Node(None, 0)), main.findings
    if node.refused or node.value is None:
        return
    if not isinstance(node.value, list):
        findings.add(node, "include", "this is no list", "write it as [fleet.d/*.yaml]")
        return
    ours = main.path.resolve()
    seen = {ours}
    for index, entry in enumerate(node.value):
        if entry.refused:
            continue
        key, pattern = f"include[{index}]", entry.value
        if not isinstance(pattern, str) or not pattern or not pattern.isprintable():
            findings.add(entry, key, "this is no path", "write one such as fleet.d/*.yaml")
            continue
        # Unlike Path.glob this takes absolute patterns, and leaves out hidden files: editors make some.
        matches = sorted(glob.glob(pattern, root_dir=main.directory, recursive=True))  # noqa: PTH207
        if not matches:
            findings.add(entry, key, f"{pattern!r} matches no file", "create one, or remove the line")
        for match in matches:
            target = (main.directory / match).resolve()
            if target == ours:
                findings.add(
                    entry, key, f"{pattern!r} matches this file itself", "keep included files elsewhere"
                )
            if target not in seen:
                seen.add(target)
                source = read_source(main.path.parent / match, problems)
                if source is not None:
                    yield source
