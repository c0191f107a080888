"""The ``nats`` sink before a server that asks who it is: logins, permissions, TLS, and no secret anywhere."""

from __future__ import annotations

import base64
import json
import os
import traceback
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from poller.errors import SinkBroken, SinkError, SinkUnavailable
from poller.secrets import Secret
from poller.sinks.nats import NatsSink
from poller.sinks.nats_options import NatsOptions
from poller.testing.sink_contract import ids, make_records
from tests.services.nats_servers import ids_in, make_stream, nats_server
from tests.services.tls_files import tls_files

pytestmark = pytest.mark.real_time

CANARY = "canary-0123456789-abcdef"
OTHER = "other-0123456789-abcdefgh"
needs_nkeys = pytest.mark.skipif(find_spec("nkeys") is None, reason="needs the package nkeys")


def sink_of(url: str, **options: Any) -> NatsSink:
    return NatsSink(NatsOptions(servers=[url], subject="s.{account}", **options))


async def attempt(sink: NatsSink) -> None:
    """Open, write one record, close."""
    try:
        await sink.open()
        await sink.write(make_records(1))
    finally:
        await sink.close()


async def failure(sink: NatsSink) -> SinkError:
    """Return what an attempt fails with, after a look for secrets in all of it."""
    with pytest.raises(SinkError) as failed:
        await attempt(sink)
    error = failed.value
    assert CANARY not in "".join(traceback.format_exception(error))
    assert CANARY not in repr(error) + repr(error.__cause__) + repr(error.__context__) + repr(sink._options)
    return error


def users(*permissions: dict[str, Any]) -> dict[str, Any]:
    users = [{"user": "poller", "password": CANARY, "permissions": granted} for granted in permissions]
    return {"authorization": {"users": [*users, {"user": "admin", "password": OTHER}]}}


def admin(url: str) -> str:
    return url.replace("//", f"//admin:{OTHER}@")


ALLOWED = {"publish": "s.>", "subscribe": "_INBOX.>"}


async def test_a_user_with_no_more_than_the_documented_permissions_publishes(tmp_path: Path) -> None:
    with nats_server(tmp_path / "server", **users(ALLOWED)) as server:
        await make_stream(admin(server.url), "s")
        await attempt(sink_of(server.url, user="poller", password=Secret(CANARY)))
        assert await ids_in(admin(server.url), "s") == ids(make_records(1))


async def test_a_wrong_or_missing_login_is_a_mistake_of_the_set_up(tmp_path: Path) -> None:
    with nats_server(tmp_path / "server", **users(ALLOWED)) as server:
        for options in (
            {"user": "poller", "password": Secret(CANARY + "x")},
            {"user": "nobody", "password": Secret(CANARY)},
            {"token": Secret(CANARY)},
            {},
        ):
            error = await failure(sink_of(server.url, **options))
            assert isinstance(error, SinkBroken)
            assert str(error).startswith(f"{server.url}: Authorization Violation; repair user")


async def test_a_token_is_a_login(tmp_path: Path) -> None:
    with nats_server(tmp_path / "server", authorization={"token": CANARY}) as server:
        assert isinstance(await failure(sink_of(server.url, token=Secret(CANARY))), SinkUnavailable)
        assert isinstance(await failure(sink_of(server.url, token=Secret(CANARY + "x"))), SinkBroken)


@pytest.mark.parametrize(
    ("granted", "said"),
    [
        ({"publish": "other.>", "subscribe": "_INBOX.>"}, 'for publish to "s.treasury"'),
        ({"publish": "s.>", "subscribe": "other.>"}, 'for subscription to "_inbox.'),
    ],
)
async def test_a_missing_permission_is_named_at_once(
    tmp_path: Path, granted: dict[str, str], said: str
) -> None:
    """The server says it aside, and never answers: without an ear for it that would look like a time-out."""
    with nats_server(tmp_path / "server", **users(granted)) as server:
        await make_stream(admin(server.url), "s")
        error = await failure(sink_of(server.url, user="poller", password=Secret(CANARY)))
        assert isinstance(error, SinkBroken)
        assert said in str(error)
        assert "allow this user to publish" in str(error)


async def test_no_permission_to_make_the_stream_is_named(tmp_path: Path) -> None:
    with nats_server(tmp_path / "server", **users(ALLOWED)) as server:
        sink = sink_of(server.url, user="poller", password=Secret(CANARY), stream="s", create=True)
        assert isinstance(error := await failure(sink), SinkBroken)
        assert "$js.api.stream.info.s" in str(error)


