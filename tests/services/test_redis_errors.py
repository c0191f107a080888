"""What a real server's errors mean: each is provoked at a server of the test's own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from poller.errors import SinkBroken, SinkError, SinkRejected, SinkUnavailable
from poller.model import Kind, Record
from poller.secrets import Secret
from poller.sinks.redis import RedisOptions, RedisSink
from poller.testing.sink_contract import ids, make_records
from tests.exchange.certificates import Authority
from tests.services.redis_servers import Server, serving, until
from tests.services.servers import free_port

pytestmark = pytest.mark.real_time

CANARY = "canary-9f3b7c2e81d4"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path / "redis") as server:
        yield server


def everything_said(error: BaseException | None) -> str:
    """Return the texts of an error and of all that it came from."""
    said = ""
    while error is not None:
        said += f"{error} {error!r} {error.args}"
        error = error.__cause__ or error.__context__
    return said


async def refused(sink: RedisSink, kind: type[SinkError], words: str, *, count: int = 2) -> SinkError:
    """Hold that a write fails in a way, and the next one too: nothing was left half-way."""
    with pytest.raises(kind, match=words) as failed:
        await sink.write(make_records(count))
    with pytest.raises(kind, match=words):
        await sink.write(make_records(count))
    return failed.value


async def test_without_a_password_and_with_a_wrong_one(tmp_path: Path) -> None:
    async with serving(tmp_path, "--requirepass", CANARY, password=CANARY) as server:
        for url, words in (
            (server.url, "NOAUTH"),
            (f"redis://:{CANARY}wrong@127.0.0.1:{server.port}", "WRONGPASS"),
            (f"redis://nobody:{CANARY}wrong@127.0.0.1:{server.port}", "WRONGPASS"),
        ):
            sink = server.sink(url=url)
            with pytest.raises(SinkBroken, match=f"{words}.*put the right user and password") as failed:
                await sink.open()
            assert CANARY not in everything_said(failed.value)
            assert CANARY not in repr(sink._options)
            await sink.close()
        good = server.sink(url=f"redis://default:{CANARY}@127.0.0.1:{server.port}")
        await good.write(make_records(2))
        assert await server.ids() == ids(make_records(2))
        await good.close()


async def test_a_password_where_none_is_wanted(server: Server) -> None:
    sink = server.sink(url=f"redis://:{CANARY}@127.0.0.1:{server.port}")
    with pytest.raises(SinkBroken, match="password") as failed:
        await sink.open()
    assert CANARY not in everything_said(failed.value)
    await sink.close()


async def test_a_user_without_the_right_to_write(server: Server) -> None:
    await server.client.acl_setuser("reader", enabled=True, passwords=["+x"], keys=["*"], commands=["+ping"])
    sink = server.sink(url=f"redis://reader:x@127.0.0.1:{server.port}")
    await sink.open()  # it is not allowed to ask either, which breaks nothing
    await refused(sink, SinkBroken, "NOPERM.*grant the user")
    await sink.close()


async def test_what_a_user_needs_is_what_the_page_says(server: Server) -> None:
    page = (Path(__file__).parents[2] / "docs/sinks/redis.md").read_text()
    for deduplicate in (None, 60.0):
        rule = next(line for line in page.splitlines() if line.startswith("ACL SETUSER poller"))
        await server.command(*rule.replace("PASSWORD", "secret").split())
        options = {"url": Secret(f"redis://poller:secret@127.0.0.1:{server.port}")}
        sink = RedisSink(RedisOptions(**options).model_copy(update={"deduplicate": deduplicate}))
        await sink.write(make_records(2))
        await sink.close()
    assert await server.ids() == ids(make_records(2)) * 2


async def test_a_replica_is_waited_for(server: Server) -> None:
    """It becomes the primary, or the name goes over to the one that is."""
    await server.client.replicaof("127.0.0.1", str(free_port()))
    sink = server.sink()
    await refused(sink, SinkUnavailable, "READONLY")
    await server.client.replicaof("NO", "ONE")
    await sink.write(make_records(2))
    assert await server.ids() == ids(make_records(2))
    await sink.close()


@pytest.mark.parametrize("deduplicate", [None, 60.0])
async def test_a_server_out_of_memory_takes_the_whole_batch_later(
    server: Server, deduplicate: float | None
) -> None:
    sink = RedisSink(RedisOptions(url=Secret(server.url)).model_copy(update={"deduplicate": deduplicate}))
    await sink.write(make_records(1))
    await server.client.config_set("maxmemory", "1mb")
    await refused(sink, SinkUnavailable, "OOM")
    assert await server.ids() == ids(make_records(1))
    await server.client.config_set("maxmemory", "0")
    await sink.write(make_records(3))
    assert list(dict.fromkeys(await server.ids())) == ids(make_records(3))
    await sink.close()


async def test_a_server_that_cannot_save(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    async with serving(directory) as server:
        await server.client.config_set("save", "3600 1")
        shutil.rmtree(directory)
        await server.command("BGSAVE")

        async def has_failed() -> bool:
            return str((await server.client.info("persistence"))["rdb_last_bgsave_status"]) == "err"

        await until(has_failed)
        sink = server.sink()
        await refused(sink, SinkUnavailable, "MISCONF")
        await server.client.config_set("stop-writes-on-bgsave-error", "no")
        await sink.write(make_records(2))
        await sink.close()


async def test_a_server_that_is_still_loading(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        pipeline = server.client.pipeline()
        for number in range(3000):
            pipeline.set(f"key-{number}", "x" * 100)
        await pipeline.execute()
        await server.client.save()
    slow = ("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
    said = []
    async with serving(tmp_path, *slow, wait=False) as server:
        sink = server.sink()

        async def is_open() -> bool:
            try:
                await sink.open()
            except SinkUnavailable as error:
                said.append(str(error))
                return False
            return True

        await until(is_open)
        assert "LOADING" in said[-1]
        await sink.write(make_records(2))
        assert await server.ids() == ids(make_records(2))
        await sink.close()


@pytest.mark.parametrize("deduplicate", [None, 60.0])
async def test_a_key_of_another_kind_is_found_before_anything_is_written(
    server: Server, deduplicate: float | None
) -> None:
    await server.client.set("balances:b", "text")
    options = RedisOptions.model_validate({"url": Secret(server.url), "stream": "balances:{account}"})
    sink = RedisSink(options.model_copy(update={"deduplicate": deduplicate}))
    batch = [*make_records(1, account="a"), *make_records(1, account="b", first=2)]
    for _ in range(3):
        with pytest.raises(SinkBroken, match="'balances:b' holds a string and no stream; name another"):
            await sink.write(batch)
    assert await server.ids("balances:a") == []
    await server.client.delete("balances:b")
    await sink.write(batch)
    assert await server.ids("balances:b") == ids(batch[1:])
    await sink.close()


async def test_a_key_that_became_of_another_kind(server: Server) -> None:
    sink = server.sink()
    await sink.write(make_records(1))
    await server.client.delete("balances")
    await server.client.set("balances", "text")
    with pytest.raises(SinkBroken, match=r"WRONGTYPE.*name another 'stream'"):
        await sink.write(make_records(2))
    with pytest.raises(SinkBroken, match="holds a string"):
        await sink.write(make_records(2))
    await sink.close()


async def test_a_database_that_is_not_there(server: Server) -> None:
    sink = server.sink(url=f"redis://127.0.0.1:{server.port}/99")
    with pytest.raises(SinkBroken, match="out of range; name a database in 'url' that it has"):
        await sink.open()
    await sink.close()


async def test_a_node_of_a_cluster(tmp_path: Path) -> None:
    ports = (free_port(), free_port())  # the usual one, 10000 above, may not exist
    options = ("--cluster-enabled", "yes", "--cluster-port")
    async with (
        serving(tmp_path / "a", *options, str(ports[0])) as first,
        serving(tmp_path / "b", *options, str(ports[1])) as second,
    ):
        sink = first.sink()
        with pytest.raises(SinkUnavailable, match="CLUSTERDOWN"):
            await sink.open()
        slot = await first.command("CLUSTER", "KEYSLOT", "balances")
        await second.command("CLUSTER", "ADDSLOTS", slot)
        await first.command("CLUSTER", "ADDSLOTSRANGE", 0, slot - 1, slot + 1, 16383)
        await first.command("CLUSTER", "MEET", "127.0.0.1", second.port, ports[1])

        async def is_whole() -> bool:
            info = await first.command("CLUSTER", "INFO")
            return "cluster_state:ok" in info

        await until(is_whole)
        with pytest.raises(SinkBroken, match=r"MOVED.*does not follow; name a standalone server or a proxy"):
            await sink.open()
        await sink.close()


@pytest.mark.parametrize("deduplicate", [None, 60.0])
async def test_a_record_that_is_too_long_is_refused_alone(server: Server, deduplicate: float | None) -> None:
    await server.client.config_set("proto-max-bulk-len", 1024 * 1024)
    sink = RedisSink(RedisOptions(url=Secret(server.url)).model_copy(update={"deduplicate": deduplicate}))
    first, second = make_records(2)
    payload = orjson.dumps({**first.document, "labels": {"long": "x" * 2_000_000}})
    long = Record("too-long", Kind.SNAPSHOT, "treasury", 3, "changed", payload)
    with pytest.raises(SinkRejected) as failed:
        await sink.write([first, long, second])
    assert failed.value.rejected.keys() == {"too-long"}
    assert "1048576 bytes" in failed.value.rejected["too-long"]
    assert await server.ids() == ids([first, second])
    await sink.close()


async def test_waiting_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, "--appendonly", "yes") as server:
        sink = RedisSink(RedisOptions(url=Secret(server.url), wait_aof=True))
        if not await server.has("WAITAOF"):
            await _is_told_that_it_is_too_old(sink)
            return
        await sink.open()
        await sink.write(make_records(3))
        server.process.kill()
        await server.process.wait()
        await sink.close()
    async with serving(tmp_path, "--appendonly", "yes", "--appendfsync", "no") as server:
        assert await server.ids() == ids(make_records(3))
        sink = server.sink(wait_aof=True)
        monkeypatch.setattr("poller.sinks.redis.WAIT_AOF_MS", 200)
        with pytest.raises(
            SinkUnavailable, match=r"not synced .* in 200 ms; with 'appendfsync no' it never is"
        ):
            await sink.write(make_records(1))
        await sink.close()


async def test_waiting_for_a_disk_that_is_not_written_to(server: Server) -> None:
    sink = RedisSink(RedisOptions(url=Secret(server.url), wait_aof=True))
    if not await server.has("WAITAOF"):
        await _is_told_that_it_is_too_old(sink)
        return
    with pytest.raises(SinkBroken, match=r"appendonly is disabled.*set 'appendonly yes'"):
        await sink.open()
    assert await server.ids() == []
    await server.client.config_set("appendonly", "yes")
    await sink.write(make_records(1))
    await server.client.config_set("appendonly", "no")
    with pytest.raises(SinkBroken, match="set 'appendonly yes'"):
        await sink.write(make_records(1, first=2))
    await sink.close()


async def _is_told_that_it_is_too_old(sink: RedisSink) -> None:
    with pytest.raises(SinkBroken, match=r"older than 7.2; remove 'wait_aof'"):
        await sink.open()
    await sink.close()


async def test_a_server_that_tells_entries_apart_by_itself(server: Server) -> None:
    if not await server.has("XCFGSET"):
        pytest.skip("the server has no IDMP: set POLLER_TEST_REDIS_SERVER to a Redis from 8.6 on")
    sink = server.sink()
    await sink.open()
    for _ in range(3):
        await sink.write(make_records(50))
    assert await server.ids() == ids(make_records(50))
    await sink.close()


async def test_a_server_that_refuses_what_it_seemed_to_have_gets_ids_as_fields_only(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    if await server.has("XCFGSET"):
        pytest.skip("the server has IDMP, and would not refuse it")
    sink = server.sink()
    await sink.open()
    sink._knows_ids = True  # as if it had been taken for one that has it
    with pytest.raises(SinkUnavailable):
        await sink.write(make_records(3))
    assert await server.ids() == []
    for _ in range(2):
        await sink.write(make_records(3))
    assert await server.ids() == ids(make_records(3)) * 2
    assert caplog.messages == ["a server's own de-duplication is not used"]
    await sink.close()


async def test_what_is_remembered_is_forgotten_in_time(server: Server) -> None:
    sink = RedisSink(RedisOptions.model_validate({"url": Secret(server.url), "deduplicate": "2s"}))
    await sink.write(make_records(2))
    await sink.write(make_records(2))
    assert await server.ids() == ids(make_records(2))
    assert 0 < await server.client.ttl("{balances}:delivered") <= 2

    async def is_forgotten() -> bool:
        return not await server.client.exists("{balances}:delivered")

    await until(is_forgotten)
    await sink.write(make_records(2))
    assert await server.ids() == ids(make_records(2)) * 2
    await sink.close()


async def test_scripts_that_were_flushed_are_loaded_again(server: Server) -> None:
    sink = RedisSink(RedisOptions.model_validate({"url": Secret(server.url), "deduplicate": "1h"}))
    await sink.write(make_records(1))
    await server.client.script_flush()
    await sink.write(make_records(2))
    assert await server.ids() == ids(make_records(2))
    await sink.close()


async def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    async with serving(tmp_path / "redis", "--unixsocket", str(path)) as server:
        sink = server.sink(url=f"unix://{path}?db=1")
        await sink.write(make_records(2))
        assert await server.ids() == []
        await server.command("SELECT", 1)
        await sink.close()
    with pytest.raises(SinkUnavailable, match=r"redis\.sock"):
        await sink.open()
    await sink.close()


async def test_an_encrypted_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.serving()
    [pair] = [path for path in tmp_path.glob("*.pem") if "PRIVATE KEY" in path.read_text()]
    ca = tmp_path / "ca.crt"
    ca.write_text(authority._pem)
    port = free_port()
    options = ("--tls-cert-file", str(pair), "--tls-key-file", str(pair), "--tls-ca-cert-file", str(ca))
    async with serving(tmp_path / "redis", *options, "--tls-port", str(port)) as server:
        url = f"rediss://127.0.0.1:{port}"
        with pytest.raises(SinkBroken, match=r"certificate verify failed.*name the authority .* as 'ca'"):
            await server.sink(url=url).open()
        with pytest.raises(SinkUnavailable):  # the server wants a certificate of ours
            await server.sink(url=url, ca=ca).write(make_records(1))
        sink = server.sink(url=url, ca=ca, certificate=pair)
        await sink.write(make_records(2))
        assert await server.ids() == ids(make_records(2))
        await asyncio.wait_for(sink.close(), 5)
        with pytest.raises(SinkBroken, match=r"gone\.crt: there is no such file"):
            await server.sink(url=url, ca=tmp_path / "gone.crt").open()
