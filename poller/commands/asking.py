"""How commands ask: the running daemon over its socket, or nobody if there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poller.commands.command_line import FAILED, LOCKED, USAGE, exit_with
from poller.errors import OutboxLocked

if TYPE_CHECKING:
    from poller.config import OutboxSettings

PATIENCE_S = 30.0  # with a daemon that is asked how it is; a monitor waits for the answer


def ask_daemon(path: Path, *questions: tuple[str, Mapping[str, Any]]) -> list[Any]:
    """Ask the daemon of a configuration, or end the command: only a daemon can answer.

    Args:
        path: of the configuration. Only its outbox has to be right: somebody may be editing the rest.
        questions: verbs with their arguments.

    Raises:
        ConfigError: it cannot be told from the file where the outbox is.
    """
    from poller.config import load_outbox
    from poller.control import NobodyThere, Refused, Unanswered

    socket, lock = _places(load_outbox(path).path)
    try:
        return asyncio.run(_answers(socket, questions))
    except NobodyThere as error:
        exit_with(FAILED, f"error: {nobody(path, lock, error)}")
    except Unanswered as error:
        exit_with(FAILED, f"error: {error}")
    except TimeoutError:
        exit_with(
            FAILED, f"error: the daemon does not answer within {PATIENCE_S:g} s; see its log, and its process"
        )
    except Refused as error:
        exit_with(USAGE, f"error: {error}")


def ask_daemon_or_outbox(settings: OutboxSettings, verb: str, arguments: Mapping[str, Any]) -> Any:
    """Ask the daemon of an outbox, or do the same on the file if there is none; or end the command."""
    from poller.control import Refused
    from poller.logs import logging_to

    try:
        with logging_to(level="error", style="text"):
            return asyncio.run(_answer(settings, verb, arguments))
    except (Refused, ValueError) as error:
        exit_with(USAGE, f"error: {error}")
    except OutboxLocked as error:
        exit_with(LOCKED, f"error: {error}; it does not answer at its socket either, so nothing was done")


def nobody(path: Path, lock: Path, error: Exception) -> str:
    """Say that no daemon answers, and what to do."""
    from poller.locks import holder

    pid = holder(lock)
    if pid is not None:
        return f"{error}; process {pid} has the outbox, but does not answer: ask as its user, or see its log"
    return f"no daemon answers at {error}; start it: poller run -c {path}"


def _places(outbox: Path) -> tuple[Path, Path]:
    from poller.control import socket_path

    return socket_path(outbox), Path(f"{outbox}.lock")


async def _answers(socket: Path, questions: tuple[tuple[str, Mapping[str, Any]], ...]) -> list[Any]:
    from poller.control import ask

    async with asyncio.timeout(PATIENCE_S):
        return [await ask(socket, verb, arguments) for verb, arguments in questions]


async def _answer(settings: OutboxSettings, verb: str, arguments: Mapping[str, Any]) -> Any:
    from poller.clock import SystemClock
    from poller.control import NobodyThere, ask, balances_verbs, outbox_verbs, socket_path
    from poller.metrics import Metrics
    from poller.outbox import Outbox

    try:
        return await ask(socket_path(settings.path), verb, arguments)
    except NobodyThere:
        if not settings.path.exists():
            raise ValueError(f"{settings.path}: there is no outbox yet; 'poller run' makes it") from None
    clock = SystemClock()
    opened = await Outbox.open(
        settings.path,
        clock,
        metrics=Metrics(),
        retain_s=settings.retain_s,
        max_size_bytes=settings.max_size_bytes,
        when_full=settings.when_full,
        begin_anew=False,
    )
    try:
        return await {**outbox_verbs(opened, clock), **balances_verbs(opened)}[verb](arguments)
    finally:
        await opened.close()
