"""What is behind each path, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from poller.metrics import Metrics
from poller.overview import BalanceSeen, Check, HistoryPoint
from poller.server.security import HEADERS
from poller.testing.overview import InMemoryOverview, account_summary, balance_seen
from tests.server.conftest import DATA, TOKEN, Client, until

pytestmark = pytest.mark.real_time

Serve = Callable[..., Awaitable[Client]]
PAGE = files("poller.server").joinpath("page")


# ---- health


async def test_livez_says_what_keeps_the_daemon_from_its_work(
    serve: Serve, overview: InMemoryOverview
) -> None:
    wrong = ""
    client = await serve(overview, is_alive=lambda: wrong)
    assert (await client.get("/livez")).body == b"ok"
    wrong = "no poll from default has ended for 90 s"
    answer = await client.get("/livez")
    assert (answer.status, answer.body) == (503, wrong.encode())


async def test_readyz_is_red_as_long_as_one_check_is(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview)
    assert (await client.get("/readyz")).json() == {
        "ready": True,
        "checks": [{"name": "polls", "ok": True, "text": "all accounts are fresh"}],
    }
    good, bad = Check("polls", ok=True, text=""), Check("outbox", ok=False, text="full")
    overview.set_status(ready=[good, bad])
    answer = await client.get("/readyz")
    assert (answer.status, answer.json()) == (503, {"ready": False, "checks": [asdict(good), asdict(bad)]})
    overview.set_status(ready=[good])
    assert (await client.get("/readyz")).status == 200


async def test_who_has_the_token_sees_the_checks(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview, token=TOKEN, is_alive=lambda: "stuck")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert (await client.get("/readyz", **bearer)).json()["ready"] is True
    assert (await client.get("/livez", **bearer)).body == b"stuck"


# ---- metrics


async def test_metrics_come_in_both_formats(serve: Serve, overview: InMemoryOverview) -> None:
    metrics = Metrics()
    metrics.polls.labels("default", "ok", "none").inc(7)
    parse: Callable[[str], Iterable[Metric]] = families
    parse_opened: Callable[[str], Iterable[Metric]] = open_families
    client = await serve(overview, metrics=metrics)
    plain = await client.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain")
    found = {sample.name: sample.value for family in parse(plain.body.decode()) for sample in family.samples}
    assert found["poller_polls_total"] == 7
    opened = await client.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert opened.headers["Content-Type"].startswith("application/openmetrics-text")
    assert opened.body.endswith(b"# EOF\n")
    # The library trips over a version that is none, and repeats others.
    for version in ("1.x.0", "7.0.0", ""):
        odd = await client.get(
            "/metrics", Accept=f"text/html, application/openmetrics-text; version={version}"
        )
        assert (odd.status, odd.headers["Content-Type"]) == (200, opened.headers["Content-Type"])
    assert any(family.name == "poller_polls" for family in parse_opened(opened.body.decode()))


class Held:
    """Metrics that take until they are let go, as ten thousand of them would."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.at_a_time = self.most_at_a_time = 0

    def collect(self) -> Iterable[Metric]:
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        self.started.release()
        assert self.go_on.wait(60)
        self.at_a_time -= 1
        return []

    def describe(self) -> Iterable[Metric]:
        return []


async def test_while_metrics_are_rendered_others_are_served_and_scrapes_share_one(
    serve: Serve, overview: InMemoryOverview
) -> None:
    metrics, held = Metrics(), Held()
    metrics.registry.register(held)
    client = await serve(overview, metrics=metrics)
    scrapes = [asyncio.create_task(client.get("/metrics")) for _ in range(10)]
    other = asyncio.create_task(client.get("/metrics", Accept="application/openmetrics-text"))
    await asyncio.to_thread(held.started.acquire)
    assert (await client.get("/livez")).body == b"ok"
    # Whoever began the rendering goes away; the others get it all the same.
    scrapes[0].cancel()
    await until(lambda: len(client.server.connections) >= 10)
    held.go_on.set()
    answers = await asyncio.gather(*scrapes[1:], other)
    assert {answer.status for answer in answers} == {200}
    assert held.most_at_a_time == 1
    assert client.server.exposition.renderings <= 3
    assert (await client.get("/metrics")).status == 200


# ---- documents


async def test_the_documents_are_those_of_the_overview(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview)
    detail = overview.account(DATA)
    assert detail is not None
    for path, expected in {
        "/api/status": asdict(overview.status()),
        "/api/egress": [asdict(seen) for seen in overview.egress()],
        "/api/sinks": [asdict(seen) for seen in overview.sinks()],
        "/api/happenings": [asdict(seen) for seen in overview.happenings()],
        f"/api/accounts/{DATA}": asdict(detail),
        "/api/accounts": {
            "at": overview.status().at,
            "total": 2,
            "accounts": [asdict(account) for account in overview.accounts()],
        },
    }.items():
        answer = await client.get(path)
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json() == _listed(expected)


