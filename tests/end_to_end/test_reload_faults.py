"""A reload that meets trouble: whatever happens, all of it is in force or nothing, and polls go on."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from poller import following, reloading, running
from poller.addresses import address_key, claim
from poller.app import App
from poller.clock import SystemClock
from poller.config import load, read_secrets
from poller.control import Refused, ask, socket_path
from poller.errors import ConfigError
from poller.sampling import Sampling
from poller.service_manager import ServiceManager
from poller.simulator.faults import Fault, FaultKind
from tests.end_to_end import daemons
from tests.end_to_end.daemons import Daemon, happens
from tests.end_to_end.test_reload import into_vault
from tests.secrets.vault_stand_in import TOKEN, vault_stand_in
from tests.test_service_manager import Listener

pytestmark = pytest.mark.real_time

TIME = "/api/v3/time"
POLL = "/sapi/v3/asset/getUserAsset"


def stall(daemon: Daemon, account: str, delay_s: float = 3.0) -> None:
    exchange = daemon.server.exchange
    fault = Fault(FaultKind.LATENCY, delay_s=delay_s, account=account, path=POLL, count=1)
    exchange.faults.set([fault], exchange.now_us())


async def test_a_file_may_go_to_another_sink_that_must_open_at_once(tmp_path: Path) -> None:
    async with daemons.running(tmp_path) as daemon:
        daemon.edit("  log: {kind: jsonl,", "  journal: {kind: jsonl, on_start: fail,")
        assert await daemon.app.reload() == ("1 sink added: journal", "1 sink removed: log")
        size = (tmp_path / "data/records.jsonl").stat().st_size
        await happens(lambda: (tmp_path / "data/records.jsonl").stat().st_size > size)
        see = daemon.app.overview
        assert see is not None
        assert [sink.error for sink in see.sinks()] == ["", ""]


async def test_the_server_may_listen_more_widely_at_its_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_TOKEN", "0123456789abcdef" * 4)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    line = f"server: {{listen: '127.0.0.1:{port}', token: env:SERVER_TOKEN}}\n"

    def prepare(directory: Path) -> None:
        file = directory / "accounts.yaml"
        file.write_text(file.read_text() + line)

    async with daemons.running(tmp_path, prepare=prepare) as daemon:
        doors = daemon.app.doors
        assert doors is not None
        await happens(lambda: doors.address is not None)
        daemon.edit("listen: '127.0.0.1", "listen: '0.0.0.0")
        assert await daemon.app.reload() == (f"server: 127.0.0.1:{port} -> 0.0.0.0:{port}",)
        await happens(lambda: doors.address is not None and doors.address.host == "0.0.0.0")


async def test_a_bug_before_anything_is_applied_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a bug")

    async with daemons.running(tmp_path) as daemon:
        daemon.edit("share: 90%", "share: 80%")
        with monkeypatch.context() as broken:
            broken.setattr(reloading, "_read", fail)
            with pytest.raises(ConfigError, match="it cannot be reloaded: KeyError; see the log"):
                await daemon.app.reload()
        assert daemon.app.metrics.value("config_last_reload_successful") == 0
        see = daemon.app.overview
        assert see is not None
        assert see.status().configuration.problems == ["it cannot be reloaded: KeyError; see the log"]
        await daemon.polled_again("sim-0001")
        assert await daemon.app.reload() == ("budget: share 0.9 -> 0.8",)
    assert "the configuration could not be reloaded for a reason of our own" in caplog.text


async def test_a_bug_while_it_is_applied_ends_the_process_which_begins_anew_with_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a bug")

    async def reload_with_a_bug() -> None:
        async with daemons.running(tmp_path) as daemon:
            daemon.remove("sim-0001")
            daemon.edit("share: 90%", "share: 80%")
            monkeypatch.setattr("poller.egress.Egress.remove", fail)
            with pytest.raises(KeyError):
                await daemon.app.reload()

    with pytest.raises(ExceptionGroup) as ended:
        await reload_with_a_bug()
    assert ended.value.subgroup(KeyError) is not None
    config = load(tmp_path / "accounts.yaml")
    app, stop_it = App(config, read_secrets(config)), asyncio.Event()
    task = asyncio.create_task(app.run(stop_it))
    await app.started.wait()
    status = app.status()
    assert status is not None
    assert (status.dispatchers[0].accounts, status.budgets[0].allowed) == (7, 9600)
    stop_it.set()
    await task


async def test_whoever_asked_may_go_and_the_reload_is_whole(tmp_path: Path) -> None:
    async with daemons.running(tmp_path) as daemon:
        stall(daemon, "sim-0002")
        before = daemon.polls("sim-0002")
        await happens(lambda: daemon.polls("sim-0002") > before)
        daemon.remove("sim-0002")
        daemon.edit(r"  log: [^\n]*\n", "")
        asking = asyncio.create_task(daemon.app.reload())
        see = daemon.app.overview
        assert see is not None
        await happens(lambda: see.account("sim-0002") is None)
        asking.cancel()
        await daemon.polled_again("sim-0001")  # while the poll of the other is waited for
        # The one who asks next has to wait for the first.
        assert await daemon.app.reload() == ()
        assert [sink.sink for sink in see.sinks()] == ["history"]
        assert len(see.names()) == 7


async def test_an_end_in_the_middle_of_a_reload_waits_for_it_and_for_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with daemons.running(tmp_path) as daemon:
        stall(daemon, "sim-0002", 2.0)
        before = daemon.polls("sim-0002")
        await happens(lambda: daemon.polls("sim-0002") > before)
        daemon.remove("sim-0002")
        daemon.edit(r"  log: [^\n]*\n", "  second: {kind: jsonl, path: data/second.jsonl, start: oldest}\n")
        asking = asyncio.create_task(daemon.app.reload())
        see = daemon.app.overview
        assert see is not None
        await happens(lambda: see.account("sim-0002") is None)
    assert await asking == ("1 account removed: sim-0002", "1 sink added: second", "1 sink removed: log")
    assert (tmp_path / "data/second.jsonl").read_text().count('"removed"') >= 1
    assert "not everything was drained" not in caplog.text


async def test_an_end_does_not_wait_for_commands_that_have_yet_to_be_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    async with daemons.running(tmp_path) as daemon:
        command = f"echo >> {ran}; sleep 1; exit 75"
        accounts = "".join(
            f"  more-{number}: {{api_key: {{exec: [sh, -c, '{command}', '{number}']}}, secret: env:HOME}}\n"
            for number in range(100)
        )
        daemon.edit("^accounts:\n", f"accounts:\n{accounts}")
        daemon.app.reload_soon()
        await happens(ran.exists)
    await asyncio.get_running_loop().shutdown_default_executor()  # as at the end of the process
    assert len(ran.read_text()) <= 3 * 8  # eight at once


async def test_who_asks_while_it_stops_is_told_so(tmp_path: Path) -> None:
    async with daemons.running(tmp_path) as daemon:
        stalled = daemon.app
        reloads = stalled._reloading
        assert reloads is not None
        await reloads.end()
        with pytest.raises(ConfigError, match="about to stop"):
            await stalled.reload()
        assert stalled.metrics.value("config_last_reload_successful") == 1


async def test_secrets_that_come_back_and_cannot_be_used_end_nothing_and_hide_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(following, "TRY_AGAIN_S", 0.1)
    monkeypatch.setenv("HOOK", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    with vault_stand_in() as vault:
        monkeypatch.setenv("VAULT_ADDR", vault.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        async with daemons.running(tmp_path, prepare=into_vault(vault)) as daemon:
            see = daemon.app.overview
            assert see is not None
            good = daemon.file.read_text()
            daemon.file.write_text(good + "nonsense: 1\n")
            with pytest.raises(ConfigError):
                await daemon.app.reload()
            key = address_key(daemon.server.url, proxy="http://127.0.0.1:9", local_address=None)
            other = claim("another's", key)  # another process sends through that proxy
            assert other is not None
            vault.sealed = False
            await happens(lambda: "can be reached again, but not be used" in caplog.text)
            await daemon.polled_again("sim-0003")
            assert see.status().states["keyless"] == 2
            other.release()
            await happens(lambda: see.status().states["keyless"] == 0)
            assert "nonsense" in see.status().configuration.problems[0]
    assert caplog.text.count("can be reached again, but not be used") == 1


async def test_a_pause_outlives_its_address_under_this_name_and_another(tmp_path: Path) -> None:
    async with daemons.running(tmp_path) as daemon:
        before = daemon.file.read_text()
        with daemon.file.open("a") as file:
            file.write("egress: {default: {}, other: {local_address: 127.0.0.2}}\n")
        daemon.edit("^  sim-0001:\n", "  sim-0001:\n    egress: other\n")
        with_other = daemon.file.read_text()
        await daemon.app.reload()
        exchange = daemon.server.exchange
        fault = Fault(FaultKind.ERROR, status=418, account="sim-0001", path=POLL, count=1)
        exchange.faults.set([fault], exchange.now_us())
        see = daemon.app.overview
        assert see is not None

        def pauses() -> dict[str, str]:
            return {egress.egress: egress.pause_cause for egress in see.egress() if egress.pause_s}

        await happens(lambda: pauses() == {"other": "banned"})
        daemon.file.write_text(before)
        await daemon.app.reload()
        assert pauses() == {}
        daemon.file.write_text(with_other)
        await daemon.app.reload()
        assert pauses() == {"other": "banned"}
        daemon.file.write_text(with_other.replace("other", "renamed"))
        assert (await daemon.app.reload())[-2:] == ("1 egress added: renamed", "1 egress removed: other")
        assert pauses() == {"renamed": "banned"}
        asked = daemon.polls("sim-0001")
        await daemon.polled_again("sim-0002", "sim-0003")
        assert daemon.polls("sim-0001") == asked
    # And it is on the disk under its new name.
    config = load(daemon.file)
    app, stop_it = App(config, read_secrets(config)), asyncio.Event()
    task = asyncio.create_task(app.run(stop_it))
    await app.started.wait()
    assert app.overview is not None
    assert [egress.egress for egress in app.overview.egress() if egress.pause_s] == ["renamed"]
    stop_it.set()
    await task


async def test_a_pair_of_files_that_is_read_in_between_heals_with_the_second(tmp_path: Path) -> None:
    async with daemons.running(tmp_path, spare=2) as daemon:
        new = daemon.server.accounts[6]
        (tmp_path / "secrets/sim-0001.key").write_text(new.api_key)
        assert await daemon.app.reload() == ("1 account with another key: sim-0001",)
        await happens(lambda: any(name == "sim-0001" for name, _ in daemon.refused))
        (tmp_path / "secrets/sim-0001.secret").write_text(new.secret)
        assert await daemon.app.reload() == ("1 account with another key: sim-0001",)
        await daemon.polled_again("sim-0007")  # the exchange knows the key by this name


async def test_many_reloads_leave_nothing_behind(tmp_path: Path) -> None:
    async with daemons.running(tmp_path) as daemon:
        first = daemon.file.read_text()
        with daemon.file.open("a") as file:
            file.write("egress: {default: {}, other: {local_address: 127.0.0.2}}\n")
        daemon.edit("^  sim-0001:\n", "  sim-0001:\n    egress: other\n")
        daemon.remove("sim-0004")
        daemon.edit("  log: {kind: jsonl,", "  journal: {kind: jsonl, batch: 7,")
        second = daemon.file.read_text()

        def standing() -> tuple[int, int, int]:
            parts = daemon.app._parts
            assert parts is not None
            tasks = [task for task in asyncio.all_tasks() if "transports" not in task.get_name()]
            named = {
                task.get_name() for task in tasks if not task.get_name().startswith(("poll of", "Task-"))
            }
            return len(named), len(parts.locks), len(parts.observations._seen)

        await happens(lambda: standing()[2] == 8)
        before = standing()
        for _ in range(5):
            for text in (second, first):
                daemon.file.write_text(text)
                await daemon.app.reload()
        await happens(lambda: standing() == before)
        await daemon.polled_again("sim-0001", "sim-0004")
    assert daemon.refused == []


async def test_a_bug_in_what_only_watches_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running, "ANEW_AFTER_S", 0.05)
    look, looks = Sampling.look, 0

    async def fail_once(self: Any) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise KeyError("a bug")
        await look(self)

    monkeypatch.setattr(Sampling, "look", fail_once)
    async with daemons.running(tmp_path) as daemon:
        await happens(lambda: looks > 3)
        await daemon.polled_again("sim-0001")
    [line] = [record for record in caplog.records if "something beside polls" in record.getMessage()]
    assert line.__dict__["task"] == "sampling"


async def test_the_service_manager_hears_of_both_ends_of_every_reload(tmp_path: Path) -> None:
    listener = Listener(str(tmp_path / "notify"))
    async with daemons.running(tmp_path) as daemon:
        daemon.app._manager = ServiceManager(listener.address, None, SystemClock())
        daemon.edit("share: 90%", "share: 80%")
        await daemon.app.reload()
        daemon.edit("share: 80%", "share: 0%")
        with pytest.raises(ConfigError):
            await daemon.app.reload()
    heard = [message.split("\n")[0] for message in listener.heard()]
    listener.socket.close()
    assert heard == ["RELOADING=1", "READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


async def test_a_hangup_before_polls_begin_is_not_forgotten(tmp_path: Path) -> None:
    async with daemons.running(tmp_path) as daemon:
        pass
    config = load(daemon.file)
    app, stop_it = App(config, read_secrets(config)), asyncio.Event()
    daemon.edit("share: 90%", "share: 80%")
    app.reload_soon()
    task = asyncio.create_task(app.run(stop_it))
    await happens(lambda: app.metrics.value("config_reloads_total", result="success") == 1)
    status = app.status()
    assert status is not None
    assert status.budgets[0].allowed == 9600
    stop_it.set()
    await task


async def test_the_level_of_the_log_follows_the_configuration(tmp_path: Path) -> None:
    async with daemons.running(tmp_path) as daemon:
        levels: list[str] = []
        daemon.app._set_log_level = levels.append
        with daemon.file.open("a") as file:
            file.write("logging: {level: debug}\n")
        assert await daemon.app.reload() == ("logging: level info -> debug",)
        assert levels == ["debug"]


async def test_a_client_is_not_told_that_its_arguments_are_wrong_if_a_reload_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemons.running(tmp_path) as daemon:
        doors = daemon.app.doors
        assert doors is not None

        async def fail() -> tuple[str, ...]:
            raise KeyError("a bug")

        monkeypatch.setattr(doors, "_reload", fail)
        with pytest.raises(Refused, match="the daemon failed: RuntimeError; see its log"):
            await ask(socket_path(tmp_path / "data/outbox.db"), "reload", {})
