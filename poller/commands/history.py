"""``poller history``: what an account held, from the file of a ``sqlite`` sink."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from poller.commands.command_line import FAILED, USAGE, config_option, examples, exit_with, reports_errors
from poller.commands.completion import complete_accounts, complete_sinks

if TYPE_CHECKING:
    from poller.config import Config


@click.command(
    epilog=examples(
        "poller history treasury --since 24h",
        "poller history treasury --asset BTC --since 7d --plot",
        "poller history sub-001 --asset USDT --since 2026-01-01 --until 2026-02-01 --csv > january.csv",
        "poller history treasury --json | jq -r '.points[-1].total_btc'",
    )
)
@click.argument("account", shell_complete=complete_accounts)
@click.option("--asset", metavar="ASSET", help="This asset, such as BTC.  [default: the value of everything]")
@click.option(
    "--since",
    metavar="WHEN",
    default="7d",
    show_default=True,
    help="How long ago, such as 24h, or when: 2026-01-01, 2026-01-01T12:00Z.",
)
@click.option("--until", metavar="WHEN", help="As --since.  [default: no end]")
@click.option("--plot", "as_plot", is_flag=True, help="Draw it.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV instead of a table.")
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Lines of the table: the last.",
)
@click.option(
    "--sink",
    metavar="NAME",
    shell_complete=complete_sinks,
    help="The sqlite sink to read.  [default: the only one]",
)
@config_option
@reports_errors
def history(
    *,
    account: str,
    path: Path,
    asset: str | None,
    since: str,
    until: str | None,
    as_plot: bool,
    as_json: bool,
    as_csv: bool,
    limit: int,
    sink: str | None,
) -> None:
    """Show what an account held over time, from the database of a sqlite sink.

    Reads the file, beside a running daemon too, and never writes to it. Times are UTC. An amount that a
    snapshot does not list is 0. Without --asset it is the value of everything in BTC, as the exchange gave
    it. Of more than 100,000 snapshots the newest are taken.

    \b
    With --json, one object:
      account, asset, sink, since, until
      points    oldest first: at, total (of the asset; null without one), total_btc (null: not known),
                sequence
    """
    from poller.clock import SystemClock
    from poller.commands.history_screen import show_history, span_of
    from poller.config import load
    from poller.history import HistoryUnreadable

    if as_plot + as_json + as_csv > 1:
        exit_with(USAGE, "error: give one of --plot, --json and --csv")
    now_ns = SystemClock().utc_ns()
    try:
        span = span_of(since, until, now_ns)
        name, file = database(load(path), sink)
        form = "plot" if as_plot else "json" if as_json else "csv" if as_csv else "table"
        show_history(file, account, asset=asset, span=span, form=form, limit=limit, sink=name)
    except (ValueError, LookupError) as error:
        exit_with(USAGE, f"error: {error.args[0]}")
    except HistoryUnreadable as error:
        exit_with(FAILED, f"error: {error}")


def database(config: Config, sink: str | None) -> tuple[str, Path]:
    """Return the name and the file of the sqlite sink to read.

    Raises:
        LookupError: there is no such sink, or several and none is named.
    """
    files = {
        name: Path(settings.options["path"])
        for name, settings in config.sinks.items()
        if settings.kind == "sqlite"
    }
    listed = ", ".join(files)
    if not files:
        raise LookupError(
            f"{config.path}: no sqlite sink is configured; a history begins with one: "
            "sinks: {history: {kind: sqlite, path: data/history.db}}"
        )
    if sink is None:
        if len(files) > 1:
            raise LookupError(f"there are several sqlite sinks; give one with --sink: {listed}")
        return next(iter(files.items()))
    if sink not in files:
        raise LookupError(f"--sink: there is no sqlite sink {sink!r}; known here: {listed}")
    return sink, files[sink]
