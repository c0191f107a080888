"""A command's side of the door."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from poller.control.wire import LONGEST_ANSWER_BYTES, VERSION, Request, reachable
from poller.errors import PollerError

ANSWER_TIMEOUT_S = 300.0  # a vacuum of a large file takes its time


class NobodyThere(PollerError):
    """Nobody listens at the socket: no daemon runs, or it cannot be reached."""


class Refused(PollerError):
    """The daemon did not do what it was asked; the text says why."""


class Unanswered(Refused):
    """The daemon was asked and said nothing, or nothing that can be understood."""


async def ask(path: Path, verb: str, arguments: Mapping[str, Any]) -> Any:
    """Ask the daemon whose socket this is, and return its answer.

    Raises:
        NobodyThere: there is no daemon.
        Refused: it does not want to.
        Unanswered: it did not answer.
    """
    try:
        with reachable(path) as name:
            reader, writer = await asyncio.open_unix_connection(name, limit=LONGEST_ANSWER_BYTES)
    except OSError as error:
        raise NobodyThere(f"{path}: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            request = Request(version=VERSION, verb=verb, arguments=dict(arguments))
            writer.write(request.model_dump_json().encode() + b"\n")
            await writer.drain()
            answer = orjson.loads(await reader.readuntil(b"\n"))
    except (
        OSError,
        TimeoutError,
        asyncio.IncompleteReadError,
        asyncio.LimitOverrunError,
        ValueError,
    ) as error:
        raise Unanswered(
            "the daemon did not answer: it is busy with others, or runs as another user; try again"
        ) from error
    finally:
        writer.transport.abort()
    if not isinstance(answer, dict) or "answer" not in answer:
        raise Refused(str(answer.get("error", answer)) if isinstance(answer, dict) else str(answer))
    return answer["answer"]
