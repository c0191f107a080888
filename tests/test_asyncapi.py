"""The AsyncAPI document: of channels as values, and of a configuration through the command."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import jsonschema
import orjson
import pytest
from click.testing import CliRunner

from poller import sinks
from poller.asyncapi import Publication, document
from poller.cli import main
from poller.model import Record
from poller.secrets import Secret
from poller.sinks import Channel, SinkOptions
from poller.sinks.messages import Format, MessageOptions, message
from poller.testing.sink_contract import hostile_records, make_records

pytestmark = pytest.mark.real_time

CANARY = "canary-9f3b7c2e81d4"
RECORDS = [*make_records(3), *hostile_records()]


class PlugInOptions(SinkOptions):
    token: Secret
    place: str = "plug.example:1"


class PlugIn:
    """Somebody else's kind, which says more than it should."""

    Options: ClassVar[type[SinkOptions]] = PlugInOptions

    def __init__(self, options: Any) -> None:
        self.options = options

    def channel(self) -> Channel:
        token = self.options.token.reveal()
        if not token:
            raise ValueError("no token")
        host = self.options.place.replace("TOKEN", token)
        return Channel("amqps", host, "{account}.{theirs}", bindings={"is": "routingKey"})

    async def open(self) -> None: ...

    async def write(self, batch: Sequence[Record]) -> None: ...

    async def close(self) -> None: ...


def only(channel: Channel, format_: Format = "json") -> dict[str, Any]:
    return document([Publication("bus", "probe", channel, format_)], version="1.2.3")


def checker(whole: dict[str, Any], schema: dict[str, Any]) -> jsonschema.Draft7Validator:
    """Return what holds values against a schema that refers to others of the document."""
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator({**schema, "components": whole["components"]} if "$ref" not in schema else {
        "allOf": [schema], "components": whole["components"],
    })  # fmt: skip


