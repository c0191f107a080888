"""Options of the ``nats`` sink: what can be written, and what is said of the rest."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import pytest
from pydantic import ValidationError

from poller.secrets import Secret
from poller.sinks.nats import NatsSink
from poller.sinks.nats_options import NatsOptions

needs_nkeys = pytest.mark.skipif(find_spec("nkeys") is None, reason="needs the package nkeys")


def options(**given: Any) -> NatsOptions:
    return NatsOptions.model_validate(given)


def test_a_channel_is_described_without_credentials() -> None:
    sink = NatsSink(
        options(servers=["nats://a:4333", "tls://[::1]"], token=Secret("hidden"), format="cloudevents")
    )
    channel = sink.channel()
    assert (channel.protocol, channel.host) == ("nats", "a:4333,::1:4222")
    assert (channel.address, channel.content_type) == (
        "balances.{account}",
        "application/cloudevents+json",
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"servers": ["nats://user:hidden@host"]}, "a server with credentials in it; remove them there"),
        ({"servers": ["hidden"]}, "not a server; write nats://host:port"),
        ({"servers": ["http://hidden:4222"]}, "not a server"),
        ({"servers": ["nats://host:4222/path"]}, "not a server"),
        ({"servers": []}, "at least 1 item"),
        ({"subject": "balances.*"}, "cannot be a subject"),
        ({"subject": "balances.>"}, "cannot be a subject"),
        ({"subject": "my balances"}, "cannot be a subject"),
        ({"subject": "balances\n.x"}, "cannot be a subject"),
        ({"subject": "balances..{account}"}, "has an empty part"),
        ({"subject": ".{account}"}, "has an empty part"),
        ({"subject": "balances."}, "has an empty part"),
        ({"subject": "$JS.{account}"}, "the server's own"),
        ({"subject": "x" * 1020 + "{account}"}, "can have 1024 bytes"),
        ({"user": "poller"}, "go together"),
        ({"password": Secret("hidden")}, "go together"),
        ({"user": "u", "password": Secret("hidden"), "token": Secret("hidden")}, "keep one of them"),
        ({"stream": "a.b"}, "should match pattern"),
        ({"create": True}, "without the name of the 'stream'"),
        ({"max_age": "1h"}, "add 'create: true'"),
        ({"stream": "s", "create": True, "subject": "{account}.x"}, "would take every subject"),
        (
            {"stream": "s", "create": True, "max_age": "1m", "duplicate_window": "2m"},
            "longer than 'max_age'",
        ),
    ],
)
def test_what_is_wrong_is_said_with_a_remedy_and_without_secrets(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        options(**given)
    [detail] = wrong.value.errors(include_input=False, include_url=False)
    assert said in detail["msg"]
    assert "hidden" not in detail["msg"]


def test_secrets_that_were_not_read_yet_are_no_mistake() -> None:
    for name in ("token", "credentials", "nkey_seed"):
        options(**{name: Secret("")})
    options(user="poller", password=Secret(""))


@needs_nkeys
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nkey_seed", "hidden"),
        ("nkey_seed", "SA" + "A" * 56),
        ("credentials", "hidden"),
        ("credentials", "-----BEGIN NATS USER JWT-----"),
        ("credentials", "-----BEGIN NATS USER JWT-----\na.b.c\n-----BEGIN USER NKEY SEED-----\nhidden"),
    ],
)
def test_a_text_that_is_no_key_is_refused_before_the_client_sees_it(name: str, text: str) -> None:
    """With credentials that lack their first line the client would look for it for ever."""
    with pytest.raises(ValidationError) as wrong:
        options(**{name: Secret(text)})
    assert "hidden" not in str(wrong.value)


def test_the_subjects_of_a_stream_cover_every_record() -> None:
    for subject, covering in {
        "balances": "balances",
        "balances.{account}": "balances.*",
        "b.{kind}.x-{labels.desk}": "b.*.*",
    }.items():
        assert options(subject=subject).subjects_of_stream == covering


def test_an_id_is_known_again_for_ten_minutes_unless_records_go_before() -> None:
    made = {"stream": "s", "create": True}
    assert options(**made).duplicate_window_s == 600
    assert options(**made, max_age="5m").duplicate_window_s == 300
    assert options(**made, duplicate_window="1h").duplicate_window_s == 3600


def test_encryption_is_asked_for_by_the_scheme_or_by_a_file() -> None:
    assert not options().is_encrypted
    assert options(servers=["tls://host"]).is_encrypted
    assert options(servers=["nats://host"], ca=os.devnull).is_encrypted
