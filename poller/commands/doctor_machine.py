"""What ``poller doctor`` says of the machine: versions, limits, clock, time zone. Needs no rights."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import resource
import sqlite3
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from poller import __version__
from poller.clock import Clock
from poller.commands.drawing import age, size
from poller.commands.findings import Finding

FEWEST_OPEN_FILES = 1024
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
_UNLIMITED_BYTES = 1 << 60  # what version 1 of cgroups writes for no limit is beyond this

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*)(?:;.*extra == ['\"]([^'\"]+)['\"])?")
_BOUND = re.compile(r"(>=|<=|==|!=|~=|<|>)\s*([0-9.]+)")
# Fixed in 3.51.3, and in these of older lines.
_WAL_RESET_FIXED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))

_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


def look_at_machine(clock: Clock) -> Iterator[Finding]:
    """Yield what there is to say of this machine and what is installed on it."""
    yield from _versions()
    yield from _dependencies()
    yield from _limits()
    yield from _clock(clock)


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "poller", "ok", __version__)
    build = f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()})"
    yield Finding("versions", "python", "ok", build)
    yield Finding(
        "versions",
        "system",
        "ok",
        f"{_system()}, {platform.system()} {platform.release()} {platform.machine()}",
    )
    yield Finding("versions", "libc", "ok", " ".join(platform.libc_ver()).strip() or "cannot be told")
    yield Finding("versions", "openssl", "ok", ssl.OPENSSL_VERSION)
    yield Finding("versions", "sqlite", "ok", _sqlite(sqlite3.sqlite_version_info))


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _sqlite(version: tuple[int, int, int]) -> str:
    """Say which version it is, and what is known of it."""
    named = ".".join(map(str, version))
    fixed = version >= _WAL_RESET_FIXED[0] or any(
        version[:2] == line[:2] and version >= line for line in _WAL_RESET_FIXED
    )
    if fixed or version < (3, 7, 0):
        return named
    return (
        f"{named}, which has the WAL-reset bug of 3.7.0 to 3.51.2: two connections that write to one file can"
        " damage it. Harmless here: one process has one connection to each of its files, and whoever"
        " else reads them does not write"
    )


# Dependencies ------------------------------------------------------------------------------------


def _dependencies() -> Iterator[Finding]:
    extras: dict[str, list[tuple[str, str]]] = {}
    for requirement in importlib.metadata.requires("poller") or []:
        match = _REQUIREMENT.match(requirement)
        if match is None:
            continue
        name, bounds, extra = match[1], match[2].strip(), match[3]
        if extra is None:
            yield _dependency(name, bounds)
        else:
            extras.setdefault(extra, []).append((name, bounds))
    for extra, wanted in sorted(extras.items()):
        missing = [name for name, _ in wanted if _installed(name) is None]
        if missing:
            yield Finding("extras", extra, "ok", "not installed")
        else:
            for name, bounds in wanted:
                yield _dependency(name, bounds, section="extras", shown=f"{extra}: {name}")


def _dependency(name: str, bounds: str, *, section: str = "dependencies", shown: str = "") -> Finding:
    version = _installed(name)
    shown = shown or name
    remedy = "install it again: pip install poller, or with its extras"
    if version is None:
        return Finding(section, shown, "error", f"is missing; {bounds} is wanted", remedy)
    if not fits(version, bounds):
        return Finding(section, shown, "error", f"{version} does not fit {bounds}", remedy)
    return Finding(section, shown, "ok", version)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def fits(version: str, bounds: str) -> bool:
    """Tell whether a version is within bounds such as ``>=2.12,<3``, by its numbers."""
    have = _numbers(version)
    for sign, text in _BOUND.findall(bounds):
        wanted = _numbers(text)
        length = max(len(have), len(wanted))
        left, right = (numbers + (0,) * (length - len(numbers)) for numbers in (have, wanted))
        held = {
            ">=": left >= right,
            "<=": left <= right,
            "==": left == right,
            "!=": left != right,
            "<": left < right,
            ">": left > right,
            "~=": left >= right and have[: len(wanted) - 1] == wanted[:-1],
        }[sign]
        if not held:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(map(int, found.group().split("."))) if found else ()


# Limits ------------------------------------------------------------------------------------------


def _limits() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < FEWEST_OPEN_FILES
    yield Finding(
        "limits",
        "open files",
        "warning" if few else "ok",
        f"{_limit(soft)}, at most {_limit(hard)}",
        f"allow {FEWEST_OPEN_FILES}: ulimit -n {FEWEST_OPEN_FILES}, or LimitNOFILE={FEWEST_OPEN_FILES} in the unit"
        if few
        else "",
    )
    longest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if longest != resource.RLIM_INFINITY:
        yield Finding(
            "limits",
            "file size",
            "warning",
            f"files can have {size(longest)} at most: then the outbox is full",
            "lift it: ulimit -f unlimited, or LimitFSIZE=infinity in the unit",
        )
    yield Finding("limits", "memory", "ok", _memory())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("limits", "cpus", "ok", f"{usable} of {os.cpu_count()}")
    yield Finding("limits", "cgroup", "ok", "; ".join(cgroup_limits(OWN_CGROUP, CGROUPS)) or "no limits")


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else f"{value:,}"


def _memory() -> str:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = ""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        available = f", {size(int(found[1]) * 1024)} available" if found else ""
    except OSError:
        pass
    return size(total) + available


def cgroup_limits(own: Path, root: Path) -> list[str]:
    """Return what control groups of either version allow us: each limit from the group that sets it, or above.

    Args:
        own: text in the format of ``/proc/self/cgroup``.
        root: where they are mounted.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found: list[str] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # Version 1 has a tree for each set of controllers, version 2 one tree without any.
        trees = [root / name for name in controllers.split(",") if name] if controllers else [root]
        for tree in trees:
            group = tree / path.lstrip("/")
            for directory in (group, *(parent for parent in group.parents if parent.is_relative_to(tree))):
                found += [
                    text
                    for text in _set_in(directory)
                    if text.split()[0] not in {f.split()[0] for f in found}
                ]
    return found


