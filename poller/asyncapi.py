"""An AsyncAPI 3.0 document of what the poller publishes, for those who read it. Pure.

One server, channel and operation for each sink that says where it publishes; the messages are the published
records. What a record decides in an address is a parameter. No credentials come in here: what is not known
of a server without them is a variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from poller.model import Kind, Reason, State
from poller.records import json_schema
from poller.sinks import Channel
from poller.sinks.messages import CLOUDEVENT_JSON, JSON, Format

VERSION: Final = "3.0.0"

# What a binding goes by, where the protocol's name says more: that it is encrypted.
_BINDINGS: Final[Mapping[str, str]] = {
    "rediss": "redis",
    "amqps": "amqp",
    "mqtts": "mqtt",
    "secure-mqtt": "mqtt",
    "kafka-secure": "kafka",
    "https": "http",
    "wss": "ws",
}
# How CloudEvents' bindings call an attribute there, and whether the content's type is one of them.
_HEADERS: Final[Mapping[str, tuple[str, bool]]] = {
    "kafka": ("ce_", False),
    "amqp": ("cloudEvents_", False),
    "http": ("ce-", False),
    "nats": ("ce-", True),
    "mqtt": ("", False),
}
_NO_BINDING: Final = ("", True)
_SHAPES: Final[Mapping[Kind, str]] = {Kind.SNAPSHOT: "SnapshotRecord", Kind.STATUS: "StatusRecord"}
_SUMMARIES: Final[Mapping[Kind, str]] = {
    Kind.SNAPSHOT: "What an account holds, and what changed since the snapshot before.",
    Kind.STATUS: "An account turned ok, stale, quarantined or removed.",
}
_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Publication:
    """One sink's part.

    Attributes:
        name: the sink's, from the configuration.
        kind: of the sink.
        channel: where it publishes; an empty host is one that is not known.
        format: of its messages.
    """

    name: str
    kind: str
    channel: Channel
    format: Format = "json"


def document(publications: Iterable[Publication], *, version: str) -> dict[str, Any]:
    """Return the document. ``version`` is the poller's."""
    servers: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    schemas = _record_schemas()
    publications = list(publications)
    taken = {publication.name for publication in publications}
    for publication in publications:
        own = _servers(publication, taken)
        servers |= own
        channels[publication.name] = _channel(publication, own)
        operations[f"send-{publication.name}"] = {
            "action": "send",
            "summary": "Sent at least once, in order per account; what comes again has the same id.",
            "channel": {"$ref": f"#/channels/{publication.name}"},
            "messages": [{"$ref": f"#/channels/{publication.name}/messages/{kind.value}"} for kind in Kind],
        }
        if publication.channel.content_type == CLOUDEVENT_JSON:
            schemas |= {_event_name(kind): _event(kind) for kind in Kind}
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "poller",
            "version": version,
            "description": "Balances of a fleet of exchange accounts: every change, exactly. Amounts are decimal "
            "strings, never numbers.",
        },
        "defaultContentType": JSON,
        "servers": servers,
        "channels": channels,
        "operations": operations,
        "components": {"schemas": schemas},
    }


def _servers(publication: Publication, taken: set[str]) -> dict[str, Any]:
    """Return a publication's servers by names that nobody else has; ``taken`` grows by them."""
    channel = publication.channel
    protocol = {"protocol": channel.protocol}
    hosts = [host.strip() for host in channel.host.split(",") if host.strip()]
    if not hosts:
        variable = {"description": f"Kept as a secret of the sink {publication.name}: host:port."}
        return {publication.name: {"host": "{host}", **protocol, "variables": {"host": variable}}}
    if len(hosts) == 1:
        return {publication.name: {"host": hosts[0], **protocol}}
    servers: dict[str, Any] = {}
    for number, host in enumerate(hosts, 1):
        name = f"{publication.name}-{number}"
        while name in taken:
            name += "_"
        taken.add(name)
        servers[name] = {"host": host, **protocol}
    return servers


