"""The daemon's side of the door: a few connections, each of one short question, from our own user."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import orjson
from pydantic import ValidationError

from poller.control.verbs import Verb
from poller.control.wire import LONGEST_REQUEST_BYTES, VERSION, Request, as_json, reachable
from poller.errors import OutboxError
from poller.secrets import redact

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 8
PATIENCE_S = 5.0  # for a whole question, and for an answer to be read
_ROOT_UID = 0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid, as Linux has them


class Serving:
    """Listens while its context lasts. That nobody can listen is a warning, not the end of the daemon.

    Args:
        path: of the socket. What lies there is taken for the remains of a daemon that was killed: call
            this only with the outbox's lock.
        verbs: what can be asked for.
    """

    def __init__(self, path: Path, verbs: Mapping[str, Verb]) -> None:
        self._path = path
        self._verbs = verbs
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        try:
            self._server = await asyncio.start_unix_server(
                self._serve, sock=self._bound(), limit=LONGEST_REQUEST_BYTES
            )
        except OSError as error:
            logger.warning(
                "commands cannot reach this daemon: it has no socket",
                extra={"file": str(self._path), "error": error.strerror or str(error)},
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is None:
            return
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _bound(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Closed to others from its first moment on, and not only after a chmod.
        before = os.umask(0o177)
        try:
            with reachable(self._path) as name:
                listening.bind(name)
        except BaseException:
            listening.close()
            raise
        finally:
            os.umask(before)
        return listening

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # asyncio runs this in one
        if len(self._open) >= MOST_CONNECTIONS or not _is_ours(writer):
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            answer = await self._answer(reader)
            if answer is not None:
                writer.write(orjson.dumps(answer, default=as_json) + b"\n")
                async with asyncio.timeout(PATIENCE_S):
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError):
            pass  # whoever asked has gone, or does not read
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                line = await reader.readuntil(b"\n")
        except (TimeoutError, asyncio.IncompleteReadError):
            return None
        except asyncio.LimitOverrunError:
            return {"error": f"a request has at most {LONGEST_REQUEST_BYTES} bytes"}
        try:
            return {"answer": await self._do(line)}
        except (ValueError, OutboxError) as error:
            return {"error": str(error)}
        except (KeyError, TypeError) as error:
            return {"error": f"the arguments do not fit the verb: {error!r}"}
        except Exception as error:
            logger.exception("a command could not be answered")
            return {"error": redact(f"the daemon failed: {type(error).__name__}; see its log")}

    async def _do(self, line: bytes) -> Any:
        try:
            request = Request.model_validate_json(line)
        except ValidationError:
            raise ValueError(f"not a request of version {VERSION}; use the poller that runs") from None
        verb = self._verbs.get(request.verb)
        if verb is None:
            raise ValueError(f"unknown verb; known: {', '.join(sorted(self._verbs))}")
        return await verb(request.arguments)


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    """Whether our own user or root is at the other end; where it cannot be told, the file's mode decides."""
    peer: socket.socket = writer.get_extra_info("socket")
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return uid in {os.geteuid(), _ROOT_UID}
