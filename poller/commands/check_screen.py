"""What ``poller check --online`` shows: the clock, the system's status, and what is wrong with keys and sub-accounts."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from poller.checking import Checkup, Judgement, Verdict, judge, refused_alike
from poller.config import Config, Secrets
from poller.errors import PollerError, Problem
from poller.exchange.client import Restrictions, SystemStatus
from poller.overview import Discovery
from poller.rounds import Rounds

NOT_ASKED = "was not asked in time"
CLOCK_WARNING_S = 1.0  # the exchange refuses what is stamped further ahead than this
STYLES = {Verdict.WARNING: "yellow", Verdict.GOOD: "green"}
FAILURES = frozenset({Verdict.REFUSED, Verdict.FORBIDDEN, Verdict.UNKNOWN})


def show_checkup(config: Config, secrets: Secrets, *, as_json: bool, timeout_s: float) -> bool:
    """Ask the exchange with a progress bar on stderr; return whether every key can be polled with."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        usable = secrets.usable(config)
        bar = progress.add_task("checking keys", total=len(usable.accounts))
        checkup = Checkup({}, {}, dict.fromkeys(config.discover))
        if usable.accounts:
            rounds = Rounds(usable, secrets)
            checkup = asyncio.run(rounds.check(timeout_s=timeout_s, checked=lambda: progress.advance(bar)))
    checkup.keys = {name: checkup.keys.get(name) for name in config.accounts}
    judgements = {
        name: _without_secrets(obstacle)
        if (obstacle := secrets.obstacle(config.accounts[name]))
        else judge(finding, config.key_policy)
        for name, finding in checkup.keys.items()
    }
    alike = refused_alike(config.accounts.values(), checkup.keys)
    if as_json:
        document = _document(config, checkup, judgements, alike)
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    else:
        _print(Console(highlight=False), config, checkup, judgements, alike)
    return not any(judgement.verdict in FAILURES for judgement in judgements.values())


def _without_secrets(obstacle: Problem) -> Judgement:
    return Judgement(Verdict.UNKNOWN, (f"its secrets cannot be had now: {obstacle.message}",))


def _document(
    config: Config, checkup: Checkup, judgements: dict[str, Judgement], alike: list[str]
) -> dict[str, object]:
    clock = checkup.clock
    return {
        "clock": clock and {"offset_s": clock.offset_s, "uncertainty_ms": clock.uncertainty_ms},
        "systems": [
            {
                "egress": name,
                "normal": status.normal if isinstance(status, SystemStatus) else None,
                "message": _said(status),
                "refused_alike": name in alike,
            }
            for name, status in checkup.systems.items()
        ],
        "policy": config.key_policy,
        "keys": [
            {
                "account": name,
                "egress": config.accounts[name].egress,
                "verdict": judgements[name].verdict,
                "reasons": judgements[name].reasons,
                "reading": finding.reading if isinstance(finding, Restrictions) else None,
                "ip_restricted": finding.ip_restricted if isinstance(finding, Restrictions) else None,
                "beyond_reading": finding.beyond_reading if isinstance(finding, Restrictions) else None,
            }
            for name, finding in checkup.keys.items()
        ],
        "discover": [
            {"name": name, "error": NOT_ASKED} if seen is None else asdict(seen)
            for name, seen in checkup.discoveries.items()
        ],
    }


def _print(
    console: Console, config: Config, checkup: Checkup, judgements: dict[str, Judgement], alike: list[str]
) -> None:
    console.print(_clock_line(checkup), soft_wrap=True)
    for name, status in checkup.systems.items():
        normal = isinstance(status, SystemStatus) and status.normal
        console.print(
            Text(f"system status through {name}: {_said(status)}", style="" if normal else "red"),
            soft_wrap=True,
        )
    for name in alike:
        text = f"egress {name}: most keys are refused alike: it is the address or the exchange, not the keys"
        console.print(Text(text, style="red"), soft_wrap=True)
    counts = Counter(judgement.verdict for judgement in judgements.values())
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    console.print(f"keys: {told} (policy: {config.key_policy})", soft_wrap=True)
    if counts[Verdict.GOOD] < len(judgements):
        console.print(_table(config, judgements))
    for name, seen in checkup.discoveries.items():
        _print_discovery(console, config, name, seen)


def _print_discovery(console: Console, config: Config, name: str, seen: Discovery | None) -> None:
    error = NOT_ASKED if seen is None else seen.error
    if seen is None or error:
        console.print(Text(f"sub-accounts of {name}: not known: {error}", style="yellow"), soft_wrap=True)
        return
    counts = {"missing": len(seen.missing), "frozen": len(seen.frozen), "gone": len(seen.gone)}
    told = ", ".join([f"{seen.found} found", *(f"{count} {what}" for what, count in counts.items() if count)])
    console.print(f"sub-accounts of {name}: {told}", soft_wrap=True)
    if not any(counts.values()):
        return
    owners = {email.casefold(): account for account, email in config.sub_accounts.items()}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("sub-account", "account", "", "why"):
        table.add_column(column, overflow="fold")
    rows = [
        *((email, "", "missing", "no account has it as its sub_account") for email in seen.missing),
        *(
            (email, owners.get(email.casefold(), ""), "frozen", "the exchange has frozen it")
            for email in seen.frozen
        ),
        *(
            (config.sub_accounts[account], account, "gone", "the master account does not list it")
            for account in seen.gone
        ),
    ]
    for email, account, state, why in rows:
        table.add_row(Text(email), account, Text(state, style="yellow"), why)
    console.print(table)


def _clock_line(checkup: Checkup) -> Text:
    if checkup.clock is None:
        return Text("clock: could not be measured", style="red")
    offset_s, uncertainty_ms = checkup.clock.offset_s, checkup.clock.uncertainty_ms
    side = "ahead of" if offset_s >= 0 else "behind"
    text = (
        f"clock: the exchange is {abs(offset_s):.3f} s {side} this machine, known to {uncertainty_ms:.0f} ms"
    )
    if abs(offset_s) <= CLOCK_WARNING_S:
        return Text(text)
    # Requests are stamped by the exchange's clock, so polls go on; records of the machine itself are off.
    return Text(f"{text}; synchronise this machine's clock", style="yellow")


def _table(config: Config, judgements: dict[str, Judgement]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("account", "egress", "", "why"):
        table.add_column(column, overflow="fold")
    order = list(Verdict)
    wrong = [item for item in judgements.items() if item[1].verdict is not Verdict.GOOD]
    for name, judgement in sorted(wrong, key=lambda item: order.index(item[1].verdict)):
        verdict = Text(judgement.verdict, style=STYLES.get(judgement.verdict, "red"))
        table.add_row(name, config.accounts[name].egress, verdict, "; ".join(judgement.reasons))
    return table


def _said(status: SystemStatus | PollerError | None) -> str:
    if isinstance(status, SystemStatus):
        return status.message or ("normal" if status.normal else "maintenance")
    return NOT_ASKED if status is None else f"not known: {status}"
