"""What ``poller balances`` shows: a table for people, JSON and CSV for programs. Amounts stay exact."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Literal

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poller.clock import NS_PER_S, SystemClock, rfc3339
from poller.commands.drawing import HOW_ASSETS_ARE_WRITTEN, age, between_s, console, state, table, text
from poller.commands.holdings import SUMMED, AccountHolding, AssetHolding, Holdings, added, by_asset
from poller.model import plain

SHOWN_NAMES = 5


def show_balances(found: Holdings, *, by: str, form: Literal["", "json", "csv"]) -> None:
    """Show what was found, a line an account or an asset."""
    if found.asset is not None and not any(account.rows for account in found.accounts):
        click.echo(f"nobody of these holds {found.asset!r}; {HOW_ASSETS_ARE_WRITTEN}", err=True)
    now = rfc3339(SystemClock().utc_ns() // NS_PER_S * NS_PER_S)
    if form == "json":
        click.echo(orjson.dumps(document(found, by), option=orjson.OPT_INDENT_2))
    elif form == "csv":
        click.echo(_csv(_asset_lines(found) if by == "asset" else _account_lines(found)), nl=False)
    else:
        _print(console(), found, by, now)


def document(found: Holdings, by: str) -> dict[str, Any]:
    """Return the whole as JSON has it."""
    rows: Iterable[dict[str, Any]] = (
        map(_asset_document, by_asset(found.accounts))
        if by == "asset"
        else (_account_document(account, found.asset) for account in found.accounts)
    )
    return {
        "by": by,
        "asset": found.asset,
        "rows": list(rows),
        "accounts": len(found.accounts),
        "total_btc": plain(found.total_btc),
        "unvalued": found.unvalued,
        "doubtful": [account.account for account in found.doubtful],
        "never_polled": found.never_polled,
        "not_configured": found.not_configured,
    }


def _account_document(account: AccountHolding, asset: str | None) -> dict[str, Any]:
    return {
        "account": account.account,
        "labels": dict(account.labels),
        "state": account.state,
        "since": account.since,
        "sequence": account.sequence,
        **({} if asset is None else {"total": plain(_total(account))}),
        "total_btc": plain(account.total_btc),
        "unvalued": account.unvalued,
        "balances": account.rows,
    }


def _asset_document(asset: AssetHolding) -> dict[str, Any]:
    return {
        "asset": asset.asset,
        "accounts": asset.accounts,
        **{field: plain(amount) for field, amount in asset.sums.items()},
        "total_btc": plain(asset.total_btc),
        "unvalued": asset.unvalued,
    }


# For spreadsheets --------------------------------------------------------------------------------


def _account_lines(found: Holdings) -> Iterable[Sequence[object]]:
    yield ("account", "asset", *SUMMED, "btc_valuation", "sequence", "state")
    for account in found.accounts:
        for row in account.rows:
            amounts = (row[field] for field in SUMMED)
            value = row["btc_valuation"]
            yield (account.account, row["asset"], *amounts, value, account.sequence, account.state)


def _asset_lines(found: Holdings) -> Iterable[Sequence[object]]:
    yield ("asset", "accounts", *SUMMED, "total_btc", "unvalued")
    for asset in by_asset(found.accounts):
        amounts = map(plain, asset.sums.values())
        yield (asset.asset, asset.accounts, *amounts, plain(asset.total_btc), asset.unvalued)


def _csv(lines: Iterable[Sequence[object]]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(lines)
    return written.getvalue()


# For people --------------------------------------------------------------------------------------


def _print(screen: Console, found: Holdings, by: str, now: str) -> None:
    screen.print(_asset_table(found) if by == "asset" else _account_table(found, now))
    for names, what, style in (
        ([account.account for account in found.doubtful], "not ok: what is shown may be old", "yellow"),
        (found.never_polled, "never polled, and not counted", "yellow"),
        (found.not_configured, "configured no more, and not counted", "dim"),
    ):
        if names:
            shown = ", ".join([*names[:SHOWN_NAMES], *["..."] * (len(names) > SHOWN_NAMES)])
            screen.print(text(f"{len(names):,} {what}: {shown}", style), soft_wrap=True)


def _account_table(found: Holdings, now: str) -> Table:
    asset = found.asset
    own = (">free", ">locked", f">{asset}") if asset else (">assets",)
    made = table("account", *own, ">BTC", ">unvalued", "")
    for account in found.accounts:
        amounts = (
            [_sum(account, "free"), _sum(account, "locked"), _sum(account, "total")]
            if asset
            else [str(len(account.rows))]
        )
        made.add_row(
            text(account.account),
            *amounts,
            plain(account.total_btc),
            _count(account.unvalued),
            _flag(account, now),
        )
    made.add_section()
    sums = (
        [
            plain(added(_total(account, field) for account in found.accounts))
            for field in ("free", "locked", "total")
        ]
        if asset
        else [""]
    )
    made.add_row(
        f"{len(found.accounts):,} accounts",
        *sums,
        plain(found.total_btc),
        _count(found.unvalued),
        "",
        style="bold",
    )
    return made


def _asset_table(found: Holdings) -> Table:
    made = table("asset", ">accounts", ">free", ">locked", ">total", ">BTC", ">unvalued")
    for asset in by_asset(found.accounts):
        made.add_row(
            text(asset.asset),
            f"{asset.accounts:,}",
            *(plain(asset.sums[field]) for field in ("free", "locked", "total")),
            plain(asset.total_btc),
            _count(asset.unvalued),
        )
    made.add_section()
    made.add_row(
        "all",
        f"{len(found.accounts):,}",
        "",
        "",
        "",
        plain(found.total_btc),
        _count(found.unvalued),
        style="bold",
    )
    return made


def _total(account: AccountHolding, field: str = "total") -> Decimal:
    return added(Decimal(row[field]) for row in account.rows)


def _sum(account: AccountHolding, field: str) -> str:
    return plain(_total(account, field))


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _flag(account: AccountHolding, now: str) -> Text:
    if account.state == "ok":
        return Text()
    since = f" for {age(between_s(account.since, now))}" if account.since else ""
    return state(account.state).append(since)
