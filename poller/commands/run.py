"""What ``poller run`` does: read everything, then be the daemon until a signal ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poller.app import App
from poller.clock import SystemClock
from poller.commands.unavailable import say_unavailable
from poller.config import load, read_secrets
from poller.config.footprint import files_footprint, secrets_footprint
from poller.hardening import harden
from poller.logs import logging_to, set_level
from poller.metrics import Metrics
from poller.service_manager import ServiceManager
from poller.signals import until_signalled


def run_daemon(
    path: Path, *, log_level: str | None, log_format: str | None, started: Callable[[], object]
) -> int:
    """Run the daemon of a configuration, and return the exit code.

    Args:
        log_level, log_format: instead of the configured ones.
        started: called once everything is read and made.

    Raises:
        ConfigError: something has to be corrected; nothing was started.
        OutboxError, EgressLocked, SinkNotOpened: as from ``App.run``.
    """
    # Before anything is read: whatever changes from now on is read again.
    files = files_footprint(path)
    config = load(path)
    footprint = files + secrets_footprint(config)
    metrics = Metrics()
    style: Any = log_format or config.logging.format
    with logging_to(level=log_level or config.logging.level, style=style, metrics=metrics):
        harden()
        secrets = read_secrets(config)
        say_unavailable(secrets)
        app = App(
            config,
            secrets,
            metrics=metrics,
            manager=ServiceManager.from_environment(SystemClock()),
            footprint=footprint,
            set_log_level=None if log_level else set_level,
        )
        del secrets  # those of the start are not kept when others are in force
        started()
        return asyncio.run(
            until_signalled(lambda stop, hurry: app.run(stop, hurry=hurry), hung_up=app.reload_soon)
        )
