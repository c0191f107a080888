"""Many references at once: each read once, results in order, whatever takes how long."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from poller.secrets import Secret, SecretUnavailable, SecretUnreadable, back_ends, parse_reference, read_all
from poller.secrets.back_ends import BackEnd

pytestmark = pytest.mark.real_time


class Counting(BackEnd):
    """Counts what it is asked and whether it was closed."""

    form: ClassVar[str] = "env:NAME"
    wants: ClassVar[str] = "anything"
    made: ClassVar[list[Counting]] = []

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = 0
        self.made.append(self)

    @classmethod
    def accepts(cls, name: str) -> bool:
        return True

    def read(self, name: str, directory: Path) -> str:
        self.asked.append(name)
        if name == "missing":
            raise SecretUnreadable("it is missing", "look for it")
        if name == "later":
            raise SecretUnavailable("not now")
        if name == "broken":
            raise RuntimeError("the-secret-itself")
        return name if name != "empty" else "\n"

    def close(self) -> None:
        self.closed += 1


class CountingAtOnce(Counting):
    """The same in threads."""

    at_once: ClassVar[int] = 1_000


@pytest.mark.parametrize("kind", [Counting, CountingAtOnce])
def test_each_is_read_once_by_one_object_that_is_closed(
    kind: type[Counting], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(back_ends, "load", lambda scheme: kind)
    Counting.made.clear()
    names = [f"secret-{number}" for number in range(500)] * 3
    wanted = [(parse_reference(f"env:{name}"), tmp_path) for name in names]
    found = read_all(wanted)
    assert list(found) == wanted[:500]
    assert list(found.values()) == [Secret(name) for name in names[:500]]
    [one] = Counting.made
    assert sorted(one.asked) == sorted(names[:500])
    assert one.closed == 1


@pytest.mark.parametrize("kind", [Counting, CountingAtOnce])
def test_failures_are_results_like_others(
    kind: type[Counting], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(back_ends, "load", lambda scheme: kind)
    names = ("missing", "good", "later", "broken", "empty")
    found = read_all((parse_reference(f"env:{name}"), tmp_path) for name in names).values()
    assert [(type(one), str(one)) for one in found] == [
        (SecretUnreadable, "it is missing"),
        (Secret, "***"),
        (SecretUnavailable, "not now"),
        (SecretUnreadable, "env:broken: its back end raised RuntimeError"),
        (SecretUnreadable, "env:empty is empty"),
    ]


def test_a_slow_place_does_not_hold_up_another(tmp_path: Path) -> None:
    # The command waits for the file that is written when the other place is read.
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text("of-the-file")
    waiting = parse_reference("exec:sh -c 'while [ ! -e begun ]; do sleep 0.01; done; echo of-the-command'")
    writing = parse_reference("exec:sh -c 'touch begun; echo begun'")
    wanted = [(waiting, tmp_path), (parse_reference("file:key"), tmp_path), (writing, tmp_path)]
    assert [found.reveal() for found in read_all(wanted).values() if isinstance(found, Secret)] == [
        "of-the-command",
        "of-the-file",
        "begun",
    ]


def test_a_relative_path_in_two_directories_is_two_secrets(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").touch(mode=0o600)
        (tmp_path / name / "key").write_text(f"secret-{name}")
    reference = parse_reference("file:key")
    found = read_all([(reference, tmp_path / "a"), (reference, tmp_path / "b")])
    assert list(found.values()) == [Secret("secret-a"), Secret("secret-b")]


def test_nothing_is_nothing() -> None:
    assert read_all([]) == {}
