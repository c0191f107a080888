"""Keys stay secret: planted ones are looked for in everything that was written, through every error path."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from poller.control import Refused, ask, socket_path
from tests.end_to_end.processes import SimulatedExchange, free_port, run, simulating, start, stop, wait_for
from tests.secrets.vault_stand_in import TOKEN, VaultStandIn, vault_stand_in

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(180)]

EXCHANGE = (
    *("--accounts", "12", "--interval", "500ms", "--moves-per-second", "20", "--latency", "1-5"),
    *("--window-length", "2", "--weight-limit", "1000"),
)


def answer(status: int, code: int, message: str) -> dict[str, object]:
    return {"kind": "body", "status": status, "value": json.dumps({"code": code, "msg": message})}


# One of each kind, so that every error path of a poll is taken.
FAULTS: list[dict[str, object]] = [
    answer(500, -1000, "internal"),
    answer(400, -1021, "Timestamp for this request is outside of the recvWindow."),
    answer(400, -1022, "Signature for this request is not valid."),
    answer(401, -2015, "Invalid API-key, IP, or permissions for action."),
    answer(400, -3002, "no such asset"),
    answer(429, -1003, "Too many requests; current request has limited."),
    answer(418, -1003, "Way too much request weight used; IP banned until 1."),
    {"kind": "retry_after", "value": "1"},
    {"kind": "error_html"},
    {"kind": "error_object"},
    {"kind": "reset"},
    {"kind": "reset_within"},
    {"kind": "close_within"},
    {"kind": "truncated"},
    {"kind": "bomb"},
    {"kind": "redirect"},
    {"kind": "empty_object"},
    {"kind": "empty_list"},
    {"kind": "weight_header"},
]


def canaries(directory: Path) -> dict[str, bytes]:
    """Every secret of the fleet, in every encoding it may be written in."""
    found = {}
    for path in sorted((directory / "secrets").iterdir()):
        # Of a PEM the lines between the markers; whatever shows one of them shows the key.
        words = [word for word in path.read_text().split() if len(word) >= 24 and "-----" not in word]
        assert words, path
        for number, word in enumerate(words[:3]):
            for encoding, text in (
                ("raw", word),
                ("base64", base64.b64encode(word.encode()).decode().rstrip("=")[:-2]),
                ("hex", word.encode().hex()),
                ("percent", quote(word, safe="")),
            ):
                found[f"{path.name}/{number}/{encoding}"] = text.encode()
    return found


def everything_written(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and "secrets" not in path.relative_to(directory).parts
    }


def leaks(directory: Path) -> list[str]:
    planted = canaries(directory)
    found = []
    for name, content in everything_written(directory).items():
        found += [f"{canary} in {name}" for canary, text in planted.items() if text in content]
        found += [
            f"a signature in {name}" for _ in re.finditer(rb"signature=(?!\*)[0-9A-Za-z%]{16,}", content)
        ]
    return found


def meet(exchange: SimulatedExchange, fault: dict[str, object]) -> None:
    """Let two polls meet a fault. Where it is a limit or a ban, the exchange asks for one second."""
    before = exchange.get("status")["faults_given"].get(fault["kind"], 0)
    exchange.post("faults", faults=[{**fault, "count": 2}, {"kind": "retry_after", "value": "1"}])
    wait_for(lambda: exchange.get("status")["faults_given"].get(fault["kind"], 0) >= before + 2)


def test_no_secret_is_written_anywhere_whatever_goes_wrong(tmp_path: Path) -> None:
    with simulating(tmp_path, *EXCHANGE) as exchange:
        process = start(tmp_path, "--log-level", "debug", log=tmp_path / "log.json")
        exchange.wait_until_all_polled(1)
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        for fault in FAULTS:
            meet(exchange, fault)
        exchange.post("faults", faults=[])
        exchange.post("revoke", account=exchange.accounts[0])
        wait_for(lambda: "-2015" in exchange.get("status")["codes"])
        assert stop(process) == 0
        (tmp_path / "arguments").write_bytes(arguments)
        swept = run("once", "-c", str(tmp_path / "accounts.yaml"), "--json")
        (tmp_path / "once").write_text(swept.stdout + swept.stderr)
        checked = run("check", "-c", str(tmp_path / "accounts.yaml"))
        (tmp_path / "check").write_text(checked.stdout + checked.stderr)
    log = (tmp_path / "log.json").read_text()
    assert "polls fail" in log
    assert "every request from this address pauses" in log
    assert leaks(tmp_path) == []


def scatter(directory: Path, vault: VaultStandIn) -> dict[str, str]:
    """Let the keys of some accounts be kept in a Vault, as credentials and by a command; return the environment.

    The files stay where they are: what is in them is looked for.
    """
    secrets = directory / "secrets"
    config = directory / "accounts.yaml"
    text = config.read_text()
    for number, path in enumerate(sorted(secrets.iterdir())):
        name, _, field = path.name.rpartition(".")
        place = (f"vault:secret/{name}#{field}", f"credential:{path.name}", f"exec:cat secrets/{path.name}")
        text = text.replace(f"file:secrets/{path.name}", place[number // 2 % 3])
        vault.secrets.setdefault(name, {})[field] = path.read_text()  # type: ignore[index]  # just set
    config.write_text(text)
    token = secrets / "vault.token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VAULT_")}
    return {
        **environment,
        "VAULT_ADDR": vault.url,
        "VAULT_TOKEN_FILE": str(token),
        "CREDENTIALS_DIRECTORY": str(secrets),
    }


def test_no_secret_of_any_place_is_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "accounts.yaml"
    with simulating(tmp_path, *EXCHANGE) as exchange, vault_stand_in() as vault:
        for name, value in scatter(tmp_path, vault).items():
            monkeypatch.setenv(name, value)
        assert all(f"{place}:" in config.read_text() for place in ("vault", "credential", "exec"))
        process = start(tmp_path, "--log-level", "debug", log=tmp_path / "log.json")
        exchange.wait_until_all_polled(1)
        for number, fault in enumerate(FAULTS[:4]):
            meet(exchange, fault)
            (tmp_path / f"arguments-{number}").write_bytes(Path(f"/proc/{process.pid}/cmdline").read_bytes())
        exchange.post("faults", faults=[])
        assert stop(process) == 0

        outputs = []
        working = config.read_text()
        for trouble in ("", "garbage", "huge", "cut", "redirect", "no http", "status"):
            vault.trouble, vault.status, vault.redirect_to = trouble, 400, vault.url
            outputs.append(run("check", "-c", str(config)))
        vault.trouble, vault.sealed = "", True
        outputs.append(run("once", "-c", str(config), "--json"))
        process = start(tmp_path, "--log-level", "debug", log=tmp_path / "log-sealed.json")
        wait_for(lambda: "started" in (tmp_path / "log-sealed.json").read_text())
        assert stop(process) == 0
        outputs.append(run("check", "-c", str(config)))
        # Commands that say on stderr what they should not, and what is no key at all.
        for script in ("cat $1; cat $1 >&2; exit 1", "cat $1; cat $1 >&2; exit 75", "cat $1 $1"):
            words = rf"{{exec: [sh, -c, '{script}', sh, '\1']}}"
            config.write_text(re.sub(r"exec:cat (\S+)", words, working))
            outputs.append(run("check", "-c", str(config)))
        config.unlink()
    assert {output.returncode for output in outputs} == {0, 1, 2}
    (tmp_path / "output").write_text("".join(output.stdout + output.stderr for output in outputs))
    for said in (
        "is sealed",
        "does not speak HTTP",
        "broke off",
        "redirects",
        "failed with exit code 1: ***",
    ):
        assert said in (tmp_path / "output").read_text()
    assert len(canaries(tmp_path)) > 4 * 25
    assert leaks(tmp_path) == []


def test_a_refused_configuration_shows_no_secret(tmp_path: Path) -> None:
    with simulating(tmp_path, *EXCHANGE):
        pass
    config = tmp_path / "accounts.yaml"
    literal = min((tmp_path / "secrets").iterdir()).read_text().strip()
    config.write_text(re.sub(r"api_key: file:\S+", f"api_key: {literal}", config.read_text(), count=1))
    outputs = [run(command, "-c", str(config)) for command in ("check", "once", "run")]
    config.unlink()
    assert [output.returncode for output in outputs] == [2, 2, 2]
    (tmp_path / "output").write_text("".join(output.stdout + output.stderr for output in outputs))
    assert "api_key" in (tmp_path / "output").read_text()
    assert leaks(tmp_path) == []


SERVER_TOKEN = "canary-token-of-the-server-000000000000000001"
SECRET_URLS = {
    "hook.url": "https://127.0.0.1:9/hooks/canary-path-of-a-webhook-000000000001?key=canary-query-0000000001",
    "hook.key": "whsec_Y2FuYXJ5LXNlY3JldC1vZi1hLXdlYmhvb2s=",
    "proxy.url": "http://canary-user-0000000000000001:canary-password-000000000001@127.0.0.1:9",
    "otlp.headers": "authorization=canary-of-the-collector-00000000000001",
    "server.token": SERVER_TOKEN,
}
WORDS = re.compile(r"[\w-]*canary[\w-]*|Y2FuYXJ5\w+")


def keep(directory: Path, name: str, text: str) -> None:
    """Keep a secret in a file of its own; of an URL the parts that are secret are looked for."""
    path = directory / "secrets" / name
    path.touch(mode=0o600)
    path.write_text(text)


def planted(directory: Path) -> list[str]:
    """Every part of the secrets that are no keys."""
    texts = [path.read_text() for path in (directory / "secrets").iterdir() if path.name in SECRET_URLS]
    return [word for text in texts for word in WORDS.findall(text)]


def furnish(directory: Path, port: int, collector: str) -> None:
    """Let the fleet have a server with a token, a webhook, a proxy and a collector, all with secrets."""
    for name, text in SECRET_URLS.items():
        keep(directory, name, text)
    config = directory / "accounts.yaml"
    text = config.read_text()
    text = text.replace(
        "sinks:\n",
        "sinks:\n  hook: {kind: webhook, url: 'file:secrets/hook.url', secret: 'file:secrets/hook.key'}\n",
    )
    text = text.replace("  sim-0002:\n", "  sim-0002:\n    egress: far\n")
    config.write_text(
        text
        + "egress: {default: {}, far: {proxy: 'file:secrets/proxy.url'}}\n"
        + f"server: {{listen: '127.0.0.1:{port}', token: 'file:secrets/server.token'}}\n"
        + f"tracing: {{endpoint: '{collector}', headers: 'file:secrets/otlp.headers', sample: 100%}}\n"
        + "reload: {watch: false}\nshutdown: {drain: 1s}\n"
    )


def fetched(port: int, path: str, **headers: str) -> bytes:
    """What the server answers, head and body; of an endless stream its beginning."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        head = f"{path} {answer.status} {answer.getheaders()}\n".encode()
        if path != "/api/events" or answer.status != 200:
            return head + answer.read()
        lines = b""
        while b"event: status" not in lines:
            lines += answer.readline()
        return head + lines + answer.readline()


