"""What commands say of secrets that cannot be reached now: on stderr for people, in the log of a daemon."""

from __future__ import annotations

import logging

import click

from poller.config import Secrets

logger = logging.getLogger(__name__)

NAMED_AT_MOST = 5  # in one log line


def show_unavailable(secrets: Secrets) -> None:
    """Print every problem, as mistakes are printed."""
    for problem in secrets.unavailable.values():
        click.echo(f"error: {problem}", err=True)
    if count := len(secrets.unavailable):
        click.echo(f"{count} problem{'s' if count > 1 else ''} for now; try again later", err=True)


def say_unavailable(secrets: Secrets) -> None:
    """Log what cannot be used for want of its secrets."""
    if secrets.unavailable:
        logger.error(
            "secrets cannot be reached",
            extra={
                "count": len(secrets.unavailable),
                "problems": [str(problem) for problem in secrets.unavailable.values()][:NAMED_AT_MOST],
            },
        )
