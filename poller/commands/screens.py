"""What commands show people: tables and progress on a terminal, JSON for programs. No decisions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import orjson
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from poller import __version__
from poller import sinks as installed_sinks
from poller.asyncapi import Publication, document
from poller.clock import rfc3339
from poller.commands.plan_screen import plan_fleet, plan_table
from poller.config import Config, Secrets, read_sinks
from poller.errors import ConfigError, PollError, Problem
from poller.model import AMOUNT_FIELDS, Account, Snapshot, plain
from poller.records import total_btc
from poller.rounds import Rounds
from poller.secrets import redact
from poller.signals import until_signalled
from poller.sinks import Channel, SinkOptions
from poller.sinks.messages import MessageOptions
from poller.sinks.postgres_tables import LAYOUTS, SCHEMA, script

if TYPE_CHECKING:
    from poller.demo import Moment
    from poller.simulator import KeyKind

Outcome = Snapshot | PollError | Problem | None  # a problem: its secrets cannot be had now


def show_sweep(config: Config, secrets: Secrets, *, as_json: bool, timeout_s: float) -> bool:
    """Poll every account once with a progress bar on stderr; return whether all of them answered well."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        usable = secrets.usable(config)
        bar = progress.add_task("polling", total=len(usable.accounts))
        rounds = Rounds(usable, secrets, observer=lambda *_: progress.advance(bar))
        polled = asyncio.run(rounds.sweep(timeout_s=timeout_s)) if usable.accounts else {}
    outcomes: dict[str, Outcome] = {
        name: secrets.obstacle(account) or polled[name] for name, account in config.accounts.items()
    }
    if as_json:
        rows = [_sweep_document(config.accounts[name], outcome) for name, outcome in outcomes.items()]
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    else:
        Console().print(_sweep_table(outcomes))
    return all(isinstance(outcome, Snapshot) for outcome in outcomes.values())


def _sweep_document(account: Account, outcome: Outcome) -> dict[str, object]:
    if not isinstance(outcome, Snapshot):
        return {"account": account.name, "labels": dict(account.labels), "error": _failure(outcome)}
    total = total_btc(outcome.balances)
    return {
        "account": account.name,
        "labels": dict(account.labels),
        "observed_at": rfc3339(outcome.observed_ns),
        "balances": [
            {
                "asset": balance.asset,
                **{field: plain(getattr(balance, field)) for field in AMOUNT_FIELDS},
                "total": plain(balance.total),
                "btc_valuation": None if balance.btc_valuation is None else plain(balance.btc_valuation),
            }
            for balance in outcome.balances
        ],
        "total_btc": None if total is None else plain(total),
    }


