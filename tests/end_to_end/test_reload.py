"""Another configuration while the daemon runs: over real sockets, with a simulated exchange and real files."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from poller import following, reloading
from poller import running as running_tasks
from poller.app import App
from poller.config import load, read_secrets
from poller.errors import ConfigError
from poller.model import State
from poller.outbox import Outbox
from poller.secrets import Secret
from poller.simulator import SimulatorSettings, serve, write_config
from poller.simulator.faults import Fault, FaultKind
from poller.simulator.server import SimulatorServer
from poller.sinks.jsonl import JsonlSink
from tests.end_to_end.daemons import Daemon, happens, running
from tests.end_to_end.processes import POLLER, simulating, start, stop, wait_for
from tests.secrets.vault_stand_in import TOKEN, VaultStandIn, vault_stand_in

pytestmark = pytest.mark.real_time

POLL = "POST /sapi/v3/asset/getUserAsset"


async def test_nothing_is_different_when_nothing_was_changed(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        assert await daemon.app.reload() == ()
        assert daemon.app.metrics.value("config_reloads_total", result="success") == 1


async def test_accounts_come_and_go_and_the_others_go_on(tmp_path: Path) -> None:
    async with running(tmp_path, spare=2) as daemon:
        daemon.remove("sim-0002")
        for number in (7, 8):
            account = daemon.server.accounts[number - 1]
            (tmp_path / f"secrets/{account.name}.key").write_text(account.api_key)
            (tmp_path / f"secrets/{account.name}.any").write_text(account.secret)
            for ending in ("key", "any"):
                (tmp_path / f"secrets/{account.name}.{ending}").chmod(0o600)
            kind = "secret" if account.kind == "hmac" else "private_key"
            daemon.edit(
                "^accounts:\n",
                f"accounts:\n  {account.name}: {{api_key: file:secrets/{account.name}.key, "
                f"{kind}: file:secrets/{account.name}.any}}\n",
            )
        assert await daemon.app.reload() == (
            "2 accounts added: sim-0008, sim-0007",
            "1 account removed: sim-0002",
        )
        gone = daemon.polls("sim-0002")
        await daemon.polled_again("sim-0001", "sim-0007", "sim-0008")
        assert daemon.polls("sim-0002") == gone
        await happens(
            lambda: (
                daemon.rows("SELECT state, reason FROM statuses WHERE account = 'sim-0002'")
                == [("removed", "removed from the configuration")]
            )
        )
    assert daemon.refused == []


async def test_an_account_that_comes_back_is_said_to_be_well_and_goes_on_counting(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        before = daemon.file.read_text()
        daemon.remove("sim-0003")
        await daemon.app.reload()
        daemon.file.write_text(before)
        assert await daemon.app.reload() == ("1 account added: sim-0003",)
        await daemon.polled_again("sim-0003")
        query = "SELECT state, reason FROM statuses WHERE account = 'sim-0003' ORDER BY number"
        await happens(
            lambda: (
                daemon.rows(query)
                == [("removed", "removed from the configuration"), ("ok", "it is configured again")]
            )
        )
    sequences = daemon.rows("SELECT sequence FROM snapshots WHERE account = 'sim-0003' ORDER BY number")
    assert [number for (number,) in sequences] == list(range(1, len(sequences) + 1))


@asynccontextmanager
async def living(directory: Path, server: SimulatorServer) -> AsyncIterator[Daemon]:
    config = load(directory / "accounts.yaml")
    app, stop_it = App(config, read_secrets(config)), asyncio.Event()
    task = asyncio.create_task(app.run(stop_it))

    async def stop() -> None:
        stop_it.set()
        await task

    await app.started.wait()
    yield Daemon(app, directory, server, [], stop)
    await stop()


async def test_nothing_of_an_account_that_went_stays_in_memory_and_it_goes_on_counting_all_the_same(
    tmp_path: Path,
) -> None:
    def remembered(daemon: Daemon) -> set[str]:
        parts = daemon.app._parts
        assert parts is not None
        kept = parts.acceptance
        return {held.account for held in kept.baselines()} | kept._recorded_s.keys() | kept._locks.keys()

    settings = SimulatorSettings(accounts=3, latency_ms=(1.0, 5.0), moves_per_s=40.0)
    async with serve(settings) as server:
        write_config(tmp_path, server.url, server.accounts, settings, interval="200ms")
        async with living(tmp_path, server) as daemon:
            whole = daemon.file.read_text()

            def told() -> list[str]:
                query = "SELECT state FROM statuses WHERE account = 'sim-0003' ORDER BY number"
                return [state for (state,) in daemon.rows(query)]

            await happens(lambda: "sim-0003" in remembered(daemon))
            daemon.remove("sim-0003")
            await daemon.app.reload()
            assert "sim-0003" not in remembered(daemon)
            daemon.file.write_text(whole)
            await daemon.app.reload()
            await happens(lambda: told() == ["removed", "ok"])
        daemon.remove("sim-0003")
        async with living(tmp_path, server) as daemon:
            await happens(lambda: told() == ["removed", "ok", "removed"])
            assert "sim-0003" not in remembered(daemon)
        async with living(tmp_path, server) as daemon:
            assert "sim-0003" not in remembered(daemon)
            daemon.file.write_text(whole)
            await daemon.app.reload()
            await happens(lambda: told() == ["removed", "ok", "removed", "ok"])
    sequences = daemon.rows("SELECT sequence FROM snapshots WHERE account = 'sim-0003' ORDER BY number")
    assert [number for (number,) in sequences] == list(range(1, len(sequences) + 1))
    assert len(sequences) > 2


async def test_which_sub_accounts_exist_is_known_on_while_nobody_can_be_asked(tmp_path: Path) -> None:
    settings = SimulatorSettings(accounts=3, latency_ms=(1.0, 5.0))
    async with serve(settings) as server:
        write_config(tmp_path, server.url, server.accounts, settings, interval="200ms", master=server.master)
        async with living(tmp_path, server) as daemon:
            see = daemon.app.overview
            assert see is not None
            await happens(lambda: see.status().discoveries[0].found == 3)
            stalled = Fault(FaultKind.STALL, delay_s=60.0, path="/sapi/v1/sub-account/list")
            server.exchange.faults.set([stalled], server.exchange.now_us())
            daemon.remove("sim-0003")
            assert "discover: asked anew" in await daemon.app.reload()
            [known] = see.status().discoveries
            assert (known.found, known.missing) == (3, ("sim-0003@sub.example",))


async def test_no_key_from_before_stays_in_memory(tmp_path: Path) -> None:
    settings = SimulatorSettings(accounts=6, latency_ms=(1.0, 5.0))
    async with serve(settings) as server:
        write_config(tmp_path, server.url, server.accounts, settings, interval="200ms")
        old = [server.accounts[number].api_key for number in (0, 2)]

        def held() -> list[Secret]:
            gc.collect()
            return [one for one in gc.get_objects() if type(one) is Secret and one.reveal() in old]

        async with living(tmp_path, server) as daemon:
            assert len(held()) == len(old)
            daemon.remove("sim-0003")
            (tmp_path / "secrets/sim-0001.key").write_text("another-key")
            await daemon.app.reload()
            await happens(lambda: not held())


async def test_an_account_that_went_while_nobody_ran_is_said_to_be_removed_at_the_next_start(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as daemon:
        pass
    daemon.remove("sim-0004")
    config = load(daemon.file)
    app, stop_it = App(config, read_secrets(config)), asyncio.Event()
    task = asyncio.create_task(app.run(stop_it))
    query = "SELECT account, state FROM statuses WHERE state = 'removed'"
    await happens(lambda: daemon.rows(query) == [("sim-0004", "removed")])
    stop_it.set()
    await task


async def test_a_key_is_exchanged_without_a_poll_that_fails(tmp_path: Path) -> None:
    async with running(tmp_path, spare=2) as daemon:
        # Two of the same kind: the other's key stands for the new one.
        old, new = daemon.server.accounts[0], daemon.server.accounts[6]
        assert old.kind == new.kind
        others = {"sim-0001": ("key", new.api_key), "sim-0001.": ("secret", new.secret)}
        for name, (ending, content) in others.items():
            (tmp_path / f"secrets/{name.strip('.')}.{ending}").write_text(content)
        assert await daemon.app.reload() == ("1 account with another key: sim-0001",)
        before = daemon.polls("sim-0001")
        await daemon.polled_again("sim-0007", "sim-0002")
        assert daemon.polls("sim-0001") <= before + 1  # one may have been under way
    assert daemon.refused == []


async def test_a_key_that_was_refused_is_tried_again_at_once_when_it_is_another(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        daemon.server.exchange.revoked.add("sim-0001")
        await happens(lambda: any(name == "sim-0001" for name, _ in daemon.refused))
        right = (
            (tmp_path / "secrets/sim-0004.key").read_text(),
            (tmp_path / "secrets/sim-0004.secret").read_text(),
        )
        daemon.remove("sim-0004")
        await daemon.app.reload()
        (tmp_path / "secrets/sim-0001.key").write_text(right[0])
        (tmp_path / "secrets/sim-0001.secret").write_text(right[1])
        await daemon.app.reload()
        await daemon.polled_again("sim-0004")  # the exchange knows the key by this name


async def test_intervals_sinks_and_shares_change(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        daemon.edit('interval: "200ms"', 'interval: "400ms"')
        daemon.edit("share: 90%", "share: 50%")
        daemon.edit(
            r"  log: [^\n]*\n", "  second: {kind: jsonl, path: data/second.jsonl, batch: 7, start: oldest}\n"
        )
        lines = await daemon.app.reload()
        names = ", ".join(f"sim-000{number}" for number in range(1, 6))
        assert lines == (
            f"8 accounts ({names} and 3 more): interval_s 0.2 -> 0.4, stale_after_s 200 -> 400",
            "1 sink added: second",
            "1 sink removed: log",
            "budget: share 0.9 -> 0.5",
        )
        status = daemon.app.status()
        assert status is not None
        assert status.budgets[0].allowed == 6000
        assert [delivery.name for delivery in status.deliveries] == ["history", "second"]
        await daemon.polled_again("sim-0001")
    written = [json.loads(line) for line in (tmp_path / "data/second.jsonl").read_text().splitlines()]
    ids = {id_ for (id_,) in daemon.rows("SELECT id FROM snapshots UNION SELECT id FROM statuses")}
    assert {record["id"] for record in written} == ids  # from the oldest one on


async def test_a_sink_with_other_options_goes_on_where_it_was(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        daemon.edit("data/records.jsonl", "data/other.jsonl")
        assert await daemon.app.reload() == ("sink log: path changed",)
        await daemon.polled_again("sim-0001", "sim-0002")
    first, second = (tmp_path / f"data/{name}.jsonl" for name in ("records", "other"))
    ids = [json.loads(line)["id"] for file in (first, second) for line in file.read_text().splitlines()]
    assert len(ids) == len(set(ids))
    assert set(ids) == {
        id_ for (id_,) in daemon.rows("SELECT id FROM snapshots UNION SELECT id FROM statuses")
    }


async def test_a_daemon_stops_although_a_reload_waits_for_a_sink_that_is_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = asyncio.Event()

    async def hang(*_: object) -> None:
        hanging.set()
        await asyncio.sleep(1e9)

    async with running(tmp_path) as daemon:
        monkeypatch.setattr(JsonlSink, "write", hang)
        await hanging.wait()
        daemon.edit("data/records.jsonl", "data/other.jsonl")
        daemon.file.write_text(daemon.file.read_text() + "shutdown: {drain: 0s}\n")
        before = daemon.app._config
        daemon.app.reload_soon()
        await happens(lambda: daemon.app._config is not before)  # what it has asked to end has not ended


async def test_a_sink_that_is_down_is_exchanged_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_tasks, "PATIENCE_S", 1e9)
    async with running(tmp_path) as daemon:
        good = daemon.file.read_text()
        see = daemon.app.overview
        assert see is not None
        for bad in ("/proc/nowhere/x.jsonl", "/proc/nowhere/y.jsonl"):
            daemon.file.write_text(good.replace("data/records.jsonl", bad))
            await daemon.app.reload()
            await happens(lambda: see.sinks()[1].failing_s > 0)
        daemon.file.write_text(good)
        assert await daemon.app.reload() == ("sink log: path changed",)
        await happens(lambda: see.sinks()[1].delivered > 0)


async def test_accounts_move_to_an_address_that_is_new_and_back(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        before, exchange = daemon.file.read_text(), daemon.server.exchange
        with daemon.file.open("a") as file:
            file.write("egress: {default: {}, other: {local_address: 127.0.0.2}}\n")
        daemon.edit("^  sim-0001:\n", "  sim-0001:\n    egress: other\n")
        daemon.edit("^  sim-0002:\n", "  sim-0002:\n    egress: other\n")
        lines = await daemon.app.reload()
        assert lines[-1] == "1 egress added: other"
        await daemon.polled_again("sim-0001", "sim-0002", "sim-0003")
        assert set(exchange.weights.used(POLL.split()[1], exchange.now_us())) >= {"127.0.0.1", "127.0.0.2"}
        daemon.file.write_text(before)
        assert (await daemon.app.reload())[-1] == "1 egress removed: other"
        status = daemon.app.status()
        assert status is not None
        assert [dispatcher.egress for dispatcher in status.dispatchers] == ["default"]
        await daemon.polled_again("sim-0001", "sim-0002", "sim-0003")
    assert daemon.refused == []


@pytest.mark.parametrize(
    ("pattern", "replacement", "problem"),
    [
        ('interval: "200ms"', "interval: soon", "'soon' is not a duration"),
        ("interval:", "intervall:", "did you mean 'interval'?"),
        (r"\Z", "accounts: {}\n", "accounts"),
        ("secrets/sim-0001.key", "secrets/none.key", "there is no file"),
        ("data/outbox.db", "data/another.db", "cannot be changed while the daemon runs"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:1", "exchange.base_url: cannot be changed"),
        (
            r"\Z",
            "egress: {far: {local_address: 203.0.113.9}}\n",
            "egress.far.local_address: nothing can be sent",
        ),
        ("kind: jsonl, path: data/records.jsonl", "kind: redis", "sinks.log"),
        (
            "kind: jsonl, path: data/records.jsonl}",
            "kind: jsonl, path: data/records.jsonl}\n  more: {kind: jsonl, path: /proc/nowhere/x.jsonl, on_start: fail}",
            "sinks.more: this sink cannot be opened",
        ),
        (
            r"\Z",
            "egress: {default: {}, twin: {local_address: 127.0.0.9}, other: {local_address: 127.0.0.9}}\n",
            "egress",
        ),
    ],
)
async def test_with_any_problem_everything_stays_as_it_was(
    tmp_path: Path, pattern: str, replacement: str, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "poller.reloading")
    async with running(tmp_path) as daemon:
        before = daemon.file.read_text()
        daemon.edit("share: 90%", "share: 10%")
        daemon.remove("sim-0005")
        daemon.file.write_text(re.sub(pattern, replacement, daemon.file.read_text(), count=1))
        for _ in range(2):
            with pytest.raises(ConfigError) as refused:
                await daemon.app.reload()
            assert problem in str(refused.value)
        status = daemon.app.status()
        assert status is not None
        assert status.budgets[0].allowed == 10_800
        assert [delivery.name for delivery in status.deliveries] == ["history", "log"]
        await daemon.polled_again("sim-0005", "sim-0001")
        assert daemon.app.metrics.value("config_last_reload_successful") == 0
        assert daemon.app.metrics.value("config_reloads_total", result="failure") == 2
        # Said once: the same problems again are no news.
        assert len([record for record in caplog.records if record.name == "poller.reloading"]) == 1
        daemon.file.write_text(before)
        assert await daemon.app.reload() == ()
        assert daemon.app.metrics.value("config_last_reload_successful") == 1
    assert daemon.refused == []
    assert daemon.rows("SELECT * FROM statuses") == []


async def test_changed_files_are_noticed_however_they_are_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.05)
    async with running(tmp_path, watch=True) as daemon:

        def reloads() -> float:
            return daemon.app.metrics.value("config_reloads_total", result="success")

        daemon.edit("share: 90%", "share: 80%")  # written in place
        await happens(lambda: reloads() == 1)
        other = tmp_path / "accounts.yaml.new"
        other.write_text(daemon.file.read_text().replace("share: 80%", "share: 70%"))
        other.rename(daemon.file)  # as editors do
        await happens(lambda: reloads() == 2)
        status = daemon.app.status()
        assert status is not None
        assert status.budgets[0].allowed == 8400


async def test_a_directory_that_kubernetes_swaps_is_noticed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.05)
    async with running(tmp_path, watch=True) as daemon:
        text = daemon.file.read_text()
        for number, share in enumerate((60, 50, 40)):
            version = tmp_path / f"..version_{number}"
            version.mkdir()
            (version / "accounts.yaml").write_text(text.replace("share: 90%", f"share: {share}%"))
            link = tmp_path / "..data_tmp"
            link.symlink_to(version.name)
            link.rename(tmp_path / "..data")
            if not daemon.file.is_symlink():
                daemon.file.unlink()
                daemon.file.symlink_to("..data/accounts.yaml")

            def allowed() -> int:
                status = daemon.app.status()
                return 0 if status is None else status.budgets[0].allowed

            await happens(lambda share=share: allowed() == share * 120)  # type: ignore[misc]  # bound here


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "noticed"])
async def test_what_changed_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.2)
    reads: list[Path] = []

    def noted(path: Path, *others: Any) -> Any:
        reads.append(path)
        return read(path, *others)

    read = reloading._read
    monkeypatch.setattr(reloading, "_read", noted)
    async with running(tmp_path, watch=True, spare=1) as daemon:
        # An account more: there are other files to be watched afterwards.
        (tmp_path / "secrets/new.key").write_text(daemon.server.accounts[7].api_key)
        (tmp_path / "secrets/new.pem").write_text(daemon.server.accounts[7].secret)
        assert daemon.server.accounts[7].kind != "hmac"
        daemon.edit(
            "^accounts:\n",
            "accounts:\n  new:\n    api_key: file:secrets/new.key\n    private_key: file:secrets/new.pem\n",
        )
        for name in ("new.key", "new.pem"):
            (tmp_path / "secrets" / name).chmod(0o600)
        if asked:
            assert await daemon.app.reload() == ("1 account added: new",)
        await happens(lambda: "new" in daemon.app._config.accounts)
        await asyncio.sleep(1)
        assert len(reads) == 1


async def test_what_is_refused_is_tried_again_although_nothing_that_is_watched_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(following, "TRY_AGAIN_S", 0.2)
    async with running(tmp_path, watch=True) as daemon:
        key = tmp_path / "secrets/late.key"
        daemon.edit("secrets/sim-0001.key", "secrets/late.key")
        await happens(lambda: daemon.app.metrics.value("config_reloads_total", result="failure") >= 1)
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write((tmp_path / "secrets/sim-0001.key").read_text())
        await happens(lambda: daemon.app.metrics.value("config_last_reload_successful") == 1)


def test_a_hangup_and_the_command_reload_a_daemon_in_its_process(tmp_path: Path) -> None:
    with simulating(tmp_path, "--accounts", "3", "--latency", "1-5", "--interval", "500ms") as exchange:
        file, log = tmp_path / "accounts.yaml", tmp_path / "log"
        daemon = start(tmp_path, "--log-format", "json", log=log)
        exchange.wait_until_all_polled(1)

        def told() -> list[dict[str, Any]]:
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            return [line for line in lines if line["logger"] == "poller.reloading"]

        file.write_text(file.read_text().replace("share: 90%", "share: 80%") + "reload: {watch: false}\n")
        daemon.send_signal(signal.SIGHUP)
        changed = ["budget: share 0.9 -> 0.8", "reload: is_watching True -> False"]
        wait_for(lambda: [line["changed"] for line in told()] == [changed])

        def reload(*options: str) -> subprocess.CompletedProcess[str]:
            command = [*POLLER, "reload", "-c", str(file), *options]
            return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

        again = reload()
        assert (again.returncode, again.stdout) == (0, "nothing is different\n")
        file.write_text(file.read_text().replace("share: 80%", "share: 70%"))
        again = reload("--json")
        assert json.loads(again.stdout) == {"changed": ["budget: share 0.8 -> 0.7"]}
        (tmp_path / "secrets/sim-0002.key").chmod(0o644)
        refused = reload()
        assert refused.returncode == 2
        assert "not reloaded; what was in force still is" in refused.stderr
        assert "accounts.sim-0002.api_key: file" in refused.stderr
        assert stop(daemon) == 0
        nobody = reload()
        assert nobody.returncode == 1
        assert "no daemon runs" in nobody.stderr


async def test_who_was_removed_is_kept_as_such_in_the_outbox(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        daemon.remove("sim-0006")
        await daemon.app.reload()
    outbox = await Outbox.open(tmp_path / "data/outbox.db", daemon.app._clock, metrics=daemon.app.metrics)
    baselines = await outbox.baselines()
    await outbox.close()
    assert baselines["sim-0006"].state is State.REMOVED
    assert baselines["sim-0001"].state is State.OK


def into_vault(vault: VaultStandIn) -> Callable[[Path], None]:
    """Move the key of one account, and the URL of one sink and of one proxy, into a Vault that is sealed."""

    def move(directory: Path) -> None:
        main = directory / "accounts.yaml"
        text = main.read_text()
        vault.secrets["sim-0001"] = {
            ending: (directory / f"secrets/sim-0001.{ending}").read_text() for ending in ("key", "secret")
        }
        for ending in ("key", "secret"):
            text = text.replace(f"file:secrets/sim-0001.{ending}", f"vault:secret/sim-0001#{ending}")
        vault.secrets["bus"] = {"url": "https://127.0.0.1:9/hook"}
        vault.secrets["proxy"] = {"url": "http://127.0.0.1:9"}
        text = text.replace("  sim-0002:\n", "  sim-0002:\n    egress: far\n")
        text = text.replace(
            "sinks:\n", "sinks:\n  bus: {kind: webhook, url: 'vault:secret/bus#url', secret: env:HOOK}\n"
        )
        main.write_text(text + "egress: {default: {}, far: {proxy: 'vault:secret/proxy#url'}}\n")
        vault.sealed = True

    return move


async def test_what_could_not_be_had_at_the_start_is_taken_up_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(following, "TRY_AGAIN_S", 0.2)
    monkeypatch.setenv("HOOK", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    caplog.set_level(logging.INFO, "poller.reloading")
    with vault_stand_in() as vault:
        monkeypatch.setenv("VAULT_ADDR", vault.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        async with running(tmp_path, prepare=into_vault(vault)) as daemon:
            see = daemon.app.overview
            assert see is not None
            await daemon.polled_again("sim-0003", "sim-0008")
            assert see.status().states["keyless"] == 2
            first, second = see.account("sim-0001"), see.account("sim-0002")
            assert first is not None
            assert second is not None
            assert first.why[0] == (
                f"It is not polled: Vault at {vault.url} is sealed. That is tried again by itself."
            )
            assert second.summary.state == "keyless"
            assert [sink.sink for sink in see.sinks()] == ["bus", "history", "log"]
            assert "is sealed" in see.sinks()[0].error
            assert see.sinks()[0].backlog > 0
            # Another change is taken while they are missing; what is missing is not held against it.
            daemon.edit("share: 90%", "share: 80%")
            assert await daemon.app.reload() == ("budget: share 0.9 -> 0.8",)
            assert see.status().states["keyless"] == 2
            vault.sealed = False
            await daemon.polled_again("sim-0001")
            await happens(lambda: see.status().states["keyless"] == 0)
            await happens(
                lambda: any(name == "sim-0002" for name, _ in daemon.refused)
            )  # the proxy is not there
            # And once they were there, they may not go missing again.
            vault.sealed = True
            with pytest.raises(ConfigError, match="is sealed"):
                await daemon.app.reload()
            await daemon.polled_again("sim-0001")
    [line] = [record.__dict__ for record in caplog.records if "reached again" in record.getMessage()]
    assert line["count"] == 3
    assert line["changed"][0] == "1 account with a key at last: sim-0001"


async def test_a_silent_account_is_stale_also_for_want_of_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    with vault_stand_in() as vault:
        monkeypatch.setenv("VAULT_ADDR", vault.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        async with running(tmp_path, stale_after=3, prepare=into_vault(vault)) as daemon:
            query = "SELECT state FROM statuses WHERE account = 'sim-0001'"
            await happens(lambda: daemon.rows(query) == [("stale",)])
