"""What ``poller history`` shows: a table or a drawing for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import click
import orjson
from rich.table import Table

from poller.clock import NS_PER_S, rfc3339
from poller.commands.drawing import HOW_ASSETS_ARE_WRITTEN, clock_time, console, moment, table, text
from poller.commands.plot import plot
from poller.control.fleet_verbs import unknown_account
from poller.history import MOST_POINTS, accounts_in, amount, read_history
from poller.model import EXACT, plain
from poller.overview import HistoryPoint
from poller.units import UnitError, parse_duration

PLOT_LINES = 12
MOST_PLOT_CELLS = 160
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(option: str, text: str, now_ns: int) -> str:
    """Return the instant that a text means, as RFC 3339: so long ago, or a date, or a time (UTC if it does not say).

    Raises:
        ValueError: it means none; the text names the option.
    """
    try:
        return rfc3339(max(0, now_ns - round(parse_duration(text) * NS_PER_S)))
    except UnitError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{option}: {text!r} is no time; write how long ago, such as 24h or 7d, or when: 2026-01-01,"
            " 2026-01-01T12:00Z"
        ) from None
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    try:
        return rfc3339((found - _EPOCH) // timedelta(microseconds=1) * 1000)
    except (OverflowError, ValueError):
        raise ValueError(f"{option}: {text!r} is out of range") from None


def span_of(since: str, until: str | None, now_ns: int) -> tuple[str, str | None]:
    """Return what ``--since`` and ``--until`` mean.

    Raises:
        ValueError: one of them is no time, or the end is not after the beginning.
    """
    span = (instant("--since", since, now_ns), instant("--until", until, now_ns) if until else None)
    if span[1] is not None and span[1] <= span[0]:
        raise ValueError(f"--until: {until!r} is not after --since {since!r}")
    return span


def show_history(
    file: Path,
    account: str,
    *,
    asset: str | None,
    span: tuple[str, str | None],
    form: str,
    limit: int,
    sink: str,
) -> None:
    """Show the points of an account.

    Raises:
        HistoryUnreadable: the file cannot be read.
        LookupError: the file knows no such account.
    """
    since, until = span
    points = read_history(file, account, asset, since, until)
    if not points and account not in (known := accounts_in(file)):
        raise LookupError(f"{file}: {unknown_account(account, known)}")
    if len(points) == MOST_POINTS:
        click.echo(f"only the newest {MOST_POINTS:,} snapshots are taken", err=True)
    if asset is not None and points and all(point.total in {None, "0"} for point in points):
        click.echo(f"{account} held no {asset!r} then; {HOW_ASSETS_ARE_WRITTEN}", err=True)
    if form == "json":
        document = {"account": account, "asset": asset, "sink": sink, "since": since, "until": until}
        listed = {"points": [asdict(point) for point in points]}
        click.echo(orjson.dumps({**document, **listed}, option=orjson.OPT_INDENT_2))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("at", "account", "asset", "total", "total_btc", "sequence"))
        writer.writerows(
            (point.at, account, asset or "", point.total, point.total_btc, point.sequence) for point in points
        )
    elif not points:
        to = f" to {clock_time(until)}" if until else ""
        console().print(text(f"{account}: no snapshot from {clock_time(since)}{to} UTC"))
    elif form == "plot":
        _plot(points, account, asset)
    else:
        _print(points, asset, limit)


def _print(points: Sequence[HistoryPoint], asset: str | None, limit: int) -> None:
    screen = console()
    screen.print(_table(points, asset, limit))
    if len(points) > limit:
        screen.print(f"the last {limit:,} of {len(points):,} snapshots; --limit shows more", style="dim")


def _table(points: Sequence[HistoryPoint], asset: str | None, limit: int) -> Table:
    made = table("at", ">sequence", *([f">{asset}"] if asset else []), ">BTC value", ">difference")
    first = max(0, len(points) - limit)
    for number in range(first, len(points)):
        point = points[number]
        made.add_row(
            point.at[:23].replace("T", " "),
            str(point.sequence),
            *([point.total] if asset else []),
            "unknown" if point.total_btc is None else point.total_btc,
            _difference(amount(points[number - 1]), amount(point)) if number else "",
        )
    return made


def _difference(before: Decimal | None, after: Decimal | None) -> str:
    if before is None or after is None:
        return ""
    changed = plain(EXACT.subtract(after, before))
    return "" if changed == "0" else changed if changed.startswith("-") else f"+{changed}"


def _plot(points: Sequence[HistoryPoint], account: str, asset: str | None) -> None:
    screen = console()
    what = asset or "BTC value of everything"
    amounts = [amount(point) for point in points]
    if all(one is None for one in amounts):
        screen.print(text(f"{account}: no value is known of these {len(points):,} snapshots"))
        return
    drawn = plot(
        [
            (moment(point.at).timestamp(), None if one is None else float(one))
            for point, one in zip(points, amounts, strict=True)
        ],
        cells=min(screen.width, MOST_PLOT_CELLS) if screen.is_terminal else 80,
        lines=PLOT_LINES,
        first=clock_time(points[0].at),
        last=clock_time(points[-1].at),
    )
    screen.print(text(f"{account}: {what}, {len(points):,} snapshots, UTC", "bold"))
    for line in drawn:
        screen.print(line, no_wrap=True, overflow="crop", markup=False)