def _sweep_table(outcomes: Mapping[str, Outcome]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("account", "assets", "BTC", "observed", "latency", ""):
        table.add_column(column, justify="right" if column in {"assets", "BTC", "latency"} else "left")
    known = Decimal(0)
    good = 0
    for name, outcome in outcomes.items():
        if not isinstance(outcome, Snapshot):
            table.add_row(name, "", "", "", "", Text(_failure(outcome), style="red"))
            continue
        good += 1
        total = total_btc(outcome.balances)
        known += total or 0
        table.add_row(
            name,
            str(len(outcome.balances)),
            "unknown" if total is None else f"{total:.8f}",
            rfc3339(outcome.observed_ns)[11:23],
            f"{outcome.latency_ms:.0f} ms",
        )
    table.add_section()
    table.add_row(Text(f"{good} of {len(outcomes)} accounts", style="bold"), "", f"{known:.8f}", "", "", "")
    return table


def _failure(outcome: PollError | Problem | None) -> str:
    if isinstance(outcome, Problem):
        return f"secret_unavailable: {outcome.message}"
    return "not polled in time" if outcome is None else f"{outcome.kind}: {outcome}"


def show_configuration(config: Config, *, unavailable: int) -> None:
    """Say what would run: what the accounts of each address want of its budget, and where records go.

    ``unavailable``: how many accounts, sinks and addresses cannot be used now for want of their secrets.
    """
    console = Console()
    known = f"secrets of {unavailable} cannot be reached now" if unavailable else "every secret can be read"
    console.print(f"{config.path}: good; {len(config.accounts)} accounts, {known}")
    plans = plan_fleet(config)
    console.print(plan_table(plans))
    for one in plans:
        console.print(f"{one.egress}: {one.use:.0%}, {one.verdict}", soft_wrap=True)
    for name, sink in config.sinks.items():
        console.print(f"sink {name}: {sink.kind}, emits {sink.delivery.emit}")
    if not config.sinks:
        console.print("no sinks: records are kept in the outbox and go nowhere", style="yellow")


def show_asyncapi(config: Config) -> None:
    """Print the AsyncAPI document of the sinks that say where they publish.

    Raises:
        ConfigError: a sink cannot say it as long as its secrets cannot be read.
    """
    publications = []
    for name, (options, is_whole) in read_sinks(config).items():
        settings = config.sinks[name]
        sink: Any = settings.sink(options)
        if not hasattr(sink, "channel"):
            continue
        try:
            channel: Channel = sink.channel()
        except Exception as error:  # a plug-in's; its text may hold what is secret
            place = config.place(f"sinks.{name}")
            said = f"cannot say where it publishes: its channel() raised {type(error).__name__}"
            remedy = "tell its author" if is_whole else "let its secrets be read"
            problem = Problem(place.file, place.line, f"sinks.{name}", said, remedy)
            raise ConfigError([problem]) from error
        if "@" in channel.host or not (is_whole or _stands_in(channel.host, settings.options)):
            channel = replace(channel, host="")
        form = options.format if isinstance(options, MessageOptions) else "json"
        publications.append(Publication(name, settings.kind, channel, form))
    text = orjson.dumps(document(publications, version=__version__), option=orjson.OPT_INDENT_2).decode()
    click.echo(redact(text))


def _stands_in(host: str, options: Mapping[str, Any]) -> bool:
    """Tell whether hosts are written in the options, and are no stand-in for what a secret would say."""
    written = str(options)
    return all(one.rpartition(":")[0].strip() in written for one in host.split(","))


def show_sinks(kind: str | None, *, schema: str | None = None, layout: str | None = None) -> None:
    """List the kinds that are installed, or the options of one, or print the SQL of the ``postgres`` sink.

    Raises:
        LookupError: it, or its client, is not installed.
        ValueError: schema or layout cannot be had.
    """
    if kind == "sql":
        # Without the client: whoever makes the tables may have nothing else to do with us.
        click.echo(script(schema or SCHEMA, layout or LAYOUTS[0]))
        return
    if schema is not None or layout is not None:
        raise ValueError("--schema and --layout are for 'poller sinks sql'")
    if kind is None:
        _show_kinds()
    else:
        _show_options(kind)


def _show_kinds() -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kind")
    table.add_column("from")
    table.add_column("to install")
    for kind, point in sorted(installed_sinks.installed().items()):
        table.add_row(kind, f"{point.module}:{point.attr}", escape(_to_install(kind)))
    # Commands are copied from here, so no line is broken.
    Console(soft_wrap=True).print(table)


def _to_install(kind: str) -> str:
    try:
        installed_sinks.load(kind)
    except installed_sinks.MissingExtra as error:
        return error.remedy.removeprefix("run: ")
    except (ImportError, AttributeError) as error:
        return f"cannot be loaded: {error}"
    return ""


def _show_options(kind: str) -> None:
    try:
        options = installed_sinks.load(kind).Options
    except installed_sinks.MissingExtra as error:
        raise LookupError(f"{error}; {error.remedy}") from error
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("option", "type", "default", ""):
        table.add_column(column)
    for name, field in options.model_fields.items():
        default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
        table.add_row(field.alias or name, _type_name(options, name), default, field.description or "")
    Console().print(table)


def _type_name(options: type[SinkOptions], name: str) -> str:
    """Return the type as the class says it: ``Size | None``."""
    for owner in options.__mro__:
        if name in (annotations := inspect.get_annotations(owner)):
            return str(annotations[name])
    return ""


async def simulate(
    *,
    directory: Path | None,
    interval: str,
    with_master: bool,
    host: str,
    port: int,
    key_kinds: str,
    latency: str,
    faults: Sequence[str],
    **settings: Any,
) -> None:
    """Serve the simulated exchange until SIGTERM or Ctrl-C.

    Raises:
        ValueError: an option makes no sense; the text names it.
        OSError: the address cannot be had.
    """
    from poller.simulator import Fault, NotOurs, SimulatorSettings, serve, write_config

    try:
        low, _, high = latency.partition("-")
        latency_ms = (float(low), float(high or low))
        given = tuple(Fault.from_json(orjson.loads(fault)) for fault in faults)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"--fault: not JSON: {error}") from error
    except ValueError as error:
        raise ValueError(f"--latency {latency} or --fault: {error}") from error
    kinds = cast("tuple[KeyKind, ...]", tuple(key_kinds.split(",")))  # checked by the settings
    rules = SimulatorSettings(**settings, key_kinds=kinds, latency_ms=latency_ms, faults=given)

    async def until(stop: asyncio.Event, _hurry: asyncio.Event) -> None:
        async with serve(rules, host, port) as server:
            told = f"simulated exchange with {rules.accounts} accounts on {server.url}"
            if directory is not None:
                try:
                    master = server.master if with_master else None
                    written = write_config(
                        directory, server.url, server.accounts, rules, interval=interval, master=master
                    )
                except NotOurs as error:
                    raise ValueError(str(error)) from error
                told += f" ; configuration in {written}"
            click.echo(told)
            await stop.wait()

    await until_signalled(until)


