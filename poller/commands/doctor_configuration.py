"""The configuration as ``poller doctor`` shows it: secret references kept, and nothing that may be a secret.

What is shown is chosen, not what is hidden: a key that is not known, or stands in the wrong place, has its
value hidden, since it may be a secret under a misspelt name. Works with a configuration that is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel

from poller import sinks
from poller.config.document import Misread, Node, join, shown_key
from poller.config.files import Source
from poller.config.models import (
    AccountSection,
    BudgetSection,
    DefaultsSection,
    DiscoverSection,
    EgressSection,
    ExchangeSection,
    LoggingSection,
    MetricsSection,
    OutboxSection,
    ReloadSection,
    ServerSection,
    ShutdownSection,
    SinkSection,
    TracingSection,
    is_name,
)
from poller.secrets import HIDDEN, Secret, SecretReference, may_be_secret, parse_reference, redact

SHOWN_ACCOUNTS: Final = 3  # of each file: they are alike, and there may be thousands
SECTIONS: Final[Mapping[str, type[BaseModel]]] = {
    "exchange": ExchangeSection,
    "budget": BudgetSection,
    "defaults": DefaultsSection,
    "outbox": OutboxSection,
    "server": ServerSection,
    "metrics": MetricsSection,
    "tracing": TracingSection,
    "shutdown": ShutdownSection,
    "reload": ReloadSection,
    "logging": LoggingSection,
}
MAPPINGS: Final[Mapping[str, type[BaseModel]]] = {
    "egress": EgressSection,
    "discover": DiscoverSection,
    "accounts": AccountSection,
}
PLAIN: Final = ("key_policy", "include")
_USER = re.compile(r"(?<=://)[^\s/?#@]*@")
_QUERY = re.compile(r"(://[^\s?#]*)[?#]\S*")
_LIKE_A_KEY = re.compile(r"[A-Za-z0-9+=_-]{40,}")  # without "/": paths are long


@dataclass(frozen=True, slots=True)
class Reference:
    """A secret that the configuration refers to, and where it does: ``key`` is the dotted path."""

    key: str
    reference: SecretReference
    directory: Path


@dataclass(slots=True)
class Shown:
    """One file as it may be seen. ``document`` is plain data; ``references`` are all of it."""

    document: dict[str, Any] = field(default_factory=dict)
    references: list[Reference] = field(default_factory=list)


def shown(source: Source) -> Shown:
    """Return a file without what may be a secret."""
    made = Shown()
    for key, node in source.root.entries.items():
        if key in SECTIONS:
            made.document[key] = _section(node, SECTIONS[key], key, source, made)
        elif key in MAPPINGS:
            made.document[key] = _mapping(node, MAPPINGS[key], key, source, made)
        elif key == "sinks":
            made.document[key] = {
                _key(name): _sink(entry, join(key, name), source, made)
                for name, entry in node.entries.items()
            }
        else:
            made.document[_key(key)] = _plain(node) if key in PLAIN else HIDDEN
    return made


def _mapping(node: Node, model: type[BaseModel], path: str, source: Source, made: Shown) -> dict[str, Any]:
    entries = {
        _key(name): _section(entry, model, join(path, name), source, made)
        for name, entry in node.entries.items()
    }
    if path != "accounts" or len(entries) <= SHOWN_ACCOUNTS:
        return entries
    few = dict(list(entries.items())[:SHOWN_ACCOUNTS])
    return {**few, "...": f"{len(entries) - SHOWN_ACCOUNTS:,} more"}


def _sink(node: Node, path: str, source: Source, made: Shown) -> Any:
    kind = node.entries.get("kind", Node(None, 0)).value
    own: type[BaseModel] | None = None
    if isinstance(kind, str):
        try:
            own = sinks.load(kind).Options
        except Exception:  # noqa: BLE001  # a plug-in's import may fail in any way; its options stay hidden
            own = None
    return _section(node, SinkSection, path, source, made, own)


def _section(
    node: Node,
    model: type[BaseModel],
    path: str,
    source: Source,
    made: Shown,
    own: type[BaseModel] | None = None,
) -> Any:
    """Return the entries that a model knows, and its secrets as references; the rest is hidden."""
    if node.value is None:
        return None
    if not isinstance(node.value, dict):
        return HIDDEN
    fields = {**_fields(model), **(_fields(own) if own is not None else {})}
    found: dict[str, Any] = {}
    for key, entry in node.entries.items():
        if key not in fields:
            found[_key(key)] = HIDDEN
        elif _admits(fields[key], SecretReference) or _admits(fields[key], Secret):
            found[key] = _reference(entry, join(path, key), source, made)
        else:
            found[key] = _plain(entry)
    return found


def _fields(model: type[BaseModel]) -> dict[str, object]:
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _admits(annotation: object, wanted: type) -> bool:
    return annotation is wanted or any(_admits(part, wanted) for part in get_args(annotation))


def _reference(node: Node, path: str, source: Source, made: Shown) -> str:
    try:
        reference = parse_reference(node.value if isinstance(node.value, str) else "")
    except ValueError:
        return HIDDEN  # what stands in its place may be the secret itself
    made.references.append(Reference(path, reference, source.directory))
    return str(reference)


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {_key(key): _plain(entry) for key, entry in node.entries.items()}
    if isinstance(node.value, list):
        return [_plain(entry) for entry in node.value]
    if isinstance(node.value, str | Misread):
        return scrubbed(node.text)
    return node.value


def scrubbed(text: str) -> str:
    """Return a text without an URL's user and query, and without what looks like a key."""
    text = _QUERY.sub(rf"\1?{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
    if may_be_secret(text):
        return HIDDEN
    return redact(_LIKE_A_KEY.sub(HIDDEN, text))


def _key(name: str) -> str:
    return name if is_name(name) and not may_be_secret(name) else shown_key(name)[1:-1]
