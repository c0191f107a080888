"""``poller outbox``: look at what waits and what was refused, deliver it again, or give it up.

Beside a running daemon the commands ask it; without one they open the outbox themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import orjson

from poller.commands.asking import ask_daemon_or_outbox
from poller.commands.command_line import USAGE, config_option, examples, exit_with, reports_errors
from poller.commands.completion import complete_sinks

json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
sink_option = click.option(
    "--sink",
    required=True,
    metavar="NAME",
    shell_complete=complete_sinks,
    help="The sink, as the configuration names it.",
)


@click.group()
def outbox() -> None:
    """Look at what waits for sinks and what they refused; replay it, or give it up.

    Safe beside a running daemon, which is asked to do it. Without a daemon the commands work on the file.
    """


@outbox.command(
    epilog=examples("poller outbox ls", "poller outbox ls --sink bus", "poller outbox ls --sink bus --dead")
)
@config_option
@click.option(
    "--sink", metavar="NAME", shell_complete=complete_sinks, help="The records that wait for this sink."
)
@click.option("--dead", "dead", is_flag=True, help="With --sink: those that it refused for good.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="Most records.")
@json_option
@reports_errors
def ls(*, path: Path, sink: str | None, dead: bool, limit: int, as_json: bool) -> None:
    """List every sink's place and backlog, or the records that wait for one."""
    from poller.commands.outbox_screen import show_letters, show_sinks, show_waiting

    if sink is None:
        if dead:
            exit_with(USAGE, "error: --dead needs --sink")
        answer = _do(path, "outbox.ls", {})
        _show(answer, show_sinks, as_json=as_json)
        return
    answer = _do(path, "outbox.dead" if dead else "outbox.waiting", {"sink": sink, "limit": limit})
    _show(answer, show_letters if dead else show_waiting, as_json=as_json)


@outbox.command(epilog=examples("poller outbox show 01988f5e-...", "poller outbox show 1042"))
@config_option
@click.argument("record", metavar="ID_OR_POSITION")
@json_option
@reports_errors
def show(*, path: Path, record: str, as_json: bool) -> None:
    """Show one record: what it holds, for whom it waits, who refused it and why."""
    from poller.commands.outbox_screen import show_record

    _show(_do(path, "outbox.show", {"record": record}), show_record, as_json=as_json)


@outbox.command(
    epilog=examples(
        "poller outbox replay --sink bus --since 2h",
        "poller outbox replay --sink bus --from 1042",
        "poller outbox replay --sink bus --dead",
    )
)
@config_option
@sink_option
@click.option(
    "--since", metavar="DURATION", help="Everything accepted since then, such as 2h, as far as it is kept."
)
@click.option("--from", "position", type=click.IntRange(1), help="Everything from this position on.")
@click.option("--dead", is_flag=True, help="Records that it refused; those named, or all.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@json_option
@reports_errors
def replay(
    *,
    path: Path,
    sink: str,
    since: str | None,
    position: int | None,
    dead: bool,
    ids: tuple[str, ...],
    as_json: bool,
) -> None:
    """Let a sink have records again, under their old ids.

    Others are not affected. Readers behind the sink see a step back in the sequences, then the same ids.
    """
    from poller.commands.outbox_screen import show_replay
    from poller.units import UnitError, parse_duration

    if (since is not None) + (position is not None) + dead != 1:
        exit_with(USAGE, "error: give one of --since, --from and --dead")
    if ids and not dead:
        exit_with(USAGE, "error: ids go with --dead")
    arguments: dict[str, Any] = {"sink": sink}
    if since is not None:
        try:
            arguments["since_s"] = parse_duration(since)
        except UnitError as error:
            exit_with(USAGE, f"error: --since: {error}; {error.remedy}")
    elif position is not None:
        arguments["position"] = position
    else:
        arguments["dead"] = list(ids) or None
    _show(_do(path, "outbox.replay", arguments), show_replay, as_json=as_json)


@outbox.command(
    epilog=examples(
        "poller outbox drop --sink bus --dead",
        "poller outbox drop --sink bus --backlog --yes",
        "poller outbox drop --sink old --cursor",
    )
)
@config_option
@sink_option
@click.option("--dead", "what", flag_value="dead", help="Records that it refused; those named, or all.")
@click.option(
    "--backlog",
    "what",
    flag_value="backlog",
    help="Everything that waits for it: it goes on with what comes.",
)
@click.option("--cursor", "what", flag_value="cursor", help="Its place, once it is not configured any more.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@json_option
@reports_errors
def drop(*, path: Path, sink: str, what: str | None, yes: bool, ids: tuple[str, ...], as_json: bool) -> None:
    """Give up what a sink was to get. Nothing brings it back to that sink but a replay, while it is kept."""
    from poller.commands.outbox_screen import show_drop, will_go

    if what is None:
        exit_with(USAGE, "error: give one of --dead, --backlog and --cursor")
    if ids and what != "dead":
        exit_with(USAGE, "error: ids go with --dead")
    arguments: dict[str, Any] = {"sink": sink, "what": what, "ids": list(ids) or None}
    if not yes:
        trial = _do(path, "outbox.drop", {**arguments, "is_trial": True})
        if not sys.stdin.isatty():
            exit_with(USAGE, f"error: {will_go(trial)}; add --yes to do it")
        click.confirm(f"{will_go(trial)}. Go on?", abort=True)
    _show(_do(path, "outbox.drop", arguments), show_drop, as_json=as_json)


@outbox.command(epilog=examples("poller outbox vacuum"))
@config_option
@json_option
@reports_errors
def vacuum(*, path: Path, as_json: bool) -> None:
    """Give the file's free pages back to the disk. The daemon does so by itself, but leaves a reserve."""
    from poller.commands.outbox_screen import show_vacuum

    _show(_do(path, "outbox.vacuum", {}), show_vacuum, as_json=as_json)


def _show(answer: Any, screen: Any, *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
    else:
        screen(answer)


def _do(path: Path, verb: str, arguments: Mapping[str, Any]) -> Any:
    """Ask the daemon, or do it without one."""
    from poller.config import load

    return ask_daemon_or_outbox(load(path).outbox, verb, arguments)
