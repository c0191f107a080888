from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from poller.config import Config, Secrets, load, read_secrets
from poller.errors import ConfigError
from poller.exchange.signing import Credentials
from poller.secrets import Secret

Loaded = Callable[..., Config]
Keep = Callable[..., Path]
Problems = Callable[..., list[str]]

A = "accounts: {a: {api_key: env:A_KEY, secret: env:A_SECRET}}\n"
KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
ED25519 = Ed25519PrivateKey.generate()
PASSPHRASE = "correct horse battery staple"


def pem(key: object = ED25519, passphrase: str = "") -> str:
    assert hasattr(key, "private_bytes")
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    content: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return content.decode()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("A_SECRET", "a-secret-of-the-exchange")


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Write a file that nobody else can read."""

    def keep(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    return keep


def refused(config: Config) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_secrets(config)
    return [str(problem) for problem in caught.value.problems]


# ---- what is right


def test_each_account_has_its_key_and_a_signer_of_the_kind_of_its_key(loaded: Loaded, keep: Keep) -> None:
    keep("keys/ed.key", "ed-api-key\n")
    keep("keys/ed.pem", pem())
    keep("keys/rsa.pem", pem(generate_rsa_key(65537, 2048), PASSPHRASE))
    keep("keys/passphrase", f"{PASSPHRASE}\r\n")
    config = loaded(
        A + "include: [keys/f.yaml]",
        **{
            "keys/f.yaml": """
            accounts:
              ed: {api_key: file:ed.key, private_key: file:ed.pem}
              rsa: {api_key: file:passphrase_free.key, private_key: file:rsa.pem, passphrase: file:passphrase}
            """
        },
    )
    keep("keys/passphrase_free.key", "rsa-api-key")
    secrets = read_secrets(config)
    assert {name: (c.api_key.reveal(), c.signer.kind) for name, c in secrets.credentials.items()} == {
        "a": (KEY, "hmac"),
        "ed": ("ed-api-key", "ed25519"),
        "rsa": ("rsa-api-key", "rsa"),
    }


def test_reading_nothing_but_the_configuration_needs_no_secret(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("A_KEY")
    assert list(loaded(A).accounts) == ["a"]


def test_proxies_are_read_by_the_name_of_their_egress(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIN", "http://proxy.example:3128")
    monkeypatch.setenv("WITH_USER", "http://u%40x:p%2Fw@[2001:db8::1]:3128/")
    config = loaded(
        A + "egress: {x: {proxy: env:PLAIN}, y: {proxy: env:WITH_USER}, z: {local_address: 10.0.0.1}}"
    )
    assert read_secrets(config).proxies == {
        "x": Secret("http://proxy.example:3128"),
        "y": Secret("http://u%40x:p%2Fw@[2001:db8::1]:3128/"),
    }


def test_every_sink_has_its_options_with_its_secrets(loaded: Loaded, keep: Keep, tmp_path: Path) -> None:
    keep("token", "a-token\n")
    config = loaded(
        A
        + "sinks: {s: {kind: probe, path: x, token: file:token, size: 3}, t: {kind: probe, path: y, token: }}"
    )
    options = read_secrets(config).sink_options
    assert options["s"].model_dump() == {
        "path": tmp_path / "x",
        "second": None,
        "token": Secret("a-token"),
        "size": 3,
        "every": 60.0,
        "mode": "a",
        "nested": {},
    }
    assert config.sinks["t"].sink(options["t"]) is not None
    assert "a-token" not in repr(options["s"])


def test_one_file_may_hold_the_passphrase_of_many(loaded: Loaded, keep: Keep) -> None:
    keep("p.pem", pem(passphrase=PASSPHRASE))
    keep("passphrase", PASSPHRASE)
    keep("b.key", "b-api-key")
    keep("c.key", "c-api-key")
    config = loaded(
        "accounts:\n"
        "  b: {api_key: file:b.key, private_key: file:p.pem, passphrase: file:passphrase}\n"
        "  c: {api_key: file:c.key, private_key: file:p.pem, passphrase: file:passphrase}\n"
    )
    assert list(read_secrets(config).credentials) == ["b", "c"]


def test_no_representation_shows_a_secret(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", "http://user:proxy-password@h:1")
    secrets = read_secrets(loaded(A + "egress: {x: {proxy: env:P}}"))
    assert isinstance(secrets, Secrets)
    assert isinstance(secrets.credentials["a"], Credentials)
    for secret in (KEY, "a-secret-of-the-exchange", "proxy-password"):
        assert secret not in repr(secrets)


# ---- what is wrong


def test_every_secret_that_cannot_be_read_is_reported_at_once(
    loaded: Loaded, keep: Keep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("A_KEY")
    keep("open.pem", pem()).chmod(0o644)
    config = loaded(
        """\
        accounts:
          a: {api_key: env:A_KEY, secret: file:none}
          b:
            api_key: file:none
            private_key: file:open.pem
            passphrase: env:NO_PASSPHRASE
        egress: {x: {proxy: env:NO_PROXY_URL}}
        sinks: {s: {kind: probe, path: x, token: env:NO_TOKEN}}
        """
    )
    assert refused(config) == [
        "accounts.yaml:2: accounts.a.api_key: environment variable A_KEY is not set",
        f"accounts.yaml:2: accounts.a.secret: there is no file {tmp_path}/none",
        f"accounts.yaml:4: accounts.b.api_key: there is no file {tmp_path}/none",
        (
            f"accounts.yaml:5: accounts.b.private_key: file {tmp_path}/open.pem is open to others (mode 0644);"
            f" run: chmod 600 {tmp_path}/open.pem"
        ),
        "accounts.yaml:6: accounts.b.passphrase: environment variable NO_PASSPHRASE is not set",
        "accounts.yaml:7: egress.x.proxy: environment variable NO_PROXY_URL is not set",
        "accounts.yaml:8: sinks.s.token: environment variable NO_TOKEN is not set",
    ]


def test_one_api_key_under_two_names_is_refused_with_both_places(loaded: Loaded, keep: Keep) -> None:
    keep("f/same.key", f"{KEY}\n")
    config = loaded(
        "\n" + A + "include: [f/*.yaml]",
        **{"f/1.yaml": "accounts:\n  b:\n    api_key: file:same.key\n    secret: env:A_SECRET\n"},
    )
    assert refused(config) == [
        (
            "f/1.yaml:3: accounts.b.api_key: the same API key is used by accounts.a.api_key (accounts.yaml:2);"
            " give each one of its own, or remove one of the two"
        )
    ]


PUBLIC = ED25519.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    ("private_key", "passphrase", "expected"),
    [
        (pem(passphrase=PASSPHRASE), None, "the private key is encrypted and there is no passphrase; add a reference to it"),
        (pem(passphrase=PASSPHRASE), "another one", "the passphrase does not open the private key, or the PEM is damaged"),
        (pem(), PASSPHRASE, "the private key is not encrypted; remove the passphrase"),
        (PUBLIC, None, "the private key is the public half, which belongs to the exchange; give the private key"),
        (pem(generate_ec_key(SECP256R1())), None,
         "the private key is neither Ed25519 nor RSA; the exchange takes no other: make an Ed25519 key"),
        (pem(generate_rsa_key(65537, 1024)), None, "the RSA key has 1024 bits; the exchange takes 2048 to 4096"),
        (KEY, None, ("the private key is no PEM; it begins with -----BEGIN PRIVATE KEY-----"
         " (a secret that the exchange made belongs in secret)")),
    ],
    ids=["encrypted", "wrong passphrase", "needless passphrase", "public", "elliptic curve", "short", "no pem"],
)  # fmt: skip
def test_a_private_key_that_cannot_sign_is_refused(
    private_key: str, passphrase: str | None, expected: str, loaded: Loaded, keep: Keep
) -> None:
    keep("key.pem", private_key)
    keep("passphrase", passphrase or "")
    with_passphrase = ", passphrase: file:passphrase" if passphrase else ""
    config = loaded(f"accounts:\n  a: {{api_key: env:A_KEY, private_key: file:key.pem{with_passphrase}}}")
    assert refused(config) == [f"accounts.yaml:2: accounts.a.private_key: {expected}"]


def test_keys_that_cannot_stand_in_a_request_are_refused(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", f"{KEY}\n\n")
    monkeypatch.setenv("B_SECRET", f" {KEY}")
    monkeypatch.setenv("B_KEY", "b-api-key")
    monkeypatch.setenv("C_KEY", "c-api-key")
    monkeypatch.setenv("C_SECRET", pem())
    config = loaded(
        A.rstrip("}\n")
        + "},\n b: {api_key: env:B_KEY, secret: env:B_SECRET},\n c: {api_key: env:C_KEY, secret: env:C_SECRET}}"
    )
    found = refused(config)
    assert found == [
        "accounts.yaml:1: accounts.a.api_key: the API key has blanks, line breaks or foreign letters; copy it again, exactly",
        "accounts.yaml:2: accounts.b.secret: the secret has blanks, line breaks or foreign letters; copy it again, exactly",
        "accounts.yaml:3: accounts.c.secret: the secret is a PEM; configure it as private_key",
    ]
    assert KEY not in "".join(found)


@pytest.mark.parametrize(
    "url",
    ["proxy:3128", "https://proxy:3128", "http://proxy", "http://u:p@proxy:3128/x", "http://u:p/w@proxy:1", "http://p:x",
     "socks5://p:1", "http://p:1?x=1", " http://p:1"],
)  # fmt: skip
def test_what_is_no_url_of_a_proxy_is_refused_and_not_shown(
    url: str, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P", url)
    assert refused(loaded(A + "egress: {x: {proxy: env:P}}")) == [
        (
            "accounts.yaml:2: egress.x.proxy: env:P is not the URL of an http proxy;"
            " write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT into it"
        )
    ]


def test_the_servers_token_is_read(loaded: Loaded, keep: Keep) -> None:
    keep("token", "t" * 32 + "\n")
    assert read_secrets(loaded(A + "server: {token: file:token}")).server_token == Secret("t" * 32)
    assert read_secrets(loaded(A + "server: {}")).server_token is None


@pytest.mark.parametrize(
    ("token", "fault"),
    [
        ("t" * 31, "has 31 characters, fewer than 32"),
        ("t" * 257, "has 257 characters, more than 256"),
        ("with blanks " * 4, "has characters that a header cannot carry"),
    ],
)
def test_a_token_that_protects_nothing_is_refused_with_a_command_that_makes_one(
    token: str, fault: str, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T", token)
    assert refused(loaded(A + "server: {token: env:T}")) == [
        f"accounts.yaml:2: server.token: env:T {fault}; make one with: openssl rand -hex 32"
    ]


@pytest.mark.parametrize("text", ["no-pair", "=value", "name=", "a b=c", "a=b,", "a=b,c", "a=b\nc=d", "ä=b"])
def test_what_is_no_list_of_headers_is_refused_and_not_shown(
    text: str, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("H", text)
    assert refused(loaded(A + "tracing: {endpoint: 'https://collector', headers: env:H}")) == [
        (
            "accounts.yaml:2: tracing.headers: env:H is not a list of headers;"
            " write NAME=VALUE into it, with commas between several"
        )
    ]


def test_tracing_without_its_package_says_what_to_install(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.config.sections.TRACING_MODULES", ("opentelemetry_that_nobody_installed",))
    assert problems(A + "tracing: {endpoint: 'https://collector'}") == [
        (
            "accounts.yaml:2: tracing: traces need a package that is not installed;"
            " run: pip install 'poller[otel]', or remove the section"
        )
    ]


def test_one_proxy_for_two_addresses_is_refused(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", "http://u:proxy-password@h:1")
    monkeypatch.setenv("Q", "http://u:proxy-password@h:1")
    assert refused(loaded(A + "egress:\n  x: {proxy: env:P}\n  y: {proxy: env:Q}")) == [
        (
            "accounts.yaml:4: egress.y.proxy: the same proxy is used by egress.x.proxy (accounts.yaml:3);"
            " give each one of its own, or remove one of the two"
        )
    ]


def test_a_secret_that_a_sink_refuses_is_not_shown_even_if_the_sink_shows_it(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "abc")
    assert refused(loaded(A + "sinks:\n  s:\n    kind: probe\n    path: x\n    token: env:TOKEN")) == [
        "accounts.yaml:6: sinks.s.token: *** is too short a token"
    ]


def test_what_was_read_is_redacted_from_then_on(loaded: Loaded) -> None:
    from poller.secrets import redact

    assert redact(KEY) == KEY
    read_secrets(loaded(A))
    assert redact(f"key={KEY}") == "key=***"


def test_the_secrets_of_a_relative_configuration_are_found(
    loaded: Loaded, keep: Keep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keep("k", "an-api-key")
    keep("s", "a-secret")
    loaded("accounts: {a: {api_key: file:k, secret: file:s}}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load("../accounts.yaml")
    monkeypatch.chdir("/")
    assert read_secrets(config).credentials["a"].api_key == Secret("an-api-key")
