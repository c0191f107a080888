"""What is said and done about every kind of change: exact lines."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from poller import sinks
from poller.config import Config, Secrets, load, read_secrets
from poller.config.difference import Difference, Names, difference
from poller.config.footprint import Footprints
from tests.config.conftest import Write

KEYS = {name: f"{name}-api-key-0123456789abcdef-{'k' * 30}" for name in "abcdefgh"}
BASE = """\
accounts:
  alice: {api_key: env:A_KEY, secret: env:A_SECRET}
  bob: {api_key: env:B_KEY, secret: env:B_SECRET, interval: 2m}
sinks:
  log: {kind: probe, path: log, token: env:TOKEN}
"""

Compared = Callable[..., Difference]


@pytest.fixture
def compared(write: Write, monkeypatch: pytest.MonkeyPatch) -> Compared:
    """Compare two texts, with other environment variables for the second where they are named."""

    def read(text: str) -> tuple[Config, Secrets]:
        config = load(write(text))
        return config, read_secrets(config)

    def compared(old: str, new: str, **others: str) -> Difference:
        for name, key in KEYS.items():
            monkeypatch.setenv(f"{name.upper()}_KEY", key)
            monkeypatch.setenv(f"{name.upper()}_SECRET", f"{name}-secret-{'s' * 50}")
        monkeypatch.setenv("TOKEN", "a-long-token-of-a-probe")
        monkeypatch.setenv("SERVER", "0123456789abcdef0123456789abcdef")
        monkeypatch.setenv("HEADERS", "authorization=none-of-your-business")
        monkeypatch.setenv("PROXY", "http://127.0.0.1:3128")
        before = read(old)
        for name, value in others.items():
            monkeypatch.setenv(name, value)
        after = read(new)
        return difference(before[0], after[0], before[1], after[1])

    return compared


def test_nothing_is_different_wherever_it_is_written(compared: Compared) -> None:
    whole = BASE + (
        "egress: {default: {}, far: {proxy: env:PROXY}}\n"
        "tracing: {endpoint: 'http://127.0.0.1:4318', headers: env:HEADERS}\n"
        "discover: {master: {api_key: env:C_KEY, secret: env:C_SECRET}}\n"
        "server: {token: env:SERVER}\n"
    )
    found = compared(whole, f"# a line more\n\n{whole}")
    assert found == Difference(Names(), (), Names(), Names(), is_discovering_anew=False, lines=(), fixed=())


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("interval: 2m", "interval: 90s", ["account bob: interval_s 120 -> 90, stale_after_s 360 -> 270"]),
        ("interval: 2m", "asset: BTC, interval: 2m", ["account bob: asset none -> BTC"]),
        (
            "interval: 2m",
            "interval: 2m, labels: {desk: x}",
            ["account bob: labels {} -> {desk: x}"],
        ),
        ("bob:", "robert:", ["1 account added: robert", "1 account removed: bob"]),
        ("env:B_", "env:D_", ["1 account with another key: bob"]),
        ("path: log", "path: other", ["sink log: path changed"]),
        ("path: log", "path: log, batch: 7", ["sink log: batch_records 500 -> 7"]),
        ("path: log", "path: log, only: [status]", ["sink log: only [snapshot, status] -> [status]"]),
        ("path: log", "path: log, accounts: [a*]", ["sink log: accounts [] -> [a*]"]),
        ("  log:", "  second:", ["1 sink added: second", "1 sink removed: log"]),
        ("sinks:", "egress: {default: {}, far: {local_address: 127.0.0.2}}\nsinks:", ["1 egress added: far"]),
        (
            "sinks:",
            "egress: {default: {local_address: 127.0.0.2}}\nsinks:",
            ["egress default: another way out"],
        ),
        ("sinks:", "budget: {share: 50%}\nsinks:", ["budget: share 0.9 -> 0.5"]),
        ("sinks:", "exchange: {timeout: 20s}\nsinks:", ["exchange: timeout_s 15 -> 20"]),
        ("sinks:", "shutdown: {drain: 5s}\nsinks:", ["shutdown: drain_s 20 -> 5"]),
        ("sinks:", "reload: {watch: false}\nsinks:", ["reload: is_watching True -> False"]),
        ("sinks:", "logging: {level: debug}\nsinks:", ["logging: level info -> debug"]),
        ("sinks:", "key_policy: 'off'\nsinks:", ["key_policy: warn -> off"]),
        ("sinks:", "server: {listen: '127.0.0.1:9999'}\nsinks:", ["server: none -> 127.0.0.1:9999"]),
        (
            "sinks:",
            "discover: {master: {api_key: env:C_KEY, secret: env:C_SECRET}}\nsinks:",
            ["discover: asked anew"],
        ),
    ],
)
def test_a_change_is_a_line(compared: Compared, old: str, new: str, lines: list[str]) -> None:
    found = compared(BASE, BASE.replace(old, new))
    assert list(found.lines) == lines
    assert found.fixed == ()


def test_a_server_says_what_of_it_is_different(compared: Compared) -> None:
    server = BASE + "server: {listen: '127.0.0.1:9999'}\n"
    named = server.replace("9999'", "9999', hosts: [poller.example]")
    assert compared(server, named).lines == ("server: hosts [] -> [poller.example]",)
    moved = named.replace("9999", "9998")
    assert compared(server, moved).lines == (
        "server: 127.0.0.1:9999 -> 127.0.0.1:9998, hosts [] -> [poller.example]",
    )
    assert compared(server, BASE).lines == ("server: 127.0.0.1:9999 -> none",)


@pytest.mark.parametrize(
    ("rest", "name", "value", "lines"),
    [
        ("", "B_SECRET", "another-secret", ["1 account with another key: bob"]),
        ("", "TOKEN", "another-token", ["sink log: another secret"]),
        ("server: {token: env:SERVER}\n", "SERVER", "f" * 32, ["server: another token"]),
        (
            "egress: {default: {}, far: {proxy: env:PROXY}}\n",
            "PROXY",
            "http://127.0.0.1:3129",
            ["egress far: another way out"],
        ),
        (
            "discover: {master: {api_key: env:C_KEY, secret: env:C_SECRET}}\n",
            "C_KEY",
            "another-key",
            ["discover: asked anew"],
        ),
        (
            "tracing: {endpoint: 'http://127.0.0.1:4318', headers: env:HEADERS}\n",
            "HEADERS",
            "a=b",
            ["tracing: other headers; they are sent from the next start on"],
        ),
    ],
)
def test_a_secret_that_is_another_is_a_line_and_not_shown(
    compared: Compared, rest: str, name: str, value: str, lines: list[str]
) -> None:
    found = compared(BASE + rest, BASE + rest, **{name: value})
    assert list(found.lines) == lines
    assert value not in repr(found)
    assert found.fixed == ()


def test_a_certificate_that_was_renewed_in_its_file_is_another(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", KEYS["a"])
    monkeypatch.setenv("URL", "https://receiver.example/hook")
    kind = EntryPoint("webhook", "poller.sinks.webhook:WebhookSink", sinks.GROUP)
    monkeypatch.setattr(sinks, "installed", lambda: {"webhook": kind})
    text = (
        "accounts: {alice: {api_key: env:A_KEY, secret: env:A_KEY}}\n"
        "sinks: {hook: {kind: webhook, url: env:URL, secret: env:WEBHOOK, certificate: tls/c.pem, private_key: tls/k.pem}}\n"
    )
    monkeypatch.setenv("WEBHOOK", "whsec_" + "A" * 43 + "=")
    config = load(write(text, **{"tls/c.pem": "one", "tls/k.pem": "key"}))
    before, prints = read_secrets(config), Footprints(config.path)
    seen = prints.take(config)
    assert difference(config, config, before, read_secrets(config)).lines == ()
    Path("tls/c.pem").write_text("two")
    found = difference(config, config, before, read_secrets(config))
    assert (found.sinks.changed, found.lines) == (("hook",), ("sink hook: another certificate",))
    assert prints.glance(config) != seen
    Path("tls/k.pem").unlink()  # which the sink says when it is opened
    assert difference(config, config, before, read_secrets(config)).sinks.changed == ("hook",)


def test_the_same_change_of_many_is_one_line(compared: Compared) -> None:
    many = "accounts:\n" + "".join(
        f"  {name}: {{api_key: env:{name.upper()}_KEY, secret: env:{name.upper()}_SECRET}}\n" for name in KEYS
    )
    found = compared(many, many + "defaults: {priority: 3}\n")
    assert found.lines == ("8 accounts (a, b, c, d, e and 3 more): priority 0 -> 3",)
    assert found.accounts == Names(changed=tuple(KEYS))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("exchange: {base_url: 'http://127.0.0.1:1'}", ["exchange.base_url"]),
        (
            "budget: {window: 30s}\nexchange: {base_url: 'http://127.0.0.1:1'}",
            ["exchange.base_url", "budget.window"],
        ),
        ("outbox: {path: elsewhere.db, retain: 1h}", ["outbox.path", "outbox.retain"]),
        ("outbox: {max_size: 2GB, when_full: conflate}", ["outbox.max_size", "outbox.when_full"]),
        ("logging: {format: json}", ["logging.format"]),
        ("metrics: {balances: true, max_series: 7}", ["metrics.balances", "metrics.max_series"]),
        ("tracing: {endpoint: 'http://127.0.0.1:4318'}", ["tracing"]),
        ("egress: {default: {shared: true}}", ["egress.default.shared"]),
    ],
)
def test_what_is_decided_at_the_start_is_named_with_its_line(
    compared: Compared, text: str, keys: list[str]
) -> None:
    found = compared(BASE, BASE + text + "\n")
    assert [problem.key for problem in found.fixed] == keys
    assert {(problem.file, problem.message) for problem in found.fixed} == {
        ("accounts.yaml", "cannot be changed while the daemon runs")
    }
    assert all(problem.line >= 6 for problem in found.fixed)
