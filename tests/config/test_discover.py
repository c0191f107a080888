"""``discover`` and ``sub_account``: what is right, and everything that is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.config import AccountKeys, Config, DiscoverSettings, Place, SecretSetting, read_secrets
from poller.errors import ConfigError
from poller.secrets import SecretReference

Loaded = Callable[..., Config]
Problems = Callable[..., list[str]]

A = "accounts: {a: {api_key: env:A_KEY, secret: env:A_SECRET}}\n"


def test_a_master_account_has_keys_an_address_and_an_interval(loaded: Loaded, tmp_path: Path) -> None:
    config = loaded(
        """\
        accounts: {a: {api_key: env:A_KEY, secret: env:A_SECRET}}
        egress: {nat: {local_address: 10.0.0.2}}
        discover:
          main: {api_key: env:M_KEY, secret: env:M_SECRET}
          desk: {api_key: file:k, private_key: file:p, passphrase: env:P, egress: nat, interval: 5m}
        """
    )

    def kept(line: int, key: str, kind: str, name: str) -> SecretSetting:
        reference = SecretReference(kind, name)
        return SecretSetting(reference, tmp_path, f"discover.{key}", Place("accounts.yaml", line))

    assert config.discover == {
        "main": DiscoverSettings(
            AccountKeys(
                kept(4, "main.api_key", "env", "M_KEY"), secret=kept(4, "main.secret", "env", "M_SECRET")
            ),
            "default",
            3600.0,
        ),
        "desk": DiscoverSettings(
            AccountKeys(
                kept(5, "desk.api_key", "file", "k"),
                private_key=kept(5, "desk.private_key", "file", "p"),
                passphrase=kept(5, "desk.passphrase", "env", "P"),
            ),
            "nat",
            300.0,
        ),
    }
    assert config.sub_accounts == {}
    assert config.place("discover.desk.interval") == Place("accounts.yaml", 5)


def test_an_account_can_say_which_sub_account_it_is_also_in_an_included_file(loaded: Loaded) -> None:
    config = loaded(
        """\
        include: [fleet.d/*.yaml]
        accounts:
          a: {api_key: env:A, secret: env:B, sub_account: Trader1@example.com}
          b: {api_key: env:C, secret: env:D}
        """,
        **{"fleet.d/c.yaml": "accounts: {c: {api_key: env:E, secret: env:F, sub_account: c@example.com}}"},
    )
    assert config.sub_accounts == {"a": "Trader1@example.com", "c": "c@example.com"}
    assert list(config.accounts) == ["a", "b", "c"]
    assert "example.com" not in repr(config)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "discover: {main: {secret: env:S}}",
            "discover.main: 'api_key' is missing; add api_key: env:NAME or file:PATH",
        ),
        (
            "discover: {main: {api_key: env:K}}",
            (
                "discover.main: neither 'secret' nor 'private_key' is given; "
                "add secret: env:NAME (HMAC) or private_key: file:PATH (Ed25519, RSA)"
            ),
        ),
        (
            "discover: {main: {api_key: env:K, secret: env:S, interval: 500ms}}",
            "discover.main.interval: '500ms' is out of range; write 1s to 7d",
        ),
        (
            "discover: {main: {api_key: env:K, secret: env:S, egress: defualt}}",
            "discover.main.egress: there is no egress 'defualt'; did you mean 'default'? known here: default",
        ),
        (
            "discover: {main: {api_key: env:K, secret: env:S, sub_account: a@b.example}}",
            (
                "discover.main.sub_account: unknown key 'sub_account'; "
                "known here: api_key, egress, interval, passphrase, private_key, secret"
            ),
        ),
        (
            "discover: {the main: {api_key: env:K, secret: env:S}}",
            "discover.?: 'the main' cannot name a master account; use 1 to 64 letters, digits, '_' and '-'",
        ),
        ("discover: [main]", "discover: a list where a mapping belongs; write it as 'key: value' lines"),
        ("discovr: {}", "discovr: unknown key 'discovr', did you mean 'discover'?"),
    ],
)
def test_what_is_wrong_is_said_with_key_value_and_remedy(text: str, problem: str, problems: Problems) -> None:
    assert problems(f"{text}\n{A}") == [f"accounts.yaml:1: {problem}"]


@pytest.mark.parametrize(
    "email", ["trader1", "@example.com", "a@", "a@b@c", "a b@c", "a\n@b", "a@" + 320 * "b"]
)
def test_what_is_no_email_is_said(email: str, problems: Problems) -> None:
    [problem] = problems(
        f"accounts:\n  a: {{api_key: env:A, secret: env:B, sub_account: {json.dumps(email)}}}\n"
    )
    assert problem.startswith("accounts.yaml:2: accounts.a.sub_account: ")
    assert problem.endswith("is not an e-mail; write the one that the exchange knows the sub-account by")


def test_no_two_accounts_are_the_same_sub_account_whatever_their_capitals(problems: Problems) -> None:
    text = """\
        include: [fleet.d/*.yaml]
        accounts:
          a: {api_key: env:A, secret: env:B, sub_account: trader1@example.com}
        """
    more = "accounts:\n  b: {api_key: env:C, secret: env:D, sub_account: Trader1@Example.com}\n"
    assert problems(text, **{"fleet.d/b.yaml": more}) == [
        (
            "fleet.d/b.yaml:2: accounts.b.sub_account: 'Trader1@Example.com' is the sub-account of 'a' already "
            "(accounts.yaml:3); keep it with the account whose key is that sub-account's"
        )
    ]


def test_discover_stands_in_the_main_file_alone(problems: Problems) -> None:
    more = "discover: {main: {api_key: env:K, secret: env:S}}\naccounts: {}\n"
    assert problems(f"include: [more.yaml]\n{A}", **{"more.yaml": more}) == [
        "more.yaml:1: discover: 'discover' cannot stand in an included file; move it to the main file"
    ]


def test_a_masters_secrets_are_read_and_it_may_be_polled_with_the_same_key(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "made-up-key")
    monkeypatch.setenv("A_SECRET", "made-up-secret")
    config = loaded(A + "discover: {main: {api_key: env:A_KEY, secret: env:A_SECRET}}\n")
    secrets = read_secrets(config)
    assert (list(secrets.credentials), list(secrets.masters)) == (["a"], ["main"])
    assert secrets.masters["main"].api_key == secrets.credentials["a"].api_key


def test_two_masters_with_one_key_and_a_secret_that_is_missing_are_said(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("A_KEY", "A_SECRET", "M_KEY", "M_SECRET"):
        monkeypatch.setenv(name, f"made-up-{name}")
    config = loaded(
        A + "discover:\n  main: {api_key: env:M_KEY, secret: env:M_SECRET}\n"
        "  again: {api_key: env:M_KEY, secret: env:MISSING}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_secrets(config)
    assert [str(problem) for problem in caught.value.problems] == [
        (
            "accounts.yaml:4: discover.again.api_key: the same API key is used by discover.main.api_key "
            "(accounts.yaml:3); give each one of its own, or remove one of the two"
        ),
        "accounts.yaml:4: discover.again.secret: environment variable MISSING is not set",
    ]
