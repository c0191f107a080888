"""What ``poller doctor`` says of files: where they lie, how much room there is, who can read and write them.

Secrets are looked at from outside: whether they are there and who may open them. None is opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from poller.commands.doctor_configuration import Reference
from poller.commands.drawing import size
from poller.commands.findings import Finding, Level
from poller.outbox import place

LEAST_FREE_BYTES = 256 * 1024 * 1024
SHOWN_WRONG = 10


def look_at_places(outbox: Path, max_size_bytes: int, others: Mapping[str, Path]) -> Iterator[Finding]:
    """Yield where the outbox and the sinks' files lie, and how much room there is.

    Args:
        others: files and directories of sinks, by a name such as ``sink history``.
    """
    used_bytes = outbox.stat().st_size if outbox.exists() else 0
    yield _place("outbox", outbox.parent, max(LEAST_FREE_BYTES, max_size_bytes - used_bytes), is_outbox=True)
    for name, path in others.items():
        yield _place(name, path if path.is_dir() else path.parent, LEAST_FREE_BYTES, is_outbox=False)


def _place(name: str, directory: Path, wanted_bytes: int, *, is_outbox: bool) -> Finding:
    section = "file systems"
    there = next((path for path in (directory, *directory.parents) if path.exists()), Path("/"))
    try:
        kind = place.file_system(there.resolve(), place.MOUNTS.read_text(errors="surrogateescape"))
        room = os.statvfs(there)
    except OSError as error:
        return Finding(section, name, "warning", f"{directory}: {error.strerror}")
    free_bytes = room.f_bavail * room.f_frsize
    text = f"{directory}{'' if there == directory else ' (is made)'}: {kind or 'unknown'}, {size(free_bytes)} free"
    if place.UNSAFE.fullmatch(kind):
        level: Level = "error" if is_outbox else "warning"
        return Finding(
            section, name, level, f"{text}; a network or FUSE file system", "move it to a local disk"
        )
    if kind in place.VOLATILE:
        return Finding(
            section, name, "warning", f"{text}; lies in memory", "move it to a disk: a reboot empties it"
        )
    if room.f_files and not room.f_favail:
        return Finding(section, name, "error", f"{text}; no inodes left", "remove files there")
    if free_bytes < wanted_bytes:
        return Finding(
            section,
            name,
            "warning",
            f"{text}, less than the {size(wanted_bytes)} that it may take",
            "make room, or lower outbox.max_size" if is_outbox else "make room",
        )
    return Finding(section, name, "ok", text)


# Who may do what ---------------------------------------------------------------------------------


def look_at_rights(files: Sequence[Path], outbox: Path, socket: Path) -> Iterator[Finding]:
    """Yield who can write the configuration's files, and who can reach the outbox and its socket."""
    for path in files:
        yield _written_by_others(path)
    for name, path in (("outbox", outbox), ("lock", Path(f"{outbox}.lock")), ("socket", socket)):
        yield _ours_alone(name, path)


def _written_by_others(path: Path) -> Finding:
    section, name = "permissions", "configuration"
    try:
        found = path.stat()
    except OSError as error:
        return Finding(
            section, name, "error", f"{path}: {error.strerror}", "name it with -c or POLLER_CONFIG"
        )
    mode = stat.S_IMODE(found.st_mode)
    text = f"{path}: mode {mode:04o}, of user {found.st_uid}"
    if mode & stat.S_IWOTH:
        return Finding(section, name, "error", f"{text}; anybody can change it", f"chmod o-w {path}")
    if mode & stat.S_IWGRP:
        return Finding(section, name, "warning", f"{text}; its group can change it", f"chmod g-w {path}")
    return Finding(section, name, "ok", text)


def _ours_alone(name: str, path: Path) -> Finding:
    section = "permissions"
    try:
        found = path.lstat()
    except FileNotFoundError:
        return Finding(section, name, "ok", f"{path}: is not there")
    except OSError as error:
        return Finding(section, name, "warning", f"{path}: {error.strerror}", "ask as the user of the daemon")
    mode = stat.S_IMODE(found.st_mode)
    text = f"{path}: mode {mode:04o}, of user {found.st_uid}"
    if stat.S_ISLNK(found.st_mode):
        return Finding(section, name, "error", f"{path}: is a symbolic link", "name the file itself")
    if found.st_uid != os.geteuid():
        return Finding(
            section,
            name,
            "warning",
            f"{text}; we are user {os.geteuid()}",
            "run poller as one and the same user",
        )
    if mode & 0o077:
        return Finding(section, name, "warning", f"{text}; others can open it", f"chmod 600 {path}")
    return Finding(section, name, "ok", text)


# Secrets, from outside ---------------------------------------------------------------------------


def look_at_secrets(references: Sequence[Reference]) -> Iterator[Finding]:
    """Yield how many secrets are where they should be, and what is wrong with the others."""
    wrong = [finding for one in references if (finding := _secret(one)) is not None]
    good = len(references) - len(wrong)
    yield Finding("secrets", "all", "ok", f"{good:,} of {len(references):,} are there, and closed to others")
    yield from wrong[:SHOWN_WRONG]
    if len(wrong) > SHOWN_WRONG:
        level = "error" if any(finding.level == "error" for finding in wrong[SHOWN_WRONG:]) else "warning"
        text = f"{len(wrong) - SHOWN_WRONG:,} more are wrong"
        yield Finding("secrets", "...", level, text, "run: poller check")  # type: ignore[arg-type]  # of two levels


def _secret(one: Reference) -> Finding | None:
    if one.reference.scheme == "env":
        if one.reference.name in os.environ:
            return None
        text = f"{one.reference}: is not set here"
        return Finding("secrets", one.key, "warning", text, "set it where the daemon runs")
    if one.reference.scheme != "file":
        return None  # kept elsewhere: only by reading could more be said
    wrong = _wrong_with(one.directory / one.reference.name)
    return None if wrong is None else Finding("secrets", one.key, "error", *wrong)


def _wrong_with(path: Path) -> tuple[str, str] | None:
    """Return what is wrong with a secret's file, and the remedy."""
    try:
        found = path.stat()  # of a link it is the target that counts
    except OSError as error:
        return f"{path}: {error.strerror}", "put the secret there"
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        return f"{path}: is not a regular file", "put a file there"
    if found.st_uid not in {os.geteuid(), 0}:
        text = f"{path}: belongs to user {found.st_uid}, and we are {os.geteuid()}"
        return text, "chown it, or run this as the daemon's user"
    if mode & 0o077:
        return f"{path}: mode {mode:04o}; it is open to others", f"chmod 600 {path}"
    return None if found.st_size else (f"{path}: is empty", "put the secret there")