def _set_in(directory: Path) -> Iterator[str]:
    def said(name: str) -> str:
        try:
            return (directory / name).read_text().strip()
        except OSError:
            return ""

    for file in ("memory.max", "memory.limit_in_bytes"):
        if said(file).isdecimal() and int(said(file)) < _UNLIMITED_BYTES:
            yield f"memory {size(int(said(file)))}"
    quota, _, period = (
        said("cpu.max") or f"{said('cpu.cfs_quota_us')} {said('cpu.cfs_period_us')}"
    ).partition(" ")
    if quota.isdecimal() and period.isdecimal():
        yield f"cpu {int(quota) / int(period):g}"
    if said("pids.max").isdecimal():
        yield f"pids {said('pids.max')}"


# Clock -------------------------------------------------------------------------------------------


class _Timex(ctypes.Structure):
    """The beginning of ``struct timex``; the kernel writes the rest into the padding."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def _clock(clock: Clock) -> Iterator[Finding]:
    yield _synchronised()
    yield Finding("clock", "boot", "ok", f"{clock.boot_id() or 'has no name'}, up {age(clock.uptime_s())}")
    yield Finding("clock", "monotonic", "ok", f"{clock.monotonic_s():.3f} s")
    zone = f"{time.tzname[0]}; everything that is written is UTC"
    yield Finding("clock", "time zone", "ok", zone)


def _synchronised() -> Finding:
    name = "synchronised"
    try:
        # Without a mode it only reads.
        reading = _Timex()
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(reading))
    except (OSError, AttributeError):
        return Finding("clock", name, "ok", "cannot be told on this system")
    if state < 0:
        return Finding("clock", name, "ok", f"cannot be told: {os.strerror(ctypes.get_errno())}")
    if state == _TIME_ERROR or reading.status & _STA_UNSYNC:
        return Finding(
            "clock",
            name,
            "warning",
            "the kernel knows of no service that keeps the clock",
            "run chrony, ntpd or systemd-timesyncd; 'poller check --online' measures how far it is off",
        )
    return Finding("clock", name, "ok", f"yes, to {reading.maxerror / 1000:.0f} ms by the kernel's estimate")
