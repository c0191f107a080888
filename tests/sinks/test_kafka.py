"""Options of the ``kafka`` sink, and what its errors mean; the rest is tried in ``tests/services/``."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from aiokafka import codec, errors
from pydantic import ValidationError

from poller.errors import SinkBroken, SinkUnavailable
from poller.secrets import Secret
from poller.sinks import Channel
from poller.sinks.kafka import KafkaSink, classified
from poller.sinks.kafka_options import KafkaOptions


def options(**given: Any) -> KafkaOptions:
    return KafkaOptions(**{"bootstrap": ["kafka-1:9092", "kafka-2:9092"], **given})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bootstrap": []}, "at least 1 item"),
        ({"bootstrap": ["kafka-1"]}, "'kafka-1' is not an address; write host:port, such as kafka-1:9092"),
        ({"bootstrap": ["kafka-1:99999"]}, "'kafka-1:99999' is not an address"),
        ({"bootstrap": ["kafka://kafka-1:9092"]}, "is not an address"),
        ({"topic": "balances/all"}, "'balances/all' cannot be a topic"),
        ({"topic": "{account}" * 4}, "a topic can have 249 bytes"),
        ({"topic": "{nobody}"}, "there is no field {nobody}"),
        ({"topic": ".."}, "'..' cannot be a topic"),
        ({"client_id": "two words"}, "client_id"),
        ({"max_message": "10"}, "'10' is not a size"),
        ({"compression": "brotli"}, "compression"),
        ({"sasl": "PLAIN"}, "'sasl' needs a 'user' and a 'password'; add them"),
        ({"sasl": "PLAIN", "user": "me"}, "'sasl' needs a 'user' and a 'password'; add them"),
        ({"user": "me"}, "'user' and 'password' without 'sasl'"),
        ({"password": Secret("")}, "'user' and 'password' without 'sasl'"),
        ({"ca": Path("ca.pem")}, "write tls: true, or remove them"),
        ({"sasl": "GSSAPI"}, "sasl"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        options(**given)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"bootstrap": ["[::1]:9092", "10.0.0.1:9092", "broker.example:19092"]},
        {"topic": "desk_1.balances-{account}.{labels.desk}"},
        {"compression": "gzip", "max_message": "4MiB"},
        {"sasl": "SCRAM-SHA-512", "user": "me", "password": Secret(""), "tls": True, "ca": Path("ca.pem")},
    ],
)
def test_what_is_right_is_taken(given: dict[str, Any]) -> None:
    options(**given)


def test_a_codec_that_is_not_there_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "has_zstd", lambda: False)
    with pytest.raises(ValidationError, match=r"pip install 'aiokafka\[all\]'"):
        options(compression="zstd")


def test_channels_are_described_without_credentials() -> None:
    plain = KafkaSink(options()).channel()
    assert plain == Channel("kafka", "kafka-1:9092,kafka-2:9092", "balances", bindings={"topic": "balances"})
    secured = options(
        topic="balances.{account}",
        tls=True,
        sasl="PLAIN",
        user="me",
        password=Secret("hidden-1234"),
        format="cloudevents",
    )
    channel = KafkaSink(secured).channel()
    assert (channel.protocol, channel.address) == ("kafka-secure", "balances.{account}")
    assert channel.content_type == "application/cloudevents+json"
    assert channel.bindings == {}
    assert "hidden-1234" not in repr(channel) + repr(secured)


@pytest.mark.parametrize(
    "kind",
    [
        errors.SaslAuthenticationFailed,
        errors.UnsupportedSaslMechanismError,
        errors.TopicAuthorizationFailedError,
        errors.UnsupportedVersionError,
        errors.IncompatibleBrokerVersion,
        ssl.SSLCertVerificationError,
    ],
)
def test_what_needs_somebody_is_broken(kind: type[Exception]) -> None:
    found = classified(kind("words of the broker"), "kafka-1:9092")
    assert isinstance(found, SinkBroken)
    assert str(found).startswith("kafka-1:9092: ")
    assert "words of the broker" in str(found)


@pytest.mark.parametrize(
    "error", [OSError(111, "refused"), RuntimeError(), TimeoutError(), errors.KafkaError("?")]
)
def test_whatever_is_not_known_is_transient(error: Exception) -> None:
    found = classified(error, "kafka-1:9092")
    assert isinstance(found, SinkUnavailable)
    assert str(found).removeprefix("kafka-1:9092: ")


def test_a_certificate_of_ours_that_is_refused_is_broken() -> None:
    """What TLS 1.3 says only after the hand-shake, as OpenSSL puts it."""
    error = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required")
    error.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    found = classified(error, "kafka-1:9092")
    assert isinstance(found, SinkBroken)
    assert "check 'certificate'" in str(found)
