"""Names out of a configuration that may be wrong: for completion, so whatever cannot be read is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from poller.config.document import Node
from poller.config.files import Source, read_included, read_source
from poller.config.models import is_name

MOST_BYTES = 8 * 1024 * 1024  # somebody waits at the prompt


def account_names(path: Path) -> list[str]:
    """Return the names of the accounts, those of included files too."""
    return sorted({name for source in _sources(path, included=True) for name in _names(source, "accounts")})


def sink_names(path: Path) -> list[str]:
    """Return the names of the sinks, in the order of the file."""
    return [name for source in _sources(path, included=False) for name in _names(source, "sinks")]


def _sources(path: Path, *, included: bool) -> Iterator[Source]:
    try:
        if path.stat().st_size > MOST_BYTES:
            return
        main = read_source(path, [])
        if main is None:
            return
        yield main
        if included:
            yield from read_included(main, [])
    except (OSError, ValueError):
        return


def _names(source: Source, key: str) -> list[str]:
    return [name for name in source.root.entries.get(key, Node(None, 0)).entries if is_name(name)]