def _channel(publication: Publication, servers: Mapping[str, Any]) -> dict[str, Any]:
    channel = publication.channel
    fields = _FIELD.findall(channel.address)
    described: dict[str, Any] = {
        "address": _FIELD.sub(lambda match: f"{{{_parameter_name(match[1])}}}", channel.address),
        "description": f"The sink {publication.name}, of the kind {publication.kind}.",
        "servers": [{"$ref": f"#/servers/{server}"} for server in servers],
        "messages": {kind.value: _message(publication, kind) for kind in Kind},
    }
    if fields:
        is_event = channel.content_type == CLOUDEVENT_JSON
        described["parameters"] = {
            _parameter_name(field): _parameter(field, "/data" if is_event else "") for field in fields
        }
    if channel.bindings:
        described["bindings"] = {_binding(channel.protocol): dict(channel.bindings)}
    return described


def _binding(protocol: str) -> str:
    return _BINDINGS.get(protocol, protocol)


def _parameter_name(field: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", field)  # a parameter's name has no dot


def _parameter(field: str, record_at: str) -> dict[str, Any]:
    if field == "account":
        return {
            "description": "Name of the account.",
            "location": f"$message.payload#{record_at}/account",
        }
    if field.startswith("labels."):
        return {
            "description": f"The account's label {field.removeprefix('labels.')}, cut to 64 characters, what is not "
            "a letter, digit, _ or - as _; _ if it has none."
        }
    if field == "kind":
        return {"description": "Of the record.", "enum": [kind.value for kind in Kind]}
    if field == "reason":
        return {
            "description": "Of a snapshot its reason, of a status the new state.",
            "enum": [*(reason.value for reason in Reason), *(state.value for state in State)],
        }
    if field == "date":
        return {"description": "UTC day of the observation, or of the change of state: YYYY-MM-DD."}
    return {}


def _message(publication: Publication, kind: Kind) -> dict[str, Any]:
    content_type = publication.channel.content_type
    shape = _event_name(kind) if content_type == CLOUDEVENT_JSON else _SHAPES[kind]
    message: dict[str, Any] = {
        "name": kind.schema,
        "title": kind.value,
        "summary": _SUMMARIES[kind],
        "contentType": content_type,
        "payload": {"$ref": f"#/components/schemas/{shape}"},
    }
    if publication.format == "cloudevents-binary":
        message["headers"] = _headers(kind, _binding(publication.channel.protocol))
    return message


def _headers(kind: Kind, protocol: str) -> dict[str, Any]:
    prefix, has_type = _HEADERS.get(protocol, _NO_BINDING)
    attributes = _attributes(kind) | ({"datacontenttype": {"const": JSON}} if has_type else {})
    headers = {f"{prefix}{name}": {"type": "string", **rule} for name, rule in attributes.items()}
    return {"type": "object", "properties": headers, "required": list(headers)}


def _attributes(kind: Kind) -> dict[str, dict[str, Any]]:
    """Return the rules of a CloudEvent's attributes, texts all of them."""
    return {
        "specversion": {"const": "1.0"},
        "id": {"description": "The record's id; the same on every redelivery."},
        "source": {"description": "Which poller it was."},
        "type": {"const": kind.schema},
        "subject": {"description": "Name of the account."},
        "time": {"format": "date-time"},
        "sequence": {"description": "The record's, as text.", "pattern": "^[0-9]+$"},
        "partitionkey": {"description": "Name of the account."},
    }


def _event_name(kind: Kind) -> str:
    return f"{kind.value.capitalize()}Event"


def _event(kind: Kind) -> dict[str, Any]:
    attributes = _attributes(kind) | {"datacontenttype": {"const": JSON}}
    properties = {name: {"type": "string", **rule} for name, rule in attributes.items()}
    data = {"data": {"$ref": f"#/components/schemas/{_SHAPES[kind]}"}}
    return {
        "title": _event_name(kind),
        "description": "A CloudEvent in structured mode, with the record as its data.",
        "type": "object",
        "properties": {**properties, **data},
        "required": [*properties, *data],
    }


def _record_schemas() -> dict[str, Any]:
    """Return the shapes of the published schema, with their references as they are here."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: inner.replace("#/$defs/", "#/components/schemas/") if key == "$ref" else moved(inner)
                for key, inner in value.items()
            }
        return [moved(inner) for inner in value] if isinstance(value, list) else value

    schemas: dict[str, Any] = moved(json_schema()["$defs"])
    return schemas
