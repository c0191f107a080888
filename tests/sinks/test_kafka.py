"""What the ``kafka`` sink's options admit, and what it says of where it writes. No broker."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from poller.secrets import Secret
from poller.sinks.kafka import KafkaSink
from poller.sinks.kafka_options import KafkaOptions

BOOTSTRAP = {"bootstrap": ["kafka-1:9092", "[::1]:9093"]}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bootstrap": []}, "at least 1 item"),
        ({"bootstrap": ["kafka-1"]}, "'kafka-1' is not an address; write host:port, such as kafka-1:9092"),
        ({"bootstrap": ["kafka-1:0"]}, "is not an address"),
        ({"bootstrap": ["kafka://kafka-1:9092"]}, "is not an address"),
        ({"topic": "a b"}, "'a b' cannot be a topic"),
        ({"topic": "a/{account}"}, "cannot be a topic"),
        ({"topic": ".."}, "'..' cannot be a topic"),
        ({"topic": "x" * 250}, "a topic can have 249 bytes"),
        ({"ca": "ca.pem"}, "'ca' and 'certificate' are for TLS; write tls: true"),
        ({"user": "desk"}, "without 'sasl'"),
        ({"sasl": "PLAIN", "user": "desk"}, "'sasl' needs a 'user' and a 'password'"),
        ({"sasl": "GSSAPI"}, "Input should be 'PLAIN'"),
        ({"client_id": "a b"}, "String should match"),
        ({"max_message": "1KiB", "compression": "brotli"}, "Input should be 'none'"),
    ],
)
def test_what_cannot_be_is_refused_in_words(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        KafkaOptions.model_validate({**BOOTSTRAP, **options})
    assert said in str(caught.value)


def test_a_secret_that_was_not_read_yet_is_no_mistake() -> None:
    KafkaOptions.model_validate({**BOOTSTRAP, "sasl": "PLAIN", "user": "desk", "password": Secret("")})


@pytest.mark.parametrize(("tls", "protocol"), [(False, "kafka"), (True, "kafka-secure")])
def test_it_says_where_it_writes(*, tls: bool, protocol: str) -> None:
    channel = KafkaSink(KafkaOptions.model_validate({**BOOTSTRAP, "tls": tls})).channel()
    assert (channel.protocol, channel.host) == (protocol, "kafka-1:9092,[::1]:9093")
    assert (channel.address, channel.bindings) == ("balances", {"topic": "balances"})


async def test_close_without_open_is_harmless() -> None:
    sink = KafkaSink(KafkaOptions.model_validate(BOOTSTRAP))
    await sink.close()
    await sink.close()