def posted(port: int, token: str) -> bytes:
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        form = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
        connection.request("POST", "/login", f"token={token}", form)
        answer = connection.getresponse()
        return f"/login {answer.status} {answer.getheaders()}\n".encode() + answer.read()


def over_http(port: int, account: str) -> bytes:
    """Everything that the server has to say, to those with the token and to those without."""
    bearer = {"Authorization": f"Bearer {SERVER_TOKEN}"}
    page = ["/", f"/account/{account}", "/static/app.js", "/login", "/livez", "/readyz", "/metrics"]
    document = json.loads(fetched(port, "/api/openapi.json", **bearer).partition(b"\n")[2])
    found = [path.replace("{name}", account) for path in document["paths"] if "/api/" in path]
    assert len(found) >= 9
    answers = [fetched(port, path, **bearer) for path in (*page, *found, "/nothing")]
    answers += [fetched(port, path) for path in (*page, *found)]
    answers += [fetched(port, "/", Host="evil.example"), posted(port, "x" * 40), posted(port, SERVER_TOKEN)]
    return b"\n".join(answers)


async def over_the_socket(directory: Path, account: str) -> bytes:
    """Everything that the control socket has to say."""
    socket = socket_path(directory / "data" / "outbox.db")
    questions: list[tuple[str, dict[str, Any]]] = [
        *((verb, {}) for verb in ("status", "accounts", "egress", "sinks", "happenings", "balances", "list")),
        ("account", {"account": account}),
        ("no such verb", {}),
    ]
    answers: list[object] = []
    for verb, arguments in questions:
        try:
            answers.append(await ask(socket, verb, arguments))
        except Refused as error:
            answers.append(str(error))
    return json.dumps(answers).encode()


