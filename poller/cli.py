"""The command line: commands and exit codes, no logic.

Results go to stdout, logs and problems to stderr.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from poller import __version__
from poller.commands.command_line import (
    EXIT_CODES,
    FAILED,
    OK,
    USAGE,
    config_option,
    examples,
    exit_with,
    reports_errors,
    starts_or_reports_errors,
)
from poller.commands.completion import complete_kinds, completion
from poller.commands.doctor import doctor
from poller.commands.fleet import balances, explain, status
from poller.commands.history import history
from poller.commands.outbox import outbox
from poller.commands.reload import reload
from poller.commands.top import top


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, "-V", "--version", prog_name="poller")
def main() -> None:
    """Keep the truth about the balances of a fleet of Binance accounts, and deliver every change.

    \b
    New here?       poller demo        see it work, without any key
    Have keys?      poller check       is accounts.yaml right?
                    poller plan        does the fleet fit the budget?
                    poller once        what does the fleet hold now?
                    poller run         the daemon
    It runs?        poller status      is all well?
                    poller top         the same, live
                    poller explain     why is an account as it is?
                    poller balances    what does the fleet hold, as last accepted?
                    poller history     what did an account hold, and when?
    Trouble?        poller doctor      what to look at, and what to report
    """


@main.command(epilog=examples("poller run", "poller run -c /etc/poller/accounts.yaml --log-format json"))
@config_option
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Instead of the configured one.",
)
@click.option(
    "--log-format", type=click.Choice(["auto", "text", "json"]), help="Instead of the configured one."
)
@starts_or_reports_errors
def run(path: Path, log_level: str | None, log_format: str | None) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    The first signal ends the polls and drains the sinks, up to the configured limit; a second one exits
    at once. What is not drained is delivered after the next start. SIGHUP reads the configuration anew.
    """
    from poller.garbage import collector_at_rest

    with ExitStack() as starting:
        starting.enter_context(collector_at_rest())
        from poller.commands.run import run_daemon

        code = run_daemon(path, log_level=log_level, log_format=log_format, started=starting.close)
    sys.exit(code)


@main.command(epilog=examples("poller once", "poller once --json | jq '.[] | {account, total_btc}'"))
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@click.option(
    "--timeout",
    "timeout_s",
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up on what was not polled by then.",
)
@starts_or_reports_errors
def once(*, path: Path, as_json: bool, timeout_s: float) -> None:
    """Poll every account once and show what it holds; write and deliver nothing.

    Exits with 1 if any account failed.
    """
    from poller.commands.screens import show_sweep
    from poller.config import load, read_secrets

    config = load(path)
    secrets = read_secrets(config)
    with quiet_logs():
        all_good = show_sweep(config, secrets, as_json=as_json, timeout_s=timeout_s)
    sys.exit(OK if all_good else FAILED)


@main.command(
    epilog=examples("poller check", "poller check --online", "poller check --online --json | jq .keys")
)
@config_option
@click.option("--online", is_flag=True, help="Also ask the exchange: clock, status, every key, sub-accounts.")
@click.option("--json", "as_json", is_flag=True, help="With --online: one JSON object instead of a table.")
@click.option(
    "--timeout",
    "timeout_s",
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="With --online: give up on what was not answered by then.",
)
@reports_errors
def check(*, path: Path, online: bool, as_json: bool, timeout_s: float) -> None:
    """Read the configuration and every secret, report all problems at once, and say what would run.

    Exits with 2 if something has to be corrected, and with 1 if a secret only cannot be reached now.

    With --online it exits with 1 also if a key is refused or forbidden by the policy, or is not known to be
    good. It spends a weight of 1 for each account, within the budget, and refuses to start beside a daemon.
    What it finds of sub-accounts are warnings.
    """
    from poller.commands.screens import show_configuration
    from poller.commands.unavailable import show_unavailable
    from poller.config import load, read_secrets

    if as_json and not online:
        exit_with(USAGE, "error: --json shows what the exchange says; give it with --online")
    config = load(path)
    secrets = read_secrets(config)
    if not as_json:
        show_configuration(config, unavailable=len(secrets.unavailable))
    show_unavailable(secrets)
    if online:
        from poller.commands.check_screen import show_checkup

        with quiet_logs():
            all_good = show_checkup(config, secrets, as_json=as_json, timeout_s=timeout_s)
        sys.exit(OK if all_good and not secrets.unavailable else FAILED)
    sys.exit(FAILED if secrets.unavailable else OK)


