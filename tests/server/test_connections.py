"""Clients that are slow, silent, many or rude, on raw sockets: they take what the bounds allow and no more."""

from __future__ import annotations

import asyncio
import logging
import random
import resource
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import Any

import pytest

from poller.errors import ServerNotBound
from poller.server.serving import Server
from poller.server.settings import ServerSettings
from poller.testing.overview import InMemoryOverview, account_summary
from tests.server.conftest import DATA, TOKEN, Answer, Client, read_answer, serving, until

pytestmark = pytest.mark.real_time

Serve = Callable[..., Awaitable[Client]]
# All that this server ever answers; 500 is not among them.
STATUSES = (200, 303, 304, 400, 401, 403, 404, 405, 408, 413, 415, 421, 429, 431, 505)


@contextmanager
def many_files(wanted: int) -> Any:
    """Have so many file descriptors, where the machine lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def silent(client: Client, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that sends something and then no more."""
    reader, writer = await client.connect()
    writer.write(sent)
    return reader, writer


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Wait for the end of a connection, orderly or not; return what came before it."""
    found = b""
    try:
        while part := await reader.read(65_536):
            found += part
    except ConnectionError:
        pass
    return found


def hang_up(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.transport.abort()


async def test_a_thousand_slow_clients_keep_nobody_else_waiting(overview: InMemoryOverview) -> None:
    turns, most = 0, 0

    async def poll() -> None:
        nonlocal turns, most
        while True:
            await asyncio.sleep(0.001)
            turns += 1
            most = max(most, len(client.server.connections))

    async def answer_and_turns() -> int:
        before = turns
        answer = await client.get("/api/accounts", Authorization=f"Bearer {TOKEN}")
        assert (answer.status, answer.json()["total"]) == (200, 2)
        await until(lambda: turns > before)
        return turns - before

    with many_files(4_000):
        async with serving(overview, token=TOKEN) as client:
            polling = asyncio.create_task(poll())
            clients = []
            for number in range(1_000):
                half = f"GET /api/accounts HTTP/1.1\r\nHost: {client.host}\r\nX-Number: {number}"
                clients.append(await silent(client, half.encode()))
                if number % 100 == 99:
                    assert await answer_and_turns() >= 1
            for _ in range(50):
                await answer_and_turns()
            assert most == client.server.connections.settings.most_connections == 256
            # Those who had to make room were told nothing.
            assert await ended(clients[0][0]) == b""
            polling.cancel()
            hang_up(*(writer for _, writer in clients))


async def test_when_everybody_is_being_served_one_more_is_closed_at_once(serve: Serve) -> None:
    overview = InMemoryOverview([account_summary(DATA)])
    client = await serve(overview, settings=ServerSettings(listen_port=0, most_connections=3))
    streams = [
        await silent(client, f"GET /api/events HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode())
        for _ in range(3)
    ]
    await until(lambda: len(client.server.hub) == 3)
    reader, writer = await silent(client, b"")
    assert await ended(reader) == b""
    # None of those that are served made room.
    assert len(client.server.hub) == 3
    hang_up(writer, streams[0][1])
    await until(lambda: len(client.server.hub) == 2)
    assert (await client.get("/livez")).body == b"ok"
    hang_up(*(writer for _, writer in streams))


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET",
        b"GET /livez HTTP/1.1\r\nHost: HOST\r\nX: y",
        (
            b"POST /login HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 10\r\n\r\ntoken="
        ),
    ],
)
async def test_whoever_does_not_send_a_request_is_closed(
    serve: Serve, overview: InMemoryOverview, sent: bytes
) -> None:
    impatient = ServerSettings(listen_port=0, header_s=0.05)
    client = await serve(overview, token=TOKEN, settings=impatient)
    reader, writer = await silent(client, sent.replace(b"HOST", client.host.encode()))
    told = await ended(reader)
    assert told == b"" or b" 408 " in told.partition(b"\r\n")[0]
    await until(lambda: len(client.server.connections) == 0)
    hang_up(writer)


async def test_whoever_sends_a_byte_now_and_then_gets_no_more_time(
    serve: Serve, overview: InMemoryOverview
) -> None:
    client = await serve(overview, settings=ServerSettings(listen_port=0, header_s=0.2))
    reader, writer = await client.connect()

    async def drip() -> None:
        for sign in f"GET /livez HTTP/1.1\r\nHost: {client.host}\r\nX: " + 100_000 * "y":
            writer.write(sign.encode())
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    assert await ended(reader) == b""
    assert not dripping.done()
    dripping.cancel()
    hang_up(writer)


async def test_a_connection_stays_for_a_next_request_and_not_without_end(
    serve: Serve, overview: InMemoryOverview
) -> None:
    client = await serve(overview, settings=ServerSettings(listen_port=0, keep_alive_s=1.0))
    reader, writer = await client.connect()
    request = f"GET /livez HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode()
    for _ in range(3):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Connection: close" not in head
        assert await reader.readexactly(2) == b"ok"
    assert await ended(reader) == b""
    hang_up(writer)


async def test_the_second_request_may_not_come_slower_than_the_first(
    serve: Serve, overview: InMemoryOverview
) -> None:
    client = await serve(overview, settings=ServerSettings(listen_port=0, header_s=0.5, keep_alive_s=1_000))
    reader, writer = await silent(client, f"GET /livez HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\nok")
    writer.write(b"GET /livez HTT")
    assert await ended(reader) == b""
    hang_up(writer)


async def test_whoever_does_not_read_an_answer_is_cut_off(serve: Serve) -> None:
    big = InMemoryOverview([account_summary(f"a{number}", error="x" * 5_000) for number in range(4_000)])
    client = await serve(big, settings=ServerSettings(listen_port=0, answer_s=0.3))
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.setblocking(False)
    address = client.server.address
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (address.host, address.port))
    request = f"GET /api/accounts?limit=4000 HTTP/1.1\r\nHost: {client.host}\r\n\r\n"
    await loop.sock_sendall(raw, request.encode())
    await until(lambda: len(client.server.connections) == 1)
    await until(lambda: len(client.server.connections) == 0)
    raw.close()


# ---- what is no request, or too much of one


async def test_what_is_no_request_is_refused_without_being_repeated(
    serve: Serve, overview: InMemoryOverview
) -> None:
    client = await serve(overview)
    host = client.host.encode()
    for rude in (
        b"<script>alert(1)</script>\r\n\r\n",
        b"GET /<script> HTTP/9.9\r\nHost: %s\r\n\r\n" % host,
        b"GET /livez HTTP/1.1\r\nHost: %s\r\nBad<script>Name : x\r\n\r\n" % host,
        b"GET /livez HTTP/1.1\r\nHost: %s\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" % host,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: %s\r\n\r\n" % host,
    ):
        answer = await client.raw(rude)
        assert (answer.status, answer.body) == (400, b'{"error":"this is no request that can be understood"}')
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Server"] == "poller"


async def test_headers_are_bounded_in_all_whether_they_come_at_once_or_not(
    serve: Serve, overview: InMemoryOverview
) -> None:
    client = await serve(overview)
    long = {f"X-{number}": "y" * 1_000 for number in range(9)}
    answer = await client.ask("GET", "/livez", headers=long)
    assert (answer.status, answer.json()) == (431, {"error": "the headers are too long"})
    reader, writer = await client.connect()
    writer.write(f"GET /livez HTTP/1.1\r\nHost: {client.host}\r\n".encode())
    for name, value in [*long.items(), *long.items()]:
        writer.write(f"{name}: {value}\r\n".encode())
        await asyncio.sleep(0)
    assert await ended(reader) == b""
    hang_up(writer)


async def test_a_gigabyte_that_nobody_asked_for_is_not_read(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview, token=TOKEN)
    for head in ("GET /livez", "POST /login", "POST /api/accounts"):
        reader, writer = await client.connect()
        form = "Content-Type: application/x-www-form-urlencoded"
        writer.write(
            f"{head} HTTP/1.1\r\nHost: {client.host}\r\n{form}\r\nContent-Length: 1000000000\r\n\r\n".encode()
        )
        sent = 0

        async def flood(writer: asyncio.StreamWriter = writer) -> None:
            nonlocal sent
            while True:
                writer.write(b"x" * 65_536)
                sent += 65_536
                await writer.drain()

        flooding = asyncio.create_task(flood())
        await ended(reader)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        assert sent < 100_000_000
        hang_up(writer)


# ---- binding and closing


async def test_an_address_in_use_is_named_with_what_to_do(overview: InMemoryOverview) -> None:
    async with serving(overview) as client:
        port = client.server.address.port
        settings = ServerSettings(listen_port=port)
        with pytest.raises(ServerNotBound) as caught:
            async with serving(overview, settings=settings):
                pass
    assert str(caught.value) == (
        f"server.listen: cannot listen on 127.0.0.1:{port}: it is in use; stop what listens there, or write another port"
    )
    assert caught.value.address == f"127.0.0.1:{port}"


async def test_an_address_of_another_machine_is_refused(overview: InMemoryOverview) -> None:
    settings = ServerSettings("192.0.2.1", 8080)
    with pytest.raises(ServerNotBound, match=r"192\.0\.2\.1:8080: it is none of this machine's"):
        async with serving(overview, settings=settings, token=TOKEN):
            pass


async def test_it_listens_on_the_other_loopback_address_too(overview: InMemoryOverview) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with serving(overview, settings=ServerSettings("::1", 0)) as client:
        assert client.server.address.url == f"http://[::1]:{client.server.address.port}"
        assert (await client.get("/livez")).body == b"ok"


async def test_closing_ends_every_connection_within_its_bound(overview: InMemoryOverview) -> None:
    stuck = asyncio.Event()

    async def history(name: str, asset: str | None, since_s: float) -> None:
        stuck.set()
        await asyncio.Event().wait()

    settings = ServerSettings(listen_port=0, closing_s=0.05)
    async with serving(overview, settings=settings, history=history) as client:
        host = client.host
        clients = [
            await silent(client, b""),
            await silent(client, b"GET /livez HT"),
            await silent(client, f"GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()),
            await silent(
                client, f"GET /api/accounts/{DATA}/history HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            ),
        ]
        await stuck.wait()
        server: Server = client.server
    for reader, writer in clients:
        await ended(reader)
        hang_up(writer)
    await until(lambda: len(server.connections) == 0)
    with pytest.raises(OSError, match=r"refused|failed"):
        await client.connect()


async def test_an_answer_under_way_is_finished_when_the_server_closes(overview: InMemoryOverview) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def history(name: str, asset: str | None, since_s: float) -> list[Any]:
        asked.set()
        await go_on.wait()
        return []

    async with serving(
        overview, settings=ServerSettings(listen_port=0, closing_s=60.0), history=history
    ) as client:
        asking = asyncio.create_task(client.get(f"/api/accounts/{DATA}/history"))
        await asked.wait()
        asyncio.get_running_loop().call_soon(go_on.set)
    answer: Answer = await asking
    assert (answer.status, answer.json()) == (200, [])


async def test_pipelined_requests_are_answered_in_order(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview)
    lines = f"Host: {client.host}\r\n"
    whole = "".join(f"GET {path} HTTP/1.1\r\n{lines}\r\n" for path in ("/livez", "/nowhere"))
    last = f"GET /livez HTTP/1.1\r\n{lines}Connection: close\r\n\r\n"
    reader, writer = await silent(client, (whole + last).encode())
    answers = (await ended(reader)).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"404", b"200"]
    assert read_answer(b"HTTP/1.1 " + answers[2]).body == b"ok"
    hang_up(writer)


# ---- whatever is sent


def requests(host: str) -> list[bytes]:
    """Requests that are good, to be spoiled."""
    lines = f"Host: {host}\r\n"
    form = "Content-Type: application/x-www-form-urlencoded\r\n"
    return [
        text.encode()
        for text in (
            f"GET /api/accounts?sort=-value&limit=5&label=desk=mm HTTP/1.1\r\n{lines}\r\n",
            f"GET /api/accounts/{DATA}/history?asset=BTC&since_s=60 HTTP/1.1\r\n{lines}Accept-Encoding: gzip\r\n\r\n",
            f'HEAD /static/index.html HTTP/1.1\r\n{lines}If-None-Match: "x"\r\n\r\n',
            f"GET /livez HTTP/1.1\r\n{lines}Cookie: poller_session=abc; a=b\r\nOrigin: http://{host}\r\n\r\n",
            f"GET /metrics HTTP/1.1\r\n{lines}Accept: application/openmetrics-text; version=1.0.0; q=0.5\r\n\r\n",
            f"GET /api/happenings?after=1 HTTP/1.1\r\n{lines}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            f"POST /login HTTP/1.1\r\n{lines}{form}Content-Length: 8\r\n\r\ntoken=xy",
            f"POST /login HTTP/1.1\r\n{lines}{form}Transfer-Encoding: chunked\r\n\r\n8\r\ntoken=xy\r\n0\r\n\r\n",
            f"CONNECT {host} HTTP/1.1\r\n{lines}\r\n",
        )
    ]


SCRAPS = [b"\r\n", b"\n", b"\0", b" ", b":", b"%", b"%00", b"%ff", b"../", b"\xff", "\u2028".encode(), b";", b'"', b"=", b"&", b"?",
          b"#", b"9" * 30, b"Host: evil\r\n", b"Expect: 100-continue\r\n", b"Content-Length: 5\r\n", b"HTTP/1.0", b"<script>",
          b"Content-Encoding: gzip\r\n", b"Transfer-Encoding: chunked\r\n", b"q=0", b"[", b"]", b"@", b"\t"]  # fmt: skip


def spoiled(request: bytes, dice: random.Random) -> bytes:
    for _ in range(dice.randint(1, 4)):
        at, length = dice.randrange(len(request)), dice.choice((0, 0, 1, 3, 9))
        request = request[:at] + dice.choice((*SCRAPS, b"")) + request[at + length :]
    return request


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_whatever_is_sent_is_answered_or_closed_and_no_failure_of_ours(
    serve: Serve, overview: InMemoryOverview, token: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ServerSettings(listen_port=0, header_s=0.2, keep_alive_s=0.2)
    client = await serve(overview, token=token, settings=settings)
    dice = random.Random(20_260_101)
    good = requests(client.host)
    statuses: Counter[bytes] = Counter()

    async def send(request: bytes) -> None:
        reader, writer = await client.connect()
        writer.write(request)
        told = await ended(reader)
        statuses[told[9:12]] += 1
        assert told == b"" or told.startswith(b"HTTP/"), (request, told)
        assert b"<script>" not in told, (request, told)
        if token is not None:
            assert DATA.encode() not in told.replace(request, b""), (request, told)
            assert b"poller_polls" not in told, (request, told)
        hang_up(writer)

    for _ in range(40):
        await asyncio.gather(*(send(spoiled(dice.choice(good), dice)) for _ in range(20)))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert statuses.keys() <= {b"", *(b"%d" % status for status in STATUSES)}
    assert len(statuses) >= 5
    await until(lambda: len(client.server.connections) == 0)
