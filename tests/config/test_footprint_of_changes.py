"""Footprints: whatever becomes of a file of the configuration changes them, and nothing else does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.config import Config, load
from poller.config.footprint import Footprints

MAIN = """\
include: [fleet.d/*.yaml]
accounts:
  one: {api_key: file:secrets/one.key, secret: file:secrets/one.secret}
"""
OTHER = "accounts: {two: {api_key: env:TWO_KEY, secret: file:../secrets/two.secret}}\n"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "fleet.d").mkdir()
    (tmp_path / "accounts.yaml").write_text(MAIN)
    (tmp_path / "fleet.d" / "more.yaml").write_text(OTHER)
    for name in ("one.key", "one.secret", "two.secret"):
        (tmp_path / "secrets" / name).write_text(name)
    return load(tmp_path / "accounts.yaml")


def _rewritten(path: Path) -> None:
    path.write_text(path.read_text() + " ")


def _renamed_over(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(path.read_bytes())
    status = path.stat()
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(path)


def test_credentials_count_that_an_orchestrator_swaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = tmp_path / "mounted"
    for number in (1, 2):
        (mounted / f"..{number}").mkdir(parents=True)
        for name in ("one.key", "one.secret"):
            (mounted / f"..{number}" / name).write_text("x")
            if number == 1:
                (mounted / name).symlink_to(f"..data/{name}")
    (mounted / "..data").symlink_to("..1")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(mounted))
    (tmp_path / "accounts.yaml").write_text(
        "accounts: {one: {api_key: credential:one.key, secret: credential:one.secret}}\n"
    )
    config = load(tmp_path / "accounts.yaml")
    footprints = Footprints(config.path)
    before = footprints.take(config)
    (mounted / "..new").symlink_to("..2")
    (mounted / "..new").rename(mounted / "..data")
    assert footprints.glance(config) != before


def test_what_stands_still_has_the_same_footprint(config: Config) -> None:
    footprints = Footprints(config.path)
    first = footprints.take(config)
    assert footprints.take(config) == first
    assert Footprints(config.path).take(config) == first
    directory = config.path.parent.resolve()
    assert {Path(path).resolve() for path, _ in first} == {
        path for path in directory.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(
    "name", ["accounts.yaml", "fleet.d/more.yaml", "secrets/one.key", "secrets/two.secret"]
)
@pytest.mark.parametrize(
    "change", [_rewritten, _renamed_over, Path.unlink, lambda path: path.chmod(0o640 ^ path.stat().st_mode)]
)
def test_whatever_becomes_of_a_file_changes_it(
    config: Config, name: str, change: Callable[[Path], object]
) -> None:
    footprints = Footprints(config.path)
    before = footprints.take(config)
    change(config.path.parent / name)
    after = footprints.take(config)
    assert after != before
    assert footprints.take(config) == after


def test_a_file_more_counts_and_so_does_a_secret_of_another_configuration(config: Config) -> None:
    footprints = Footprints(config.path)
    before = footprints.take(config)
    (config.path.parent / "fleet.d" / "new.yaml").write_text(
        "accounts: {three: {api_key: env:K, secret: file:../x}}\n"
    )
    more = footprints.take(config)
    assert len(more) == len(before) + 1
    anew = footprints.take(load(config.path))
    assert {path for path, _ in anew} - {path for path, _ in more} == {
        str(config.path.parent / "fleet.d" / "../x")
    }
