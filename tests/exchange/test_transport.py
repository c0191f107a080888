from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import socket
import ssl
import sys
import traceback
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from poller.clock import SystemClock
from poller.errors import NoResponse, StaleConnection
from poller.exchange import transport as transport_module
from poller.exchange.request import SERVER_TIME, USER_ASSETS, Request, sign, unsigned
from poller.exchange.response import Response
from poller.exchange.signing import Credentials, private_key_signer
from poller.exchange.transport import AiohttpTransport
from poller.secrets import Secret
from tests.exchange.certificates import START, Authority
from tests.exchange.keys import SAMPLE_API_KEY, pem, rsa_key, sample_credentials
from tests.exchange.raw_server import Connection, RawServer, answering, free_port, reply, serving

pytestmark = pytest.mark.real_time

ROWS = b'[{"asset":"BTC","free":"0.1"}]'


@asynccontextmanager
async def connecting(url: str, **settings: Any) -> AsyncIterator[AiohttpTransport]:
    transport = AiohttpTransport(url, clock=SystemClock(), **settings)
    try:
        yield transport
    finally:
        await transport.close()


def poll(credentials: Credentials | None = None, **parameters: str) -> Request:
    return sign(
        credentials or sample_credentials(),
        USER_ASSETS,
        parameters,
        exchange_ms=1_767_225_600_000,
        recv_window_ms=10_000,
    )


async def ask(server: RawServer, request: Request | None = None, **settings: Any) -> Response:
    async with connecting(server.url, **settings) as transport:
        return await transport.send(request or poll())


async def failure(transport: AiohttpTransport, request: Request | None = None) -> NoResponse:
    """Send what must fail, and hold what every failure promises."""
    request = request or poll()
    with pytest.raises(NoResponse) as caught:
        await transport.send(request)
    shown = "".join(traceback.format_exception(caught.value))
    assert SAMPLE_API_KEY not in shown
    assert not request.query or request.query not in shown
    assert "signature=" not in shown
    assert caught.value.__cause__ is None
    return caught.value


async def cause(server: RawServer, **settings: Any) -> str:
    async with connecting(server.url, **settings) as transport:
        error = await failure(transport)
    assert not isinstance(error, StaleConnection)
    return error.cause


# What goes out


async def test_the_bytes_signed_are_the_bytes_sent() -> None:
    credentials = Credentials(Secret(SAMPLE_API_KEY), private_key_signer(Secret(pem(rsa_key()))))
    request = poll(credentials, asset="币安+/人 生@%2F~&=")
    async with answering(reply()) as server:
        await ask(server, request)
    (head,) = server.heads
    assert head.split(b"\r\n")[0] == f"POST {request.path}?{request.query} HTTP/1.1".encode()
    payload, _, signature = request.query.rpartition("&signature=")
    assert signature.endswith("%3D%3D")
    assert payload.startswith("asset=%E5%B8%81%E5%AE%89%2B%2F%E4%BA%BA%20%E7%94%9F%40%252F~%26%3D&")


async def test_the_headers_are_these_and_no_others() -> None:
    async with answering(reply()) as server:
        await ask(server)
    lines = server.heads[0].decode().split("\r\n")[1:-2]
    assert sorted(lines) == sorted(
        [
            f"Host: 127.0.0.1:{server.port}",
            "Accept: application/json",
            "Accept-Encoding: gzip, deflate",
            "Cache-Control: no-cache",
            "Content-Length: 0",
            "User-Agent: poller/0.1.0",
            f"X-MBX-APIKEY: {SAMPLE_API_KEY}",
        ]
    )


async def test_an_unsigned_request_carries_no_key() -> None:
    async with answering(reply(b"{}")) as server:
        await ask(server, unsigned(SERVER_TIME))
    assert server.heads[0].startswith(b"GET /api/v3/time HTTP/1.1\r\n")
    assert b"X-MBX-APIKEY" not in server.heads[0]


async def test_cookies_are_neither_kept_nor_sent() -> None:
    async with (
        answering(reply(b"[]", "Set-Cookie: session=1; Path=/")) as server,
        connecting(server.url) as transport,
    ):
        await transport.send(poll())
        await transport.send(poll())
    assert b"ookie" not in server.heads[1]


