"""What README and docs show is what happens: every command, configuration, record, query and link."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import click
import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from poller.cli import main
from poller.config import load, read_secrets
from poller.records import json_schema, read_record
from poller.secrets import back_ends
from tests.end_to_end.processes import run
from tests.secrets.vault_stand_in import TOKEN, vault_stand_in

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What a variable has to hold where not just any value will do.
FITTING = {
    "AMQP_URL": "amqps://poller:value-of-AMQP_URL@rabbit.example:5671/desk",
    "POLLER_TOKEN": 4 * "made-up-",
    "POSTGRES_URL": "postgresql://poller:value-of-POSTGRES_URL@db.example:5432/history?sslmode=verify-full",
    "REDIS_URL": "rediss://user:password@redis.example:6379/0",
    "WEBHOOK_PREVIOUS_SECRET": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "WEBHOOK_URL": "https://example.com/hooks/T0ken",
}
KNOWN_LANGUAGES = {"", "console", "yaml", "json", "python", "toml", "sql"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def all_blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page, language):
            yield page.name, block


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One short demo, for everything that the pages say about it."""
    directory = tmp_path_factory.mktemp("demo")
    result = run("demo", "--duration", "4", "--directory", str(directory / "demo"))
    assert result.returncode == 0, result.stdout + result.stderr
    return directory / "demo", result.stdout


def test_every_block_is_of_a_kind_that_is_tried_here() -> None:
    for page in PAGES:
        opened = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)[::2]
        assert set(opened) <= KNOWN_LANGUAGES, page.name


