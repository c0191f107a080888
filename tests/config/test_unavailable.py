"""Secrets that cannot be reached now: what is left out, what is said, and what is read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poller.config import Config, Secrets, read_again, read_secrets, read_sinks
from poller.errors import ConfigError
from poller.secrets import Secret, redact
from tests.secrets.vault_stand_in import TOKEN, VaultStandIn, vault_stand_in

pytestmark = pytest.mark.real_time

Loaded = Callable[..., Config]

FLEET = """\
egress: {frankfurt: {proxy: 'vault:secret/proxy#url'}}
accounts:
  near: {api_key: env:A_KEY, secret: env:A_SECRET}
  far: {api_key: 'vault:secret/far#api_key', secret: 'vault:secret/far#secret'}
  abroad: {api_key: env:B_KEY, secret: env:B_SECRET, egress: frankfurt}
sinks:
  bus: {kind: probe, path: x, token: 'vault:secret/bus#token'}
  log: {kind: probe, path: y}
"""
SEALED = "Vault at URL is sealed; unseal it: vault operator unseal"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B"):
        monkeypatch.setenv(f"{name}_KEY", f"api-key-of-{name}")
        monkeypatch.setenv(f"{name}_SECRET", f"secret-of-{name}")


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultStandIn]:
    with vault_stand_in() as stand_in:
        monkeypatch.setenv("VAULT_ADDR", stand_in.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        stand_in.secrets = {
            "proxy": {"url": "http://user:proxy-password@proxy.example:3128"},
            "far": {"api_key": "api-key-of-far", "secret": "secret-of-far"},
            "bus": {"token": "token-of-the-bus"},
        }
        yield stand_in


def reasons(secrets: Secrets, vault: VaultStandIn) -> dict[str, str]:
    return {owner: str(problem).replace(vault.url, "URL") for owner, problem in secrets.unavailable.items()}


def test_what_can_be_read_is_there_and_the_rest_is_named(loaded: Loaded, vault: VaultStandIn) -> None:
    vault.sealed = True
    config = loaded(FLEET)
    secrets = read_secrets(config)
    assert (list(secrets.credentials), list(secrets.proxies)) == (["near", "abroad"], [])
    assert list(secrets.sink_options) == ["log"]
    assert reasons(secrets, vault) == {
        "accounts.far": f"accounts.yaml:4: accounts.far.api_key: {SEALED}",
        "egress.frankfurt": f"accounts.yaml:1: egress.frankfurt.proxy: {SEALED}",
        "sinks.bus": f"accounts.yaml:7: sinks.bus.token: {SEALED}",
    }


def test_an_account_is_held_up_by_its_own_keys_or_its_proxy(loaded: Loaded, vault: VaultStandIn) -> None:
    vault.sealed = True
    config = loaded(FLEET)
    secrets = read_secrets(config)
    found = {name: secrets.obstacle(account) for name, account in config.accounts.items()}
    assert found == {
        "near": None,
        "far": secrets.unavailable["accounts.far"],
        "abroad": secrets.unavailable["egress.frankfurt"],
    }
    usable = secrets.usable(config)
    assert (list(usable.accounts), list(usable.egress), list(usable.sinks)) == (
        ["near"],
        ["default"],
        ["log"],
    )


def test_a_mistake_ends_it_and_is_told_with_the_rest(
    loaded: Loaded, vault: VaultStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.sealed = True
    monkeypatch.delenv("B_KEY")
    with pytest.raises(ConfigError) as caught:
        read_secrets(loaded(FLEET))
    assert [str(problem).replace(vault.url, "URL") for problem in caught.value.problems] == [
        f"accounts.yaml:1: egress.frankfurt.proxy: {SEALED}",
        f"accounts.yaml:4: accounts.far.api_key: {SEALED}",
        "accounts.yaml:5: accounts.abroad.api_key: environment variable B_KEY is not set",
        f"accounts.yaml:7: sinks.bus.token: {SEALED}",
    ]


def test_when_it_is_back_only_what_was_missing_is_read(
    loaded: Loaded, vault: VaultStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.sealed = True
    config = loaded(FLEET)
    first = read_secrets(config)
    still = read_again(config, first)
    assert (still.unavailable, still.credentials) == (first.unavailable, first.credentials)

    vault.sealed = False
    vault.asked.clear()
    for name in ("A_KEY", "B_KEY"):
        monkeypatch.delenv(name)  # it is not looked at again
    secrets = read_again(config, still)
    assert secrets.unavailable == {}
    assert [(name, one.api_key.reveal()) for name, one in secrets.credentials.items()] == [
        ("near", "api-key-of-A"),
        ("far", "api-key-of-far"),
        ("abroad", "api-key-of-B"),
    ]
    assert secrets.proxies == {"frankfurt": Secret("http://user:proxy-password@proxy.example:3128")}
    assert list(secrets.sink_options) == ["bus", "log"]
    assert secrets.credentials["near"] is first.credentials["near"]
    assert sorted(vault.asked) == [f"/v1/secret/data/{name}" for name in ("bus", "far", "proxy")]
    assert read_again(config, secrets).credentials == secrets.credentials
    assert len(vault.asked) == 3


def test_what_turns_out_to_be_wrong_later_ends_nothing_and_is_named(
    loaded: Loaded, vault: VaultStandIn
) -> None:
    vault.sealed = True
    config = loaded(FLEET)
    first = read_secrets(config)
    vault.sealed = False
    vault.denied.add("proxy")
    vault.secrets["far"] = {"api_key": "api-key-of-A", "secret": "secret-of-far"}
    vault.secrets["bus"] = {"token": "abc"}
    secrets = read_again(config, first)
    assert reasons(secrets, vault) == {
        "accounts.far": (
            "accounts.yaml:4: accounts.far.api_key: the same API key is used by accounts.near.api_key"
            " (accounts.yaml:3); give each one of its own, or remove one of the two"
        ),
        "egress.frankfurt": (
            "accounts.yaml:1: egress.frankfurt.proxy: Vault at URL does not let us read secret/proxy: permission"
            " denied; let the token's policy read it; if the token has expired, put in a new one"
        ),
        "sinks.bus": "accounts.yaml:7: sinks.bus.token: *** is too short a token",
    }
    vault.denied.clear()
    vault.secrets["far"] = {"api_key": "api-key-of-far", "secret": "secret-of-far"}
    vault.secrets["bus"] = {"token": "token-of-the-bus"}
    assert read_again(config, secrets).unavailable == {}


def test_a_sink_that_cannot_be_described_without_its_secrets_is_said_to_wait_for_them(
    loaded: Loaded, vault: VaultStandIn
) -> None:
    vault.sealed = True
    with pytest.raises(ConfigError) as caught:
        read_sinks(loaded(FLEET))  # without its token this kind makes no sense
    assert [str(one).replace(vault.url, "URL") for one in caught.value.problems] == [
        f"accounts.yaml:7: sinks.bus.token: {SEALED}"
    ]


def test_a_command_is_written_as_a_list_or_as_a_text(loaded: Loaded, tmp_path: Path) -> None:
    config = loaded(
        """\
        accounts:
          a: {api_key: {exec: [printf, '%s', the key]}, secret: 'exec:printf a-secret'}
          b:
            api_key:
              exec:
                - echo
                - b-key
            secret: env:B_SECRET
        sinks: {s: {kind: probe, path: x, token: {exec: [printf, a-token]}}}
        """.replace("the key", "the-key")
    )
    secrets = read_secrets(config)
    assert [one.api_key.reveal() for one in secrets.credentials.values()] == ["the-key", "b-key"]
    assert secrets.sink_options["s"].model_dump()["token"] == Secret("a-token")
    assert str(config.keys["a"].api_key.reference) == "exec:printf %s the-key"


def test_of_a_command_messages_show_the_first_word_only(loaded: Loaded) -> None:
    text = FLEET.replace("'vault:secret/proxy#url'", "{exec: [echo, what-nobody-needs-to-see]}")
    with pytest.raises(ConfigError) as caught:
        read_secrets(loaded(text.replace("vault:", "file:")))
    [said] = [str(problem) for problem in caught.value.problems if "frankfurt" in problem.key]
    assert "exec:echo ... is not the URL of an http proxy" in said
    assert redact("what-nobody-needs-to-see") == "***"


def test_signers_keep_neither_texts_nor_passphrases(loaded: Loaded, tmp_path: Path) -> None:
    """Nothing that is reachable from the secrets of accounts holds the text that a signer was made of."""
    import gc

    from tests.config.test_credentials import PASSPHRASE, pem

    for name, text in {
        "e.pem": pem(passphrase=PASSPHRASE),
        "e.pass": PASSPHRASE,
        "h": "an-hmac-secret-text",
    }.items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    secrets = read_secrets(
        loaded(
            "accounts:\n"
            "  e: {api_key: env:A_KEY, private_key: file:e.pem, passphrase: file:e.pass}\n"
            "  h: {api_key: env:B_KEY, secret: file:h}\n"
        )
    )
    seen: dict[int, object] = {}
    waiting: list[object] = [credentials.signer for credentials in secrets.credentials.values()]
    while waiting:
        thing = waiting.pop()
        if id(thing) not in seen and not isinstance(thing, type):
            seen[id(thing)] = thing
            waiting += gc.get_referents(thing)
    texts = [one for one in seen.values() if isinstance(one, str | bytes | Secret)]
    assert not [one for one in texts if isinstance(one, Secret)]
    assert [one for one in texts if len(one) > 7] == []  # type: ignore[arg-type]  # no Secret is left
