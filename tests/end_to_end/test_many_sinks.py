"""One daemon, several sinks at once, killed again and again: each living one gets everything, the dead one delays nobody."""

from __future__ import annotations

import json
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from poller.sinks.sqlite import read_history
from poller.webhooks import verify
from tests.end_to_end.processes import SimulatedExchange, simulating, start, stop, wait_for
from tests.end_to_end.test_kill import EXCHANGE, accepted, kill_again_and_again, statuses
from tests.exchange.raw_server import free_port

pytestmark = pytest.mark.real_time

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
SINKS = """
shutdown: {drain: 2s}
sinks:
  history: {kind: sqlite, path: data/history.db}
  log: {kind: jsonl, path: data/records.jsonl}
  hook:
    {kind: webhook, url: env:HOOK_URL, secret: env:HOOK_SECRET, timeout: 5m, write_timeout: 10m, retry_min: 10ms, retry_max: 100ms}
  dead: {kind: webhook, url: env:DEAD_URL, secret: env:HOOK_SECRET, retry_min: 50ms, retry_max: 200ms}
"""


@dataclass
class FlakyReceiver:
    """Fails as real ones do, and keeps what it answered or meant to answer with a success.

    Attributes:
        taken: id, account and body, in the order of their arrival.
        failures: how often it failed, by how.
        hangs: true leaves every request without an answer until it is false again.
    """

    dice: random.Random
    taken: list[tuple[str, str, bytes]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    hanging: int = 0
    hangs: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _released: threading.Event = field(default_factory=threading.Event)

    def decide(self, webhook_id: str, body: bytes) -> str:
        """Keep what is to be kept; return what to do: ``answer``, ``refuse``, ``drop``."""
        if self.hangs:
            self.hanging += 1
            self._released.wait()
            return "drop"
        with self._lock:
            fate = self.dice.choices(["answer", "500", "drop", "drop after taking"], [12, 2, 1, 1])[0]
            if fate != "answer":
                self.failures[fate] = self.failures.get(fate, 0) + 1
            if fate in {"answer", "drop after taking"}:
                self.taken.append((webhook_id, json.loads(body)["account"], body))
            return fate

    def release(self) -> None:
        self.hangs = False
        self._released.set()


@contextmanager
def receiving(receiver: FlakyReceiver) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fate = receiver.decide(verify(body, self.headers, SECRET, now=time.time()), body)
            if fate.startswith("drop"):
                self.close_connection = True
                return
            self.send_response(204 if fate == "answer" else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def handle(self) -> None:
            # The daemon is killed within requests.
            with suppress(ConnectionError):
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook"
    finally:
        receiver.release()
        server.shutdown()
        thread.join()
        server.server_close()


def set_sinks(directory: Path) -> None:
    main = directory / "accounts.yaml"
    without = re.sub(r"^(?:sinks|shutdown):.*\n(?:[ \t].*\n)*", "", main.read_text(), flags=re.MULTILINE)
    main.write_text(without + SINKS)


def stop_while_it_hangs(directory: Path, receiver: FlakyReceiver) -> None:
    """The drain is for 2 s, a request for 5 minutes: the one that waits for an answer does not hold it up."""
    receiver.hangs = True
    process = start(directory, log=directory / "log")
    wait_for(lambda: receiver.hanging > 0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0, (directory / "log").read_text()[-2000:]
    receiver.release()


def settle(directory: Path, exchange: SimulatedExchange, receiver: FlakyReceiver) -> dict[str, int]:
    """Let a last daemon deliver all there is to the living; return what it says it leaves to whom."""
    process = start(directory, "--log-format", "json", log=directory / "last.log")
    exchange.post("freeze")
    exchange.wait_until_all_polled()
    in_file = directory / "data" / "records.jsonl"
    wait_for(lambda: ids_in(in_file) <= {id_ for id_, _, _ in receiver.taken})
    assert stop(process) == 0, (directory / "last.log").read_text()[-2000:]
    lines = [json.loads(line) for line in (directory / "last.log").read_text().splitlines()]
    [left] = [line["backlogs"] for line in lines if line["message"].startswith("not everything was drained")]
    return dict(left)


def ids_in(file: Path) -> set[str]:
    return {json.loads(line)["id"] for line in file.read_bytes().split(b"\n")[:-1]}


@pytest.mark.timeout(300)
def test_many_sinks_and_many_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = FlakyReceiver(random.Random(3))
    with simulating(tmp_path, *EXCHANGE) as exchange, receiving(receiver) as url:
        set_sinks(tmp_path)
        monkeypatch.setenv("HOOK_URL", url)
        monkeypatch.setenv("HOOK_SECRET", SECRET)
        monkeypatch.setenv("DEAD_URL", f"http://127.0.0.1:{free_port()}/")
        kill_again_and_again(tmp_path, exchange, kills=6, seed=5)
        stop_while_it_hangs(tmp_path, receiver)
        kill_again_and_again(tmp_path, exchange, kills=2, seed=6)
        left = settle(tmp_path, exchange, receiver)
    everything = accepted(tmp_path)
    assert len(everything) > 100
    assert receiver.failures.keys() == {"500", "drop", "drop after taking"}
    # The dead one has nothing, knows exactly how much, and nobody waited for it.
    assert left == {"history": 0, "log": 0, "hook": 0, "dead": len(everything)}
    judge_history(tmp_path, everything)
    for taken in (posted(receiver), filed(tmp_path)):
        judge_stream(taken, everything)


def judge_history(directory: Path, everything: list[tuple[str, str, bytes]]) -> None:
    found = [record["id"] for record in read_history(directory / "data" / "history.db")]
    assert found == [id_ for kind, id_, _ in everything if kind == "snapshot"]
    assert statuses(directory) == [id_ for kind, id_, _ in everything if kind == "status"]


def judge_stream(taken: list[tuple[str, str, bytes]], everything: list[tuple[str, str, bytes]]) -> None:
    """The same ids with the same bytes, and each account's in its order, what came twice aside."""
    payloads = {id_: bytes(payload) for _, id_, payload in everything}
    assert {id_ for id_, _, _ in taken} == payloads.keys()
    assert [id_ for id_, _, body in taken if body != payloads[id_]] == []
    accounts = {id_: json.loads(payload)["account"] for id_, payload in payloads.items()}
    for account in set(accounts.values()):
        in_order = [id_ for id_ in payloads if accounts[id_] == account]
        assert list(dict.fromkeys(id_ for id_, name, _ in taken if name == account)) == in_order


def posted(receiver: FlakyReceiver) -> list[tuple[str, str, bytes]]:
    return receiver.taken


def filed(directory: Path) -> list[tuple[str, str, bytes]]:
    lines = (directory / "data" / "records.jsonl").read_bytes().splitlines()
    return [(document["id"], document["account"], line) for line in lines for document in [json.loads(line)]]
