"""Keys stay secret: planted ones are looked for in everything that was written, through every error path."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.end_to_end.processes import SimulatedExchange, run, simulating, start, stop, wait_for
from tests.secrets.vault_stand_in import TOKEN, VaultStandIn, vault_stand_in

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(180)]

EXCHANGE = (
    *("--accounts", "12", "--interval", "500ms", "--moves-per-second", "20", "--latency", "1-5"),
    *("--window-length", "2", "--weight-limit", "1000"),
)


def answer(status: int, code: int, message: str) -> dict[str, object]:
    return {"kind": "body", "status": status, "value": json.dumps({"code": code, "msg": message})}


# One of each kind, so that every error path of a poll is taken.
FAULTS: list[dict[str, object]] = [
    answer(500, -1000, "internal"),
    answer(400, -1021, "Timestamp for this request is outside of the recvWindow."),
    answer(400, -1022, "Signature for this request is not valid."),
    answer(401, -2015, "Invalid API-key, IP, or permissions for action."),
    answer(400, -3002, "no such asset"),
    answer(429, -1003, "Too many requests; current request has limited."),
    answer(418, -1003, "Way too much request weight used; IP banned until 1."),
    {"kind": "retry_after", "value": "1"},
    {"kind": "error_html"},
    {"kind": "error_object"},
    {"kind": "reset"},
    {"kind": "reset_within"},
    {"kind": "close_within"},
    {"kind": "truncated"},
    {"kind": "bomb"},
    {"kind": "redirect"},
    {"kind": "empty_object"},
    {"kind": "empty_list"},
    {"kind": "weight_header"},
]


def canaries(directory: Path) -> dict[str, bytes]:
    """Every secret of the fleet, in every encoding it may be written in."""
    found = {}
    for path in sorted((directory / "secrets").iterdir()):
        # Of a PEM the lines between the markers; whatever shows one of them shows the key.
        words = [word for word in path.read_text().split() if len(word) >= 24 and "-----" not in word]
        assert words, path
        for number, word in enumerate(words[:3]):
            for encoding, text in (
                ("raw", word),
                ("base64", base64.b64encode(word.encode()).decode().rstrip("=")[:-2]),
                ("hex", word.encode().hex()),
                ("percent", quote(word, safe="")),
            ):
                found[f"{path.name}/{number}/{encoding}"] = text.encode()
    return found


def everything_written(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and "secrets" not in path.relative_to(directory).parts
    }


def leaks(directory: Path) -> list[str]:
    planted = canaries(directory)
    found = []
    for name, content in everything_written(directory).items():
        found += [f"{canary} in {name}" for canary, text in planted.items() if text in content]
        found += [
            f"a signature in {name}" for _ in re.finditer(rb"signature=(?!\*)[0-9A-Za-z%]{16,}", content)
        ]
    return found


def meet(exchange: SimulatedExchange, fault: dict[str, object]) -> None:
    """Let two polls meet a fault. Where it is a limit or a ban, the exchange asks for one second."""
    before = exchange.get("status")["faults_given"].get(fault["kind"], 0)
    exchange.post("faults", faults=[{**fault, "count": 2}, {"kind": "retry_after", "value": "1"}])
    wait_for(lambda: exchange.get("status")["faults_given"].get(fault["kind"], 0) >= before + 2)


def test_no_secret_is_written_anywhere_whatever_goes_wrong(tmp_path: Path) -> None:
    with simulating(tmp_path, *EXCHANGE) as exchange:
        process = start(tmp_path, "--log-level", "debug", log=tmp_path / "log.json")
        exchange.wait_until_all_polled(1)
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        for fault in FAULTS:
            meet(exchange, fault)
        exchange.post("faults", faults=[])
        exchange.post("revoke", account=exchange.accounts[0])
        wait_for(lambda: "-2015" in exchange.get("status")["codes"])
        assert stop(process) == 0
        (tmp_path / "arguments").write_bytes(arguments)
        swept = run("once", "-c", str(tmp_path / "accounts.yaml"), "--json")
        (tmp_path / "once").write_text(swept.stdout + swept.stderr)
        checked = run("check", "-c", str(tmp_path / "accounts.yaml"))
        (tmp_path / "check").write_text(checked.stdout + checked.stderr)
    log = (tmp_path / "log.json").read_text()
    assert "polls fail" in log
    assert "every request from this address pauses" in log
    assert leaks(tmp_path) == []


def scatter(directory: Path, vault: VaultStandIn) -> dict[str, str]:
    """Let the keys of some accounts be kept in a Vault, as credentials and by a command; return the environment.

    The files stay where they are: what is in them is looked for.
    """
    secrets = directory / "secrets"
    config = directory / "accounts.yaml"
    text = config.read_text()
    for number, path in enumerate(sorted(secrets.iterdir())):
        name, _, field = path.name.rpartition(".")
        place = (f"vault:secret/{name}#{field}", f"credential:{path.name}", f"exec:cat secrets/{path.name}")
        text = text.replace(f"file:secrets/{path.name}", place[number // 2 % 3])
        vault.secrets.setdefault(name, {})[field] = path.read_text()  # type: ignore[index]  # just set
    config.write_text(text)
    token = secrets / "vault.token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VAULT_")}
    return {
        **environment,
        "VAULT_ADDR": vault.url,
        "VAULT_TOKEN_FILE": str(token),
        "CREDENTIALS_DIRECTORY": str(secrets),
    }


def test_no_secret_of_any_place_is_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "accounts.yaml"
    with simulating(tmp_path, *EXCHANGE) as exchange, vault_stand_in() as vault:
        for name, value in scatter(tmp_path, vault).items():
            monkeypatch.setenv(name, value)
        assert all(f"{place}:" in config.read_text() for place in ("vault", "credential", "exec"))
        process = start(tmp_path, "--log-level", "debug", log=tmp_path / "log.json")
        exchange.wait_until_all_polled(1)
        for number, fault in enumerate(FAULTS[:4]):
            meet(exchange, fault)
            (tmp_path / f"arguments-{number}").write_bytes(Path(f"/proc/{process.pid}/cmdline").read_bytes())
        exchange.post("faults", faults=[])
        assert stop(process) == 0

        outputs = []
        working = config.read_text()
        for trouble in ("", "garbage", "huge", "cut", "redirect", "no http", "status"):
            vault.trouble, vault.status, vault.redirect_to = trouble, 400, vault.url
            outputs.append(run("check", "-c", str(config)))
        vault.trouble, vault.sealed = "", True
        outputs.append(run("once", "-c", str(config), "--json"))
        process = start(tmp_path, "--log-level", "debug", log=tmp_path / "log-sealed.json")
        wait_for(lambda: "started" in (tmp_path / "log-sealed.json").read_text())
        assert stop(process) == 0
        outputs.append(run("check", "-c", str(config)))
        # Commands that say on stderr what they should not, and what is no key at all.
        for script in ("cat $1; cat $1 >&2; exit 1", "cat $1; cat $1 >&2; exit 75", "cat $1 $1"):
            words = rf"{{exec: [sh, -c, '{script}', sh, '\1']}}"
            config.write_text(re.sub(r"exec:cat (\S+)", words, working))
            outputs.append(run("check", "-c", str(config)))
        config.unlink()
    assert {output.returncode for output in outputs} == {0, 1, 2}
    (tmp_path / "output").write_text("".join(output.stdout + output.stderr for output in outputs))
    for said in (
        "is sealed",
        "does not speak HTTP",
        "broke off",
        "redirects",
        "failed with exit code 1: ***",
    ):
        assert said in (tmp_path / "output").read_text()
    assert len(canaries(tmp_path)) > 4 * 25
    assert leaks(tmp_path) == []


def test_a_refused_configuration_shows_no_secret(tmp_path: Path) -> None:
    with simulating(tmp_path, *EXCHANGE):
        pass
    config = tmp_path / "accounts.yaml"
    literal = min((tmp_path / "secrets").iterdir()).read_text().strip()
    config.write_text(re.sub(r"api_key: file:\S+", f"api_key: {literal}", config.read_text(), count=1))
    outputs = [run(command, "-c", str(config)) for command in ("check", "once", "run")]
    config.unlink()
    assert [output.returncode for output in outputs] == [2, 2, 2]
    (tmp_path / "output").write_text("".join(output.stdout + output.stderr for output in outputs))
    assert "api_key" in (tmp_path / "output").read_text()
    assert leaks(tmp_path) == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "a.key").write_text("K" * 40)
    (tmp_path / "log").write_text("x" + base64.b64encode(b"K" * 40).decode())
    (tmp_path / "url").write_text("/x?signature=" + "ab" * 32)
    assert leaks(tmp_path) == ["a.key/0/base64 in log", "a signature in url"]
