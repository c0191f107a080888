"""``vault:PATH#FIELD`` against a server that answers as Vault's API is documented."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest

from poller.secrets import Secret, parse_reference, read_all, redact
from poller.secrets.back_ends import vault as vault_module
from poller.secrets.back_ends import vault_server
from poller.secrets.back_ends.vault import VaultBackEnd
from tests.secrets.conftest import NOT_NOW, WRONG, read, refusal
from tests.secrets.vault_stand_in import TOKEN, VaultStandIn, vault_stand_in
from tests.services.tls_files import tls_files

pytestmark = pytest.mark.real_time

TREASURY = "vault:secret/binance/treasury#api_key"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for five seconds."""
    monkeypatch.setattr(vault_server, "TIME_LIMIT_S", 1.0)


@pytest.fixture(autouse=True)
def _treasury(vault: VaultStandIn) -> None:
    vault.secrets["binance/treasury"] = {"api_key": "the-api-key", "secret": "the-secret", "number": 5}


# ---- what is right


@pytest.mark.parametrize("path", ["secret/binance/treasury", "secret/data/binance/treasury"])
def test_a_field_is_read_whether_the_path_has_data_in_it_or_not(
    path: str, vault: VaultStandIn, tmp_path: Path
) -> None:
    assert read(f"vault:{path}#api_key", tmp_path) == "the-api-key"
    assert vault.asked == ["/v1/secret/data/binance/treasury"]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("kv/a", "/v1/kv/data/a"),
        ("kv/a/b", "/v1/kv/data/a/b"),
        ("kv/data", "/v1/kv/data/data"),
        ("kv/data/data", "/v1/kv/data/data"),
        ("team/kv/data/a", "/v1/team/kv/data/a"),
        ("kv/a b/ö?", "/v1/kv/data/a%20b/%C3%B6%3F"),
    ],
)
def test_data_stands_behind_the_mount(path: str, asked: str) -> None:
    assert vault_module._api_path(path) == asked


def test_each_secret_is_asked_for_once_whatever_its_fields_and_over_few_connections(
    vault: VaultStandIn, tmp_path: Path
) -> None:
    for number in range(100):
        vault.secrets[f"binance/{number}"] = {"api_key": f"key-{number}", "secret": f"secret-{number}"}
    wanted = [
        (parse_reference(f"vault:secret/binance/{number}#{field}"), tmp_path)
        for number in range(100)
        for field in ("api_key", "secret")
    ]
    found = read_all(wanted)
    assert list(found) == wanted
    assert [secret.reveal() for secret in found.values() if isinstance(secret, Secret)] == [
        f"{field}-{number}" for number in range(100) for field in ("key", "secret")
    ]
    assert sorted(vault.asked) == sorted(f"/v1/secret/data/binance/{number}" for number in range(100))
    assert vault.connections <= vault_module.AT_ONCE


