"""The example that operators copy is right, whole, and shows the defaults as they are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from poller import sinks
from poller.config import (
    BudgetSettings,
    Config,
    DiscoverSettings,
    ExchangeSettings,
    LoggingSettings,
    MetricsSettings,
    OutboxSettings,
    ReloadSettings,
    ShutdownSettings,
    load,
    read_secrets,
)
from poller.config.document import Node, read_document
from poller.config.loading import KEYS
from poller.config.models import (
    AccountSection,
    BudgetSection,
    DefaultsSection,
    DiscoverSection,
    EgressSection,
    ExchangeSection,
    LoggingSection,
    MetricsSection,
    OutboxSection,
    ReloadSection,
    Section,
    ServerSection,
    ShutdownSection,
    SinkSection,
    TracingSection,
)
from poller.delivery import DeliverySettings
from poller.secrets import Secret
from poller.server.settings import ServerSettings
from poller.sinks import installed  # as it is, before the fixtures of these tests replace it

TOKEN = "made-up-" * 5
EXAMPLE = Path(__file__).parents[2] / "accounts.example.yaml"
SINK_PAGES = EXAMPLE.parent / "docs" / "sinks"


@pytest.fixture(autouse=True)
def _real_kinds(_probe: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "installed", installed)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The example, with made-up secrets and a file to include."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"made up")
    )
    files = {
        "accounts.yaml": EXAMPLE.read_bytes(),
        "fleet.d/more.yaml": b"accounts: {more: {api_key: env:MORE_KEY, secret: env:MORE_SECRET}}",
        "secrets/sub-001.key": b"made-up-key-1\n",
        "secrets/sub-001.pem": pem,
        "secrets/sub-001.passphrase": b"made up\n",
        "secrets/hook.txt": b"Bearer made-up\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(content)
    for name in ("TREASURY_KEY", "TREASURY_SECRET", "MORE_KEY", "MORE_SECRET", "MASTER_KEY", "MASTER_SECRET"):
        monkeypatch.setenv(name, f"made-up-{name}")
    monkeypatch.setenv("OTLP_HEADERS", "authorization=Bearer made-up,x-scope=desk")
    monkeypatch.setenv("WEBHOOK_URL", "https://example.com/hooks/T0ken")
    for name in ("WEBHOOK_SECRET", "WEBHOOK_PREVIOUS_SECRET"):
        monkeypatch.setenv(name, "whsec_" + 10 * "made")
    monkeypatch.setenv("POLLER_TOKEN", TOKEN)
    monkeypatch.setenv("FRANKFURT_PROXY", "http://user:password@proxy.example:3128")
    return load(tmp_path / "accounts.yaml")


def document() -> dict[str, Node]:
    root = read_document(EXAMPLE.read_text(), "example", [])
    assert root is not None
    return root.entries


def keys_below(node: Node) -> set[str]:
    """The keys of all entries of a mapping of names, put together."""
    return {key for entry in node.entries.values() for key in entry.entries}


def test_the_example_loads_with_its_secrets(example: Config) -> None:
    secrets = read_secrets(example)
    assert {name: credentials.signer.kind for name, credentials in secrets.credentials.items()} == {
        "treasury": "hmac",
        "sub-001": "ed25519",
        "more": "hmac",
    }
    assert list(secrets.masters) == ["main"]
    assert list(secrets.proxies) == ["frankfurt"]
    assert {name: value.reveal() for name, value in secrets.tracing_headers.items()} == {
        "authorization": "Bearer made-up",
        "x-scope": "desk",
    }
    assert list(secrets.sink_options) == ["history", "audit", "hook", "console"]
    assert secrets.server_token == Secret(TOKEN)


def test_where_the_example_can_show_a_default_it_does(example: Config) -> None:
    assert example.exchange == ExchangeSettings()
    assert example.budget == BudgetSettings()
    assert example.outbox == OutboxSettings(example.directory / "data/outbox.db")
    assert example.key_policy == "warn"
    master = example.discover["main"]
    assert master == DiscoverSettings(master.keys)
    assert example.sub_accounts == {"sub-001": "trader1@example.com"}
    assert example.metrics == MetricsSettings()
    assert example.tracing is not None
    assert example.tracing.sample == TracingSection(endpoint="http://127.0.0.1:4318").sample
    assert example.shutdown == ShutdownSettings()
    assert example.reload == ReloadSettings()
    assert example.logging == LoggingSettings()
    assert example.server == replace(ServerSettings(), hosts=("poller.example.net",))
    assert example.sinks["history"].delivery == DeliverySettings()
    shown = {key: node.plain() for key, node in document()["defaults"].entries.items()}
    assert DefaultsSection.model_validate(shown) == DefaultsSection()


def test_the_example_has_every_section() -> None:
    assert set(document()) == set(KEYS)


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("exchange", ExchangeSection),
        ("budget", BudgetSection),
        ("defaults", DefaultsSection),
        ("outbox", OutboxSection),
        ("server", ServerSection),
        ("metrics", MetricsSection),
        ("tracing", TracingSection),
        ("shutdown", ShutdownSection),
        ("reload", ReloadSection),
        ("logging", LoggingSection),
    ],
)
def test_the_example_has_every_key_of_a_section(name: str, section: type[Section]) -> None:
    assert set(document()[name].entries) == set(section.model_fields)


@pytest.mark.parametrize(("name", "section"), [("egress", EgressSection), ("accounts", AccountSection)])
def test_the_example_has_every_key_of_named_entries(name: str, section: type[Section]) -> None:
    # What stands in the defaults need not stand with an account again.
    assert keys_below(document()[name]) | set(document()["defaults"].entries) >= set(section.model_fields)


def test_the_example_has_every_key_of_a_master_account() -> None:
    # What else a key can be is shown with the accounts.
    assert keys_below(document()["discover"]) | {"private_key", "passphrase"} == set(
        DiscoverSection.model_fields
    )


def test_the_example_has_every_key_of_a_sink() -> None:
    assert keys_below(document()["sinks"]) >= set(SinkSection.model_fields)


def test_the_example_has_every_kind_of_ours_with_every_option_of_it() -> None:
    shown: dict[str, set[str]] = {}
    for entry in document()["sinks"].entries.values():
        shown.setdefault(str(entry.entries["kind"].value), set()).update(entry.entries)
    ours = {name: point for name, point in installed().items() if point.value.startswith("poller.")}
    # Those that need an extra have a page of their own.
    assert sorted(shown) == sorted(kind for kind, point in ours.items() if not point.extras)
    for kind, point in ours.items():
        options = {field.alias or name for name, field in sinks.load(kind).Options.model_fields.items()}
        if point.extras:
            rows = re.findall(r"^\| (`.*?`) \|", (SINK_PAGES / f"{kind}.md").read_text(), re.MULTILINE)
            assert options <= set(re.findall(r"`(\w+)`", "".join(rows))), kind
        else:
            assert shown[kind] >= options, kind


def test_every_line_with_an_option_says_what_it_does() -> None:
    silent = [
        line
        for line in EXAMPLE.read_text().splitlines()
        if ": " in line.partition("#")[0] and "#" not in line and not line.lstrip().startswith("#")
    ]
    # What stands with an account, or a second sink, was explained above.
    assert {line.strip().partition(":")[0] for line in silent} <= {
        *DefaultsSection.model_fields,
        "api_key",
        "include",
        "kind",
        "path",
        "emit",
    }
