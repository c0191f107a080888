"""The webhook sink against receivers that fail, lie, drip, hang, redirect, or are somebody else."""

from __future__ import annotations

import asyncio
import datetime as dt
import traceback
from pathlib import Path
from typing import Any

import pytest

from poller.errors import SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.secrets import Secret
from poller.sinks.webhook import WebhookSink
from poller.testing.sink_contract import ids, make_records
from tests.exchange.certificates import START, Authority
from tests.exchange.raw_server import Connection, RawServer, answering, free_port, reply, serving
from tests.services.proxy import proxying
from tests.services.receiver import PATH, SECRET, Received, fleet, never, posting, receiving

pytestmark = pytest.mark.real_time

CREDENTIAL = "Bearer c4n4ry-credential"
CANARIES = ("c4n4ry", "t0ken-in", SECRET.removeprefix("whsec_")[:12])


async def failure(sink: WebhookSink, count: int = 1) -> SinkError:
    """Write what must fail, and hold what every failure promises."""
    with pytest.raises(SinkError) as caught:
        await sink.write(make_records(count))
    seen: list[BaseException] = [caught.value]
    for error in seen:
        seen += [each for each in (error.__cause__, error.__context__) if each is not None]
    shown = "".join(traceback.format_exception(caught.value)) + "".join(map(repr, seen))
    assert not [canary for canary in CANARIES if canary in shown], shown
    return caught.value


async def failed(server: RawServer, **options: Any) -> SinkError:
    options = {"credential": Secret(CREDENTIAL), **options}
    async with posting(server.url + PATH, **options) as sink:
        return await failure(sink)


# The table


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, SinkRejected) for status in (400, 413, 415, 422)),
        *((status, SinkBroken) for status in (300, 301, 302, 307, 308, 401, 403, 404, 405, 410)),
        *((status, SinkUnavailable) for status in (402, 408, 409, 425, 429, 500, 502, 503, 504)),
    ],
)
async def test_statuses(status: int, kind: type[SinkError]) -> None:
    said = f"Cannot POST {PATH}: {CREDENTIAL} is no good\r\n\x1b[31m".encode()
    async with answering(reply(said, "Retry-After: 7", status=f"{status} Whatever")) as server:
        error = await failed(server)
    assert type(error) is kind
    if isinstance(error, SinkUnavailable):
        assert error.retry_after_s == 7.0
    if isinstance(error, SinkRejected):
        [reason] = error.rejected.values()
        assert reason == f"127.0.0.1 answered {status}: Cannot POST ***: *** is no good [31m"


async def test_a_redirect_is_not_followed() -> None:
    async with answering(reply()) as canary:
        elsewhere = reply(b"", f"Location: {canary.url}/there", status="307 Temporary Redirect")
        async with answering(elsewhere) as server:
            error = await failed(server)
    assert isinstance(error, SinkBroken)
    assert str(error) == "127.0.0.1 answered 307, a redirect to 127.0.0.1; none is followed: repair 'url'"
    assert canary.connections == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_a_proxy_in_the_environment_is_ignored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(reply()) as canary, receiving() as receiver:
        monkeypatch.setenv(name, canary.url)
        async with posting(receiver.url) as sink:
            await sink.write(make_records(1))
    assert canary.connections == []


async def test_a_netrc_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password c4n4ry")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with answering(reply()) as server, posting(server.url) as sink:
        await sink.write(make_records(1))
    assert b"uthorization" not in server.heads[0]


# The head of an answer decides