async def test_a_redirect_is_an_answer_and_nobody_goes_there() -> None:
    async with answering(reply()) as canary:
        elsewhere = reply(b"", f"Location: {canary.url}/there", status="307 Temporary Redirect")
        async with answering(elsewhere) as server:
            response = await ask(server)
    assert response.status == 307
    assert canary.connections == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_a_proxy_in_the_environment_is_ignored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(reply()) as canary, answering(reply(ROWS)) as server:
        monkeypatch.setenv(name, canary.url)
        assert (await ask(server)).body == ROWS
    assert canary.connections == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is not this machine's")
async def test_connections_leave_from_the_address_given() -> None:
    async with answering(reply()) as server:
        await ask(server, local_address="127.0.0.2")
    (connection,) = server.connections
    assert connection.writer.get_extra_info("peername")[0] == "127.0.0.2"


async def test_no_request_waits_for_the_connection_of_another() -> None:
    together = 150  # the library's own limit would be 100
    arrived = asyncio.Semaphore(0)
    all_there = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        arrived.release()
        await all_there.wait()
        await connection.say(reply())

    async with serving(handler) as server, connecting(server.url) as transport:
        polls = [asyncio.create_task(transport.send(poll())) for _ in range(together)]
        for _ in range(together):
            await arrived.acquire()
        all_there.set()
        assert [response.status for response in await asyncio.gather(*polls)] == [200] * together


# What comes back


async def test_an_answer_is_its_status_headers_and_body() -> None:
    headers = ("X-SAPI-USED-IP-WEIGHT-1M: 5", "X-Twice: a", "x-twice: b")
    async with answering(reply(ROWS, *headers)) as server:
        response = await ask(server)
    assert (response.status, response.body) == (200, ROWS)
    assert response.headers["x-sapi-used-ip-weight-1m"] == "5"
    assert response.headers["x-twice"] == "a, b"
    assert repr(response).startswith("Response(status=200, sent_s=")


@pytest.mark.parametrize("status", ["418 I'm a teapot", "429 Too Many Requests", "500 Oops", "403 Forbidden"])
async def test_a_refusal_is_an_answer_too(status: str) -> None:
    async with answering(reply(b'{"code":-1003}', "Retry-After: 7", status=status)) as server:
        response = await ask(server)
    assert response.status == int(status[:3])
    assert response.headers["retry-after"] == "7"
    assert response.body == b'{"code":-1003}'


async def test_sending_counts_from_when_the_connection_is_there(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    clock, loop = SystemClock(), asyncio.get_running_loop()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply())
        await reader.read()
        writer.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        async with connecting(url, tls=authority.trusting()) as transport:
            sending = asyncio.create_task(transport.send(poll()))
            accepted, _ = await loop.sock_accept(listening)
            before_handshake_s = clock.monotonic_s()
            protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(), handler)
            await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=authority.serving())
            response = await sending
    assert before_handshake_s < response.sent_s < response.answered_s <= clock.monotonic_s()


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [("gzip", gzip.compress(ROWS)), ("deflate", zlib.compress(ROWS)), ("identity", ROWS)],
    ids=["gzip", "deflate", "identity"],
)
async def test_compressed_answers_are_read(encoding: str, sent: bytes) -> None:
    async with answering(reply(sent, f"Content-Encoding: {encoding}")) as server:
        assert (await ask(server)).body == ROWS


async def test_chunked_answers_are_read() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[{}\r\n1\r\n]\r\n0\r\n\r\n"
    async with answering(chunked) as server:
        assert (await ask(server)).body == b"[{}]"


# What is wrong with an answer


@pytest.mark.parametrize("length", range(len(reply(ROWS))))
async def test_no_part_of_an_answer_is_taken_for_the_whole(length: int) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.say(reply(ROWS)[:length])

    async with serving(handler) as server:
        assert await cause(server) in {"reset", "protocol"}


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\n", reply(ROWS)[:-5]], ids=["none", "head", "body"]
)
async def test_a_reset_is_no_answer(said: bytes) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.say(said)
        connection.reset()

    async with serving(handler) as server:
        assert await cause(server) in {"reset", "protocol"}


@pytest.mark.parametrize(
    "bomb",
    [
        reply(gzip.compress(bytes(1_000_000)), "Content-Encoding: gzip"),
        reply(bytes(100_001)),
        reply(gzip.compress(b"") * 10_000, "Content-Encoding: gzip"),
    ],
    ids=["compressed", "plain", "members"],
)
async def test_a_body_beyond_the_bound_is_no_answer(bomb: bytes) -> None:
    async with answering(bomb) as server:
        assert await cause(server, body_limit_bytes=100_000) in {"too_large", "protocol"}


