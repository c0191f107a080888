"""Turn ``accounts.yaml``, and the files it includes, into a ``Config``, or into everything wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from poller.config.destinations import check_filters, check_paths, read_sinks
from poller.config.document import Node, shown_key
from poller.config.files import Source, read_included, read_source
from poller.config.findings import Findings, in_order
from poller.config.fleet import Fleet
from poller.config.masters import read_discover
from poller.config.models import is_loopback
from poller.config.sections import (
    read_budget,
    read_egress,
    read_exchange,
    read_key_policy,
    read_logging,
    read_metrics,
    read_outbox,
    read_reload,
    read_server,
    read_shutdown,
    read_tracing,
)
from poller.config.settings import Config, ExchangeSettings, OutboxSettings, Place
from poller.errors import ConfigError, Problem

INCLUDED_KEYS: Final = ("accounts", "defaults")
KEYS: Final = (
    "exchange",
    "budget",
    "egress",
    "key_policy",
    "discover",
    *INCLUDED_KEYS,
    "include",
    "sinks",
    "outbox",
    "server",
    "metrics",
    "tracing",
    "shutdown",
    "reload",
    "logging",
)


def load(path: Path | str) -> Config:
    """Read the configuration, without any secret.

    Raises:
        ConfigError: something is wrong; it lists everything that is, in the order of the files' lines.
    """
    problems: list[Problem] = []
    source = read_source(Path(path), problems)
    if source is not None:
        config = _configure(source, problems)
        if not problems:
            return config
    raise ConfigError(in_order(problems))


def load_outbox(path: Path | str) -> OutboxSettings:
    """Read what the configuration says of the outbox, whatever else may be wrong in it.

    Raises:
        ConfigError: that cannot be read.
    """
    problems: list[Problem] = []
    source = read_source(Path(path), problems)
    if source is not None:
        problems.clear()  # of other parts
        node = source.root.entries.get("outbox", Node(None, 0))
        settings = read_outbox(node, source.directory, source.findings)
        if not problems:
            return settings
    raise ConfigError(in_order(problems))


def _configure(source: Source, problems: list[Problem]) -> Config:
    """Build the configuration of all parts that are valid; it counts only if ``problems`` stays empty."""
    directory, findings = source.directory, source.findings
    sections = {key: source.root.entries.get(key, Node(None, 0)) for key in KEYS}
    for key, node in source.root.entries.items():
        if key not in KEYS:
            findings.unknown(node, "", key, KEYS)
    exchange = read_exchange(sections["exchange"], findings)
    simulated = exchange is None or is_loopback(exchange.base_url)
    budget = read_budget(sections["budget"], findings, simulated=simulated)
    egress = read_egress(sections["egress"], directory, findings)
    sinks = read_sinks(sections["sinks"], directory, findings)
    outbox = read_outbox(sections["outbox"], directory, findings)
    check_paths(sections["sinks"], sinks, outbox.path, findings)
    server, server_token = read_server(source.root.entries.get("server"), directory, findings)
    shutdown = read_shutdown(sections["shutdown"], findings)
    logging = read_logging(sections["logging"], findings)
    fleet = _fleet(source, egress.keys(), problems)
    if fleet.places:  # else it is said already that there are none
        check_filters(sections["sinks"], sinks, fleet.names, findings)
    return Config(
        path=source.path,
        directory=directory,
        exchange=exchange or ExchangeSettings(),
        budget=budget,
        egress=egress,
        accounts=fleet.accounts,
        keys=fleet.keys,
        sinks=sinks,
        outbox=outbox,
        shutdown=shutdown,
        logging=logging,
        reload=read_reload(sections["reload"], findings),
        metrics=read_metrics(sections["metrics"], findings),
        tracing=read_tracing(source.root.entries.get("tracing"), directory, findings),
        key_policy=read_key_policy(source.root.entries.get("key_policy"), findings),
        discover=read_discover(sections["discover"], source, egress.keys()),
        sub_accounts=fleet.sub_accounts,
        server=server,
        server_token=server_token,
        places=dict(_places(source.root.entries, findings)) | fleet.places,
    )


def _fleet(main: Source, egress: Collection[str], problems: list[Problem]) -> Fleet:
    fleet = Fleet(egress)
    fleet.add(main, included=False)
    before = len(problems)
    for source in read_included(main, problems):
        for key, node in source.root.entries.items():
            if key in INCLUDED_KEYS:
                continue
            if key in KEYS:
                message = f"{shown_key(key)} cannot stand in an included file"
                source.findings.add(node, key, message, "move it to the main file")
            else:
                source.findings.unknown(node, "", key, INCLUDED_KEYS)
        fleet.add(source, included=True)
    # Not said of a file that could not be read, which has some for all we know.
    if not fleet.places and len(problems) == before:
        node = main.root.entries.get("accounts", main.root)
        main.findings.add(node, "accounts", "there is no account", "add one, or include a file of them")
    return fleet


def _places(entries: dict[str, Node], findings: Findings, prefix: str = "") -> Iterator[tuple[str, Place]]:
    """Yield where each key of the main file stands, accounts aside."""
    for key, node in entries.items():
        yield prefix + key, findings.place(node)
        if key != "accounts" or prefix:
            yield from _places(node.entries, findings, f"{prefix}{key}.")
