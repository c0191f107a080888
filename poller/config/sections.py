"""The sections that stand in the main file alone, held against what no single key can tell."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from poller.checking import KeyPolicy
from poller.config.document import Node, join, shown_key
from poller.config.findings import Findings
from poller.config.models import (
    NAME_RULE,
    BudgetSection,
    EgressSection,
    ExchangeSection,
    KeyPolicySection,
    LoggingSection,
    MetricsSection,
    OutboxSection,
    ReloadSection,
    ServerSection,
    ShutdownSection,
    TracingSection,
    is_loopback,
    is_name,
    listening,
)
from poller.config.settings import (
    BudgetSettings,
    EgressSettings,
    ExchangeSettings,
    LoggingSettings,
    MetricsSettings,
    OutboxSettings,
    ReloadSettings,
    SecretSetting,
    ShutdownSettings,
    TracingSettings,
)
from poller.server.settings import ServerSettings

# The exchange itself may work on an answer for 10 s; a shorter time-out only makes the weight be spent twice.
LEAST_TIMEOUT_S: Final = 12.0
WINDOW_S: Final = 60.0
POLL_WEIGHT: Final = 5
TRACING_MODULES: Final = ("opentelemetry", "google.protobuf", "requests")


def read_exchange(node: Node, findings: Findings) -> ExchangeSettings | None:
    """Return how to talk to the exchange; ``None`` if that is not valid."""
    section = findings.check(ExchangeSection, node, "exchange")
    if section is None:
        return None
    entries = node.entries
    if section.timeout < LEAST_TIMEOUT_S and not is_loopback(section.base_url):
        findings.add(
            entries["timeout"],
            "exchange.timeout",
            f"{entries['timeout'].text!r} is too short: the exchange itself may take 10s",
            "write at least 12s",
        )
    if section.connect_timeout >= section.timeout:
        findings.add(
            entries.get("connect_timeout", entries.get("timeout", node)),
            "exchange.connect_timeout",
            "'connect_timeout' is not shorter than 'timeout', which holds it",
            "make it shorter",
        )
    return ExchangeSettings(
        base_url=section.base_url,
        recv_window_ms=round(section.recv_window * 1000),
        connect_timeout_s=section.connect_timeout,
        timeout_s=section.timeout,
        time_sync_s=section.time_sync,
    )


def read_budget(node: Node, findings: Findings, *, simulated: bool) -> BudgetSettings:
    """Return what one address may spend.

    ``simulated``: the exchange is on this machine, so that a shorter minute can be meant.
    """
    section = findings.check(BudgetSection, node, "budget")
    if section is None:
        return BudgetSettings()
    entries = node.entries
    if section.window < WINDOW_S and not simulated:
        findings.add(
            entries["window"],
            "budget.window",
            f"{entries['window'].text!r} is shorter than the exchange's own minute",
            "remove the line; a shorter window is for a simulator on this machine",
        )
    if section.weight_limit * section.share < POLL_WEIGHT:
        findings.add(
            node,
            "budget",
            f"{section.share:.0%} of a weight of {section.weight_limit} is less than one poll costs, {POLL_WEIGHT}",
            "write a greater weight_limit or share",
        )
    return BudgetSettings(weight_limit=section.weight_limit, share=section.share, window_s=section.window)


def read_egress(node: Node, directory: Path, findings: Findings) -> dict[str, EgressSettings]:
    """Return the egress addresses. One that is not valid is there under its name, for the accounts that use it.

    No two may leave from the same address: its weight would be counted, and spent, twice.
    """
    found = {"default": EgressSettings()}
    owners = {} if "default" in node.entries else {"": "default"}
    for name, entry in findings.mapping(node, "egress").items():
        path = join("egress", name)
        found[name] = EgressSettings()
        if not is_name(name):
            findings.add(entry, path, f"{shown_key(name)} cannot name an egress", NAME_RULE)
        section = findings.check(EgressSection, entry, path)
        if section is None:
            continue
        if section.local_address is not None and section.proxy is not None:
            findings.add(
                entry,
                path,
                "'local_address' and 'proxy' are both given",
                "keep one: the proxy has its own address",
            )
        proxy = None
        if section.proxy is not None:
            place = findings.place(entry.entries["proxy"])
            proxy = SecretSetting(section.proxy, directory, f"{path}.proxy", place)
        found[name] = EgressSettings(section.local_address, proxy, section.shared)
        owner = owners.setdefault(str(section.proxy or section.local_address or ""), name)
        if owner != name:
            findings.add(
                entry,
                path,
                f"leaves from the same address as {owner!r}: its weight would be spent twice",
                "give it a local_address or proxy of its own, or remove it",
            )
    return found


def read_key_policy(node: Node | None, findings: Findings) -> KeyPolicy:
    """Return what follows from keys that can do more than read; ``None`` is a file that does not say."""
    if node is None:
        return KeyPolicySection().key_policy
    section = findings.check(KeyPolicySection, Node({"key_policy": node}, node.line), "")
    return (section or KeyPolicySection()).key_policy


def read_outbox(node: Node, directory: Path, findings: Findings) -> OutboxSettings:
    """Return where and how records are kept."""
    section = findings.check(OutboxSection, node, "outbox") or OutboxSection()
    return OutboxSettings(
        path=directory / section.path,
        retain_s=section.retain,
        max_size_bytes=section.max_size,
        when_full=section.when_full,
    )


def read_server(
    node: Node | None, directory: Path, findings: Findings
) -> tuple[ServerSettings | None, SecretSetting | None]:
    """Return how to serve what there is to see, and where the token is kept; ``None`` is a file without the section."""
    if node is None or (node.value is None and not node.refused):
        return None, None  # without anything in it a section is as good as none
    section = findings.check(ServerSection, node, "server")
    if section is None:
        return None, None
    host, port = listening(section.listen)
    settings = ServerSettings(host, port, tuple(section.hosts))
    if section.token is None:
        if not settings.is_loopback:
            findings.add(
                node.entries["listen"],
                "server.listen",
                f"{section.listen!r} can be reached from other machines, and there is no 'token'",
                "add token: env:NAME, or listen on 127.0.0.1",
            )
        return settings, None
    token = SecretSetting(section.token, directory, "server.token", findings.place(node.entries["token"]))
    return settings, token


def read_metrics(node: Node, findings: Findings) -> MetricsSettings:
    """Return what becomes a metric."""
    section = findings.check(MetricsSection, node, "metrics") or MetricsSection()
    return MetricsSettings(balances=section.balances, max_series=section.max_series)


def read_tracing(node: Node | None, directory: Path, findings: Findings) -> TracingSettings | None:
    """Return where traces go; ``None`` is a file that does not say, and traces nothing."""
    if node is None or (section := findings.check(TracingSection, node, "tracing")) is None:
        return None
    if any(find_spec(module) is None for module in TRACING_MODULES):
        message = "traces need a package that is not installed"
        findings.add(node, "tracing", message, "run: pip install 'poller[otel]', or remove the section")
    headers = None
    if section.headers is not None:
        place = findings.place(node.entries["headers"])
        headers = SecretSetting(section.headers, directory, "tracing.headers", place)
    return TracingSettings(endpoint=section.endpoint, headers=headers, sample=section.sample)


def read_shutdown(node: Node, findings: Findings) -> ShutdownSettings:
    """Return how to stop."""
    section = findings.check(ShutdownSection, node, "shutdown") or ShutdownSection()
    return ShutdownSettings(drain_s=section.drain)


def read_reload(node: Node, findings: Findings) -> ReloadSettings:
    """Return when to read the configuration anew."""
    section = findings.check(ReloadSection, node, "reload") or ReloadSection()
    return ReloadSettings(is_watching=section.watch)


def read_logging(node: Node, findings: Findings) -> LoggingSettings:
    """Return what to log."""
    section = findings.check(LoggingSection, node, "logging") or LoggingSection()
    return LoggingSettings(level=section.level, format=section.format)