@contextmanager
def a_listener(directory: Path, name: str) -> Iterator[str]:
    """Stands for the service manager: everything it is told is written to a file. Yields its address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(directory / "notify"))

        def write() -> None:
            with (directory / name).open("ab") as file:
                while (told := listening.recv(65_536)) != b"end":
                    file.write(told + b"\n")
                    file.flush()

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield str(directory / "notify")
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"end", str(directory / "notify"))
            thread.join()
            (directory / "notify").unlink()


@contextmanager
def a_collector(directory: Path, name: str) -> Iterator[str]:
    """Stands for an OpenTelemetry collector: the bodies that it gets are written to a file. Yields its URL."""

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            with (directory / name).open("ab") as file:
                file.write(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def change_every_secret(directory: Path) -> None:
    """Give an account another's key, and exchange the URLs of sink and proxy. The old ones stay planted."""
    secrets, config = directory / "secrets", directory / "accounts.yaml"
    for ending in ("key", "secret"):
        keep(directory, f"sim-0001.old.{ending}", (secrets / f"sim-0001.{ending}").read_text())
        (secrets / f"sim-0001.{ending}").write_text((secrets / f"sim-0004.{ending}").read_text())
    keep(directory, "other.url", "https://127.0.0.1:9/hooks/canary-path-of-another-webhook-00000002")
    text = config.read_text().replace("secrets/hook.url", "secrets/other.url")
    (secrets / "proxy.url").write_text(
        "http://canary-user-0000000000000002:canary-password-000000000002@127.0.0.1:9"
    )
    config.write_text(re.sub(r"^  sim-0004:\n(    [^\n]*\n)+", "", text, flags=re.MULTILINE))