def all_references(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [
            found
            for key, inner in value.items()
            for found in ([inner] if key == "$ref" else all_references(inner))
        ]
    return [found for inner in value for found in all_references(inner)] if isinstance(value, list) else []


def resolved(whole: dict[str, Any], reference: str) -> Any:
    value: Any = whole
    for part in reference.removeprefix("#/").split("/"):
        value = value[part]
    return value


@pytest.mark.parametrize("format_", ["json", "cloudevents", "cloudevents-binary"])
@pytest.mark.parametrize("protocol", ["redis", "kafka", "nats", "amqps", "https", "mqtt", "unheard-of"])
def test_messages_are_of_the_shape_that_is_described(protocol: str, format_: Format) -> None:
    options = MessageOptions(format=format_)
    whole = only(Channel(protocol, "host:1", "balances", options.content_type), format_)
    assert whole["asyncapi"] == "3.0.0"
    assert whole["info"]["version"] == "1.2.3"
    for reference in all_references(whole):
        resolved(whole, reference)
    messages = whole["channels"]["bus"]["messages"]
    for record in RECORDS:
        described = messages[record.kind.value]
        sent = message(record, options)
        assert described["contentType"] == sent.content_type
        checker(whole, described["payload"]).validate(orjson.loads(sent.body))
        other = messages["status" if record.kind == "snapshot" else "snapshot"]
        assert not checker(whole, other["payload"]).is_valid(orjson.loads(sent.body))
        if format_ == "cloudevents-binary":
            prefix = {"kafka": "ce_", "nats": "ce-", "amqps": "cloudEvents_", "https": "ce-"}.get(
                protocol, ""
            )
            headers = {prefix + name: value for name, value in sent.attributes.items()}
            if protocol in {"redis", "nats", "unheard-of"}:
                headers[prefix + "datacontenttype"] = sent.content_type
            checker(whole, described["headers"]).validate(headers)
            assert described["headers"]["properties"].keys() == headers.keys()
        else:
            assert "headers" not in described


def test_every_field_of_an_address_is_a_parameter() -> None:
    address = "b:{account}:{kind}:{reason}:{date}:{labels.desk-1}:{theirs}"
    channel = only(Channel("redis", "host:1", address))["channels"]["bus"]
    assert channel["address"] == "b:{account}:{kind}:{reason}:{date}:{labels_desk-1}:{theirs}"
    assert list(channel["parameters"]) == re.findall(r"\{(.*?)\}", channel["address"])
    assert channel["parameters"]["account"]["location"] == "$message.payload#/account"
    assert channel["parameters"]["kind"]["enum"] == ["snapshot", "status"]
    event = only(Channel("redis", "host:1", address, "application/cloudevents+json"), "cloudevents")
    parameters = event["channels"]["bus"]["parameters"]
    assert parameters["account"]["location"] == "$message.payload#/data/account"
    assert "parameters" not in only(Channel("redis", "host:1", "balances"))["channels"]["bus"]


def test_servers_by_their_hosts() -> None:
    assert only(Channel("nats", "", "a"))["servers"]["bus"]["host"] == "{host}"
    assert only(Channel("nats", "", "a"))["servers"]["bus"]["variables"].keys() == {"host"}
    assert only(Channel("nats", "a:1", "a"))["servers"] == {"bus": {"host": "a:1", "protocol": "nats"}}
    publications = [
        Publication("bus", "probe", Channel("nats", "a:1, b:2", "a")),
        Publication("bus-1", "probe", Channel("nats", "c:3", "a")),
    ]
    whole = document(publications, version="1")
    assert {name: server["host"] for name, server in whole["servers"].items()} == {
        "bus-1": "c:3",
        "bus-1_": "a:1",
        "bus-2": "b:2",
    }
    assert all_references(whole["channels"]["bus"]["servers"]) == ["#/servers/bus-1_", "#/servers/bus-2"]


def test_bindings_go_by_the_name_of_the_protocol_itself() -> None:
    for protocol, name in (("amqps", "amqp"), ("kafka-secure", "kafka"), ("nats", "nats")):
        channel = only(Channel(protocol, "a:1", "a", bindings={"x": 1}))["channels"]["bus"]
        assert channel["bindings"] == {name: {"x": 1}}


def test_one_operation_for_each_channel_that_sends_both_messages() -> None:
    assert only(Channel("redis", "a:1", "a"))["operations"] == {
        "send-bus": {
            "action": "send",
            "summary": "Sent at least once, in order per account; what comes again has the same id.",
            "channel": {"$ref": "#/channels/bus"},
            "messages": [
                {"$ref": "#/channels/bus/messages/snapshot"},
                {"$ref": "#/channels/bus/messages/status"},
            ],
        }
    }


@pytest.fixture(autouse=True)
def _plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("their_plug_in")
    module.PlugIn = PlugIn  # type: ignore[attr-defined]  # made here
    monkeypatch.setitem(sys.modules, "their_plug_in", module)
    ours = sinks.installed()
    theirs = EntryPoint("theirs", "their_plug_in:PlugIn", sinks.GROUP)
    monkeypatch.setattr(sinks, "installed", lambda: {**ours, "theirs": theirs})


def printed(directory: Path, text: str) -> tuple[int, str, str]:
    path = directory / "accounts.yaml"
    path.write_text("accounts: {a: {api_key: env:A_KEY, secret: env:A_SECRET}}\nsinks:\n" + text)
    result = CliRunner().invoke(main, ["schema", "--asyncapi", "-c", str(path)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


SINKS = """\
  bus: {kind: redis, url: env:REDIS_URL, stream: "balances:{account}", format: cloudevents-binary}
  log: {kind: jsonl, path: records.jsonl}
  plug: {kind: theirs, token: env:TOKEN}
"""


def test_the_command_shows_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"rediss://user:{CANARY}@bus.example:7000/0")
    monkeypatch.setenv("TOKEN", f"{CANARY}-too")
    code, out, err = printed(tmp_path, SINKS)
    assert (code, err) == (0, "")
    assert CANARY not in out
    whole = json.loads(out)
    assert whole["servers"] == {
        "bus": {"host": "bus.example:7000", "protocol": "rediss"},
        "plug": {"host": "plug.example:1", "protocol": "amqps"},
    }
    assert whole["channels"].keys() == {"bus", "plug"}  # a file is no channel
    assert whole["channels"]["bus"]["messages"]["snapshot"]["headers"]["required"]


@pytest.mark.parametrize("place", ["'user:TOKEN@plug.example:1'", "TOKEN"])
def test_a_plug_in_that_tells_its_secret_is_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("TOKEN", CANARY)
    code, out, _ = printed(tmp_path, f"  plug: {{kind: theirs, token: env:TOKEN, place: {place}}}\n")
    assert code == 0
    assert CANARY not in out
    json.loads(out)


def test_without_the_secrets_the_host_is_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    code, out, _ = printed(tmp_path, SINKS.partition("  plug")[0])
    assert code == 0
    server = json.loads(out)["servers"]["bus"]
    assert server["host"] == "{host}"
    assert server["variables"]["host"]["description"] == "Kept as a secret of the sink bus: host:port."


def test_a_sink_that_can_say_nothing_without_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKEN", raising=False)
    code, _, err = printed(tmp_path, "  plug: {kind: theirs, token: env:TOKEN}\n")
    assert code == 2
    assert "sinks.plug: cannot say where it publishes" in err
    assert "let its secrets be read" in err


def test_without_a_sink_that_publishes_there_are_only_the_schemas(tmp_path: Path) -> None:
    code, out, _ = printed(tmp_path, "  log: {kind: jsonl, path: records.jsonl}\n")
    assert code == 0
    whole = json.loads(out)
    assert whole["channels"] == whole["servers"] == whole["operations"] == {}
    assert whole["components"]["schemas"].keys() >= {"SnapshotRecord", "StatusRecord"}
