"""Whatever a file says, it is a configuration or a list of problems: never a traceback, never a secret."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from poller.config import Config, load, read_secrets
from poller.errors import ConfigError

SECRET = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"

REFERENCE = "env:POLLER_TEST_SECRET"

WHOLE = f"""\
exchange: {{base_url: "http://127.0.0.1:1", recv_window: 10s, connect_timeout: 5s, timeout: 15s, time_sync: 10m}}
budget:
  weight_limit: 12000
  share: 90%
  window: 60s
egress:
  default: {{}}
  nat-b: {{local_address: 10.0.0.2}}
  away: {{proxy: env:POLLER_TEST_PROXY}}
defaults: {{interval: 60s, priority: 0, egress: default, asset: , btc_valuation: true, labels: {{}}, stale_after: 3}}
accounts:
  treasury:
    api_key: env:POLLER_TEST_KEY
    secret: {REFERENCE}
    labels: {{desk: mm, "region": eu}}
  sub-001: {{api_key: file:a.key, private_key: file:a.pem, passphrase: file:a.passphrase, egress: nat-b}}
include: [f/*.yaml]
sinks:
  s: {{kind: probe, path: data/x, token: env:POLLER_TEST_TOKEN, nested: {{a: 1}}, emit: every, heartbeat: 15m}}
outbox: {{path: data/outbox.db, retain: 24h, max_size: 1GiB, when_full: block}}
server: {{listen: "127.0.0.1:8080", token: env:POLLER_TEST_SERVER, hosts: [poller.example.net]}}
metrics: {{balances: false, max_series: 5000}}
tracing: {{endpoint: "http://127.0.0.1:4318", headers: env:POLLER_TEST_TOKEN, sample: 1%}}
shutdown: {{drain: 20s}}
logging: {{level: info, format: auto}}
"""

SCRAPS = (
    "~", "[]", "{}", "[[]]", "{a: {b: c}}", "0", "-1", "1e999", ".nan", "9" * 400, "0123", "on", "2026-01-01", "''", '"\\0"',
    "10s", "90%", "1GiB", "env:X", "file:.", "file:", "*x", "&x 1", "!t 1", "!!binary aGk=", "<<", "|\n  x", "\n", "\t", ": ",
    "- ", "? ", "#", "'", '"', "{", "}", "[", "]", ",", "---\n", "\u2028", "\ud83d\ude00", "\x07", "probe", "broken", "default",
    "../..", "/dev/null", "**", "\\", "%", "@", "accounts", "kind",
)  # fmt: skip


def mutated(text: str, seed: int, mutations: int) -> str:
    """Return the text with parts of it cut out, doubled, swapped, or replaced by scraps of YAML."""
    dice = random.Random(seed)
    for _ in range(mutations):
        lines = text.split("\n")
        line = dice.randrange(len(lines))
        start = dice.randrange(len(text) + 1)
        end = min(len(text), start + dice.randrange(12))
        scrap = dice.choice(SCRAPS)
        match dice.randrange(6):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:start] + scrap + text[end:]
            case 2:
                text = "\n".join(lines[:line] + lines[line + 1 :])
            case 3:
                text = "\n".join([*lines[: line + 1], *lines[line:]])
            case 4:
                key, colon, _ = lines[line].partition(": ")
                text = "\n".join(
                    [*lines[:line], f"{key}{colon}{dice.choice((scrap, SECRET))}", *lines[line + 1 :]]
                )
            case _:
                lines[line] = "  " * dice.randrange(3) + lines[line].lstrip()
                text = "\n".join(lines)
    return text


@given(st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.booleans())
def test_a_mutated_file_is_a_configuration_or_a_list_of_problems(
    tmp_path: Path, seed: int, mutations: int, included: bool, planted: bool
) -> None:
    main, other = tmp_path / "accounts.yaml", tmp_path / "f" / "a.yaml"
    other.parent.mkdir(exist_ok=True)
    accounts = WHOLE[WHOLE.index("defaults") : WHOLE.index("include")].replace("sub-001", "sub-002")
    texts = [WHOLE, accounts.replace("treasury", "vault")]
    if planted:
        texts[included] = texts[included].replace(REFERENCE, SECRET)
    texts[included] = mutated(texts[included], seed, mutations)
    for path, text in zip((main, other), texts, strict=True):
        path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        config = load(main)
        assert isinstance(config, Config)
        read_secrets(config)
    except ConfigError as error:
        shown = str(error)
        assert shown
        assert SECRET not in shown


@given(st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_a_list_of_problems(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "accounts.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        assert isinstance(load(path), Config)