async def test_credentials_that_are_repaired_on_the_server_work_at_the_next_attempt(tmp_path: Path) -> None:
    with nats_server(tmp_path / "server", authorization={"token": OTHER}) as server:
        sink = sink_of(server.url, token=Secret(CANARY), stream="s", create=True)
        with pytest.raises(SinkBroken):
            await sink.open()
        server.kill()
        server.config["authorization"] = {"token": CANARY}
        server.start()
        await attempt(sink)


async def test_over_tls(tmp_path: Path) -> None:
    files = tls_files(tmp_path / "tls")
    tls = {"cert_file": str(files.pair), "key_file": str(files.pair), "ca_file": str(files.ca)}
    with nats_server(tmp_path / "server", tls={**tls, "verify": True}) as server:
        url = server.url.replace("nats:", "tls:")
        whole: dict[str, Any] = {"ca": files.ca, "certificate": files.pair, "stream": "s", "create": True}
        await attempt(sink_of(url, **whole))
        untrusted = await failure(sink_of(url))
        assert isinstance(untrusted, SinkBroken)
        assert "unable to get local issuer certificate; repair the certificates" in str(untrusted)
        nameless = await failure(sink_of(url.replace("127.0.0.1", "localhost"), ca=files.ca))
        assert isinstance(nameless, SinkBroken)
        assert "Hostname mismatch" in str(nameless)
        assert isinstance(await failure(sink_of(url, ca=files.ca)), SinkError)  # without our own certificate


@pytest.mark.parametrize(
    "login", [{"user": "poller", "password": Secret(CANARY)}, {"token": Secret(CANARY)}, {}]
)
async def test_nothing_secret_goes_to_a_server_that_offers_no_tls(
    tmp_path: Path, login: dict[str, Any]
) -> None:
    """The client takes tls:// for a wish, and would send the password in the clear."""
    with nats_server(tmp_path / "server", trace=True, **users(ALLOWED)) as server:
        error = await failure(sink_of(server.url.replace("nats:", "tls:"), **login))
        assert isinstance(error, SinkBroken)
        log = (tmp_path / "server" / "nats-server.log").read_text()
        if login:
            assert "no TLS is offered, and nothing was sent" in str(error)
            assert "CONNECT {" not in log
        assert "s.treasury" not in log


@needs_nkeys
async def test_an_nkey_is_a_login(tmp_path: Path) -> None:
    seed, public = _nkey(20)
    other, _ = _nkey(20)
    with nats_server(tmp_path / "server", authorization={"users": [{"nkey": public}]}) as server:
        await attempt(sink_of(server.url, nkey_seed=Secret(seed), stream="s", create=True))
        with pytest.raises(SinkBroken, match="Authorization Violation") as refused:
            await attempt(sink_of(server.url, nkey_seed=Secret(other)))
        assert other not in "".join(traceback.format_exception(refused.value))


@needs_nkeys
async def test_the_content_of_a_creds_file_is_a_login(tmp_path: Path) -> None:
    operator, account, user = _nkey(14), _nkey(0), _nkey(20)
    config = {
        "operator": _jwt(operator, operator[1], "operator"),
        "resolver": "MEMORY",
        "resolver_preload": {account[1]: _jwt(operator, account[1], "account", limits=_UNLIMITED)},
    }
    token = _jwt(account, user[1], "user", **_UNLIMITED)
    creds = (
        f"-----BEGIN NATS USER JWT-----\r\n{token}\r\n------END NATS USER JWT------\r\n\r\n"
        f"-----BEGIN USER NKEY SEED-----\r\n{{}}\r\n------END USER NKEY SEED------\r\n"
    )
    with nats_server(tmp_path / "server", jetstream=False, **config) as server:
        with pytest.raises(SinkUnavailable, match="no stream takes"):  # so it was let in
            await attempt(sink_of(server.url, credentials=Secret(creds.format(user[0]))))
        with pytest.raises(SinkBroken, match="Authorization Violation"):
            await attempt(sink_of(server.url, credentials=Secret(creds.format(_nkey(20)[0]))))


_UNLIMITED = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "imports": -1, "exports": -1}


def _nkey(prefix: int) -> tuple[str, str]:
    """Return a new seed and its public key."""
    nkeys = import_module("nkeys")
    seed = bytearray(nkeys.encode_seed(os.urandom(32), prefix << 3))
    return seed.decode(), nkeys.from_seed(seed).public_key.decode().rstrip("=")


def _jwt(issuer: tuple[str, str], subject: str, kind: str, **claims: Any) -> str:
    nkeys = import_module("nkeys")
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    body = {
        "jti": "1",
        "iat": 1_700_000_000,
        "iss": issuer[1],
        "sub": subject,
        "nats": {"type": kind, "version": 2, **claims},
    }
    signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, body))
    return f"{signed}.{_base64(nkeys.from_seed(bytearray(issuer[0].encode())).sign(signed.encode()))}"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