@pytest.mark.parametrize("status", ["200 OK", "500 Oops"])
async def test_an_endless_body_is_left_at_the_bound(status: str) -> None:
    hung_up = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.say(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        try:
            while True:
                await connection.say(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        finally:
            hung_up.set()

    async with serving(handler) as server, posting(server.url) as sink:
        if status.startswith("200"):
            await sink.write(make_records(1))
        else:
            assert "answered 500" in str(await failure(sink))
        await hung_up.wait()


@pytest.mark.parametrize("ends", ["hangs", "closes"])
async def test_a_success_is_one_whatever_becomes_of_its_body(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.sinks.webhook.BODY_TIMEOUT_S", 0.05)

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        if ends == "hangs":
            await connection.reader.read()

    async with serving(handler) as server, posting(server.url) as sink:
        await sink.write(make_records(2))
    assert len(server.connections) == 2


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"", *(f"X-{number}: 1" for number in range(10_000))),
        reply(b"", "X-Long: " + "1" * 1_000_000),
        reply(b"", "no colon"),
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"<html>\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
    ],
    ids=lambda answer: repr(answer[:30]),
)
async def test_what_is_not_proper_http_comes_again(answer: bytes) -> None:
    async with answering(answer) as server:
        error = await failed(server)
    assert isinstance(error, SinkUnavailable)
    assert "not proper HTTP" in str(error)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 2"])
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_connection_that_ends_before_an_answer_is_none(said: bytes, end: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.say(said)
        if end == "reset":
            connection.reset()

    async with serving(handler) as server:
        assert isinstance(await failed(server), SinkUnavailable)
    assert len(server.connections) == 1


@pytest.mark.parametrize("drips", [False, True])
async def test_silence_and_drips_end_at_the_deadline(*, drips: bool) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        while True:
            await connection.say(b"H" if drips else b"")
            await asyncio.sleep(0.01)  # the drip itself

    async with serving(handler) as server:
        error = await failed(server, timeout="200ms")
    assert isinstance(error, SinkUnavailable)
    assert str(error) in {
        "127.0.0.1: no answer within 0.2 s",
        "127.0.0.1: the answer is not proper HTTP",
    }


async def test_nobody_there_is_unavailable_and_open_does_not_mind() -> None:
    async with posting(f"http://127.0.0.1:{free_port()}{PATH}") as sink:
        error = await failure(sink)
    assert isinstance(error, SinkUnavailable)
    assert str(error) == "127.0.0.1: no connection"


async def test_a_sink_that_is_closed_is_unavailable() -> None:
    async with receiving() as receiver, posting(receiver.url) as sink:
        await sink.close()
        assert isinstance(await failure(sink), SinkUnavailable)


# Connections that are kept


async def test_connections_are_used_again_and_cookies_are_not() -> None:
    # By name: to an address the library would send no cookies anyhow.
    async with (
        answering(reply(b"{}", "Set-Cookie: session=1; Path=/")) as server,
        posting(f"http://localhost:{server.port}{PATH}") as sink,
    ):
        await sink.write(make_records(3))
        await sink.write(make_records(3))
        assert len(server.connections) == 1
        await sink.write(fleet(accounts=20, each=3))
    assert len(server.connections) <= 8
    assert b"ookie" not in b"".join(server.heads)


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_kept_connection_found_dead_is_tried_once_more_under_the_same_id(end: str) -> None:
    async def handler(connection: Connection) -> None:
        server.heads.append(await connection.request())
        await connection.say(reply())
        server.heads.append(await connection.request())
        if end == "reset":
            connection.reset()

    records = make_records(2)
    async with serving(handler) as server, posting(server.url) as sink:
        await sink.write(records)
    sent = [line for head in server.heads for line in head.decode().split("\r\n") if "webhook-id" in line]
    assert sent == [f"webhook-id: {id_}" for id_ in (ids(records)[0], ids(records)[1], ids(records)[1])]


async def test_a_new_connection_found_dead_is_not_tried_again() -> None:
    async def handler(connection: Connection) -> None:
        server.heads.append(await connection.request())

    async with serving(handler) as server, posting(server.url) as sink:
        assert isinstance(await failure(sink), SinkUnavailable)
        assert len(server.heads) == 1


async def test_swallowed_answers_and_cuts_lose_nothing_and_change_no_id() -> None:
    records = fleet(accounts=4, each=5)
    async with receiving() as receiver:
        port = int(receiver.url.split(":")[2].split("/")[0])
        async with (
            proxying("127.0.0.1", port) as proxy,
            posting(f"http://127.0.0.1:{proxy.port}{PATH}", timeout="300ms") as sink,
        ):
            proxy.passes_answers = False
            assert isinstance(await _error(sink, records), SinkUnavailable)
            proxy.passes_answers = True
            proxy.is_up = False
            proxy.cut()
            assert isinstance(await _error(sink, records), SinkUnavailable)
            proxy.is_up = True
            await sink.write(records)
    for account in {record.account for record in records}:
        wanted = [record.id for record in records if record.account == account]
        found = [id_ for id_ in receiver.ids if id_ in wanted]
        assert list(dict.fromkeys(found)) == wanted
        assert found[-len(wanted) + 1 :] == wanted[1:]
    assert len(receiver.ids) > len(records)


async def test_close_is_quick_while_the_receiver_hangs_and_it_recovers() -> None:
    arrived = asyncio.Event()

    async def reply_(_: Received) -> int:
        if not arrived.is_set():
            arrived.set()
            return await never()
        return 204

    async with receiving(reply_) as receiver, posting(receiver.url) as sink:
        writing = asyncio.create_task(sink.write(make_records(1)))
        await arrived.wait()
        writing.cancel()
        await asyncio.wait([writing])
        async with asyncio.timeout(1):
            await sink.close()
        await sink.open()
        await sink.write(make_records(1))
    assert receiver.ids == ids(make_records(1))


async def _error(sink: WebhookSink, records: Any) -> SinkError:
    with pytest.raises(SinkError) as caught:
        await sink.write(records)
    return caught.value


# Certificates


def _authority(tmp_path: Path) -> tuple[Authority, Path]:
    authority = Authority(tmp_path)
    (tmp_path / "ca.pem").write_text(authority._pem)
    return authority, tmp_path / "ca.pem"


async def test_a_certificate_of_a_trusted_authority_is_taken(tmp_path: Path) -> None:
    authority, ca = _authority(tmp_path)
    async with answering(reply(), authority.serving()) as server, posting(server.url, ca=ca) as sink:
        await sink.write(make_records(2))
    assert len(server.connections) == 1


async def test_a_certificate_that_proves_nothing_has_to_be_repaired(tmp_path: Path) -> None:
    authority, ca = _authority(tmp_path)
    for context, trusted, says in (
        (authority.serving("127.0.0.2"), ca, "mismatch"),
        (authority.serving(not_after=START + dt.timedelta(days=1)), ca, "expired"),
        (authority.serving(), None, "unable to get local issuer"),
    ):
        async with answering(reply(), context) as server:
            error = await failed(server, ca=trusted)
        assert isinstance(error, SinkBroken)
        assert "its certificate does not prove that it is the one" in str(error)
        assert says in str(error)
        assert server.heads == []


async def test_tls_that_fails_otherwise_comes_again() -> None:
    async with serving(_says_something_else) as server:
        url = f"https://127.0.0.1:{server.port}{PATH}"
        async with posting(url) as sink:
            assert isinstance(await failure(sink), SinkUnavailable)


async def _says_something_else(connection: Connection) -> None:
    await connection.say(b"220 this is no TLS\r\n")
    await connection.reader.read()
