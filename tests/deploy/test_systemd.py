"""The systemd unit: as closed as it says, without a complaint of systemd's own tools, and fit to run poller in."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from poller.commands.command_line import USAGE
from poller.config.models import ShutdownSection
from poller.units import parse_duration

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "poller.service"
EXPOSED_AT_MOST = 2.0

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def settings(section: str) -> dict[str, list[str]]:
    """The values of each key of a section, in order."""
    found: dict[str, list[str]] = {}
    here = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            here = line.strip("[]")
        elif here == section and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], check=False, capture_output=True, text=True, timeout=60
    )


@needs_analyze
def test_it_is_hardly_exposed() -> None:
    result = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    found = re.search(r"Overall exposure level for poller\.service: ([\d.]+)", result.stdout)
    assert found, result.stdout + result.stderr
    assert float(found[1]) <= EXPOSED_AT_MOST


@needs_analyze
def test_systemd_has_nothing_to_say_against_it(tmp_path: Path) -> None:
    unit = tmp_path / "poller.service"
    # What it starts is not installed here, and that is all that may be said.
    unit.write_text(UNIT.read_text().replace("/opt/poller/bin/poller", "/bin/true"))
    result = analyze("verify", str(unit))
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_it_is_watched_and_started_again_unless_that_is_of_no_use() -> None:
    unit, service = settings("Unit"), settings("Service")
    assert (service["Type"], service["NotifyAccess"]) == (["notify"], ["main"])
    assert parse_duration(service["WatchdogSec"][0]) >= 30
    assert service["Restart"] == ["on-failure"]
    assert service["RestartPreventExitStatus"] == [str(USAGE)]
    assert int(unit["StartLimitBurst"][0]) >= 3
    assert "-HUP" in service["ExecReload"][0]


def test_it_leaves_the_drain_its_time() -> None:
    drain_s = ShutdownSection().drain
    stop = settings("Service")["TimeoutStopSec"][0]
    assert parse_duration(stop) >= drain_s + 30


def test_its_state_is_its_own() -> None:
    service = settings("Service")
    assert service["DynamicUser"] == ["yes"]
    assert (service["StateDirectory"], service["StateDirectoryMode"]) == (["poller"], ["0700"])
    assert (service["UMask"], service["LimitCORE"]) == (["0077"], ["0"])
    assert not any("KEY" in value or "SECRET" in value for value in service.get("Environment", []))


@pytest.mark.skipif(not Path("/run/systemd/system").is_dir(), reason="systemd does not run this machine")
def test_poller_works_inside_of_it() -> None:
    service = settings("Service")
    # Everything that closes the service, nothing of how it is started and kept.
    kept = re.compile(
        r"Exec|Type|Notify|Watchdog|Restart|SuccessExit|Timeout|KillMode|WorkingDirectory|ProtectHome"
    )
    properties = [
        f"--property={key}={value}"
        for key, values in service.items()
        if not kept.match(key)
        for value in values
    ]
    directory = "--property=WorkingDirectory=/var/lib/poller"
    demo = [sys.executable, "-m", "poller", "demo", "--duration", "3", "--accounts", "5"]
    result = subprocess.run(
        ["systemd-run", "--wait", "--pipe", "--collect", *properties, directory, *demo],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "equals the exchange's books" in result.stdout
