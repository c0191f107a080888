"""Tell from outside whether a file of the configuration was changed, without reading it.

A file is known by what ``stat`` says of what its path leads to. So an editor's rename counts, and so does
the swap of a symbolic link by which Kubernetes exchanges a whole directory.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from poller.config.credentials import secret_settings
from poller.config.files import read_source
from poller.config.settings import Config
from poller.errors import Problem

Footprint = tuple[tuple[str, tuple[int, ...]], ...]


class Footprints:
    """Takes footprints of the main file, of those it includes, and of those that hold secrets.

    Blocks while it looks; not to be used from two threads at once.

    Args:
        path: of the main file.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._directory = path.parent
        self._main: tuple[int, ...] | None = None
        self._patterns: list[str] = []
        self._config: Config | None = None
        self._secrets: list[str] = []
        # By path, as last seen: what stands still is kept once, and is told to be the same at a glance.
        self._seen: dict[str, tuple[str, tuple[int, ...]]] = {}

    def take(self, config: Config) -> Footprint:
        """Return the footprint as it is now. ``config`` names the secrets' files: it is what is in force."""
        main = _print(self._path)
        if main != self._main:
            self._main, self._patterns = main, list(_patterns(Path(self._path)))
        if config is not self._config:
            # There are thousands of them, and nobody but another configuration changes which.
            self._config, self._secrets = config, sorted(set(_secret_files(config)))
        others = sorted({self._path, *_matches(self._patterns, self._directory)})
        footprint = tuple(self._look(path) for path in (*others, *self._secrets))
        self._seen = {entry[0]: entry for entry in footprint}
        return footprint

    def _look(self, path: str) -> tuple[str, tuple[int, ...]]:
        now, before = _print(path), self._seen.get(path)
        return before if before is not None and before[1] == now else (path, now)


def _patterns(path: Path) -> Iterator[str]:
    problems: list[Problem] = []
    source = read_source(path, problems)
    include = None if source is None else source.root.entries.get("include")
    if include is not None and isinstance(include.value, list):
        yield from (entry.value for entry in include.value if isinstance(entry.value, str))


def _matches(patterns: Iterable[str], directory: Path) -> Iterator[str]:
    for pattern in patterns:
        for match in glob.glob(pattern, root_dir=directory, recursive=True):  # noqa: PTH207  # as they are read
            yield str(directory / match)


def _secret_files(config: Config) -> Iterator[str]:
    for setting in secret_settings(config):
        if setting.reference.scheme == "file":
            yield os.path.join(setting.directory, setting.reference.name)  # noqa: PTH118  # of thousands


def _print(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)  # noqa: PTH116  # the target's; without a Path for each of thousands
    except OSError:
        return ()
    # Not the time of the last change alone: whoever copies a file may set that to whatever it was.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