async def test_an_endless_body_is_left_at_the_bound() -> None:
    hung_up = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                await connection.say(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        finally:
            hung_up.set()

    async with serving(handler) as server:
        assert await cause(server, body_limit_bytes=100_000) == "too_large"
        await hung_up.wait()


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"[]", *(f"X-{number}: 1" for number in range(10_000))),
        reply(b"[]", "X-Long: " + "1" * 1_000_000),
        reply(b"[]", "Content-Length: 7"),
        reply(b"[]", "Transfer-Encoding: chunked"),
        reply(b"[]", "no colon"),
        reply(b"[]", "Content-Encoding: br"),
        reply(b"[]", "Content-Encoding: gzip"),
        reply(gzip.compress(ROWS)[:-4], "Content-Encoding: gzip"),
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"<html>\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda answer: repr(answer[:40]),
)
async def test_what_is_not_proper_http_is_no_answer(answer: bytes) -> None:
    async with answering(answer) as server:
        assert await cause(server) == "protocol"


async def test_a_dripping_answer_ends_at_the_deadline_of_the_whole() -> None:
    dripped = 0

    async def handler(connection: Connection) -> None:
        nonlocal dripped
        await connection.request()
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            await connection.say(b" ")
            dripped += 1
            await asyncio.sleep(0.01)  # the drip itself

    async with serving(handler) as server:
        assert await cause(server, total_timeout_s=0.3) == "timeout"
    assert dripped > 1


async def test_silence_ends_at_the_deadline_of_the_whole() -> None:
    async def handler(connection: Connection) -> None:
        await connection.reader.read()

    async with serving(handler) as server:
        assert await cause(server, total_timeout_s=0.05) == "timeout"


# A refusal is known by its head: nothing about its body can undo it.


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"broken", "Content-Encoding: gzip", "Retry-After: 30", status="429 Too Many Requests"),
        reply(b"\0" * 200_000, "Retry-After: 30", status="429 Too Many Requests"),
        reply(b"?", "Content-Encoding: br", "Retry-After: 30", status="429 Too Many Requests"),
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 100\r\n\r\nhalf",
    ],
    ids=["damaged", "too large", "unknown encoding", "broken off"],
)
async def test_a_429_is_one_whatever_becomes_of_its_body(answer: bytes) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.say(answer)

    async with serving(handler) as server:
        response = await ask(server, body_limit_bytes=100_000)
    assert (response.status, response.headers["retry-after"], response.body) == (429, "30", b"")


