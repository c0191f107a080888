"""Glances: they cost little, and miss nothing for longer than they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller.config import Config, footprint, load
from poller.config.footprint import TURNS, Footprints

COUNT = 40  # of accounts, with two files each


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Many files, of which a glance looks at a few."""
    monkeypatch.setattr(footprint, "AT_LEAST", 4)
    lines = ["accounts:"]
    for number in range(COUNT):
        directory = tmp_path / f"secrets/{'ab'[number % 2]}"
        directory.mkdir(parents=True, exist_ok=True)
        for ending in ("key", "secret"):
            (directory / f"{number}.{ending}").write_text("x")
        where = f"file:secrets/{'ab'[number % 2]}/{number}"
        lines.append(f"  n{number}: {{api_key: '{where}.key', secret: '{where}.secret'}}")
    (tmp_path / "accounts.yaml").write_text("\n".join(lines))
    return load(tmp_path / "accounts.yaml")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every path that was looked at."""
    paths: list[str] = []
    look = footprint._print

    def noted(path: str) -> tuple[int, ...]:
        paths.append(path)
        return look(path)

    monkeypatch.setattr(footprint, "_print", noted)
    return paths


def test_a_glance_is_at_a_part_and_in_turn_at_all(config: Config, looks: list[str]) -> None:
    prints = Footprints(config.path)
    whole = prints.glance(config)
    assert whole == prints.take(config)
    for _ in range(2):
        looks.clear()
        for _ in range(TURNS):
            before = len(looks)
            assert prints.glance(config) == whole
            assert len(looks) - before == 2 * COUNT / TURNS + 4  # the main file twice, and two directories
        assert {path for path, _ in whole} <= set(looks)


@pytest.mark.parametrize("number", range(0, COUNT, 7))
def test_what_is_written_in_place_is_seen_in_its_turn_with_everything_else(
    config: Config, number: int
) -> None:
    prints = Footprints(config.path)
    whole = prints.take(config)
    for name in (f"{'ab'[number % 2]}/{number}.key", "a/0.secret", "b/39.key"):
        (config.path.parent / "secrets" / name).write_text("yy")
    glances = [prints.glance(config) for _ in range(TURNS)]
    assert set(glances) == {whole, Footprints(config.path).take(config)} or whole not in glances
    assert glances[-1] == Footprints(config.path).take(config)


def test_what_is_renamed_into_place_or_removed_is_seen_at_once(config: Config) -> None:
    prints, directory = Footprints(config.path), config.path.parent / "secrets/b"
    seen = {prints.take(config)}
    for number in (1, 39):
        (directory / "new").write_text("x")
        (directory / "new").rename(directory / f"{number}.key")
        seen.add(prints.glance(config))
    (directory / "21.secret").unlink()
    seen.add(prints.glance(config))
    assert len(seen) == 4


def test_a_directory_that_is_swapped_is_seen_at_once(config: Config) -> None:
    prints, directory = Footprints(config.path), config.path.parent / "secrets"
    before = prints.take(config)
    (directory / "b").rename(directory / "..1")
    (directory / "..2").mkdir()
    for file in (directory / "..1").iterdir():
        (directory / "..2" / file.name).write_text("x")
    (directory / "b").symlink_to("..2")
    assert prints.glance(config) != before


def test_what_else_goes_on_beside_secrets_is_a_reason_to_look_at_all_of_them_rarely(
    config: Config, looks: list[str]
) -> None:
    prints, journal = Footprints(config.path), config.path.parent / "secrets/a/some.db-journal"
    whole = prints.take(config)
    looks.clear()
    for _ in range(3 * TURNS):
        journal.touch() if not journal.exists() else journal.unlink()
        assert prints.glance(config) == whole
    assert (
        sum(path.endswith("/0.key") for path in looks) <= 3 + 3 + 1
    )  # in its turn, and for the journal's sake


def test_where_every_secret_has_a_directory_of_its_own_those_are_not_looked_at(
    config: Config, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "DIRECTORIES_MOST", 1)
    prints = Footprints(config.path)
    prints.take(config)
    prints.glance(config)
    assert not [path for path in looks if Path(path).is_dir()]


def test_another_configuration_is_looked_at_as_a_whole(config: Config) -> None:
    prints = Footprints(config.path)
    prints.take(config)
    text = config.path.read_text()
    config.path.write_text(text[: text.index("  n39:")])
    other = load(config.path)
    assert prints.glance(other) == Footprints(config.path).take(other)
