"""Where an outbox may lie."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from poller.errors import OutboxError
from poller.metrics import Metrics
from poller.outbox import Outbox, place
from poller.testing.virtual_time import VirtualClock

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:25 / /srv rw,relatime shared:2 master:3 - xfs /dev/vdb rw
31 30 0:26 / /srv/net rw - nfs4 server:/export rw,vers=4.2
32 31 0:27 / /srv/net/local rw - btrfs /dev/vdc rw
33 27 0:28 / /mnt/with\\040space\\134 rw - fuse.sshfs host: rw
34 27 0:29 / /over rw - ext4 /dev/vdd rw
35 27 0:30 / /over rw - tmpfs tmpfs rw
not a mount at all
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/", "ext4"),
        ("/home/me", "ext4"),
        ("/srv", "xfs"),
        ("/srv/data", "xfs"),
        ("/srvant", "ext4"),
        ("/srv/net/a/b", "nfs4"),
        ("/srv/net/local/a", "btrfs"),
        ("/mnt/with space\\/a", "fuse.sshfs"),
        ("/over/a", "tmpfs"),
    ],
)
def test_the_file_system_of_a_directory_is_the_innermost_and_last_mounted(directory: str, kind: str) -> None:
    assert place.file_system(Path(directory), MOUNTS) == kind


def test_without_a_mount_table_nothing_is_claimed() -> None:
    assert place.file_system(Path("/srv"), "") == ""


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "fuse", "fuseblk", "fuse.s3fs"]
)
async def test_an_outbox_on_a_network_or_fuse_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 1 0:1 / / rw - {kind} somewhere rw\n")
    monkeypatch.setattr(place, "MOUNTS", mounts)
    with pytest.raises(OutboxError, match=f"lies on a {kind} file system.*move the outbox to a local disk"):
        await Outbox.open(tmp_path / "data" / "outbox.db", VirtualClock(), metrics=Metrics())
    assert not (tmp_path / "data" / "outbox.db").exists()


@pytest.mark.parametrize(
    ("kind", "warned"), [("tmpfs", True), ("ramfs", True), ("ext4", False), ("zfs", False)]
)
async def test_an_outbox_in_memory_is_warned_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    warned: bool,
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 1 0:1 / / rw - {kind} somewhere rw\n")
    monkeypatch.setattr(place, "MOUNTS", mounts)
    outbox = await Outbox.open(tmp_path / "data" / "outbox.db", VirtualClock(), metrics=Metrics())
    await outbox.close()
    said = [record.message for record in caplog.records]
    assert said == (["the outbox lies in memory and will not survive a reboot"] if warned else [])


def test_the_reserve_holds_real_space_and_gives_it_back(tmp_path: Path) -> None:
    reserve = place.Reserve(tmp_path / "reserve", 1 << 20)
    assert reserve.take()
    assert reserve.take()
    found = (tmp_path / "reserve").stat()
    assert (found.st_size, found.st_blocks * 512, found.st_mode & 0o777) == (1 << 20, 1 << 20, 0o600)
    reserve.release()
    reserve.release()
    assert not (tmp_path / "reserve").exists()


def test_the_reserve_is_only_taken_when_there_is_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def allocate(fd: int, offset: int, size: int) -> None:
        asked.append((offset, size))
        if size > 150:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("os.posix_fallocate", allocate)
    reserve = place.Reserve(tmp_path / "reserve", 100)
    assert reserve.take(beyond_bytes=50)
    assert not reserve.take(beyond_bytes=51)
    assert asked == [(0, 150), (0, 151)]
    assert not (tmp_path / "reserve").exists()


def test_a_reserve_that_fails_for_another_reason_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.posix_fallocate", broken)
    with pytest.raises(OSError, match="Input/output error"):
        place.Reserve(tmp_path / "reserve", 100).take()
    assert place.has_room(tmp_path / "outbox.db")


def test_there_is_room_next_to_a_file_on_a_disk_with_room(tmp_path: Path) -> None:
    assert place.has_room(tmp_path / "outbox.db")
    assert list(tmp_path.iterdir()) == []
