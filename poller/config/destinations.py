"""Sinks: the options every sink has, and those of its kind, held against the model the kind brings along."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

from poller import sinks
from poller.config.document import Node, join, shown_key
from poller.config.findings import Findings, suggestion
from poller.config.models import NAME_RULE, SinkSection, is_name
from poller.config.settings import SecretSetting, SinkSettings
from poller.delivery import DeliverySettings
from poller.model import Kind
from poller.secrets import Secret, reference_in
from poller.sinks import Sink, SinkOptions

SHOWN_ACCOUNTS = 20  # in a message; a fleet may have thousands
_NOT_READ = Secret("")  # stands for a secret while the rest is checked


def read_sinks(node: Node, directory: Path, findings: Findings) -> dict[str, SinkSettings]:
    """Return the sinks of the mapping ``sinks``, those without a problem."""
    found: dict[str, SinkSettings] = {}
    for name, entry in findings.mapping(node, "sinks").items():
        path = join("sinks", name)
        if not is_name(name):
            findings.add(entry, path, f"{shown_key(name)} cannot name a sink", NAME_RULE)
        settings = _sink(entry, path, directory, findings)
        if settings is not None:
            found[name] = settings
    return found


def check_paths(node: Node, found: Mapping[str, SinkSettings], outbox: Path, findings: Findings) -> None:
    """Report two writers of one file: a copied sink whose ``path`` was left as it was, or the outbox's own."""
    owners: dict[tuple[str, str], str] = {}
    for name, settings in found.items():
        path = settings.options.get("path")
        if not isinstance(path, Path):
            continue
        entry, key = node.entries[name].entries["path"], f"sinks.{name}.path"
        target = os.path.normpath(path)
        owner = owners.setdefault((settings.kind, target), name)
        if target == os.path.normpath(outbox):
            findings.add(entry, key, "this is the outbox's own file", "give the sink another")
        elif owner != name:
            findings.add(entry, key, f"the sink {owner!r} writes this file already", "give each one its own")


def check_filters(
    node: Node, found: Mapping[str, SinkSettings], accounts: Collection[str], findings: Findings
) -> None:
    """Report patterns that no account matches: the sink would go without what somebody meant it to get."""
    for name, settings in found.items():
        for number, pattern in enumerate(settings.delivery.accounts):
            if any(fnmatchcase(account, pattern) for account in accounts):
                continue
            entry = node.entries[name].entries["accounts"]
            entry = entry.value[number] if isinstance(entry.value, list) else entry
            shown = sorted(accounts)[:SHOWN_ACCOUNTS] + ["..."] * (len(accounts) > SHOWN_ACCOUNTS)
            findings.add(
                entry,
                f"sinks.{name}.accounts[{number}]",
                f"{pattern!r} matches no account",
                suggestion(pattern, accounts, "accounts")
                if len(accounts) <= SHOWN_ACCOUNTS
                else f"accounts: {', '.join(shown)}",
            )


def _sink(node: Node, path: str, directory: Path, findings: Findings) -> SinkSettings | None:
    entries = findings.mapping(node, path)
    if not isinstance(node.value, dict | None) or node.refused:
        return None
    common = {key: entry for key, entry in entries.items() if key in SinkSection.model_fields}
    kind = entries.get("kind", Node(None, 0))
    sink = _load(kind, f"{path}.kind", kind.value, findings) if isinstance(kind.value, str) else None
    if sink is not None:
        common = {**_defaults(sink, node), **common}
    own = {key: entry for key, entry in entries.items() if key not in SinkSection.model_fields}
    if "kind" not in entries:
        findings.add(node, path, "'kind' is missing", f"add one of: {_installed()}")
    # Without its kind the rest is looked at all the same.
    section = findings.check(SinkSection, Node({"kind": Node("?", 0), **common}, node.line), path)
    if section is not None and section.retry_max < section.retry_min:
        findings.add(
            entries.get("retry_max", entries.get("retry_min", node)),
            f"{path}.retry_max",
            "'retry_max' is shorter than 'retry_min'",
            "make it at least as long",
        )
    if sink is None or not isinstance(kind.value, str):
        return None
    settings = _own_options(sink, own, node, path, directory, findings)
    if section is None or settings is None:
        return None
    options, secrets = settings
    return SinkSettings(kind.value, sink, _delivery(section), options, secrets)


def _defaults(sink: type[Sink], node: Node) -> dict[str, Node]:
    """What the kind has for the options of every sink, as if it had been written."""
    return {key: Node(value, node.line, str(value)) for key, value in sinks.defaults(sink).items()}


def _installed() -> str:
    return ", ".join(sorted(sinks.installed()))


def _load(node: Node, path: str, kind: str, findings: Findings) -> type[Sink] | None:
    try:
        return sinks.load(kind)
    except LookupError:
        remedy = suggestion(kind, sinks.installed(), "installed")
        findings.add(node, path, f"unknown kind {kind[:80]!r}", remedy)
    except sinks.MissingExtra as error:
        findings.add(node, path, str(error), error.remedy)
    except (ImportError, AttributeError) as error:
        findings.add(node, path, f"kind {kind!r} cannot be loaded: {error}", "install what it needs")
    return None


def _own_options(
    sink: type[Sink],
    entries: dict[str, Node],
    node: Node,
    path: str,
    directory: Path,
    findings: Findings,
) -> tuple[dict[str, Any], dict[str, SecretSetting]] | None:
    """Return the options of a sink's kind: as they are, and those that are secrets."""
    paths, secret_keys = _fields_of(sink.Options, Path), _fields_of(sink.Options, Secret)
    options: dict[str, Any] = {}
    secrets: dict[str, SecretSetting] = {}
    stand_ins: dict[str, Secret] = {}
    for key, entry in entries.items():
        value = entry.plain()
        if key in secret_keys and value is not None:
            stand_ins[key] = _NOT_READ
            try:
                reference = reference_in(value)
            except ValueError as error:
                findings.add(entry, f"{path}.{key}", str(error))
            else:
                secrets[key] = SecretSetting(reference, directory, f"{path}.{key}", findings.place(entry))
        elif key in paths and isinstance(value, str):
            options[key] = directory / value
        else:
            options[key] = value

    def concerns_secret(loc: tuple[int | str, ...]) -> bool:
        # Whatever is said of a secret that was not read yet is no finding; nor what is said of the whole.
        return bool(stand_ins) and (not loc or loc[0] in stand_ins)

    fits = findings.validate(
        sink.Options,
        {**options, **stand_ins},
        Node(entries, node.line),
        path,
        known=SinkSection.model_fields,
        ignore=concerns_secret,
    )
    return (options, secrets) if fits is not None or stand_ins else None


def _fields_of(model: type[SinkOptions], wanted: type) -> Collection[str]:
    """Return the keys of the fields that hold the wanted type, or nothing."""
    return {
        field.alias or name for name, field in model.model_fields.items() if _admits(field.annotation, wanted)
    }


def _admits(annotation: object, wanted: type) -> bool:
    return annotation is wanted or any(_admits(part, wanted) for part in get_args(annotation))


def _delivery(section: SinkSection) -> DeliverySettings:
    return DeliverySettings(
        emit=section.emit,
        only=frozenset(map(Kind, section.only)),
        accounts=tuple(section.accounts),
        labels=section.labels,
        heartbeat_s=section.heartbeat,
        batch_records=section.batch,
        batch_bytes=section.batch_bytes,
        linger_s=section.linger,
        write_timeout_s=section.write_timeout,
        retry_min_s=section.retry_min,
        retry_max_s=section.retry_max,
        start=section.start,
        on_start=section.on_start,
    )
