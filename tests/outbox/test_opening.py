"""What is found when an outbox is opened: nothing, ours, damaged, somebody else's, in use."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from poller.errors import OutboxError, OutboxFailed, OutboxLocked
from poller.metrics import Metrics
from poller.model import Baseline
from poller.outbox import Outbox, schema
from poller.testing.sink_contract import make_records
from poller.testing.virtual_time import VirtualClock

ALL = {"max_records": 10_000, "max_bytes": 1 << 30}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "outbox.db"


async def opened(path: Path) -> Outbox:
    return await Outbox.open(path, VirtualClock(), metrics=Metrics())


async def filled(path: Path, count: int = 200) -> bytes:
    """Make an outbox with records and return the bytes of its file."""
    outbox = await opened(path)
    await outbox.register({"sink": "oldest"})
    await outbox.accept(Baseline("alice", sequence=count), make_records(count))
    await outbox.close()
    return path.read_bytes()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),  # FULL: a commit that returned survives a power cut
        ("locking_mode", "exclusive"),
        ("auto_vacuum", 2),  # incremental: deleted records give their space back
        ("wal_autocheckpoint", 0),  # errors of automatic ones would be swallowed
    ],
)
async def test_the_settings_that_promises_rest_on(path: Path, setting: str, value: object) -> None:
    for _ in ("new", "opened again"):
        outbox = await opened(path)
        assert await outbox._engine.run(partial(query, outbox, f"PRAGMA {setting}")) == value
        await outbox.close()


def query(outbox: Outbox, sql: str) -> object:
    return outbox._engine.store._db.execute(sql).fetchone()[0]


# Rights -------------------------------------------------------------------------------------------


async def test_everything_is_for_the_owner_only(path: Path) -> None:
    outbox = await opened(path)
    await outbox.accept(None, make_records(1))
    assert path.parent.stat().st_mode & 0o777 == 0o700
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
    assert set(modes) == {"outbox.db", "outbox.db-wal", "outbox.db.lock", "outbox.db.reserve"}
    assert set(modes.values()) == {0o600}
    await outbox.close()


async def test_a_directory_that_is_there_keeps_its_rights(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    await (await opened(path)).close()
    assert path.parent.stat().st_mode & 0o777 == 0o755


async def test_a_file_that_others_may_read_is_closed_to_them(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await filled(path)
    path.chmod(0o644)
    await (await opened(path)).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "the outbox was open to others; its mode is 0600 now" in caplog.messages


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda path: path.symlink_to(path.with_name("elsewhere")),
            "is a symbolic link; name the file itself",
        ),
        (lambda path: path.mkdir(), "Is a directory"),
        (os.mkfifo, "is not a regular file"),
    ],
)
async def test_what_is_no_file_of_ours_is_refused(
    path: Path, make: Callable[[Path], None], message: str
) -> None:
    path.parent.mkdir()
    make(path)
    with pytest.raises(OutboxError, match=message):
        await opened(path)
    assert not path.with_name("elsewhere").exists()


# The lock -----------------------------------------------------------------------------------------

HOLD = """
import asyncio, sys
from pathlib import Path
from poller.clock import SystemClock
from poller.metrics import Metrics
from poller.outbox import Outbox

async def main():
    outbox = await Outbox.open(Path(sys.argv[1]), SystemClock(), metrics=Metrics())
    print("open", flush=True)
    sys.stdin.read()
    await outbox.close()

