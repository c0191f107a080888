"""The Dockerfile, by rules of our own and by hadolint: it cannot be built where these tests run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    return [
        (line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in text.splitlines() if line.strip()
    ]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    return found[max(number for number, (word, _) in enumerate(found) if word == "FROM") :]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out: the last pattern that matches decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keeps, pattern = pattern.startswith("!"), pattern.removeprefix("!")
        whole = pattern.removeprefix("**/")
        parts = path.split("/")
        if any(fnmatch("/".join(parts[:end]), pattern) for end in range(1, len(parts) + 1)) or (
            whole != pattern and any(fnmatch(part, whole) for part in parts)
        ):
            out = not keeps
    return out


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_the_linter_has_nothing_to_say() -> None:
    assert HADOLINT is not None
    result = subprocess.run(
        [HADOLINT, "--failure-threshold", "style", str(DOCKERFILE)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_it_runs_as_a_number_that_is_not_root() -> None:
    [user] = [value for word, value in last_stage() if word == "USER"]
    uid, gid = user.split(":")
    assert int(uid) > 999
    assert int(gid) > 999


def test_bases_have_a_tag_or_a_digest_and_nothing_comes_from_elsewhere() -> None:
    found = instructions()
    defaults = dict(value.split("=", 1) for word, value in found if word == "ARG" and "=" in value)
    for word, value in found:
        assert word != "ADD", "COPY takes what is here, and nothing else"
        if word == "FROM":
            base = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], value.split()[0])
            assert re.fullmatch(r"[\w./-]+:[\w.-]+(@sha256:[0-9a-f]{64})?", base)
            assert ":latest" not in base
        assert not re.search(r"curl|wget|https?://(?!127\.0\.0\.1)", value), value


def test_what_is_installed_is_held_against_hashes() -> None:
    installs = [json.loads(value) for word, value in instructions() if word == "RUN" and "pip" in value]
    assert len(installs) == 2
    for install in installs:
        assert "--require-hashes" in install or {"--no-deps", "--no-index", "--no-build-isolation"} <= set(
            install
        )
    lock = (ROOT / "requirements" / "image.txt").read_text()
    assert lock.count("--hash=sha256:") > 500
    assert {"redis", "aiokafka", "pyarrow", "opentelemetry-sdk"} <= set(
        re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)
    )


def test_the_image_has_the_versions_of_the_lock_that_is_tested() -> None:
    def versions(name: str) -> dict[str, str]:
        text = (ROOT / "requirements" / name).read_text()
        return dict(re.findall(r"^([a-z0-9-]+)==([\w.]+)", text, re.MULTILINE))

    image, tested = versions("image.txt"), versions("dev.txt")
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}


def test_it_is_started_and_stopped_without_a_shell_between() -> None:
    stage = dict(last_stage())
    assert json.loads(stage["ENTRYPOINT"]) == ["poller"]
    assert json.loads(stage["CMD"]) == ["run"]
    assert stage["STOPSIGNAL"] == "SIGTERM"


def test_its_health_is_asked_with_what_is_in_it() -> None:
    stage = dict(last_stage())
    [command] = re.findall(r"CMD (\[.*\])", stage["HEALTHCHECK"])
    program, option, code = json.loads(command)
    assert (program, option) == ("python", "-c")
    compile(code, "healthcheck", "exec")
    assert "127.0.0.1:8080/livez" in code


def test_a_read_only_root_is_enough() -> None:
    stage = last_stage()
    assert ("VOLUME", '["/var/lib/poller"]') in stage
    [environment] = [value for word, value in stage if word == "ENV"]
    assert "PYTHONDONTWRITEBYTECODE=1" in environment


def test_nothing_but_the_package_goes_into_it() -> None:
    for path in (
        "poller/cli.py",
        "poller/sinks/redis.py",
        "requirements/image.txt",
        "pyproject.toml",
        "README.md",
    ):
        assert not ignored(path), path
        assert (ROOT / path).exists()
    for path in (
        "accounts.yaml", "secrets/treasury.key", "data/outbox.db", ".git/config", ".venv/bin/python", "tests/conftest.py",
        "poller/__pycache__/cli.cpython-312.pyc", "deploy/kubernetes.yaml", "requirements/dev.txt",
    ):  # fmt: skip
        assert ignored(path), path


def test_what_is_copied_is_there_and_not_ignored() -> None:
    for word, value in instructions():
        if word == "COPY" and not value.startswith("--from"):
            for source in value.split()[:-1]:
                assert (ROOT / source).exists()
                assert not ignored(source)
