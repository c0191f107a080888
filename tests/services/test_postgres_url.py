"""What the postgres sink makes of its URL at real servers: ``sslmode``, several hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poller.errors import SinkBroken, SinkUnavailable
from poller.testing.sink_contract import ids, make_records
from tests.services.postgres_private import private_server
from tests.services.postgres_servers import database
from tests.services.servers import free_port
from tests.services.tls_files import tls_files

pytestmark = pytest.mark.real_time


async def test_an_encrypted_connection(tmp_path: Path) -> None:
    files = tls_files(tmp_path / "tls")
    elsewhere = tls_files(tmp_path / "elsewhere")
    ssl = (
        "ssl = on",
        f"ssl_cert_file = '{{}}/{files.pair.name}'",
        f"ssl_key_file = '{{}}/{files.pair.name}'",
        "ssl_ca_file = '{}/ca.pem'",
    )
    hba = "host all postgres 127.0.0.1/32 trust\nhostssl all certified 127.0.0.1/32 trust clientcert=verify-ca\n"
    private = private_server(*ssl, hba=hba, files=(files.pair, files.ca))
    async with private as server, database(server.url, "poller") as there:
        await there.execute("CREATE ROLE certified LOGIN SUPERUSER")

        async def encrypted(query: str, **options: Any) -> bool:
            host = options.pop("host", "127.0.0.1")
            name = options.pop("user", "postgres")
            url = f"postgresql://{name}@{host}:{server.port}/postgres{query}"
            sink = there.sink(url=url, **options)
            try:
                await sink.open()
                pid = sink._connection.get_server_pid()
                [row] = await there.fetch("SELECT ssl FROM pg_stat_ssl WHERE pid = $1", pid)
                return bool(row[0])
            finally:
                await sink.close()

        assert not await encrypted("?sslmode=disable")
        assert await encrypted("")
        assert await encrypted("?sslmode=require")
        assert await encrypted("?sslmode=verify-full", ca=files.ca)
        assert await encrypted("", ca=files.ca)
        for query, options in (
            ("?sslmode=verify-full", {}),
            ("?sslmode=verify-ca", {}),
            ("?sslmode=require", {"ca": elsewhere.ca}),
            ("", {"ca": elsewhere.ca}),
            ("?sslmode=verify-full", {"ca": files.ca, "host": "localhost"}),
        ):
            with pytest.raises(SinkBroken, match="correct 'ca', or the server's certificate"):
                await encrypted(query, **options)
        # The name is not looked at.
        assert await encrypted("?sslmode=verify-ca", ca=files.ca, host="localhost")
        with pytest.raises(SinkBroken, match="28000"):
            await encrypted("", ca=files.ca, user="certified")
        assert await encrypted("", ca=files.ca, certificate=files.pair, user="certified")
        with pytest.raises(SinkBroken, match=r"gone\.pem: there is no such file"):
            await encrypted("", ca=tmp_path / "gone.pem")


async def test_tls_with_a_server_that_speaks_none() -> None:
    async with private_server() as server, database(server.url, "poller") as there:
        with pytest.raises(SinkBroken, match="the server does not speak TLS"):
            await there.sink(url=f"{server.url}?sslmode=require").open()


async def test_of_several_servers_the_one_that_takes_writes_is_used() -> None:
    read_only = "default_transaction_read_only = on"
    async with (
        private_server(read_only) as standby,
        private_server() as primary,
        database(primary.url, "poller") as there,
    ):
        hosts = ",".join(f"127.0.0.1:{port}" for port in (free_port(), standby.port, primary.port))
        sink = there.sink(url=f"postgresql://postgres@{hosts}/postgres")
        await sink.write(make_records(2))
        assert await there.ids() == ids(make_records(2))
        others = ",".join(f"127.0.0.1:{port}" for port in (free_port(), standby.port))
        with pytest.raises(SinkUnavailable):
            await there.sink(url=f"postgresql://postgres@{others}/postgres").open()
