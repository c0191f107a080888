"""What the amqp sink makes of its options and of records, without a broker."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from poller.errors import SinkBroken
from poller.model import Kind
from poller.secrets import Secret
from poller.sinks import Channel
from poller.sinks.amqp import AmqpSink
from poller.sinks.amqp_options import AmqpOptions
from poller.testing.sink_contract import hostile_records, make_records

CANARY = "canary-4711-password"
URL = f"amqp://poller:{CANARY}@bus.example:5673/desk"


def options(**values: Any) -> AmqpOptions:
    values["url"] = Secret(values.get("url", URL))
    return AmqpOptions.model_validate({"exchange": "balances", **values})


@pytest.mark.parametrize(
    "url",
    [
        "",  # the stand-in of a check
        "amqp://localhost",
        "amqps://u:p@localhost:5671/",
        "amqp://u:p%40%2F@[::1]:5672/%2F",
        "amqp://localhost/a%2Fb",
    ],
)
def test_addresses(url: str) -> None:
    assert options(url=url).url.reveal() == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"redis://u:{CANARY}@localhost", "is not an address; write amqps://"),
        (CANARY, "is not an address"),
        (f"amqp://u:{CANARY}@", "is not an address"),
        (f"amqp://u:{CANARY}@host:99999/", "is not an address"),
        (f"amqp://u:{CANARY}@host:port/", "is not an address"),
        (f"amqps://u:{CANARY}@host/?no_verify_ssl=1", "has options behind"),
        (f"amqp://u:p#{CANARY}@host/", "is not an address|has options behind"),
        (f"amqp://u:{CANARY}@host/a/b", "more than one '/'"),
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(url: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        options(url=url)
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value.errors())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exchange": "a b"}, "should match pattern"),
        ({"exchange": "x" * 128}, "at most 127 characters"),
        ({"exchange": "", "create": True}, "the broker's own"),
        ({"exchange": "amq.topic", "create": True}, "the broker's own"),
        ({"routing_key": "x" * 192 + "{account}"}, "a routing key can have 255 bytes"),
        ({"routing_key": "ä" * 100 + "{account}"}, "a routing key can have 255 bytes"),
        ({"routing_key": "{accounts}"}, "there is no field"),
        ({"expiration": "0s"}, "greater than or equal to 0.001"),
        ({"expiration": "60d"}, "less than or equal to 4294967.295"),
        ({"ca": "ca.pem"}, "write amqps://"),
        ({"exchanges": "x"}, "Extra inputs"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_loaded(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        options(**values)
    assert CANARY not in str(caught.value)


def test_the_exchange_has_to_be_named() -> None:
    with pytest.raises(ValidationError, match="exchange"):
        AmqpOptions(url=Secret(URL))  # type: ignore[call-arg]  # the point


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {},
            Channel(
                "amqp",
                "bus.example:5673",
                "balances.{account}",
                bindings={"is": "routingKey", "exchange": {"name": "balances", "vhost": "desk"}},
            ),
        ),
        (
            {"url": f"amqps://u:{CANARY}@host", "create": True, "format": "cloudevents"},
            Channel(
                "amqps",
                "host:5671",
                "balances.{account}",
                "application/cloudevents+json",
                {
                    "is": "routingKey",
                    "exchange": {"name": "balances", "vhost": "/", "type": "topic", "durable": True},
                },
            ),
        ),
        (
            {"url": "", "exchange": "", "routing_key": "audit"},
            Channel(
                "amqp",
                "",
                "audit",
                bindings={"is": "routingKey", "exchange": {"name": "", "vhost": "/", "type": "default"}},
            ),
        ),
    ],
)
def test_a_channel_is_described_without_credentials(values: dict[str, Any], expected: Channel) -> None:
    sink = AmqpSink(options(**values))
    assert sink.channel() == expected
    assert CANARY not in repr(sink.channel())
    assert CANARY not in repr(options(**values))


@pytest.mark.parametrize("form", ["json", "cloudevents", "cloudevents-binary"])
def test_a_message_says_what_it_is_before_it_is_parsed(form: str) -> None:
    sink = AmqpSink(options(format=form, expiration="1h", routing_key="{kind}.{account}.{labels.desk}"))
    for record in [*make_records(1), *hostile_records()]:
        letter = sink._letter(record)
        sent = letter.message
        assert sent.message_id == record.id
        assert sent.type == record.kind.schema
        assert sent.app_id == "poller"
        assert sent.delivery_mode == 2
        assert sent.properties.expiration == "3600000"
        instant = record.document["observed_at" if record.kind is Kind.SNAPSHOT else "since"]
        assert sent.timestamp is not None
        assert sent.timestamp.isoformat(timespec="microseconds").replace("+00:00", "Z") == instant
        assert letter.routing_key.startswith(f"{record.kind.value}.{record.account}.")
        if form == "cloudevents-binary":
            assert sent.headers["cloudEvents_id"] == record.id
            assert sent.headers["cloudEvents_specversion"] == "1.0"
            assert sent.headers["cloudEvents_partitionkey"] == record.account
            assert all(name.startswith("cloudEvents_") for name in sent.headers)
        else:
            assert sent.headers == {
                "id": record.id,
                "schema": record.kind.schema,
                "account": record.account,
                "sequence": str(record.sequence),
            }
        assert sent.content_type == (
            "application/cloudevents+json" if form == "cloudevents" else "application/json"
        )
        assert (sent.body == record.payload) == (form != "cloudevents")


async def test_a_missing_file_for_tls_is_named_when_it_is_opened(tmp_path: Any) -> None:
    sink = AmqpSink(options(url=f"amqps://u:{CANARY}@localhost", ca=tmp_path / "ca.pem"))
    with pytest.raises(SinkBroken, match=r"ca\.pem: there is no such file"):
        await sink.open()
    await sink.close()