asyncio.run(main())
"""


@pytest.fixture
def holder(path: Path) -> Callable[[], subprocess.Popen[str]]:
    def hold() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        return process

    return hold


@pytest.mark.real_time
async def test_a_second_process_is_told_who_has_it_and_a_killed_one_has_it_no_more(
    path: Path, holder: Callable[[], subprocess.Popen[str]]
) -> None:
    with holder() as process:
        with pytest.raises(OutboxLocked, match=f"held by process {process.pid}") as locked:
            await opened(path)
        assert locked.value.pid == process.pid
        process.kill()
        process.wait()
        await (await opened(path)).close()


async def test_a_second_opening_in_this_process_is_refused_too(path: Path) -> None:
    outbox = await opened(path)
    with pytest.raises(OutboxLocked) as locked:
        await opened(path)
    assert locked.value.pid == os.getpid()
    await outbox.close()


@pytest.mark.real_time
async def test_no_other_program_gets_a_connection(path: Path) -> None:
    """Two connections are what corrupts a file in WAL mode, in the SQLite of most Pythons."""
    outbox = await opened(path)
    await outbox.accept(None, make_records(1))
    with (
        closing(sqlite3.connect(path, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("SELECT * FROM records")
    await outbox.close()


async def test_a_file_that_another_program_has_open_is_refused(path: Path) -> None:
    await filled(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM records").fetchone()
        with pytest.raises(OutboxLocked, match="another program has it open; close it first") as locked:
            await opened(path)
    assert locked.value.pid is None
    await (await opened(path)).close()


# Not ours, or not yet -----------------------------------------------------------------------------


async def test_a_newer_format_is_refused_untouched(path: Path) -> None:
    await filled(path)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA journal_mode = DELETE")
        newer.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(OutboxError, match=r"was written by a newer poller \(format 3, this one knows 2\)"):
        await opened(path)
    assert path.read_bytes() == before
    assert not path.with_name("outbox.db-wal").exists()


@pytest.mark.parametrize("application", [0, 1, 0x706F6C68])
async def test_another_programs_database_is_refused_untouched(path: Path, application: int) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute(f"PRAGMA application_id = {application}")
        theirs.execute("CREATE TABLE precious (thing)")
        theirs.commit()
    before = path.read_bytes()
    with pytest.raises(OutboxError, match="is another program's database; name a file of its own"):
        await opened(path)
    assert path.read_bytes() == before


# Damage -------------------------------------------------------------------------------------------


def spoil(content: bytes, what: str) -> bytes:
    """Return the bytes of an outbox after something went wrong with them."""
    size = len(content)
    page = content.find(b'"sequence":100,') // 4096 * 4096  # one in the middle of the records
    return {
        "text": b"this is no database\n" * 1000,
        "shorter than a header": b"SQLite",
        "zeros": bytes(size),
        "header overwritten": b"\xff" * 100 + content[100:],
        "first page zeroed behind the header": content[:100] + bytes(3996) + content[4096:],
        "cut in the middle": content[: size // 2],
        "page in the middle overwritten": content[:page] + b"\xa5" * 4096 + content[page + 4096 :],
    }[what]


@pytest.mark.parametrize(
    "what",
    [
        "text",
        "shorter than a header",
        "zeros",
        "header overwritten",
        "first page zeroed behind the header",
        "cut in the middle",
        "page in the middle overwritten",
    ],
)
async def test_an_unreadable_outbox_is_put_aside_whole_and_a_new_one_begun(
    path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = spoil(await filled(path), what)
    path.write_bytes(damaged)
    outbox = await opened(path)
    aside = path.with_name("outbox.db.unreadable-20260101T000000Z")
    assert outbox.set_aside == outbox.stats().set_aside == aside
    assert aside.read_bytes() == damaged
    await outbox.register({"sink": "oldest"})
    await outbox.accept(None, make_records(1))
    assert (outbox.last_position, await outbox.baselines()) == (1, {})
    await outbox.close()
    (said,) = [record for record in caplog.records if "was unreadable" in record.message]
    assert said.levelname == "ERROR"
    assert vars(said)["set_aside"] == str(aside)


async def test_a_second_unreadable_outbox_within_a_second_gets_a_name_of_its_own(path: Path) -> None:
    path.parent.mkdir()
    for text in (b"first" * 100, b"second" * 100):
        path.write_bytes(text)
        await (await opened(path)).close()
    names = sorted(path.parent.glob("*.unreadable-*"))
    assert [name.name.removeprefix("outbox.db.") for name in names] == [
        "unreadable-20260101T000000Z",
        "unreadable-20260101T000000Z-2",
    ]
    assert [name.read_bytes() for name in names] == [b"first" * 100, b"second" * 100]


async def test_missing_tables_are_damage(path: Path) -> None:
    await filled(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE cursors")
        connection.commit()
    outbox = await opened(path)
    assert outbox.set_aside is not None
    await outbox.close()


async def test_the_log_of_an_unreadable_outbox_goes_with_it(path: Path) -> None:
    outbox = await opened(path)
    await outbox.accept(None, make_records(50))
    log = path.with_name("outbox.db-wal").read_bytes()
    await outbox.close()
    path.write_bytes(b"no database" * 100)
    path.with_name("outbox.db-wal").write_bytes(log)
    again = await opened(path)
    assert again.set_aside is not None
    assert Path(f"{again.set_aside}-wal").read_bytes() == log
    assert again.last_position == 0
    await again.close()


async def test_a_log_without_its_file_is_never_replayed_into_a_new_one(path: Path) -> None:
    """What a crash leaves between putting aside the one and the other."""
    outbox = await opened(path)
    await outbox.accept(None, make_records(50))
    log = path.with_name("outbox.db-wal").read_bytes()
    await outbox.close()
    path.unlink()
    path.with_name("outbox.db-wal").write_bytes(log)
    again = await opened(path)
    assert again.last_position == 0
    assert again.set_aside is not None
    assert Path(f"{again.set_aside}-wal").read_bytes() == log
    await again.close()


async def test_damage_met_while_running_fails_and_the_next_start_looks_at_every_page(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poller.outbox.schema.QUICK_CHECK_BELOW_BYTES", 0)  # as if it were a gigabyte
    damaged = spoil(await filled(path), "page in the middle overwritten")
    path.write_bytes(damaged)
    outbox = await opened(path)
    assert outbox.set_aside is None
    await outbox.register({"sink": "oldest"})
    with pytest.raises(OutboxFailed, match="malformed"):
        await outbox.next_batch("sink", **ALL)
    await outbox.close()
    assert path.with_name("outbox.db.suspect").exists()
    again = await opened(path)
    assert again.set_aside is not None
    assert not path.with_name("outbox.db.suspect").exists()
    await again.close()


async def test_a_suspicion_that_proves_wrong_changes_nothing(path: Path) -> None:
    await filled(path, 3)
    path.with_name("outbox.db.suspect").touch()
    outbox = await opened(path)
    assert (outbox.set_aside, outbox.last_position) == (None, 3)
    assert not path.with_name("outbox.db.suspect").exists()
    await outbox.close()


async def test_one_damaged_baseline_costs_one_account_its_past(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = await opened(path)
    await asyncio.gather(*(outbox.accept(Baseline(name, sequence=5), []) for name in ("alice", "bob")))
    await outbox.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE baselines SET baseline = x'00' WHERE account = 'alice'")
        connection.commit()
    outbox = await opened(path)
    assert await outbox.baselines() == {"bob": Baseline("bob", sequence=5)}
    assert [(r.message, vars(r)["account"]) for r in caplog.records] == [("a baseline was lost", "alice")]
    await outbox.close()


@pytest.mark.parametrize("cut", range(0, 60_000, 2_999))
async def test_a_log_torn_anywhere_gives_whole_commits_up_to_there(path: Path, cut: int) -> None:
    """A power cut may leave any prefix of what was not yet synced."""
    outbox = await opened(path)
    await outbox.register({"sink": "oldest"})
    for number in range(1, 11):
        await outbox.accept(Baseline("alice", sequence=2 * number), make_records(2, first=2 * number - 1))
    file, log = path.read_bytes(), path.with_name("outbox.db-wal").read_bytes()
    await outbox.close()
    path.write_bytes(file)
    path.with_name("outbox.db-wal").write_bytes(log[:cut])
    again = await opened(path)
    assert again.set_aside is None
    await again.register({"sink": "oldest"})
    last = again.last_position
    assert last % 2 == 0
    assert {name: baseline.sequence for name, baseline in (await again.baselines()).items()} == (
        {"alice": last} if last else {}
    )
    found = await again.next_batch("sink", **ALL) if last else []
    assert [record.sequence for record in found] == list(range(1, last + 1))
    await again.close()
