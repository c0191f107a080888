"""The page's files: nothing from elsewhere, nothing inline, each says what it is, and all of it parses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.page.served import PAGE

FILES = sorted(path for path in PAGE.iterdir() if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
# The name of a format, which nobody fetches.
NAMESPACES = {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_a_foreign_host(path: Path) -> None:
    text = path.read_text()
    named = set(re.findall(r"""(?:[a-z]+:)?//[\w.-]+\.[a-z]{2,}[^\s"'<>)]*""", text)) - NAMESPACES
    assert {name for name in named if not name.startswith("// ")} == set()
    assert "@import" not in text
    assert not re.search(r"url\(", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_module_says_what_it_is_and_is_short(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert re.match(r"// [A-Z].*[.;]$|// [A-Z].*[a-z,]$", lines[0])
    assert len(lines) < 400


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_markup_is_made_from_text(path: Path) -> None:
    text = path.read_text()
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "srcdoc",
    ):
        assert forbidden not in text


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_import_is_a_file_of_the_page(path: Path) -> None:
    for imported in re.findall(r"""(?:from|import\()\s*["']([^"']+)["']""", path.read_text()):
        assert imported.startswith("./")
        assert (PAGE / imported).is_file()


def test_every_module_is_used() -> None:
    used = set(re.findall(r"/static/([\w.]+)", (PAGE / "index.html").read_text()))
    for path in SCRIPTS:
        used |= {Path(name).name for name in re.findall(r"""from\s*["']([^"']+)["']""", path.read_text())}
    assert {path.name for path in FILES} - used == {"index.html"}


def test_the_document_has_nothing_inline() -> None:
    text = (PAGE / "index.html").read_text()
    assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", text)
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []


def test_it_can_be_looked_at_by_hand() -> None:
    command = [sys.executable, "-m", "tests.page.look"]
    with subprocess.Popen(command, cwd=PAGE.parents[2], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert re.match(r"http://127\.0\.0\.1:\d+/  ", process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_node_can_parse_it(path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    done = subprocess.run(
        [node, "--input-type=module", "--check"],
        input=path.read_bytes(),
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr.decode()
