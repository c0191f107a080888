from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from poller.simulator import KEY_KINDS, NotOurs, SimulatorSettings, write_config
from poller.simulator.configuration import MANY, MARK
from poller.simulator.keys import make_accounts, make_master

URL = "http://127.0.0.1:8081"


def write(directory: Path, count: int, seed: int = 1, **settings: Any) -> Path:
    accounts = make_accounts(count, KEY_KINDS, seed)
    return write_config(directory, URL, accounts, SimulatorSettings(**settings), interval="2s")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def secret_paths(directory: Path, entries: dict[str, dict[str, Any]]) -> list[Path]:
    return [
        directory / reference.removeprefix("file:")
        for entry in entries.values()
        for key, reference in entry.items()
        if key != "labels"
    ]


def test_it_is_what_a_user_would_write(tmp_path: Path) -> None:
    path = write(tmp_path / "new", 3, window_s=2.5, weight_limit=500)
    assert path == tmp_path / "new" / "accounts.yaml"
    assert read(path) == {
        "exchange": {"base_url": URL, "recv_window": "10s"},
        "budget": {"weight_limit": 500, "share": "90%", "window": "2.5s"},
        "defaults": {"interval": "2s", "btc_valuation": True},
        "accounts": {
            "sim-0001": {
                "api_key": "file:secrets/sim-0001.key",
                "secret": "file:secrets/sim-0001.secret",
                "labels": {"key": "hmac"},
            },
            "sim-0002": {
                "api_key": "file:secrets/sim-0002.key",
                "private_key": "file:secrets/sim-0002.pem",
                "labels": {"key": "rsa"},
            },
            "sim-0003": {
                "api_key": "file:secrets/sim-0003.key",
                "private_key": "file:secrets/sim-0003.pem",
                "labels": {"key": "ed25519"},
            },
        },
        "sinks": {
            "history": {"kind": "sqlite", "path": "data/history.db"},
            "log": {"kind": "jsonl", "path": "data/records.jsonl"},
        },
        "outbox": {"path": "data/outbox.db"},
    }


def test_a_master_account_is_written_only_if_it_is_wanted(tmp_path: Path) -> None:
    accounts, master = make_accounts(MANY + 1, KEY_KINDS, 1), make_master("ed25519", 1)
    path = write_config(tmp_path, URL, accounts, SimulatorSettings(), interval="2s", master=master)
    written = read(path)
    assert written["discover"] == {
        "main": {
            "api_key": "file:secrets/master.key",
            "private_key": "file:secrets/master.pem",
            "interval": "1h",
        }
    }
    assert (tmp_path / "secrets" / "master.key").read_text() == master.api_key
    assert stat.S_IMODE((tmp_path / "secrets" / "master.pem").stat().st_mode) == 0o600
    fleet = written["accounts"] | read(tmp_path / "fleet.d" / "simulated.yaml")["accounts"]
    assert {name: entry["sub_account"] for name, entry in fleet.items()} == {
        account.name: f"{account.name}@sub.example" for account in accounts
    }
    assert "discover" not in read(write(tmp_path, 3))
    assert "sub_account" not in (tmp_path / "accounts.yaml").read_text()


def test_half_of_many_accounts_stand_in_an_included_file_with_paths_of_its_own(tmp_path: Path) -> None:
    main = read(write(tmp_path, MANY + 1))
    included = read(tmp_path / "fleet.d" / "simulated.yaml")
    assert main["include"] == ["fleet.d/*.yaml"]
    assert (len(main["accounts"]), len(included["accounts"])) == (11, 10)
    assert not main["accounts"].keys() & included["accounts"].keys()
    paths = secret_paths(tmp_path, main["accounts"]) + secret_paths(
        tmp_path / "fleet.d", included["accounts"]
    )
    assert len(paths) == 2 * (MANY + 1)
    assert all(path.is_file() for path in paths)


def test_keys_are_the_accounts_own_and_closed_to_others(tmp_path: Path) -> None:
    write(tmp_path, 3)
    for account in make_accounts(3, KEY_KINDS, 1):
        secret = f"{account.name}.{'secret' if account.kind == 'hmac' else 'pem'}"
        for name, content in ((f"{account.name}.key", account.api_key), (secret, account.secret)):
            path = tmp_path / "secrets" / name
            assert path.read_text() == content
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def test_what_it_wrote_it_writes_anew(tmp_path: Path) -> None:
    write(tmp_path, MANY + 1, seed=1)
    (tmp_path / "secrets" / "sim-0001.key").chmod(0o644)
    main = read(write(tmp_path, 2, seed=2))
    assert "include" not in main
    assert len(main["accounts"]) == 2
    assert not (tmp_path / "fleet.d" / "simulated.yaml").exists()
    key = tmp_path / "secrets" / "sim-0001.key"
    assert key.read_text() == make_accounts(1, KEY_KINDS, 2)[0].api_key
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["accounts.yaml", "fleet.d/simulated.yaml"])
def test_a_file_of_somebody_else_is_left_alone_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("accounts: {}\n")
    with pytest.raises(NotOurs, match=f"{name} was not written by the simulator"):
        write(tmp_path, 3)
    assert theirs.read_text() == "accounts: {}\n"
    assert not (tmp_path / "secrets").exists()


def test_the_file_says_who_wrote_it(tmp_path: Path) -> None:
    assert write(tmp_path, 1).read_text().startswith(MARK)
