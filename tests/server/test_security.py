"""Nobody sees a byte of data who may not: every combination of host, origin, token and path, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.errors import ConfigError
from poller.metrics import Metrics
from poller.secrets import Secret
from poller.server.security import HEADERS, Access, Gate, Head, known_names
from poller.server.serving import Server
from poller.server.sessions import LIFE_S, MOST_PEERS, MOST_SESSIONS, MOST_TRIES, Sessions, Tries
from poller.server.settings import ServerSettings, token_fault
from poller.testing.overview import InMemoryOverview
from poller.testing.virtual_time import VirtualClock
from tests.server.conftest import DATA, TOKEN, Answer, Client

Serve = Callable[..., Awaitable[Client]]

WRONG_HOST = (
    421,
    b'{"error":"not known under this name; names are listed under \'hosts\' in the configuration"}',
)
WRONG_ORIGIN = (403, b'{"error":"not for the pages of other sites"}')
NO_TOKEN = (401, b'{"error":"a token is wanted: \'Authorization: Bearer TOKEN\', or log in at /login"}')

# What stands in Host or Origin, with PORT for the server's; and whether it is known.
HOSTS = {
    "127.0.0.1:PORT": True,
    "localhost:PORT": True,
    "LOCALHOST:PORT": True,
    "[::1]:PORT": True,
    "poller.example.net": True,
    "poller.example.net:PORT": True,
    "desk.example.net:8443": True,
    "": False,
    "127.0.0.1": False,
    "127.0.0.1:1": False,
    "evil.example": False,
    "evil.example:PORT": False,
    "127.0.0.1:PORT.evil.example": False,
    "evil.example@127.0.0.1:PORT": False,
    "poller.example.net.": False,
    "desk.example.net": False,
    "127.0.0.1:PORT, evil.example": False,
}
ORIGINS = {
    None: True,
    "http://127.0.0.1:PORT": True,
    "http://localhost:PORT": True,
    "https://poller.example.net": True,
    "null": False,
    "": False,
    "http://evil.example": False,
    "http://127.0.0.1": False,
    "http://127.0.0.1:1": False,
    "http://127.0.0.1:PORT/": False,
    "file://127.0.0.1:PORT": False,
    "http://127.0.0.1:PORT http://evil.example": False,
    "http://evil.example#127.0.0.1:PORT": False,
    "http://[": False,
}
TOKENS = {
    None: False,
    f"Bearer {TOKEN}": True,
    f"bearer {TOKEN}": True,
    f"Bearer {TOKEN}x": False,
    f"Bearer {TOKEN[:-1]}": False,
    "Bearer ": False,
    f"Basic {TOKEN}": False,
    TOKEN: False,
}
DATA_PATHS = [
    "/api/accounts",
    f"/api/accounts/{DATA}",
    "/api/happenings",
    "/api/events",
    "/metrics",
    "/",
    "/static/index.html",
    "/nowhere",
]


@dataclass
class Trial:
    host: str
    origin: str | None
    authorization: str | None

    def expected(self) -> tuple[int, bytes] | None:
        if not HOSTS[self.host]:
            return WRONG_HOST
        if not ORIGINS[self.origin]:
            return WRONG_ORIGIN
        return None if TOKENS[self.authorization] else NO_TOKEN

    async def ask(self, client: Client, path: str) -> Answer:
        port = str(client.server.address.port)
        headers = {}
        if self.origin is not None:
            headers["Origin"] = self.origin.replace("PORT", port)
        if self.authorization is not None:
            headers["Authorization"] = self.authorization
        return await client.ask("GET", path, host=self.host.replace("PORT", port), headers=headers)


@pytest.mark.real_time
@pytest.mark.parametrize("host", HOSTS)
async def test_no_combination_shows_data_to_the_unauthorised(
    serve: Serve, overview: InMemoryOverview, host: str
) -> None:
    settings = ServerSettings(listen_port=0, hosts=("poller.example.net", "desk.example.net:8443"))
    client: Client = await serve(overview, settings=settings, token=TOKEN)
    trials = [Trial(host, origin, authorization) for origin, authorization in product(ORIGINS, TOKENS)]
    assert len(trials) * len(HOSTS) >= 1_900
    allowed = 0
    for number, trial in enumerate(trials):
        path = DATA_PATHS[number % len(DATA_PATHS)]
        expected = trial.expected()
        if expected is None:
            answer = await trial.ask(client, "/api/accounts")
            assert answer.status == 200
            assert DATA.encode() in answer.body
            allowed += 1
        else:
            answer = await trial.ask(client, path)
            assert (answer.status, answer.body) == expected, (trial, path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    good = [value for value in ORIGINS.values() if value], [value for value in TOKENS.values() if value]
    assert allowed == (len(good[0]) * len(good[1]) if HOSTS[host] else 0)


@pytest.mark.real_time
@pytest.mark.parametrize("path", DATA_PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_without_the_token_every_path_and_method_is_answered_alike(
    serve: Serve, overview: InMemoryOverview, path: str, method: str
) -> None:
    client: Client = await serve(overview, token=TOKEN)
    answer = await client.ask(method, path)
    assert (answer.status, answer.body) == (401, b"" if method == "HEAD" else NO_TOKEN[1])
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.real_time
async def test_a_token_in_an_url_is_no_token(serve: Serve, overview: InMemoryOverview) -> None:
    client: Client = await serve(overview, token=TOKEN)
    for target in (f"/api/accounts?token={TOKEN}", f"/api/accounts?access_token={TOKEN}"):
        answer = await client.get(target)
        assert (answer.status, answer.body) == NO_TOKEN


@pytest.mark.real_time
async def test_two_of_a_header_and_no_host_at_all_are_refused(
    serve: Serve, overview: InMemoryOverview
) -> None:
    client: Client = await serve(overview, token=TOKEN)
    host = client.host.encode()
    bearer = f"Authorization: Bearer {TOKEN}\r\n".encode()
    two_origins = f"Origin: http://{client.host}\r\n".encode() * 2
    answers = [
        await client.raw(b"GET /api/status HTTP/1.1\r\nHost: %s\r\nHost: evil\r\n%s\r\n" % (host, bearer)),
        await client.raw(b"GET /api/status HTTP/1.0\r\n%s\r\n" % bearer),
        await client.raw(b"GET /api/status HTTP/1.0\r\nHost: %s\r\n%s%s\r\n" % (host, two_origins, bearer)),
        await client.raw(b"GET /api/status HTTP/1.0\r\nHost: %s\r\n%s%s\r\n" % (host, bearer, bearer)),
        await client.raw(b"GET http://evil/api/status HTTP/1.0\r\nHost: %s\r\n%s\r\n" % (host, bearer)),
    ]
    assert [answer.status for answer in answers] == [answers[0].status, 421, 403, 401, 400]
    assert answers[0].status in {400, 421}
    assert not any(b"version" in answer.body for answer in answers)


@pytest.mark.real_time
async def test_whoever_watches_the_process_learns_one_word(serve: Serve, overview: InMemoryOverview) -> None:
    wrong: list[str] = []
    client: Client = await serve(overview, token=TOKEN, is_alive=lambda: "".join(wrong))

    async def words() -> list[tuple[int, bytes]]:
        answers = [await client.get("/livez"), await client.get("/readyz")]
        return [(answer.status, answer.body) for answer in answers]

    assert await words() == [(200, b"ok"), (200, b"ready")]
    wrong.append(f"no poll of {DATA} has ended for 90 s")
    overview.set_status(ready=[])
    overview.set_status(ready=[*overview.status().ready, _not_ok()])
    assert await words() == [(503, b"failing"), (503, b"not ready")]
    answer = await client.ask("GET", "/livez", host="evil.example")
    assert (answer.status, answer.body) == WRONG_HOST


def _not_ok() -> object:
    from poller.overview import Check

    return Check("outbox", ok=False, text=f"full; {DATA} waits")


# ---- the form


def form(token: str) -> bytes:
    from urllib.parse import urlencode

    return urlencode({"token": token}).encode()


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.real_time
async def test_a_browser_gets_in_with_the_form_and_stays_by_its_cookie(
    serve: Serve, overview: InMemoryOverview
) -> None:
    client: Client = await serve(overview, token=TOKEN)
    start = await client.get("/", Accept="text/html")
    assert (start.status, start.headers["Location"], start.body) == (303, "/login", b"")
    shown = await client.get("/login", Accept="text/html")
    assert shown.status == 200
    assert b'<form method="post" action="/login">' in shown.body
    # Under no-referrer browsers say "Origin: null" when they send the form, and would be refused.
    assert shown.headers["Referrer-Policy"] == "same-origin"
    origin = {"Origin": f"http://{client.host}"}
    entered = await client.ask("POST", "/login", headers={**FORM, **origin}, body=form(TOKEN))
    assert (entered.status, entered.headers["Location"], entered.body) == (303, "/", b"")
    cookie, *attributes = entered.headers["Set-Cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Strict"]
    assert TOKEN not in cookie
    answer = await client.get("/api/accounts", Cookie=cookie)
    assert answer.status == 200
    assert DATA.encode() in answer.body
    for other in ("poller_session=", f"{cookie}x", f"poller_session={TOKEN}", cookie[:-1]):
        refused = await client.get("/api/accounts", Cookie=other)
        assert (refused.status, refused.body) == NO_TOKEN
    # A wrong token is not made good by a right cookie.
    both = await client.get("/api/accounts", Cookie=cookie, Authorization="Bearer wrong")
    assert (both.status, both.body) == NO_TOKEN


@pytest.mark.real_time
async def test_behind_tls_the_cookie_is_for_tls_alone(serve: Serve, overview: InMemoryOverview) -> None:
    settings = ServerSettings(listen_port=0, hosts=("poller.example.net",))
    client: Client = await serve(overview, token=TOKEN, settings=settings)
    origin = {"Origin": "https://poller.example.net"}
    entered = await client.ask(
        "POST", "/login", host="poller.example.net", headers={**FORM, **origin}, body=form(TOKEN)
    )
    assert "; Secure" in entered.headers["Set-Cookie"]


@pytest.mark.real_time
async def test_forms_from_elsewhere_and_what_is_no_form_are_refused(
    serve: Serve, overview: InMemoryOverview
) -> None:
    client: Client = await serve(overview, token=TOKEN)

    async def status(body: bytes, **headers: str) -> int:
        answer = await client.ask("POST", "/login", headers={**FORM, **headers}, body=body)
        assert "Set-Cookie" not in answer.headers
        assert "error" in answer.json()
        return answer.status

    assert await status(form(TOKEN), Origin="http://evil.example") == 403
    assert await status(form(TOKEN), Origin="null") == 403
    assert await status(form("wrong")) == 401
    assert await status(b"{}", **{"Content-Type": "application/json"}) == 415
    assert await status(b"token=" + b"a" * 1019) == 413
    assert await status(b"\xff=1") == 400
    assert await status(b"password=x") == 400
    assert await status(form(TOKEN) + b"&" + form(TOKEN)) == 400
    assert await status(b"&".join([b"a=1"] * 9)) == 400
    wrong = await client.ask("POST", "/login", headers={**FORM, "Accept": "text/html"}, body=form("<script>"))
    assert wrong.status == 401
    assert b"This is not the token." in wrong.body
    assert b"<script>" not in wrong.body


@pytest.mark.real_time
async def test_the_longest_token_fits_the_form_however_it_is_encoded(
    serve: Serve, overview: InMemoryOverview
) -> None:
    longest = "&" * 256
    client: Client = await serve(overview, token=longest)
    assert (await client.ask("POST", "/login", headers=FORM, body=form(longest))).status == 303


@pytest.mark.real_time
async def test_after_ten_wrong_tokens_not_even_the_right_one_is_looked_at(
    serve: Serve, overview: InMemoryOverview, caplog: pytest.LogCaptureFixture
) -> None:
    client: Client = await serve(overview, token=TOKEN)
    for _ in range(10):
        assert not caplog.records
        assert (await client.ask("POST", "/login", headers=FORM, body=form("wrong"))).status == 401
    answer = await client.ask("POST", "/login", headers=FORM, body=form(TOKEN))
    assert answer.status == 429
    assert [record.getMessage() for record in caplog.records] == ["somebody tries wrong tokens"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "Set-Cookie" not in answer.headers


@pytest.mark.real_time
async def test_where_no_token_is_wanted_there_is_nothing_to_log_in_to(
    serve: Serve, overview: InMemoryOverview
) -> None:
    client: Client = await serve(overview)
    shown = await client.get("/login")
    sent = await client.ask("POST", "/login", headers=FORM, body=form("anything"))
    assert [(answer.status, answer.headers["Location"]) for answer in (shown, sent)] == [(303, "/")] * 2
    assert "Set-Cookie" not in sent.headers


# ---- sessions and tries


def test_a_session_lives_for_twelve_hours() -> None:
    sessions = Sessions()
    session = sessions.begin(1_000.0)
    assert sessions.is_valid(session, 1_000.0 + LIFE_S - 0.001)
    assert not sessions.is_valid(session, 1_000.0 + LIFE_S)
    assert not sessions.is_valid("", 1_000.0)


def test_of_too_many_sessions_the_oldest_goes() -> None:
    sessions = Sessions()
    ids = [sessions.begin(float(number)) for number in range(MOST_SESSIONS + 2)]
    assert len(set(ids)) == len(ids)
    assert len(sessions) == MOST_SESSIONS
    assert [sessions.is_valid(session, 2_000.0) for session in ids] == [False] * 2 + [True] * MOST_SESSIONS
    sessions.begin(2_000.0 + LIFE_S)
    assert len(sessions) == 1


@given(st.lists(st.floats(0, 20), max_size=60))
def test_within_any_minute_a_peer_fails_ten_times_at_most(gaps: list[float]) -> None:
    tries = Tries()
    now_s, failed = 0.0, []
    for gap in gaps:
        now_s += gap
        if not tries.wait_s("peer", now_s):
            tries.failed("peer", now_s)
            failed.append(now_s)
        else:
            # Whoever waits as long as it says may try again, and not before.
            wait_s = tries.wait_s("peer", now_s)
            assert 0 < wait_s <= 60.0
    for index in range(len(failed) - MOST_TRIES):
        assert failed[index + MOST_TRIES] - failed[index] >= 60.0 - 1e-6


def test_peers_are_told_apart_and_not_remembered_without_end() -> None:
    tries = Tries()
    for number in range(MOST_TRIES):
        tries.failed("noisy", float(number))
    assert tries.wait_s("noisy", 9.0) == 51.0
    assert tries.wait_s("quiet", 9.0) == 0.0
    for number in range(MOST_PEERS + 5):
        tries.failed(f"peer-{number}", 10.0)
    assert len(tries) == MOST_PEERS


# ---- pure decisions


def test_names_are_those_of_loopback_the_address_and_the_configuration() -> None:
    own = {"127.0.0.1:8080", "localhost:8080", "[::1]:8080"}
    assert known_names("127.0.0.1", 8080, ()) == own
    assert known_names("0.0.0.0", 8080, ()) == own
    assert known_names("::", 8080, ()) == own
    assert known_names("10.0.0.5", 8080, ()) == own | {"10.0.0.5:8080"}
    assert known_names("fe80::5", 8080, ()) == own | {"[fe80::5]:8080"}
    assert known_names("127.0.0.1", 8080, ("a.example", "b.example:443", "[::5]", "[::6]:1")) == own | {
        "a.example",
        "a.example:8080",
        "b.example:443",
        "[::5]",
        "[::5]:8080",
        "[::6]:1",
    }
    assert known_names("127.0.0.1", 80, ()) == {
        "127.0.0.1",
        "127.0.0.1:80",
        "localhost",
        "localhost:80",
        "[::1]",
        "[::1]:80",
    }


@given(st.text(), st.text(), st.lists(st.text(), max_size=2))
def test_no_text_passes_for_a_host_a_token_or_an_origin(host: str, token: str, origins: list[str]) -> None:
    gate = Gate({"127.0.0.1:8080"}, Secret(TOKEN), lambda session: False)
    head = Head("/api/status", "/api/status", [host], origins, [f"Bearer {token}"], "session")
    assert gate.decide(head) is not Access.ALLOWED


def test_tokens_that_protect_nothing_are_refused() -> None:
    assert token_fault("a" * 32) == ""
    assert token_fault("a" * 31) == "has 31 characters, fewer than 32"
    assert token_fault("a" * 257) == "has 257 characters, more than 256"
    assert token_fault("a b" * 20) == "has characters that a header cannot carry"
    assert token_fault("ä" * 40) == "has characters that a header cannot carry"


async def test_another_address_than_loopback_wants_a_token(clock: VirtualClock) -> None:
    def made(host: str, token: str | None) -> Server:
        secret = Secret(token) if token else None
        return Server(InMemoryOverview(), Metrics(), clock, ServerSettings(host, 0), token=secret)

    for host, token in (("127.0.0.1", None), ("::1", None), ("0.0.0.0", TOKEN)):
        assert made(host, token).address.host == host
    for host in ("0.0.0.0", "10.0.0.5", "::"):
        with pytest.raises(ConfigError, match=r"server\.token: required to listen on"):
            made(host, None)
    with pytest.raises(ConfigError, match=r"server\.token: has 5 characters"):
        made("127.0.0.1", "short")
    await asyncio.sleep(0)
