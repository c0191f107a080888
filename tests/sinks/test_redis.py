"""What can be said of a Redis server without one: its URL, the options, the channel."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from redis.asyncio.connection import parse_url as redis_py
from redis.exceptions import ResponseError

from poller.errors import SinkBroken, SinkUnavailable
from poller.secrets import Secret
from poller.sinks import Channel
from poller.sinks.redis import RedisOptions, RedisSink
from poller.sinks.redis_server import Address, classified, parse_url

CANARY = "canary-9f3b7c2e81d4"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host", Address("redis", "host")),
        ("redis://host:7000/3", Address("redis", "host", 7000, database=3)),
        ("rediss://user:p%40ss@host", Address("rediss", "host", username="user", password="p@ss")),
        ("redis://:secret@[::1]:6379", Address("redis", "::1", password="secret")),
        ("unix:///run/redis.sock?db=2", Address("unix", path="/run/redis.sock", database=2)),
        ("unix://user:secret@/run/redis.sock", Address("unix", path="/run/redis.sock", username="user", password="secret")),
    ],
)  # fmt: skip
def test_an_url_is_read_as_the_client_reads_it(url: str, address: Address) -> None:
    assert parse_url(url) == address
    theirs = redis_py(url)
    assert theirs.get("username") == address.username
    assert theirs.get("password") == address.password
    assert theirs.get("db", 0) == address.database


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:6379", "has to begin with redis://"),
        ("http://host", "has to begin with redis://"),
        ("redis://", "names no host"),
        ("unix://", "names no path"),
        ("redis://user:a/b@host:6379/0", "host or port cannot be read"),
        ("redis://user:a#b@host:6379/0", "host or port cannot be read"),
        ("redis://host:6379/0#b", "write # as %23"),
        ("redis://host:99999", "host or port cannot be read"),
        ("redis://host/first", "has to be a number"),
        ("rediss://host?ssl_cert_reqs=none", "nothing but db=NUMBER"),
    ],
)
def test_an_url_that_cannot_be_used(url: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RedisOptions(url=Secret(url))


@given(st.text(min_size=12).filter(lambda text: text.strip(".:/0") != ""))
def test_no_message_repeats_what_stands_in_an_url(password: str) -> None:
    for url in (f"redis://user:{password}", f"redis://user:{password}@host:x/0", f"{password}://host/x"):
        try:
            parse_url(url)
        except ValueError as error:
            assert password not in str(error)  # noqa: PT017
            assert error.__cause__ is None  # noqa: PT017


def test_an_address_does_not_show_its_password() -> None:
    assert CANARY not in repr(parse_url(f"redis://user:{CANARY}@host"))


def test_certificates_are_for_encrypted_connections() -> None:
    with pytest.raises(ValidationError, match="write rediss:// in 'url'"):
        RedisOptions(url=Secret("redis://host"), ca=Path("ca.pem"))
    RedisOptions(url=Secret("rediss://host"), ca=Path("ca.pem"))
    RedisOptions(url=Secret(""), ca=Path("ca.pem"))  # a stand-in while secrets are not read


@pytest.mark.parametrize("stream", ["a b", "*", "a{", "a{nothing}", "x" * 600, "line\nbreak"])
def test_a_name_that_no_stream_should_have(stream: str) -> None:
    with pytest.raises(ValidationError):
        RedisOptions.model_validate({"url": Secret("redis://host"), "stream": stream})


def test_the_channel_names_no_credentials() -> None:
    options = {"url": Secret(f"rediss://user:{CANARY}@host:7000/1"), "stream": "balances.{account}"}
    channel = RedisSink(RedisOptions.model_validate(options)).channel()
    assert channel == Channel("rediss", "host:7000", "balances.{account}")
    assert RedisSink(RedisOptions(url=Secret(""))).channel() == Channel("redis", "", "balances")
    socket = RedisSink(RedisOptions(url=Secret("unix:///run/redis.sock"))).channel()
    assert socket.host == "localhost"


def test_an_error_that_nobody_has_seen_yet_passes() -> None:
    assert isinstance(classified(ResponseError("NEWCODE what now"), "host:1"), SinkUnavailable)
    assert isinstance(classified(ResponseError("ERR something else"), "host:1"), SinkUnavailable)
    assert isinstance(classified(ValueError(), "host:1"), SinkUnavailable)
    assert str(classified(ResponseError("CROSSSLOT Keys"), "host:1")).startswith(
        "host:1: CROSSSLOT Keys; this"
    )
    assert isinstance(classified(ResponseError("unknown command 'XADD'"), "host:1"), SinkBroken)
