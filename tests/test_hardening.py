"""What others can see of the daemon's memory: tried by a process of the same user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has /proc and prctl"),
]

NOBODY = 65534
# As root nothing is closed; so both processes are somebody else's then. To change the user hardens, too,
# so the process is opened again, as one would be that was started by that user.
BE_NOBODY = f"""
import ctypes, os, resource, socket, sys
from pathlib import Path
from poller.control.wire import reachable
from poller.hardening import harden
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
    assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0
"""
AS_NOBODY: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def seen(line: str) -> tuple[str, str]:
    """Return the limit of core files, and what another process of the same user gets of the environment."""
    program = (
        f"{BE_NOBODY}{line}\nprint(resource.getrlimit(resource.RLIMIT_CORE)[0], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PLANTED": "the-secret-in-the-environment"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        limit = process.stdout.readline().strip()
        other = subprocess.run(
            ["cat", f"/proc/{process.pid}/environ"], capture_output=True, text=True, check=False, **AS_NOBODY
        )
        process.stdin.close()
    said = other.stderr.rpartition(": ")[2].strip()
    return limit, "seen" if "the-secret-in-the-environment" in other.stdout else said


def test_processes_of_the_same_user_see_nothing_of_a_hardened_one() -> None:
    assert seen("")[1] == "seen"
    assert seen("harden()") == ("0", "Permission denied")


def test_a_hardened_process_still_reaches_long_names_through_its_own_proc(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(deep, NOBODY, NOBODY)
    # Opened as root: nobody may not search the directories above it.
    before = "directory = os.open(sys.argv[1], os.O_RDONLY)\nif os"
    program = (
        BE_NOBODY.replace("if os", before, 1) + "harden()\n"
        "long = Path(f'/proc/self/fd/{directory}', *['..', 'e' * 100] * 2, 'outbox.db.sock')\n"
        "with reachable(long) as name, socket.socket(socket.AF_UNIX) as one:\n"
        "    assert name.startswith('/proc/self/fd/') and len(str(long)) > 107 > len(name)\n"
        "    one.bind(name); one.listen()\n"
        "    with socket.socket(socket.AF_UNIX) as two: two.connect(name); print('connected')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(deep)], capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("connected\n", "")
