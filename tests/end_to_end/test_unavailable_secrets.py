"""What every command does while a Vault is sealed: nothing dies of it, and nobody is left in the dark."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import SimulatedExchange, run, simulating, start, stop, wait_for
from tests.secrets.vault_stand_in import TOKEN, VaultStandIn, vault_stand_in

pytestmark = pytest.mark.real_time


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[SimulatedExchange]:
    options = ("--accounts", "4", "--latency", "1-5", "--interval", "500ms", "--key-kinds", "hmac")
    with simulating(tmp_path, *options) as simulated:
        yield simulated


@pytest.fixture
def vault(
    tmp_path: Path, exchange: SimulatedExchange, monkeypatch: pytest.MonkeyPatch
) -> Iterator[VaultStandIn]:
    """A Vault that keeps the keys of the first two accounts."""
    config = tmp_path / "accounts.yaml"
    text = config.read_text()
    with vault_stand_in() as stand_in:
        monkeypatch.setenv("VAULT_ADDR", stand_in.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        for name in exchange.accounts[:2]:
            fields = stand_in.secrets[name] = {}
            for path in sorted((tmp_path / "secrets").glob(f"{name}.*")):
                fields[path.suffix[1:]] = path.read_text().strip()
                assert f"file:secrets/{path.name}" in text
                text = text.replace(f"file:secrets/{path.name}", f"vault:secret/{name}#{path.suffix[1:]}")
                path.unlink()
        config.write_text(text)
        yield stand_in


def command(directory: Path, name: str, *options: str) -> tuple[int, str, str]:
    result = run(name, "-c", str(directory / "accounts.yaml"), *options)
    return result.returncode, result.stdout, result.stderr


def test_a_check_tells_an_outage_from_a_mistake(tmp_path: Path, vault: VaultStandIn) -> None:
    assert command(tmp_path, "check")[0] == 0
    vault.sealed = True
    code, out, err = command(tmp_path, "check")
    assert code == 1
    assert "secrets of 2 cannot be reached now" in out
    lines = err.splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(
        f"accounts.sim-0001.api_key: Vault at {vault.url} is sealed; unseal it: vault operator unseal"
    )
    assert lines[2] == "2 problems for now; try again later"
    vault.sealed = False
    vault.denied.add("sim-0001")
    code, _, err = command(tmp_path, "check")
    assert code == 2
    assert err.endswith("2 problems; correct the configuration\n")


def test_a_check_of_keys_goes_on_without_those_that_cannot_be_had(
    tmp_path: Path, vault: VaultStandIn
) -> None:
    vault.sealed = True
    code, out, err = command(tmp_path, "check", "--online", "--json")
    assert code == 1
    assert "is sealed" in err
    keys = {key["account"]: (key["verdict"], key["reasons"]) for key in json.loads(out)["keys"]}
    assert list(keys) == ["sim-0001", "sim-0002", "sim-0003", "sim-0004"]
    assert keys["sim-0001"] == (
        "unknown",
        [f"its secrets cannot be had now: Vault at {vault.url} is sealed"],
    )
    assert keys["sim-0003"][0] == "warning"


def test_a_round_shows_accounts_without_secrets_as_failed(tmp_path: Path, vault: VaultStandIn) -> None:
    vault.sealed = True
    code, out, err = command(tmp_path, "once", "--json")
    assert code == 1
    rows = {row["account"]: row.get("error", "good") for row in json.loads(out)}
    failed = f"secret_unavailable: Vault at {vault.url} is sealed"
    assert rows == {"sim-0001": failed, "sim-0002": failed, "sim-0003": "good", "sim-0004": "good"}
    assert "Traceback" not in err


def test_a_round_without_any_account_shows_them_all(
    tmp_path: Path, vault: VaultStandIn, exchange: SimulatedExchange
) -> None:
    vault.sealed = True
    config = tmp_path / "accounts.yaml"
    config.write_text(config.read_text() + "egress: {default: {proxy: 'vault:secret/proxy#url'}}\n")
    code, out, _ = command(tmp_path, "once", "--json")
    assert code == 1
    assert {row["error"] for row in json.loads(out)} == {
        f"secret_unavailable: Vault at {vault.url} is sealed"
    }
    assert command(tmp_path, "check", "--online")[0] == 1
    assert sum(exchange.polls().values()) == 0


def test_the_daemon_polls_whom_it_can(
    tmp_path: Path, vault: VaultStandIn, exchange: SimulatedExchange
) -> None:
    vault.sealed = True
    process = start(tmp_path, "--log-format", "json", log=tmp_path / "log")
    try:
        wait_for(lambda: min(exchange.polls()[name] for name in ("sim-0003", "sim-0004")) >= 2)
        assert exchange.polls()["sim-0001"] == 0
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [
            ["0", "0"]
        ]
    finally:
        assert stop(process) == 0
    [line] = [
        json.loads(line)
        for line in (tmp_path / "log").read_text().splitlines()
        if "secrets cannot be reached" in line
    ]
    assert (line["level"], line["count"], len(line["problems"])) == ("error", 2, 2)


def test_secrets_of_many_places_are_put_together(
    tmp_path: Path, vault: VaultStandIn, exchange: SimulatedExchange
) -> None:
    name = exchange.accounts[3]
    config = tmp_path / "accounts.yaml"
    text = config.read_text()
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for path in (tmp_path / "secrets").glob(f"{name}.*"):
        path.rename(credentials / path.name)
        text = text.replace(f"file:secrets/{path.name}", f"credential:{path.name}")
    config.write_text(text.replace("file:secrets/sim-0003", "exec:cat secrets/sim-0003"))
    result = run(
        "once", "-c", str(config), "--json", env={**os.environ, "CREDENTIALS_DIRECTORY": str(credentials)}
    )
    assert result.returncode == 0, result.stdout + result.stderr
