"""``poller status``, ``poller explain`` and ``poller balances``: how the fleet stands."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import orjson

from poller.commands.asking import ask_daemon, ask_daemon_or_outbox
from poller.commands.command_line import (
    FAILED,
    OK,
    USAGE,
    config_option,
    examples,
    exit_with,
    reports_errors,
)
from poller.commands.completion import complete_accounts

json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


@click.command(
    epilog=examples(
        "poller status",
        "poller status && echo ready",
        "poller status --json | jq '.worst[] | {account, state, reason}'",
    )
)
@config_option
@json_option
@reports_errors
def status(*, path: Path, as_json: bool) -> None:
    """Show how the running daemon and its fleet stand: what is wrong first.

    Asks the daemon, so there has to be one. Exits with 0 if it is ready, and with 1 if it is not, or if
    there is none.

    \b
    With --json, one object:
      status   the whole: version, accounts by state, outbox, configuration, ready checks, discovery
      egress   every address: weight own, foreign, reported, allowed; pause
      sinks    every sink: backlog, lag, rate, dead letters, error
      worst    up to 10 accounts that are not ok or overdue, the worst first
    Times are UTC in RFC 3339, amounts are text, numbers carry their unit in the name.
    """
    from poller.commands.fleet_screen import is_ready, show_status, worst

    whole, accounts = ask_daemon(path, ("fleet.status", {}), ("fleet.accounts", {"after": 0}))
    found = worst(accounts["accounts"], whole["status"])
    if as_json:
        click.echo(orjson.dumps({**whole, "worst": found}, option=orjson.OPT_INDENT_2))
    else:
        show_status(whole, found)
    sys.exit(OK if is_ready(whole["status"]) else FAILED)


@click.command(epilog=examples("poller explain treasury", "poller explain sub-001 --json | jq -r '.why[]'"))
@click.argument("account", shell_complete=complete_accounts)
@config_option
@json_option
@reports_errors
def explain(*, account: str, path: Path, as_json: bool) -> None:
    """Say how one account stands, and why: its state, its last polls, when it is due, what it waits for.

    Asks the daemon, so there has to be one.

    \b
    With --json, one object:
      summary    state, since, reason, interval_s, stretch, good_at, next_due_s, total_btc, ...
      why        sentences that say how it stands
      polls      the last ones, newest first: at, outcome, text, lateness_s, latency_ms, sequence
      balances   as last accepted, exact, as text
    """
    from poller.commands.fleet_screen import show_detail

    [detail] = ask_daemon(path, ("fleet.explain", {"account": account}))
    if as_json:
        click.echo(orjson.dumps(detail, option=orjson.OPT_INDENT_2))
    else:
        show_detail(detail)


@click.command(
    epilog=examples(
        "poller balances",
        "poller balances --by asset",
        "poller balances --asset USDT --label desk=mm",
        "poller balances --account 'sub-*' --csv > holdings.csv",
        "poller balances --json | jq -r .total_btc",
    )
)
@click.option("--asset", metavar="ASSET", help="This asset alone, such as USDT.")
@click.option(
    "--label", "labels", multiple=True, metavar="NAME=TEXT", help="Accounts with this label; repeatable."
)
@click.option(
    "--account", "patterns", multiple=True, metavar="PATTERN", help="Accounts such as sub-*; repeatable."
)
@click.option(
    "--by",
    type=click.Choice(["account", "asset"]),
    default="account",
    show_default=True,
    help="What a line is about.",
)
@json_option
@click.option(
    "--csv",
    "as_csv",
    is_flag=True,
    help="CSV: a line for each account and asset, or with --by asset for each asset.",
)
@config_option
@reports_errors
def balances(
    *,
    path: Path,
    asset: str | None,
    labels: tuple[str, ...],
    patterns: tuple[str, ...],
    by: str,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show what the fleet holds, as last accepted, with exact totals.

    Beside a running daemon it is asked; without one the outbox's file is read. An account whose state
    is not ok may hold something else by now: it is marked, with the age of that state.
    Accounts that were never polled, and those that are configured no more, are named and not counted.

    \b
    With --json, one object:
      by, asset         as asked for
      rows              a row each; amounts are text
      accounts          how many accounts are counted
      total_btc         of all rows whose value is known; exact
      unvalued          how many balances have no known value, and are not in total_btc
      doubtful          accounts whose state is not ok
      never_polled      configured accounts that nothing is known of
      not_configured    accounts that are still in the outbox
    """
    from poller.commands.balances_screen import show_balances
    from poller.commands.holdings import Selection, holdings
    from poller.config import load

    if as_json and as_csv:
        exit_with(USAGE, "error: give one of --json and --csv")
    config = load(path)
    try:
        selection = Selection.of(config.accounts, asset=asset, labels=labels, patterns=patterns)
    except ValueError as error:
        exit_with(USAGE, f"error: {error}")
    answer = ask_daemon_or_outbox(config.outbox, "fleet.balances", {})
    show_balances(
        holdings(answer, config.accounts, selection),
        by=by,
        form="json" if as_json else "csv" if as_csv else "",
    )