def show_demo(directory: Path, *, accounts: int, duration_s: float) -> bool:
    """Run the demo with live progress, print the summary, and return whether everything was right."""
    from poller.demo import demonstrate

    console, pages = Console(), set[str]()

    def show(moment: Moment) -> None:
        if moment.page and moment.page not in pages:
            pages.add(moment.page)
            console.print(f"Its page while it runs: {moment.page}", soft_wrap=True)
        live.update(_demo_line(moment))

    console.print(f"A simulated exchange with {accounts} accounts, the real daemon, two sinks.")
    console.print(f"It ends after {duration_s:g} s, or with Ctrl-C.")
    with Live(console=console, refresh_per_second=4) as live:
        summary = asyncio.run(
            demonstrate(
                directory,
                accounts=accounts,
                duration_s=duration_s,
                show=show,
            )
        )
    console.print()
    end = summary.progress
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    for figure, what in (
        (f"{end.polls}", f"polls of {summary.accounts} accounts"),
        (f"{end.limited}", "answered with 429"),
        (
            f"{summary.worst_window}",
            f"weight in the heaviest minute, of {end.weight_allowed} we allow ourselves",
        ),
        (f"{end.changes}", "changed amounts seen"),
        (f"{end.accepted}", "records accepted"),
        (f"{summary.in_history} + {summary.in_log}", "records delivered, to the database and to the file"),
    ):
        table.add_row(figure, what)
    console.print(table)
    for problem in summary.wrong[:20]:
        console.print(Text(problem, style="red"))
    if summary.wrong:
        console.print(
            f"{len(summary.wrong)} mismatches: the history is NOT what the exchange's books held",
            style="bold red",
        )
        return False
    console.print(
        "The history equals the exchange's books: every balance, to the last digit.", style="bold green"
    )
    console.print()
    look = f"sqlite3 {summary.directory}/data/history.db 'SELECT * FROM latest'"  # noqa: S608  # shown, never run
    console.print(f"Look at it:  {look}")
    console.print("Next:        write an accounts.yaml with keys of your own, then: poller check")
    return True


def _demo_line(moment: Moment) -> Text:
    return Text.assemble(
        (f"{moment.elapsed_s:5.1f} s ", "bold"),
        f"polls {moment.polls}  weight {moment.weight_own}/{moment.weight_allowed}  ",
        f"changes {moment.changes}  delivered {moment.delivered}  late {moment.lateness_ms:.0f} ms",
    )
