"""``poller top``: the fleet, live in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from poller.commands.asking import ask_daemon
from poller.commands.command_line import FAILED, USAGE, config_option, examples, exit_with, reports_errors


@click.command(
    epilog=examples("poller top", "poller top -c /etc/poller/accounts.yaml", "NO_COLOR=1 poller top")
)
@config_option
@reports_errors
def top(*, path: Path) -> None:
    """Watch the running daemon and its fleet live, the worst accounts first.

    Asks the daemon once a second; when it is restarted, it waits for it. For programs and pipes there is
    'poller status'.

    \b
    Keys:
      q, Ctrl-C            quit
      s                    sort: worst, name, late, value
      /                    filter by name, state, label (desk=mm), egress or error; escape shows all
      arrows, PgUp, PgDn   scroll; Home and End too
    """
    import asyncio

    from poller.config import load_outbox
    from poller.control import socket_path

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        exit_with(USAGE, "error: top needs a terminal; for programs and pipes there is 'poller status'")
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_dumb_terminal:
        exit_with(USAGE, "error: this terminal cannot be drawn on (TERM); use 'poller status'")
    ask_daemon(path, ("fleet.status", {}))  # there has to be one to begin with
    from poller.commands.top_live import watch

    try:
        code = asyncio.run(watch(socket_path(load_outbox(path).path), console))
    except (KeyError, TypeError, ValueError) as error:
        exit_with(
            FAILED,
            f"error: the daemon's answer is not understood ({error!r}); it is of another version: restart it",
        )
    sys.exit(code)
