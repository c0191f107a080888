"""Tell from outside whether a file of the configuration was changed, without reading it.

A file is known by what ``stat`` says of what its path leads to. So an editor's rename counts, and so does
the swap of a symbolic link by which Kubernetes exchanges a whole directory.

There may be tens of thousands of files with secrets, and to look at all of them takes a tenth of a second. So a
glance looks at some of them, in turn, and at their directories, which change when a file is renamed into them or
a link is swapped: then it looks at everything. Only what is written in place has to wait for its turn.
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from poller.config.credentials import secret_settings
from poller.config.files import read_source
from poller.config.settings import Config
from poller.errors import Problem
from poller.secrets.back_ends.credentials import VARIABLE

TURNS: Final = 10  # within so many glances every file was looked at
AT_LEAST: Final = 1000  # files a glance
DIRECTORIES_MOST: Final = 100  # where nearly every secret has one of its own they say nothing for less

Footprint = tuple[tuple[str, tuple[int, ...]], ...]


def files_footprint(path: Path) -> Footprint:
    """Return the part of a footprint that is of the main file and of those it includes. Blocks."""
    others = sorted({str(path), *_matches(_patterns(path), path.parent)})
    return tuple((other, _print(other)) for other in others)


def secrets_footprint(config: Config) -> Footprint:
    """Return the rest of a footprint: of the files that hold a configuration's secrets. Blocks."""
    return tuple((path, _print(path)) for path in _secret_paths(config))


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
        self._directories: list[str] = []  # of the secrets
        self._directories_seen: list[tuple[int, ...]] = []
        # Glances for which directories are no reason to look at everything: they were none before.
        self._vain = 0
        self._next = 0  # whose turn it is
        self._last: Footprint = ()
        # By path, as last seen: what stands still is kept once, and is told to be the same at a glance.
        self._seen: dict[str, tuple[str, tuple[int, ...]]] = {}

    def take(self, config: Config) -> Footprint:
        """Return the footprint as it is now. ``config`` names the secrets' files: it is what is in force."""
        if config is not self._config:
            # There are thousands of them, and nobody but another configuration changes which.
            self._config, self._secrets = config, _secret_paths(config)
            directories = sorted({os.path.dirname(path) for path in self._secrets})  # noqa: PTH120  # as above
            self._directories = directories if len(directories) <= DIRECTORIES_MOST else []
        # Before their files: what changes meanwhile is seen the next time.
        self._directories_seen = [_print(path) for path in self._directories]
        footprint = tuple(self._look(path) for path in (*self._others(), *self._secrets))
        if footprint != self._last:
            self._last, self._seen = footprint, {entry[0]: entry for entry in footprint}
        return self._last

    def glance(self, config: Config) -> Footprint:
        """Return the footprint as far as it is known: all that was written in place is in the next ``TURNS`` ones."""
        if config is not self._config:
            return self.take(config)
        size = max(AT_LEAST, math.ceil(len(self._secrets) / TURNS))
        some = self._secrets[self._next : self._next + size]
        self._next = self._next + size if self._next + size < len(self._secrets) else 0
        self._vain = max(0, self._vain - 1)
        others = self._others()
        is_another = self._last[: len(self._last) - len(self._secrets)] != tuple(map(self._look, others))
        if is_another or any(self._look(path) is not self._seen[path] for path in some):
            return self.take(config)
        if not self._vain and self._directories_seen != [_print(path) for path in self._directories]:
            before = self._last
            if self.take(config) is before:  # such as a database beside the secrets, which may do so again
                self._vain = TURNS
        return self._last

    def _others(self) -> list[str]:
        """Return the main file and those that it includes now."""
        main = _print(self._path)
        if main != self._main:
            self._main, self._patterns = main, list(_patterns(Path(self._path)))
        return sorted({self._path, *_matches(self._patterns, self._directory)})

    def _look(self, path: str) -> tuple[str, tuple[int, ...]]:
        now, before = _print(path), self._seen.get(path)
        return before if before is not None and before[1] == now else (path, now)


def _patterns(path: Path) -> Iterator[str]:
    try:
        if b"include" not in path.read_bytes():
            return  # or else a fleet of thousands in one file would be parsed twice
    except OSError:
        return
    problems: list[Problem] = []
    source = read_source(path, problems)
    include = None if source is None else source.root.entries.get("include")
    if include is not None and isinstance(include.value, list):
        yield from (entry.value for entry in include.value if isinstance(entry.value, str))


def _matches(patterns: Iterable[str], directory: Path) -> Iterator[str]:
    for pattern in patterns:
        for match in glob.glob(pattern, root_dir=directory, recursive=True):  # noqa: PTH207  # as they are read
            yield str(directory / match)


def _secret_paths(config: Config) -> list[str]:
    return sorted(set(_secret_files(config)))


def _secret_files(config: Config) -> Iterator[str]:
    credentials = os.environ.get(VARIABLE, "")
    for setting in secret_settings(config):
        if setting.reference.scheme == "file":
            yield os.path.join(setting.directory, setting.reference.name)  # noqa: PTH118  # of thousands
        elif setting.reference.scheme == "credential" and credentials:
            # systemd leaves a service those that it started with, an orchestrator may exchange them.
            yield os.path.join(credentials, setting.reference.name)  # noqa: PTH118
    for sink in config.sinks.values():
        yield from map(str, sink.files())


def _print(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)  # noqa: PTH116  # the target's; without a Path for each of thousands
    except OSError:
        return ()
    # Not the time of the last change alone: whoever copies a file may set that to whatever it was.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