@pytest.mark.parametrize("deadline", ["of the whole", "of a refusal"])
async def test_a_429_is_one_though_its_body_never_ends(
    deadline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if deadline == "of a refusal":
        monkeypatch.setattr(transport_module, "REFUSAL_TIMEOUT_S", 0.05)

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.say(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 100\r\n\r\nhalf")
        await connection.reader.read()

    async with serving(handler) as server:
        response = await ask(server, total_timeout_s=0.05 if deadline == "of the whole" else 86_400.0)
    assert (response.status, response.body) == (429, b"")
    assert response.sent_s < response.answered_s


# Connections that are kept


async def test_a_connection_is_used_again() -> None:
    async with answering(reply()) as server, connecting(server.url) as transport:
        for _ in range(3):
            await transport.send(poll())
    assert len(server.connections) == 1


async def test_a_connection_that_idled_too_long_is_not_used_again() -> None:
    async with answering(reply()) as server, connecting(server.url, keepalive_s=1e-9) as transport:
        await transport.send(poll())
        await transport.send(poll())
    assert len(server.connections) == 2


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("request_", [poll(), unsigned(SERVER_TIME)], ids=["POST", "GET"])
async def test_a_kept_connection_found_dead_is_stale_and_nothing_is_repeated_unseen(
    end: str, request_: Request
) -> None:
    async def handler(connection: Connection) -> None:
        server.heads.append(await connection.request())
        await connection.say(reply())
        server.heads.append(await connection.request())
        if end == "reset":
            connection.reset()

    async with serving(handler) as server, connecting(server.url) as transport:
        await transport.send(request_)
        error = await failure(transport, request_)
        assert isinstance(error, StaleConnection)
        assert (error.cause, str(error)) == ("stale", "a kept-alive connection was dead")
        assert (len(server.heads), len(server.connections)) == (2, 1)
        assert (await transport.send(request_)).status == 200
    assert len(server.connections) == 2


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_new_connection_that_ends_without_an_answer_is_not_stale(end: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        if end == "reset":
            connection.reset()

    async with serving(handler) as server:
        assert await cause(server) == "reset"


async def test_a_kept_connection_that_ends_within_an_answer_is_not_stale() -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.say(reply())
        await connection.request()
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Le")

    async with serving(handler) as server, connecting(server.url) as transport:
        await transport.send(poll())
        error = await failure(transport)
    assert type(error) is NoResponse
    assert error.cause == "protocol"


async def test_a_connection_whose_request_timed_out_is_not_used_again() -> None:
    late = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        if connection.number == 0:
            await late.wait()
            await connection.say(reply(b'["the answer to the first"]'))
        else:
            await connection.say(reply(ROWS))

    async with serving(handler) as server, connecting(server.url, total_timeout_s=0.1) as transport:
        assert (await failure(transport)).cause == "timeout"
        late.set()
        assert (await transport.send(poll())).body == ROWS


# Getting there


async def test_nobody_listening_is_no_connection() -> None:
    async with connecting(f"http://127.0.0.1:{free_port()}") as transport:
        assert (await failure(transport)).cause == "connect"


async def test_a_handshake_that_stalls_ends_at_the_deadline_of_connecting(tmp_path: Path) -> None:
    async def handler(connection: Connection) -> None:
        await connection.reader.read()

    async with serving(handler) as server:
        url = f"https://127.0.0.1:{server.port}"
        async with connecting(url, tls=Authority(tmp_path).trusting(), connect_timeout_s=0.05) as transport:
            assert (await failure(transport)).cause == "connect"


async def test_a_proven_exchange_is_talked_to(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with answering(reply(ROWS), authority.serving()) as server:
        assert (await ask(server, tls=authority.trusting())).body == ROWS


@pytest.mark.parametrize("flaw", ["unknown authority", "another's name", "expired", "system trust"])
async def test_who_cannot_prove_to_be_the_exchange_gets_nothing(flaw: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = {
        "unknown authority": Authority(tmp_path).serving(),
        "another's name": authority.serving("127.0.0.9"),
        "expired": authority.serving(not_after=START + dt.timedelta(days=1)),
        "system trust": authority.serving(),
    }[flaw]
    async with answering(reply(ROWS), certificate) as server:
        tls = None if flaw == "system trust" else authority.trusting()
        assert await cause(server, tls=tls) == "tls"
        assert server.heads == []


async def test_plain_text_where_tls_was_due_is_refused(tmp_path: Path) -> None:
    async def handler(connection: Connection) -> None:
        server.heads.append(await connection.reader.read(3))
        await connection.say(reply(ROWS))

    async with (
        serving(handler) as server,
        connecting(f"https://127.0.0.1:{server.port}", tls=Authority(tmp_path).trusting()) as transport,
    ):
        assert (await failure(transport)).cause == "tls"
    assert server.heads == [b"\x16\x03\x01"]  # a client's greeting, no request


# Proxies


async def test_a_proxy_is_used_with_its_password() -> None:
    async with answering(reply(ROWS)) as proxy:
        secret = Secret(f"http://user:correct-horse@127.0.0.1:{proxy.port}")
        async with connecting("http://exchange.invalid", proxy=secret) as transport:
            assert (await transport.send(poll())).body == ROWS
    (head,) = proxy.heads
    assert head.startswith(b"POST http://exchange.invalid/sapi/v3/asset/getUserAsset?")
    assert b"\r\nProxy-Authorization: Basic dXNlcjpjb3JyZWN0LWhvcnNl\r\n" in head


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("status", ["407 Proxy Authentication Required"])
async def test_a_proxy_that_wants_other_credentials_is_named(scheme: str, status: str) -> None:
    async with answering(reply(b"", status=status)) as proxy:
        secret = Secret(f"http://user:correct-horse@127.0.0.1:{proxy.port}")
        async with connecting(f"{scheme}://exchange.invalid", proxy=secret) as transport:
            error = await failure(transport)
    assert error.cause == "proxy"
    assert "correct-horse" not in "".join(traceback.format_exception(error))
    assert "correct-horse" not in repr(transport)


@pytest.mark.parametrize("status", ["403 Forbidden", "502 Bad Gateway", "200 OK"])
async def test_a_proxy_that_makes_no_tunnel_sees_no_request(status: str) -> None:
    async with answering(reply(b"<html>", status=status)) as proxy:
        secret = Secret(f"http://127.0.0.1:{proxy.port}")
        async with connecting("https://exchange.invalid", proxy=secret, connect_timeout_s=0.1) as transport:
            # A tunnel that leads nowhere is one whose TLS never comes about.
            assert (await failure(transport)).cause == ("connect" if status == "200 OK" else "proxy")
    assert all(head.startswith(b"CONNECT exchange.invalid:443 ") for head in proxy.heads)
    assert not any(SAMPLE_API_KEY.encode() in head for head in proxy.heads)


async def test_a_proxy_that_is_down_is_named() -> None:
    secret = Secret(f"http://user:correct-horse@127.0.0.1:{free_port()}")
    async with connecting("https://exchange.invalid", proxy=secret) as transport:
        error = await failure(transport)
    assert error.cause == "proxy"


# Names


def _resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Have every name resolve to these; return the list of names asked for. No address: failure."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def fake(host: str, port: int, *args: Any, **settings: Any) -> Any:
        if not host.endswith(".invalid"):
            return real(host, port, *args, **settings)
        asked.append(host)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return asked


async def test_a_name_that_nobody_knows_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolving(monkeypatch)
    async with connecting("https://exchange.invalid") as transport:
        assert (await failure(transport)).cause == "dns"


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["203.0.114.1", "10.0.0.1"]])
async def test_a_name_that_leads_into_a_private_network_is_not_followed(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(reply(ROWS)) as server:
        asked = _resolving(monkeypatch, *addresses)
        async with connecting(f"http://exchange.invalid:{server.port}") as transport:
            assert (await failure(transport)).cause == "dns"
    assert asked == ["exchange.invalid"]
    assert server.connections == []


async def test_this_machine_by_its_name_is_what_it_is() -> None:
    async with (
        answering(reply(ROWS)) as server,
        connecting(f"http://localhost:{server.port}") as transport,
    ):
        assert (await transport.send(poll())).body == ROWS


async def test_when_names_are_no_longer_resolved_the_last_addresses_serve_for_an_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SteppedClock()
    resolver = transport_module._Resolver(clock, public_only=True)
    _resolving(monkeypatch, "203.0.114.1")
    found = await resolver.resolve("exchange.invalid", 443)
    assert [each["host"] for each in found] == ["203.0.114.1"]
    _resolving(monkeypatch)
    clock.now_s += 3_600.0
    assert await resolver.resolve("exchange.invalid", 443) == found
    clock.now_s += 1.0
    with pytest.raises(OSError, match="not known"):
        await resolver.resolve("exchange.invalid", 443)
    await resolver.close()


class SteppedClock(SystemClock):
    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("203.0.114.1", True),
        ("2600:9000::1", True),
        ("::ffff:203.0.114.1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_public_is_what_the_internet_routes(address: str, public: bool) -> None:
    assert transport_module._is_public(address) is public


# Setting up and letting go


async def test_a_closed_transport_sends_nothing() -> None:
    async with answering(reply()) as server, connecting(server.url) as transport:
        await transport.send(poll())
        await transport.close()
        await transport.close()
        assert (await failure(transport)).cause == "connect"
    assert len(server.heads) == 1


@pytest.mark.parametrize(
    "url",
    [
        "api.binance.com",
        "ftp://api.binance.com",
        "https://",
        "https://api.binance.com/sapi",
        "https://a:b@c",
        "https://c?x=1",
        "https://c#x",
        "",
    ],
)
def test_a_base_url_is_scheme_host_and_port_only(url: str) -> None:
    with pytest.raises(ValueError, match="base_url is"):
        AiohttpTransport(url, clock=SystemClock())


@pytest.mark.parametrize("url", ["socks5://user:hunter2@h:1", "hunter2", "http://", "http://[hunter2", ""])
def test_a_proxy_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="the proxy is") as caught:
        AiohttpTransport("https://c", clock=SystemClock(), proxy=Secret(url))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_local_address_is_an_address() -> None:
    with pytest.raises(ValueError, match="eth0"):
        AiohttpTransport("https://c", clock=SystemClock(), local_address="eth0")


def test_tls_that_verifies_nothing_is_refused() -> None:
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    with pytest.raises(ValueError, match="has to verify"):
        AiohttpTransport("https://c", clock=SystemClock(), tls=blind)