def _listed(value: Any) -> Any:
    """Return the value as JSON has it: without tuples."""
    if isinstance(value, dict):
        return {key: _listed(entry) for key, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, list | tuple) else value


async def test_accounts_are_selected_by_the_query(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview)
    answer = (await client.get("/api/accounts?label=desk%3Dmm&q=TREAS&sort=-value&limit=1")).json()
    assert (answer["total"], [account["account"] for account in answer["accounts"]]) == (1, [DATA])
    refused = await client.get("/api/accounts?limit=%3Cscript%3E")
    assert (refused.status, refused.json()) == (
        400,
        {"error": "limit: write a whole number from 1 to 5000"},
    )


async def test_happenings_after_a_number(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview)
    overview.happen(DATA)
    assert [seen["number"] for seen in (await client.get("/api/happenings?after=1")).json()] == [2]
    assert (await client.get("/api/happenings?after=x")).status == 400
    assert (await client.get("/api/happenings?before=1")).status == 400


async def test_balances_that_the_overview_has_not_are_read(serve: Serve, overview: InMemoryOverview) -> None:
    asked = []

    async def balances(name: str) -> list[BalanceSeen]:
        asked.append(name)
        return [balance_seen("ETH", "3")]

    client = await serve(overview, balances=balances)
    held = {
        name: [balance["asset"] for balance in (await client.get(f"/api/accounts/{name}")).json()["balances"]]
        for name in (DATA, "sub-001")
    }
    assert held == {DATA: ["BTC"], "sub-001": ["ETH"]}
    assert asked == ["sub-001"]


async def test_a_history_is_asked_for_with_its_asset_and_time(
    serve: Serve, overview: InMemoryOverview
) -> None:
    asked: list[tuple[str, str | None, float]] = []

    async def history(name: str, asset: str | None, since_s: float) -> list[HistoryPoint] | None:
        asked.append((name, asset, since_s))
        return None if name == "sub-001" else [HistoryPoint("2026-01-01T00:00:00Z", "1.5", None, 7)]

    client = await serve(overview, history=history)
    answer = await client.get(f"/api/accounts/{DATA}/history?asset=BTC&since_s=3600")
    assert answer.json() == [{"at": "2026-01-01T00:00:00Z", "total": "1.5", "total_btc": None, "sequence": 7}]
    await client.get(f"/api/accounts/{DATA}/history")
    missing = await client.get("/api/accounts/sub-001/history")
    assert asked == [(DATA, "BTC", 3600.0), (DATA, None, 604_800.0), ("sub-001", None, 604_800.0)]
    assert (missing.status, missing.json()) == (
        404,
        {"error": "no history is kept; a sink of kind sqlite keeps one"},
    )
    assert (await client.get("/api/accounts/nobody/history")).json() == {
        "error": "there is no account of that name"
    }
    assert (await client.get(f"/api/accounts/{DATA}/history?since_s=0")).status == 400


async def test_without_a_history_it_is_said_so(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview)
    answer = await client.get(f"/api/accounts/{DATA}/history")
    assert (answer.status, answer.json()) == (
        404,
        {"error": "no history is kept; a sink of kind sqlite keeps one"},
    )


async def test_a_failure_within_tells_the_client_nothing_of_it(
    serve: Serve, overview: InMemoryOverview, caplog: pytest.LogCaptureFixture
) -> None:
    async def history(name: str, asset: str | None, since_s: float) -> None:
        raise RuntimeError("the file /var/lib/history.db is locked")

    client = await serve(overview, history=history)
    with caplog.at_level(logging.ERROR):
        answer = await client.get(f"/api/accounts/{DATA}/history")
    assert (answer.status, answer.json()) == (500, {"error": "the daemon failed; see its log"})
    assert "a request could not be answered" in caplog.text
    assert "history.db" in caplog.text


# ---- what is not there, and what cannot be done


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/api",
        "/api/",
        "/api/accounts/nobody",
        "/api/accounts/a/b",
        "/static/",
        "/static/x.js",
        "//",
    ],
)
async def test_what_is_not_there(path: str, serve: Serve, overview: InMemoryOverview) -> None:
    answer = await (await serve(overview)).get(path)
    assert answer.status == 404
    assert set(answer.json()) == {"error"}
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"])
async def test_nothing_can_be_changed(method: str, serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview)
    answer = await client.ask(method, "/api/accounts")
    assert answer.status in {405, 400}  # 400: no method at all
    assert answer.status == (400 if method == "FOO" else 405)
    if answer.status == 405:
        assert answer.headers["Allow"] == "GET, HEAD"
        assert answer.json() == {"error": "nothing can be changed here"}


