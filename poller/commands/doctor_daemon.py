"""What ``poller doctor`` says of the configuration's parts and of the daemon that runs on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poller import __version__
from poller.clock import Clock, rfc3339
from poller.commands.doctor_configuration import Shown, scrubbed, shown
from poller.commands.doctor_files import look_at_places, look_at_rights, look_at_secrets
from poller.commands.doctor_machine import look_at_machine
from poller.commands.drawing import age, between_s
from poller.commands.findings import Finding, Level
from poller.config import OutboxSettings, load
from poller.config.destinations import read_sinks
from poller.config.document import Node
from poller.config.files import Source, read_included, read_source
from poller.config.findings import Findings
from poller.config.sections import read_outbox
from poller.control import NobodyThere, Refused, ask, socket_path
from poller.errors import ConfigError, Problem
from poller.locks import holder

PATIENCE_S = 10.0
SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was found. ``configuration`` is each file as it may be seen, by its path."""

    at: str
    findings: list[Finding]
    configuration: Mapping[str, Any]


@dataclass(slots=True)
class _Parts:
    """What could be read of a configuration, however wrong the rest is."""

    files: list[Path]
    shown: dict[str, Shown] = field(default_factory=dict)
    outbox: OutboxSettings | None = None
    sinks: dict[str, Path] = field(default_factory=dict)


def diagnose(path: Path, clock: Clock) -> Diagnosis:
    """Look at everything. Reads no secret, writes nothing, and never fails because of what it finds."""
    parts = _read(path)
    findings = [*look_at_machine(clock), *_configuration(path)]
    outbox = parts.outbox
    if outbox is not None:
        findings += look_at_places(outbox.path, outbox.max_size_bytes, parts.sinks)
        findings += look_at_rights(parts.files, outbox.path, socket_path(outbox.path))
    findings += look_at_secrets([one for file in parts.shown.values() for one in file.references])
    if outbox is not None:
        findings += _daemon(outbox.path)
    seen = {file: one.document for file, one in parts.shown.items()}
    return Diagnosis(rfc3339(clock.utc_ns()), findings, seen)


def _read(path: Path) -> _Parts:
    parts = _Parts([path])
    ignored: list[Problem] = []  # they are told once, by what reads the configuration as the daemon does
    main = read_source(path, ignored)
    if main is None:
        return parts
    parts.shown[str(path)] = shown(main)
    for source in _included(main, ignored):
        parts.files.append(source.path)
        parts.shown[str(source.path)] = shown(source)
    nothing = Node(None, 0)
    findings = Findings(str(path), ignored)
    parts.outbox = read_outbox(main.root.entries.get("outbox", nothing), main.directory, findings)
    for name, settings in read_sinks(
        main.root.entries.get("sinks", nothing), main.directory, findings
    ).items():
        for key, value in settings.options.items():
            # Of what a sink reads, such as a certificate, the room does not matter.
            if isinstance(value, Path) and key in {"path", "directory"}:
                parts.sinks[f"sink {name}"] = value
    return parts


def _included(main: Source, ignored: list[Problem]) -> list[Source]:
    try:
        return list(read_included(main, ignored))
    except (OSError, ValueError):
        return []


def _configuration(path: Path) -> Iterator[Finding]:
    section = "configuration"
    try:
        config = load(path)
    except ConfigError as error:
        for problem in error.problems[:SHOWN_PROBLEMS]:
            place = f"{problem.file}:{problem.line}" if problem.line else problem.file
            said = ": ".join(part for part in (problem.key, problem.message) if part)
            yield Finding(section, place, "error", said, problem.remedy)
        if (more := len(error.problems) - SHOWN_PROBLEMS) > 0:
            yield Finding(section, "...", "error", f"{more:,} more problems", "run: poller check")
        return
    kinds = ", ".join(f"{name} ({sink.kind})" for name, sink in config.sinks.items()) or "none"
    addresses = len(config.egress)
    text = f"{len(config.accounts):,} accounts, {addresses} egress addresses, sinks: {kinds}"
    yield Finding(section, str(path), "ok", text)


def _daemon(outbox: Path) -> Iterator[Finding]:
    section, socket = "daemon", socket_path(outbox)
    pid = holder(Path(f"{outbox}.lock"))
    process = "is running" if pid is None else f"process {pid}"
    try:
        whole = asyncio.run(_asked(socket))
        status = whole["status"]
    except NobodyThere as error:
        if pid is None:
            yield Finding(section, "running", "ok", "no")
        else:
            remedy = "ask as the daemon's user; or see its log: it may just start or end"
            yield Finding(section, "running", "warning", f"{process}, but nobody answers: {error}", remedy)
        return
    except (Refused, TimeoutError, KeyError, TypeError) as error:
        said = f"{process}, but does not say how it is: {str(error) or 'it took too long'}"
        yield Finding(section, "running", "warning", said, "it may be of another version: restart it")
        return
    version, uptime = status["version"], age(between_s(status["started_at"], status["at"]))
    text = f"{process}, version {version}, up {uptime}"
    if version != __version__:
        yield Finding(section, "running", "warning", f"{text}; this is {__version__}", "restart the daemon")
    else:
        yield Finding(section, "running", "ok", text)
    yield from _troubles(whole)


def _troubles(whole: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what the daemon itself calls wrong. What others said to it may hold an URL."""
    section, status = "daemon", whole["status"]
    for check in status["ready"]:
        level: Level = "ok" if check["ok"] else "warning"
        yield Finding(section, f"ready: {check['name']}", level, scrubbed(check["text"]))
    for problem in status["configuration"]["problems"]:
        yield Finding(
            section, "reload", "warning", scrubbed(problem), "the configuration from before is in force"
        )
    for one in whole["egress"]:
        if one["pause_s"] > 0:
            text = f"pauses {age(one['pause_s'])} more: {one['pause_cause']}"
            yield Finding(section, f"egress {one['egress']}", "warning", text)
    for one in whole["sinks"]:
        if one["error"] or one["dead_letters"]:
            text = f"{one['kind']}, backlog {one['backlog']:,}, dead letters {one['dead_letters']:,}"
            said = f"; {scrubbed(one['error'])}" if one["error"] else ""
            yield Finding(section, f"sink {one['sink']}", "warning", text + said, "see: poller outbox ls")


async def _asked(socket: Path) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await ask(socket, "fleet.status", {})