def test_no_secret_is_shown_by_any_way_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "accounts.yaml"
    port = free_port()
    with (
        simulating(tmp_path, *EXCHANGE) as exchange,
        a_listener(tmp_path, "told") as address,
        a_collector(tmp_path, "traces") as collector,
    ):
        furnish(tmp_path, port, collector)
        every = {*planted(tmp_path), *map(str, SECRET_URLS.values())}
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        process = start(tmp_path, "--log-level", "debug", log=tmp_path / "log.json")
        monkeypatch.delenv("NOTIFY_SOCKET")
        try:
            wait_for(lambda: '"listening"' in (tmp_path / "log.json").read_text())
            exchange.post("revoke", account=exchange.accounts[2])
            wait_for(lambda: "-2015" in exchange.get("status")["codes"])
            wait_for(lambda: "a sink does not take its records" in (tmp_path / "log.json").read_text())
            account = exchange.accounts[0]
            (tmp_path / "http").write_bytes(over_http(port, account))
            (tmp_path / "socket").write_bytes(asyncio.run(over_the_socket(tmp_path, account)))
            change_every_secret(tmp_path)
            every |= set(planted(tmp_path))
            reloaded = run("reload", "-c", str(config))
            for line in ("another key: sim-0001", "1 account removed: sim-0004", "sink hook", "egress far"):
                assert line in reloaded.stdout, reloaded
            (tmp_path / "http-later").write_bytes(over_http(port, account))
            commands = ("status", "doctor", "balances", f"explain {account}")
            arguments = [*(f"{command} --json" for command in commands), "doctor"]
            outputs = [reloaded, *(run(*words.split(), "-c", str(config)) for words in arguments)]
        finally:
            assert stop(process) == 0
        config.unlink()
    (tmp_path / "output").write_text("".join(output.stdout + output.stderr for output in outputs))
    assert [output.returncode for output in outputs if output.returncode > 1] == []
    told = (tmp_path / "told").read_text()
    for word in ("READY=1", "STATUS=", "RELOADING=1", "WATCHDOG=1", "STOPPING=1"):
        assert word in told
    assert b"sim-0001" in (tmp_path / "traces").read_bytes()
    assert b"poller_polls_total" in (tmp_path / "http").read_bytes()
    assert leaks(tmp_path) == []
    shown = [
        f"{text} in {name}"
        for name, content in everything_written(tmp_path).items()
        for text in every
        if text.encode() in content
    ]
    assert shown == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "a.key").write_text("K" * 40)
    (tmp_path / "log").write_text("x" + base64.b64encode(b"K" * 40).decode())
    (tmp_path / "url").write_text("/x?signature=" + "ab" * 32)
    assert leaks(tmp_path) == ["a.key/0/base64 in log", "a signature in url"]