async def test_head_has_the_headers_and_no_body(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview)
    for path in ("/", "/livez", "/metrics", "/api/accounts", f"/api/accounts/{DATA}", "/nowhere"):
        whole, head = await client.get(path), await client.ask("HEAD", path)
        assert (head.status, head.body) == (whole.status, b"")
        for name in ("Content-Type", *HEADERS):
            assert head.headers[name] == whole.headers[name]


async def test_no_answer_allows_other_sites_anything(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview)
    for path in ("/", "/livez", "/api/accounts", "/nowhere", "/login"):
        headers = (await client.get(path)).headers
        assert not [name for name in headers if name.lower().startswith("access-control-")]
        assert "Python" not in headers["Server"]
        assert "aiohttp" not in headers["Server"]


# ---- the page


async def test_the_page_is_the_packages_files(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview)
    index = PAGE.joinpath("index.html").read_bytes()
    for path in ("/", "/account/treasury", "/account/nobody", "/static/index.html"):
        answer = await client.get(path)
        assert (answer.status, answer.body) == (200, index)
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-cache"
    icon = await client.get("/favicon.ico")
    assert (icon.body, icon.headers["Content-Type"]) == (
        PAGE.joinpath("icon.svg").read_bytes(),
        "image/svg+xml",
    )
    for entry in PAGE.iterdir():
        answer = await client.get(f"/static/{entry.name}", Accept_Encoding="gzip")
        body = gzip.decompress(answer.body) if "Content-Encoding" in answer.headers else answer.body
        assert body == entry.read_bytes()


async def test_a_file_that_a_browser_has_is_not_sent_again(serve: Serve, overview: InMemoryOverview) -> None:
    client = await serve(overview)
    tag = (await client.get("/")).headers["ETag"]
    assert tag == f'"{sha256(PAGE.joinpath("index.html").read_bytes()).hexdigest()[:32]}"'
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await client.get("/", If_None_Match=known)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    assert (await client.get("/", If_None_Match='"other"')).status == 200


@pytest.mark.parametrize(
    ("body", "is_small"), [(b"let x = 1;\n" * 200, True), (random.Random(1).randbytes(3_000), False)]
)
async def test_a_file_is_sent_compressed_under_a_tag_of_its_own_if_that_pays(
    body: bytes, is_small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "x.js").write_bytes(body)
    (tmp_path / "page" / "x.py").write_bytes(b"of a kind that is not served")
    (tmp_path / "page" / "folder.js").mkdir()
    monkeypatch.setattr("poller.server.page.files", lambda package: tmp_path)
    client = await serve(InMemoryOverview())
    plain = await client.get("/static/x.js")
    small = await client.get("/static/x.js", Accept_Encoding="gzip")
    assert plain.body == body
    assert ("Content-Encoding" in small.headers) == is_small
    assert (gzip.decompress(small.body) if is_small else small.body) == body
    assert (small.headers["ETag"] != plain.headers["ETag"]) == is_small
    for answer in (plain, small):
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    for missing in ("x.py", "folder.js", "index.html"):
        assert (await client.get(f"/static/{missing}")).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/static/../settings.py",
        "/static/..%2fsettings.py",
        "/static/%2e%2e/settings.py",
        "/static/....//settings.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/index.html%00.js",
        "/static/..\\settings.py",
        "/static/.",
        "/static/..",
        "/static/index.html/",
        "/../../etc/passwd",
        "/account/../../etc/passwd",
    ],
)
async def test_no_path_leads_out_of_the_page(path: str, serve: Serve, overview: InMemoryOverview) -> None:
    answer = await (await serve(overview)).get(path)
    assert answer.status in {400, 404}
    assert set(answer.json()) == {"error"}


# ---- compression


async def test_what_is_longer_than_a_kibibyte_is_compressed_for_those_who_take_it(serve: Serve) -> None:
    many = InMemoryOverview([account_summary(f"a{number}") for number in range(300)])
    client = await serve(many)
    plain = await client.get("/api/accounts")
    assert "Content-Encoding" not in plain.headers
    assert plain.headers["Vary"] == "Accept-Encoding"
    for accepted in ("gzip", "br, gzip;q=0.5", "*"):
        small = await client.get("/api/accounts", Accept_Encoding=accepted)
        assert small.headers["Content-Encoding"] == "gzip"
        assert int(small.headers["Content-Length"]) == len(small.body) < len(plain.body) / 10
        assert gzip.decompress(small.body) == plain.body
    for refused in ("gzip;q=0", "identity", "br"):
        answer = await client.get("/api/accounts", Accept_Encoding=refused)
        assert answer.body == plain.body
    short = await client.get("/livez", Accept_Encoding="gzip")
    assert (short.body, "Content-Encoding" in short.headers) == (b"ok", False)
    metrics = await client.get("/metrics", Accept_Encoding="gzip")
    assert b"poller_polls_total" in gzip.decompress(metrics.body)
