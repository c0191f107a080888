"""docs/server.md: its commands run, its table names every path, and a browser and a TLS proxy do what it says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from poller.server.security import COOKIE
from poller.server.settings import ServerSettings
from poller.testing.overview import InMemoryOverview
from tests.exchange.certificates import Authority
from tests.server.conftest import DATA, TOKEN, Client, serving, until

pytestmark = pytest.mark.real_time

Serve = Callable[..., Awaitable[Client]]
PAGE = Path(__file__).parents[2] / "docs" / "server.md"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


async def shell(command: str, directory: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, cwd=directory, env={**os.environ, "POLLER_TOKEN": TOKEN},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    # 28: the stream of events has no end, so the command sets one.
    assert process.returncode == (28 if "--max-time" in command else 0), err
    return out.decode()


async def test_its_commands_run(serve: Serve, overview: InMemoryOverview, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    client = await serve(overview, token=TOKEN)
    text = PAGE.read_text()
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).splitlines()
    printed = {}
    for line in lines:
        if line.startswith("$ "):
            command = line.removeprefix("$ ")
            printed[command] = await shell(command.replace("127.0.0.1:8080", client.host), tmp_path)
        else:
            assert line == printed[command]
    assert len(printed) == 8
    assert not [command for command in printed if TOKEN in command]
    assert (tmp_path / "poller.header").stat().st_mode & 0o777 == 0o600
    answers = [out for command, out in printed.items() if "/api/" in command]
    assert json.loads(answers[0])["accounts"] == 2
    assert [json.loads(answer)["total"] for answer in answers[1:3]] == [1, 1]
    assert json.loads(answers[3])[0]["account"] == DATA
    assert "event: hello" in answers[4]
    assert "event: fleet" in answers[4]


def test_it_names_every_path(overview: InMemoryOverview) -> None:
    from poller.server.openapi import OPERATIONS

    table = PAGE.read_text().partition("## What there is")[2].partition("\n\nAmounts")[0]
    named = set(re.findall(r"`(/[\w./]*)`", table))
    described = {operation.path.replace("{name}", "NAME") for operation in OPERATIONS}
    assert named == described | {"/", "/account/NAME", "/static/", "/login"}


def test_its_bounds_are_those_of_the_settings() -> None:
    text, bounds = PAGE.read_text(), ServerSettings()
    assert f"{bounds.most_connections} connections" in text
    assert f"At most {bounds.most_streams} can listen" in text
    assert f"{bounds.header_s:.0f} s for a request's head" in text
    assert bounds.answer_s == bounds.keep_alive_s
    assert f"{bounds.answer_s:.0f} s to read an answer" in text
    assert f"wait longer than {bounds.silence_s:.0f} s" in text


# ---- behind a proxy


@asynccontextmanager
async def tls_proxy(authority: Authority, client: Client) -> AsyncIterator[int]:
    """Where TLS ends: bytes pass as they are, so Host and Origin do. Yields its port."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while part := await reader.read(65_536):
                writer.write(part)
                await writer.drain()
        writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, to_behind = await client.connect()
        await asyncio.gather(copy(reader, to_behind), copy(behind, writer))

    server = await asyncio.start_server(carry, "127.0.0.1", 0, ssl=authority.serving())
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_behind_a_proxy_with_tls(overview: InMemoryOverview, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    # The proxy's port is known only when it listens, and the server's names before that.
    settings = ServerSettings(listen_port=0, hosts=("poller.example.net",), sample_s=0.1)
    async with (
        serving(overview, settings=settings, token=TOKEN) as client,
        tls_proxy(authority, client) as port,
    ):
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar, headers={"Host": "poller.example.net"}) as session:
            where = f"https://127.0.0.1:{port}"
            trust = authority.trusting()
            origin = {"Origin": "https://poller.example.net"}
            async with session.post(
                f"{where}/login", data={"token": TOKEN}, headers=origin, ssl=trust, allow_redirects=False
            ) as entered:
                assert (entered.status, entered.cookies[COOKIE]["secure"]) == (303, True)
            async with session.get(f"{where}/api/accounts", ssl=trust) as answer:
                assert (await answer.json())["total"] == 2
            async with session.get(f"{where}/api/events", ssl=trust) as stream:
                assert (await stream.content.readline()) == b"retry: 2000\n"
                assert (await stream.content.readline()) == b"event: hello\n"
            async with session.get(f"{where}/api/accounts", ssl=trust, headers={"Host": "other"}) as answer:
                assert answer.status == 421


# ---- a real browser


class Browser:
    """A page of a browser without a screen, asked over its debugging protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._number:
                return message.get("result")  # none while it goes from one page to the next

    async def run(self, script: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return result and result["result"].get("value")

    async def until(self, script: str) -> None:
        while await self.run(script) is not True:  # noqa: ASYNC110  # it is in another process
            await asyncio.sleep(0.05)


@asynccontextmanager
async def browsing(directory: Path) -> AsyncIterator[Browser]:
    if BROWSER is None:
        pytest.skip("no chromium is installed")
    process = await asyncio.create_subprocess_exec(
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--remote-debugging-port=0", f"--user-data-dir={directory}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        told = directory / "DevToolsActivePort"
        await until(lambda: told.exists() and told.read_text().count("\n") >= 1)
        port = told.read_text().splitlines()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Browser(socket)
    finally:
        process.kill()
        await process.wait()


async def test_a_browser_logs_in_listens_and_shows_no_script_the_cookie(
    serve: Serve, overview: InMemoryOverview, tmp_path: Path
) -> None:
    client = await serve(overview, token=TOKEN)
    url = client.server.address.url
    async with browsing(tmp_path / "profile") as browser:
        await browser.call("Page.enable")
        await browser.call("Page.navigate", url=f"{url}/account/{DATA}")
        await browser.until("location.pathname == '/login' && document.readyState == 'complete'")
        fill = "document.querySelector('input').value = '%s'; document.querySelector('button').click()"
        await browser.run(fill % "wrong")
        await browser.until("document.body != null && document.body.innerText.includes('not the token')")
        await browser.run(fill % TOKEN)
        await browser.until("location.pathname == '/' && document.readyState == 'complete'")
        assert await browser.run("document.cookie") == ""
        assert await browser.run("fetch('/api/accounts').then(a => a.json()).then(a => a.total)") == 2
        told = await browser.run(
            "new Promise(done => { const source = new EventSource('/api/events');"
            " source.addEventListener('fleet', event => { source.close(); done(JSON.parse(event.data).names) }) })"
        )
        assert told == overview.names()
        # Nothing of elsewhere runs or loads here.
        assert (
            await browser.run("fetch('http://127.0.0.1:9/').then(() => 'loaded', () => 'refused')")
            == "refused"
        )
        # A page of elsewhere sees nothing of here.
        await browser.call("Page.navigate", url="data:text/html,<p>elsewhere")
        await browser.until("location.protocol == 'data:' && document.readyState == 'complete'")
        script = (
            f"fetch('{url}/api/accounts', {{credentials: 'include'}}).then(() => 'seen', () => 'refused')"
        )
        assert await browser.run(script) == "refused"
