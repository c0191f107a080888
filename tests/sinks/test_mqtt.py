"""The ``mqtt`` sink without a broker: its options, and what the broker's reason codes mean."""

from __future__ import annotations

from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import ValidationError

from poller.errors import SinkBroken, SinkError, SinkUnavailable
from poller.secrets import Secret
from poller.sinks.mqtt import MqttSink
from poller.sinks.mqtt_connection import verdict
from poller.sinks.mqtt_options import MqttOptions


def options(**given: Any) -> MqttOptions:
    return MqttOptions.model_validate(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"topic": "balances/+"}, "cannot be a topic"),
        ({"topic": "balances/#"}, "cannot be a topic"),
        ({"topic": "balances\0"}, "cannot be a topic"),
        ({"topic": "my balances"}, "cannot be a topic"),
        ({"topic": "$SYS/{account}"}, "the broker's own"),
        ({"topic": "x" * 1020 + "{account}"}, "can have 1024 bytes"),
        ({"password": Secret("hidden")}, "add the user"),
        ({"host": "mqtt://user:hidden@host"}, "should match pattern"),
        ({"client_id": "a b"}, "should match pattern"),
    ],
)
def test_what_is_wrong_is_said_without_secrets(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        options(**given)
    [detail] = wrong.value.errors(include_input=False, include_url=False)
    assert said in detail["msg"]
    assert "hidden" not in detail["msg"]


def test_a_secret_that_was_not_read_yet_is_no_mistake() -> None:
    options(user="poller", password=Secret(""))


def test_a_channel_is_described_without_credentials() -> None:
    channel = MqttSink(
        options(host="broker", tls=True, retain=True, password=Secret("x"), user="u")
    ).channel()
    assert (channel.protocol, channel.host, channel.address) == (
        "mqtts",
        "broker:8883",
        "balances/{account}",
    )
    assert channel.bindings == {"qos": 1, "retain": True}
    assert MqttSink(options()).channel().host == "127.0.0.1:1883"


@pytest.mark.parametrize(
    ("packet", "code", "kind"),
    [
        (PacketTypes.PUBACK, 0x80, SinkUnavailable),
        (PacketTypes.PUBACK, 0x83, SinkUnavailable),
        (PacketTypes.PUBACK, 0x87, SinkBroken),
        (PacketTypes.PUBACK, 0x90, SinkBroken),
        (PacketTypes.PUBACK, 0x97, SinkUnavailable),
        (PacketTypes.CONNACK, 0x84, SinkBroken),
        (PacketTypes.CONNACK, 0x85, SinkBroken),
        (PacketTypes.CONNACK, 0x86, SinkBroken),
        (PacketTypes.CONNACK, 0x88, SinkUnavailable),
        (PacketTypes.CONNACK, 0x89, SinkUnavailable),
        (PacketTypes.CONNACK, 0x8A, SinkBroken),
        (PacketTypes.CONNACK, 0x9F, SinkUnavailable),
        (PacketTypes.DISCONNECT, 0x8B, SinkUnavailable),
        (PacketTypes.DISCONNECT, 0x8E, SinkBroken),
    ],
)
def test_what_a_refusal_means(packet: int, code: int, kind: type[SinkError]) -> None:
    found = verdict(ReasonCode(packet, identifier=code))
    assert type(found) is kind
    assert str(found)
