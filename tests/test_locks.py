"""Locks between processes, with other processes that hold them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from poller import locks
from poller.locks import FileLock, Held

HOLD = """
import sys
from pathlib import Path
from poller.locks import FileLock
lock = FileLock(Path(sys.argv[1]), shared="shared" in sys.argv, passing="passing" in sys.argv)
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""


@contextmanager
def holder(path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with holder(tmp_path / "lock") as process:
        with pytest.raises(Held, match=f"^held by process {process.pid}$") as caught:
            FileLock(tmp_path / "lock")
        assert caught.value.pid == process.pid


def test_a_holder_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path / "lock") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    FileLock(tmp_path / "lock").release()


def test_a_lock_is_released_once_and_its_file_stays(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()
    lock.release()
    assert (tmp_path / "lock").exists()
    FileLock(tmp_path / "lock").release()


def test_those_who_share_a_lock_share_it_among_themselves_only(tmp_path: Path) -> None:
    with holder(tmp_path / "lock", "shared"):
        FileLock(tmp_path / "lock", shared=True).release()
        with pytest.raises(Held):
            FileLock(tmp_path / "lock")
    with holder(tmp_path / "lock"), pytest.raises(Held):
        FileLock(tmp_path / "lock", shared=True)


def test_a_passing_lock_leaves_with_its_last_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, "shared", "passing"):
        FileLock(path, shared=True, passing=True).release()
        assert path.exists()
        with pytest.raises(Held):
            FileLock(path, passing=True)
    assert not path.exists()


def test_a_file_that_was_removed_between_opening_and_locking_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    path.touch()
    opened = os.open
    removed: list[int] = []

    def open_and_lose(*arguments: object, **options: object) -> int:
        fd = opened(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are
        if not removed:
            path.unlink()
            removed.append(fd)
        return fd

    monkeypatch.setattr(os, "open", open_and_lose)
    lock = FileLock(path, passing=True)
    monkeypatch.undo()
    with pytest.raises(Held):
        FileLock(path)
    lock.release()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(tmp_path / "lock")
    assert not (tmp_path / "precious").exists()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    (born_read, born_write), (end_read, end_write) = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        os.close(end_write)
        os.write(born_write, b".")
        os.read(end_read, 1)  # until the parent has let go and looked
        os._exit(0)
    os.close(end_read)
    try:
        assert os.read(born_read, 1) == b"."
        lock.release()
        FileLock(tmp_path / "lock").release()
    finally:
        os.close(end_write)
        os.waitpid(child, 0)
        os.close(born_read)
        os.close(born_write)


@pytest.mark.skipif(not locks.LOCKS.exists(), reason="the system does not say who has a lock")
@pytest.mark.parametrize("options", [(), ("shared",)])
def test_who_has_a_lock_is_told_without_a_try_to_get_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = tmp_path / "lock"
    assert locks.holder(path) is None
    assert not path.exists()
    with holder(path, *options) as process:
        assert locks.holder(path) == process.pid
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    assert path.exists()
    assert locks.holder(path) is None
