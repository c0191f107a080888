"""The command line as a user meets it: results on stdout, problems on stderr, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import jsonschema
import pytest
from click.testing import CliRunner

from poller import __version__
from poller.cli import main
from poller.sinks import installed

pytestmark = pytest.mark.real_time

COMMANDS = sorted(main.commands)


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_every_command_is_there() -> None:
    assert (
        sorted(
            [
                *("check", "demo", "once", "outbox", "plan", "reload", "run", "schema", "simulate", "sinks"),
                *("balances", "completion", "doctor", "explain", "history", "status", "top"),
            ]
        )
        == COMMANDS
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    code, out, _ = invoke(command, "--help")
    assert code == 0
    explained = main.commands[command].help
    assert explained
    assert explained.split("\n")[0].rstrip(".")[:30] in out
    for parameter in main.commands[command].params:
        assert parameter.name
        if isinstance(parameter, click.Option):
            assert max(parameter.opts, key=len) in out


@pytest.mark.parametrize(
    "command", ["run", "once", "check", "plan", "simulate", "demo", "sinks", "status", "explain", "balances"]
)
def test_commands_show_examples_that_parse(command: str) -> None:
    code, out, _ = invoke(command, "--help")
    assert code == 0
    shown = [line.strip() for line in out.partition("Examples:")[2].splitlines() if line.strip()]
    assert shown
    for line in shown:
        for part in re.split(r"&&|\|", line):
            words = part.split()
            if words[0] == "poller":
                assert words[1] in COMMANDS
                known = {name for parameter in main.commands[words[1]].params for name in parameter.opts}
                assert {word for word in words if word.startswith("-")} <= known


def test_the_help_lists_the_exit_codes() -> None:
    _, out, _ = invoke("--help")
    for code in ("0 ", "1 ", "2 ", "74", "75", "130"):
        assert re.search(rf"^ +{code} +\S", out, re.MULTILINE), code


def test_help_and_version_load_none_of_the_large_libraries() -> None:
    large = "{'aiohttp', 'cryptography', 'prometheus_client', 'pydantic', 'rich', 'sqlite3', 'yaml'}"
    code = f"import sys, poller.cli; print({large} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_the_version_is_the_packages() -> None:
    assert invoke("--version")[1].strip() == f"poller, version {__version__}"


def test_the_schema_is_one() -> None:
    code, out, _ = invoke("schema")
    assert code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(out))


def test_sinks_are_listed_with_their_options() -> None:
    _, out, _ = invoke("sinks")
    assert {line.split()[0] for line in out.splitlines()[1:] if line.strip()} >= {"jsonl", "sqlite", "stdout"}
    _, out, _ = invoke("sinks", "jsonl")
    assert re.search(r"^rotate_size +Size \| None +None", out, re.MULTILINE)


def test_an_unknown_sink_is_a_mistake_with_a_remedy() -> None:
    code, out, err = invoke("sinks", "jsnl")
    assert (code, out) == (2, "")
    assert err == f"error: unknown kind 'jsnl'; installed: {', '.join(sorted(installed()))}\n"


def test_the_sql_of_the_postgres_sink_is_printed() -> None:
    code, out, err = invoke("sinks", "sql", "--schema", 'desk "a"')
    assert (code, err) == (0, "")
    assert out.startswith('BEGIN;\n\nCREATE SCHEMA IF NOT EXISTS "desk ""a""";\n')
    assert out.endswith("COMMIT;\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sql", "--layout", "weekly"), "unknown layout 'weekly'; there are plain, monthly, timescale"),
        (("sql", "--schema", "pg_desk"), "names that begin with pg_ belong to PostgreSQL; choose another"),
        (("jsonl", "--schema", "desk"), "--schema and --layout are for 'poller sinks sql'"),
        (("--layout", "plain"), "--schema and --layout are for 'poller sinks sql'"),
    ],
)
def test_sql_that_cannot_be_printed_is_a_mistake_with_a_remedy(words: tuple[str, ...], said: str) -> None:
    assert invoke("sinks", *words) == (2, "", f"error: {said}\n")


@pytest.mark.parametrize("command", ["run", "once", "check", "plan"])
def test_a_missing_configuration_is_a_mistake_with_a_remedy(command: str, tmp_path: Path) -> None:
    code, out, err = invoke(command, "-c", str(tmp_path / "accounts.yaml"))
    assert (code, out) == (2, "")
    assert str(tmp_path / "accounts.yaml") in err
    assert "Traceback" not in err


def test_all_problems_of_a_configuration_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "accounts.yaml"
    path.write_text(
        "accounts:\n  alice:\n    api_key: env:ALICE_KEY\n    secret: env:ALICE_SECRET\n    intervall: 10s\n    interval: 10\n"
    )
    code, _, err = invoke("check", "-c", str(path))
    assert code == 2
    assert f"error: {path}:5: accounts.alice.intervall: unknown key 'intervall'" in err
    assert "did you mean 'interval'?" in err
    assert f"error: {path}:6: accounts.alice.interval" in err
    assert err.endswith("2 problems; correct the configuration\n")


def test_an_option_of_the_simulator_that_makes_no_sense_is_a_mistake() -> None:
    assert invoke("simulate", "--key-kinds", "dsa")[0] == 2
    assert invoke("simulate", "--latency", "fast")[0] == 2
    assert invoke("simulate", "--fault", '{"kind": "gremlin"}')[0] == 2


def test_the_demo_leaves_what_is_not_its_own_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    code, _, err = invoke("demo", "--directory", str(tmp_path))
    assert code == 2
    assert "is not empty and no demo made it" in err
    assert (tmp_path / "precious").read_text() == "mine"