@main.command(
    epilog=examples(
        "poller plan",
        "poller plan --add 300 --interval 30s",
        "poller plan --add 50 --interval 5s --priority 9 --json | jq .fits",
    )
)
@config_option
@click.option("--add", default=0, show_default=True, type=click.IntRange(0, 1_000_000), help="Accounts more.")
@click.option(
    "--interval",
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="Of the accounts to add, and of those that headroom is counted in.",
)
@click.option(
    "--priority", default=0, show_default=True, type=click.IntRange(0, 9), help="Of the accounts to add."
)
@click.option("--egress", metavar="NAME", help="Of the accounts to add.  [default: the one in use]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@reports_errors
def plan(path: Path, **options: Any) -> None:
    """Hold what the fleet wants against the budget of each address, and say what comes of it.

    Reads no key and sends nothing. Exits with 1 if the fleet does not fit: then intervals stretch, a
    lower priority's first.
    """
    from poller.commands.plan_screen import show_plan
    from poller.config import load

    config = load(path)
    try:
        fits = show_plan(config, **options)
    except ValueError as error:
        exit_with(USAGE, f"error: {error}")
    sys.exit(OK if fits else FAILED)


@main.command(
    epilog=examples(
        "poller simulate --write-config trial && poller run -c trial/accounts.yaml",
        "poller simulate --accounts 1000 --window rolling --neighbour 0.4",
        "curl -s localhost:8099/simulator/status | jq .worst_window",
    )
)
@click.option("--accounts", default=50, show_default=True, type=click.IntRange(1, 100_000))
@click.option(
    "--key-kinds", default="hmac,rsa,ed25519", show_default=True, help="Given to the accounts in turn."
)
@click.option(
    "--write-config",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write an accounts.yaml with keys for this exchange.",
)
@click.option("--interval", default="10s", show_default=True, help="Between two polls, for --write-config.")
@click.option(
    "--with-master",
    is_flag=True,
    help="With --write-config: also a master account, and which sub-account each account is.",
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, show_default=True, help="0 takes a free one.")
@click.option("--seed", default=1, show_default=True, help="Same seed, same accounts, keys and moves.")
@click.option(
    "--window",
    type=click.Choice(["fixed", "rolling"]),
    default="fixed",
    show_default=True,
    help="How weight is counted.",
)
@click.option("--window-length", "window_s", default=60.0, show_default=True, metavar="SECONDS")
@click.option("--weight-limit", default=12_000, show_default=True, help="Per window and source address.")
@click.option(
    "--latency",
    default="20-80",
    show_default=True,
    metavar="MS-MS",
    help="Of a request and its answer together.",
)
@click.option(
    "--moves-per-second",
    "moves_per_s",
    default=5.0,
    show_default=True,
    help="Changed balances, of the whole fleet.",
)
@click.option(
    "--neighbour",
    "neighbour_share",
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="Part of the limit that somebody else uses, 0 to 1.",
)
@click.option("--neighbour-mode", type=click.Choice(["even", "bursts"]), default="even", show_default=True)
@click.option(
    "--neighbour-bursts", default=1, show_default=True, metavar="N", help="Bursts in each window, at random."
)
@click.option(
    "--skew",
    "skew_ms",
    default=0.0,
    show_default=True,
    metavar="MS",
    help="The exchange's clock is ahead by so much.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="JSON",
    help='What goes wrong, such as {"kind": "error_html", "rate": 0.05}; repeatable.',
)
@reports_errors
def simulate(**options: Any) -> None:
    """Serve a stand-in exchange: accounts whose balances move, weight, bans, and faults on demand.

    It verifies keys, signatures and timestamps as the exchange does, and keeps the books, at
    /simulator/books. More can be changed while it runs: GET /simulator/ lists how.
    """
    from poller.commands.screens import simulate as serve

    try:
        asyncio.run(serve(**options))
    except ValueError as error:
        exit_with(USAGE, f"error: {error}")
    except OSError as error:
        exit_with(
            USAGE,
            f"error: {options['host']}:{options['port']}: {error.strerror}; choose another with --host and --port",
        )


@main.command(epilog=examples("poller demo", "poller demo --duration 10 --accounts 20"))
@click.option("--accounts", default=50, show_default=True, type=click.IntRange(1, 1000))
@click.option("--duration", "duration_s", default=30.0, show_default=True, metavar="SECONDS")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Where everything is written; emptied first if the last demo made it.",
)
@reports_errors
def demo(accounts: int, duration_s: float, directory: Path) -> None:
    """See it work: a simulated exchange, the real daemon, and the exchange's own books as the judge.

    Exits with 1 if anything delivered is not what the books held.
    """
    from poller.commands.screens import show_demo
    from poller.demo import DemoError

    try:
        with quiet_logs():
            all_right = show_demo(directory, accounts=accounts, duration_s=duration_s)
    except DemoError as error:
        exit_with(USAGE, f"error: {error}")
    sys.exit(OK if all_right else FAILED)


@main.command(
    epilog=examples("poller schema > record.schema.json", "poller schema --asyncapi > asyncapi.json")
)
@click.option(
    "--asyncapi", "as_asyncapi", is_flag=True, help="An AsyncAPI document of the configured sinks instead."
)
@config_option
@reports_errors
def schema(*, as_asyncapi: bool, path: Path) -> None:
    """Print the JSON Schema of the records that sinks get.

    With --asyncapi it reads the configuration, and says where the records go: servers, channels, messages.
    No credentials are printed; a server that only a secret names is a variable if that cannot be read.
    """
    if as_asyncapi:
        from poller.commands.screens import show_asyncapi
        from poller.config import load

        show_asyncapi(load(path))
        return
    from poller.records import json_schema

    click.echo(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2))


@main.command(epilog=examples("poller sinks", "poller sinks jsonl", "poller sinks sql | psql history"))
@click.argument("kind", metavar="[KIND|sql]", required=False, shell_complete=complete_kinds)
@click.option("--schema", metavar="NAME", help="With sql: where the tables go.  [default: poller]")
@click.option("--layout", metavar="NAME", help="With sql: plain, monthly or timescale.  [default: plain]")
@reports_errors
def sinks(kind: str | None, **options: str | None) -> None:
    """List the kinds of sink that are installed, or the options of one.

    With sql: print what makes the tables of the postgres sink, as it would itself with create: true.
    """
    from poller.commands.screens import show_sinks

    try:
        show_sinks(kind, **options)
    except (LookupError, ValueError) as error:
        exit_with(USAGE, f"error: {error.args[0]}")


main.add_command(outbox)
main.add_command(reload)
main.add_command(status)
main.add_command(top)
main.add_command(explain)
main.add_command(balances)
main.add_command(history)
main.add_command(doctor)
main.add_command(completion)


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Let commands that show a screen log only what is serious."""
    from poller.logs import logging_to

    with logging_to(level="error", style="text"):
        yield