def test_what_vault_is_told(vault: VaultStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.namespace = "desk/eu"
    monkeypatch.setenv("VAULT_NAMESPACE", "desk/eu")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert read(TREASURY, tmp_path) == "the-api-key"
    assert vault.headers[0]["x-vault-token"] == TOKEN
    assert vault.headers[0]["x-vault-request"] == "true"


def test_the_token_may_stand_in_a_file_that_is_kept_safely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("VAULT_TOKEN_FILE", str(path))
    assert refusal(TREASURY, tmp_path) == (
        WRONG, "VAULT_TOKEN and VAULT_TOKEN_FILE are both set", "keep one of the two"
    )  # fmt: skip
    monkeypatch.delenv("VAULT_TOKEN")
    path.chmod(0o640)
    assert refusal(TREASURY, tmp_path) == (
        WRONG, f"file {path} is open to others (mode 0640)", f"run: chmod 600 {shlex.quote(str(path))}"
    )  # fmt: skip
    path.chmod(0o600)
    assert read(TREASURY, tmp_path) == "the-api-key"
    assert redact(TOKEN) == "***"


def test_a_connection_that_was_closed_meanwhile_is_replaced(vault: VaultStandIn, tmp_path: Path) -> None:
    vault.secrets["b"] = {"f": "b-secret"}
    back_end = VaultBackEnd()
    try:
        assert back_end.read("secret/binance/treasury#secret", tmp_path) == "the-secret"
        assert back_end._server is not None
        [kept] = back_end._server._kept
        kept.sock.shutdown(socket.SHUT_RDWR)
        assert back_end.read("secret/b#f", tmp_path) == "b-secret"
    finally:
        back_end.close()
    assert vault.connections == 2
    assert back_end._secrets == {}


def test_over_tls_the_authority_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tls_files(tmp_path / "tls")
    with vault_stand_in(files.pair) as vault:
        vault.secrets["a"] = {"f": "over-tls"}
        monkeypatch.setenv("VAULT_ADDR", vault.url)
        kind, message, remedy = refusal("vault:secret/a#f", tmp_path)
        assert kind is WRONG
        assert message.startswith(f"Vault at {vault.url} cannot be trusted: ")
        assert remedy == "set VAULT_CACERT to its authority's PEM file"
        monkeypatch.setenv("VAULT_CACERT", str(files.ca))
        assert read("vault:secret/a#f", tmp_path) == "over-tls"
        monkeypatch.setenv("VAULT_CACERT", str(tmp_path / "none"))
        assert refusal("vault:secret/a#f", tmp_path)[:2] == (
            WRONG,
            "the file in VAULT_CACERT cannot be used: No such file or directory",
        )


# ---- what somebody has to repair


def test_what_is_not_there_is_said_with_a_remedy(vault: VaultStandIn, tmp_path: Path) -> None:
    vault.secrets["gone"] = None
    vault.denied.add("closed")
    found = {
        name: refusal(f"vault:secret/{name}", tmp_path)
        for name in ("none#f", "gone#f", "closed#f", "binance/treasury#f", "binance/treasury#number")
    }
    where = f"Vault at {vault.url}"
    assert found == {
        "none#f": (WRONG, f"there is no secret secret/none in {where}",
                   "run: vault kv get secret/none; the first part is the mount"),
        "gone#f": (WRONG, f"the newest version of secret/gone in {where} was deleted",
                   "run: vault kv undelete, or vault kv put secret/gone"),
        "closed#f": (WRONG, f"{where} does not let us read secret/closed: permission denied",
                     "let the token's policy read it; if the token has expired, put in a new one"),
        "binance/treasury#f": (WRONG, "Vault's secret secret/binance/treasury has no field 'f'",
                               "run: vault kv get secret/binance/treasury"),
        "binance/treasury#number": (WRONG, "the field 'number' of Vault's secret secret/binance/treasury is not a text",
                                    "store a text"),
    }  # fmt: skip


def test_a_token_that_vault_does_not_know_is_denied_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "hvs.another-token-of-vault")
    kind, message, _ = refusal(TREASURY, tmp_path)
    assert kind is WRONG
    assert message.endswith("does not let us read secret/binance/treasury: permission denied")
    assert "another" not in message


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("VAULT_ADDR", "", "environment variable VAULT_ADDR is not set"),
        ("VAULT_ADDR", "vault.example:8200", "VAULT_ADDR is no URL of a server"),
        ("VAULT_ADDR", "https://", "VAULT_ADDR is no URL of a server"),
        ("VAULT_ADDR", "https://h:x", "VAULT_ADDR is no URL"),
        ("VAULT_ADDR", "https://h/?a", "VAULT_ADDR is no URL of a server"),
        ("VAULT_ADDR", "https://u:p@h", "VAULT_ADDR has a user in it"),
        (
            "VAULT_ADDR",
            "http://vault.example",
            "VAULT_ADDR would send the token and all secrets in the clear",
        ),
        ("VAULT_TOKEN", "", "there is no token for Vault"),
        ("VAULT_TOKEN", "a b", "the token for Vault has blanks, line breaks or foreign letters"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(
    variable: str,
    value: str,
    message: str,
    vault: VaultStandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    kind, said, remedy = refusal(TREASURY, tmp_path)
    assert (kind, said, bool(remedy)) == (WRONG, message, True)
    assert vault.asked == []


def test_what_is_no_vault_is_refused(vault: VaultStandIn, tmp_path: Path) -> None:
    where = f"Vault at {vault.url}"
    expected = {
        "garbage": f"what {where} answers for secret/binance/treasury is no secret of the key/value engine, version 2",
        "huge": f"{where} answers with more than 1048576 bytes",
        "no http": f"{where} does not speak HTTP",
    }
    for trouble, message in expected.items():
        vault.trouble = trouble
        assert refusal(TREASURY, tmp_path)[:2] == (WRONG, message), trouble


def test_a_redirect_is_not_followed(vault: VaultStandIn, tmp_path: Path) -> None:
    with vault_stand_in() as other:
        vault.trouble, vault.redirect_to = "redirect", other.url
        assert refusal(TREASURY, tmp_path)[:2] == (
            WRONG,
            f"Vault at {vault.url} redirects to another place, where the token is not sent",
        )
        assert (len(vault.asked), other.connections) == (1, 0)


def test_tls_where_there_is_none_is_refused(
    vault: VaultStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = vault.url.replace("http", "https")
    monkeypatch.setenv("VAULT_ADDR", url)
    assert refusal(TREASURY, tmp_path)[:2] == (WRONG, f"Vault at {url} does not speak TLS as it should")


# ---- what ends by itself


def test_a_sealed_vault_is_waited_for(vault: VaultStandIn, tmp_path: Path) -> None:
    vault.sealed = True
    assert refusal(TREASURY, tmp_path) == (
        NOT_NOW,
        f"Vault at {vault.url} is sealed",
        "unseal it: vault operator unseal",
    )


@pytest.mark.parametrize("status", [412, 429, 500, 502, 503])
def test_a_server_in_trouble_is_waited_for(status: int, vault: VaultStandIn, tmp_path: Path) -> None:
    vault.trouble, vault.status = "status", status
    message = f"Vault at {vault.url} cannot answer now: status {status}: as the test wants it"
    assert refusal(TREASURY, tmp_path) == (NOT_NOW, message, "")


def test_a_request_that_vault_calls_wrong_is_not_waited_for(vault: VaultStandIn, tmp_path: Path) -> None:
    vault.trouble, vault.status = "status", 400
    assert refusal(TREASURY, tmp_path)[:2] == (
        WRONG,
        f"Vault at {vault.url} refuses to read secret/binance/treasury: status 400: as the test wants it",
    )


@pytest.mark.parametrize("trouble", ["slow", "drip"])
def test_an_answer_that_takes_too_long_is_broken_off(
    trouble: str, vault: VaultStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_server, "TIME_LIMIT_S", 0.3)
    vault.trouble = trouble
    assert refusal(TREASURY, tmp_path)[:2] == (
        NOT_NOW,
        f"Vault at {vault.url} did not answer within 0.3 s",
    )


def test_an_answer_that_is_cut_off_is_no_answer(vault: VaultStandIn, tmp_path: Path) -> None:
    vault.trouble = "cut"
    assert refusal(TREASURY, tmp_path)[:2] == (NOT_NOW, f"Vault at {vault.url} broke off its answer")


def test_after_some_failures_in_a_row_nothing_more_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{port}")
    tried: list[str] = []
    get = vault_server.Server.get

    def counted(server: vault_server.Server, path: str) -> vault_server.Answer:
        tried.append(path)
        return get(server, path)

    monkeypatch.setattr(vault_server.Server, "get", counted)
    found = read_all(
        (parse_reference(f"vault:secret/{number}#f"), tmp_path) for number in range(1000)
    ).values()
    assert {(type(one), str(one)) for one in found} == {
        (NOT_NOW, f"Vault at http://127.0.0.1:{port} cannot be reached: Connection refused")
    }
    assert vault_module.FAILURES_MOST <= len(tried) <= vault_module.FAILURES_MOST + vault_module.AT_ONCE


# ---- what a reference may be


@pytest.mark.parametrize(
    "name",
    ["", "a", "a/b", "a#f", "a/b#", "#f", "/a/b#f", "a//b#f", "a/../b#f", "a/.#f", "a/b/#f", " a/b#f", "a/b\n#f"],
)  # fmt: skip
def test_what_is_no_path_and_field_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"^vault: is not followed by a path of two parts or more, '#', and a field;"
    ):
        parse_reference(f"vault:{name}")