def test_what_the_readme_shows_of_the_demo_is_what_it_prints(demo: tuple[Path, str]) -> None:
    [shown] = [block for block in blocks(ROOT / "README.md", "console") if "make demo" in block]
    _, printed = demo
    for line in shown.splitlines()[1:]:
        # Figures differ from run to run, words do not.
        pattern = re.sub(
            r"\d[\d.,]*", r"[\\d.,]+", re.sub(r"\s+", r" ", re.escape(line.strip()).replace("\\ ", " "))
        )
        pattern = re.sub(r" +", r"\\s+", pattern).replace("demo/data", r"\S+/data")
        assert re.search(pattern, printed), line


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Places besides variables and files: give the text of a configuration, and what it refers to is there."""
    programs, credentials = tmp_path / "programs", tmp_path / "credentials"
    for directory in (programs, credentials):
        directory.mkdir(mode=0o700)
    for name in ("pass", "op"):
        (programs / name).write_text("#!/bin/sh\nprintf %s \"printed-for-$*\" | tr -c 'a-z0-9' -\n")
        (programs / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    keyring = pytest.importorskip("keyring")

    class Passwords(keyring.backend.KeyringBackend):  # type: ignore[misc,name-defined]  # looked for when it runs
        priority = 1
        set_password = delete_password = None

        def get_password(self, service: str, user: str) -> str:
            return f"password-of-{user}-for-{service}"

    before = keyring.get_keyring()
    keyring.set_keyring(Passwords())

    with vault_stand_in() as vault:
        monkeypatch.setenv("VAULT_ADDR", vault.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)

        def keep(text: str) -> None:
            for path, field in re.findall(r"vault:secret/([\w/-]+)#(\w+)", text):
                fields = vault.secrets.setdefault(path, {})
                assert fields is not None
                fields[field] = f"{field}-of-{path}"
            for name in re.findall(r"credential:([\w.-]+)", text):
                path = credentials / name
                path.touch(mode=0o600)
                path.write_text(pem.decode() if path.suffix == ".pem" else f"key-of-{path.stem}")

        yield keep
    keyring.set_keyring(before)


def test_configurations_load_and_their_secrets_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: Callable[[str], None]
) -> None:
    pem = (
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    )
    shown = list(all_blocks("yaml"))
    assert len(shown) >= 4
    for number, (page, block) in enumerate(shown):
        directory = tmp_path / str(number)
        directory.mkdir()
        text = (
            block
            if "accounts:" in block
            else block + "accounts: {a: {api_key: env:A_KEY, secret: env:A_SECRET}}\n"
        )
        (directory / "accounts.yaml").write_text(text)
        for reference in re.findall(r"env:(\w+)", text):
            monkeypatch.setenv(reference, FITTING.get(reference, f"value-of-{reference}"))
        for reference in re.findall(r"file:([\w./-]+)", text):
            path = directory / reference
            path.parent.mkdir(exist_ok=True)
            path.write_text(pem if path.suffix == ".pem" else f"key-of-{path.stem}")
            path.chmod(0o600)
        places(text)
        config = load(directory / "accounts.yaml")
        assert read_secrets(config).credentials.keys() == config.accounts.keys(), page


def test_records_are_of_the_published_shape() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    shown = [block for _, block in all_blocks("json")]
    assert len(shown) == 2
    for block in shown:
        validator.validate(json.loads(block))
        read_record(block)


def test_queries_run_on_a_history(demo: tuple[Path, str]) -> None:
    directory, _ = demo
    with closing(sqlite3.connect(directory / "data" / "history.db")) as history:
        # Those of docs/sinks/ are for other databases, and tried there.
        for block in (
            block for page in PAGES if page.parent.name != "sinks" for block in blocks(page, "sql")
        ):
            for query in filter(str.strip, block.split(";")):
                history.execute(
                    query.replace("'treasury'", "(SELECT min(account) FROM snapshots)")
                ).fetchall()
        tables = {name for (name,) in history.execute("SELECT name FROM sqlite_master")}
        described = re.findall(
            r"^\| `(\w+)` \| (?:\(a view\) )?an? ", (ROOT / "docs/sinks.md").read_text(), re.MULTILINE
        )
        assert {"snapshots", "balances", "changes", "statuses", "latest"} == set(described)
        assert set(described) <= tables


def test_commands_exist_and_take_what_is_shown() -> None:
    shown = [
        (page, line)
        for page, block in all_blocks("console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    assert shown
    for page, line in shown:
        words = line.removeprefix("$ ").partition("#")[0].split()
        if words[0] == "poller":
            assert words[1] in main.commands, line
            command = main.commands[words[1]]
            if isinstance(command, click.Group):
                assert words[2] in command.commands, line
                command = command.commands[words[2]]
            known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
            assert {word for word in words[2:] if word.startswith("-")} <= known, line
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        elif page == "server.md":
            assert words[0] in {"curl", "(umask"}  # tests/server/test_server_page.py runs them
        else:
            assert line == "$ pip install ."


def test_commands_that_are_mentioned_exist() -> None:
    for page in PAGES:
        for command in re.findall(r"`poller ([a-z]+)", page.read_text()):
            assert command in main.commands, f"{page.name}: poller {command}"
        for target in re.findall(r"`make ([a-z]+)", page.read_text()):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_the_sink_of_ones_own_is_the_one_that_is_tried() -> None:
    first, second = blocks(ROOT / "docs/sinks.md", "python")
    assert first == (ROOT / "docs/folder_sink.py").read_text()
    assert len(first.splitlines()) <= 45
    tried = (ROOT / "tests/docs/test_folder_sink.py").read_text()
    for part in second.split("\n\n"):
        assert part.strip() in tried


def test_the_place_of_ones_own_is_the_one_that_is_tried() -> None:
    page = ROOT / "docs/secrets.md"
    shown, contract = blocks(page, "python")
    assert shown == (ROOT / "docs/ini_back_end.py").read_text()
    tried = (ROOT / "tests/docs/test_ini_back_end.py").read_text()
    assert contract in tried
    [declared] = blocks(page, "toml")
    [[group, points]] = tomllib.loads(declared)["project"]["entry-points"].items()
    assert group == back_ends.GROUP
    assert points == {"ini": "ini_back_end:IniBackEnd"}
    assert "ini = ini_back_end:IniBackEnd" in tried


def test_every_place_for_secrets_has_a_section_and_stands_in_the_table_and_the_example() -> None:
    page = (ROOT / "docs/secrets.md").read_text()
    example = (ROOT / "accounts.example.yaml").read_text()
    for scheme, point in back_ends.installed().items():
        if point.module.startswith("poller."):
            form = back_ends.load(scheme).form
            assert f"\n## {scheme}\n" in page
            assert f"\n| `{form}` |" in page
            assert f"#   {form} " in example


def test_links_and_named_files_exist() -> None:
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for named in re.findall(r"`((?:tests|poller|docs|bench)/[\w./-]+)`", text):
            assert (ROOT / named).exists(), f"{page.name}: {named}"


def test_the_layers_in_the_docs_are_the_layers_that_are_enforced() -> None:
    from tests.test_architecture import LAYERS

    text = (ROOT / "docs/architecture.md").read_text()
    for layer in LAYERS:
        named = [line for line in text.splitlines() if layer <= set(line.split())]
        assert named, layer


def test_no_page_speaks_of_where_it_was_made() -> None:
    for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "accounts.example.yaml"]:
        assert not re.search(r"(?<![\w.])/(root|home|tmp)/\w", page.read_text()), page.name


def test_locks_name_no_registry() -> None:
    for lock in (ROOT / "requirements").iterdir():
        assert "://" not in lock.read_text(), lock.name
