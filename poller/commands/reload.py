"""``poller reload``: have a running daemon read its configuration anew, and say what came of it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import orjson

from poller.commands.command_line import FAILED, USAGE, config_option, examples, exit_with, reports_errors


@click.command(epilog=examples("poller check && poller reload", "poller reload --json | jq '.changed[]'"))
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@reports_errors
def reload(*, path: Path, as_json: bool) -> None:
    """Have the running daemon read its configuration anew, and say what is different now.

    All of it or nothing: if anything is wrong, what was in force still is, every problem is listed, and the
    exit code is 2. Accounts that did not change keep their place, sinks keep their cursors. Exits with 1 if
    no daemon runs, or if it does not say what came of it.
    """
    from poller.config import load_outbox
    from poller.control import NobodyThere, Refused, ask, socket_path

    # The rest is for the daemon to judge: so its log, its metric and its page know of the mistakes too.
    outbox = load_outbox(path).path
    try:
        answer = asyncio.run(ask(socket_path(outbox), "reload", {}))
    except NobodyThere as error:
        exit_with(FAILED, f"error: no daemon runs on {outbox}: {error}; start one with: poller run -c {path}")
    except Refused as error:
        exit_with(FAILED, f"error: not known what came of it: {error}; see what is in force: poller status")
    if as_json:
        click.echo(orjson.dumps(answer))
        if "problems" in answer:
            sys.exit(USAGE)
    elif "problems" in answer:
        problems = "\n".join(answer["problems"])
        exit_with(USAGE, f"error: not reloaded; what was in force still is\n{problems}")
    elif answer["changed"]:
        click.echo("\n".join(answer["changed"]))
    else:
        click.echo("nothing is different")
