"""The wheel, installed where nothing else is: it runs, and needs nothing that the lock does not name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.end_to_end.processes import simulating

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]


def call(*arguments: object, cwd: Path) -> str:
    result = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_wheel_runs_in_a_clean_environment(tmp_path: Path) -> None:
    pip = ("-m", "pip", "--disable-pip-version-check", "--quiet")
    call(
        sys.executable,
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path / "dist",
        ROOT,
        cwd=tmp_path,
    )
    [wheel] = (tmp_path / "dist").glob("poller-*.whl")
    page = {f"poller/server/page/{file.name}" for file in (ROOT / "poller/server/page").iterdir()}
    assert {"poller/server/page/index.html"} <= page <= set(ZipFile(wheel).namelist())
    call(sys.executable, "-m", "venv", tmp_path / "clean", cwd=tmp_path)
    python = tmp_path / "clean" / "bin" / "python"
    call(python, *pip, "install", "--require-hashes", "-r", ROOT / "requirements" / "run.txt", cwd=tmp_path)
    call(python, *pip, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    call(python, "-m", "pip", "check", cwd=tmp_path)

    poller = tmp_path / "clean" / "bin" / "poller"
    assert "Keep the truth about the balances" in call(poller, "--help", cwd=tmp_path)
    kinds = call(poller, "sinks", cwd=tmp_path)
    assert re.findall(r"^(\w+) +poller\.sinks\.\w+:\w+ *$", kinds, re.MULTILINE) == [
        "jsonl",
        "sqlite",
        "stdout",
        *(["webhook"] if "webhook" in kinds else []),
    ]
    for kind in ("redis", "nats", "amqp", "archive", "postgres"):
        assert re.search(
            rf"^{kind} +poller\.sinks\.{kind}:\w+ +pip install 'poller\[{kind}\]' *$", kinds, re.MULTILINE
        )
    assert "Traceback" not in kinds
    with simulating(tmp_path / "trial", "--accounts", "6"):
        table = call(poller, "once", "-c", tmp_path / "trial" / "accounts.yaml", cwd=tmp_path)
    assert "6 of 6 accounts" in table
    read = "from poller.server.page import read_page; print(*sorted(read_page()))"
    assert call(python, "-c", read, cwd=tmp_path).split() == sorted(name.rpartition("/")[2] for name in page)
