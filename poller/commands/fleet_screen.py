"""What ``poller status`` and ``poller explain`` show to people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poller.commands.drawing import age, bar, between_s, clock_time, console, size, state, table, text

MOST_WORST = 10
SHOWN_CHANGES = 5
BAR_CELLS = 24
OVERDUE_INTERVALS = 2
_ORDER = ("damaged", "quarantined", "keyless", "stale", "ok")

Document = Mapping[str, Any]
"""One of the documents of ``poller.overview``, as JSON."""


def is_ready(status: Document) -> bool:
    """Tell whether nothing stands against the daemon."""
    return all(check["ok"] for check in status["ready"])


def worst(accounts: Sequence[Document], status: Document, most: int = MOST_WORST) -> list[Document]:
    """Return the accounts that are not ok or overdue, the worst first."""
    wrong = [account for account in accounts if is_wrong(account, status)]
    return sorted(wrong, key=lambda account: badness(account, status))[:most]


def is_wrong(account: Document, status: Document) -> bool:
    """Tell whether an account is not ok, or its last good answer older than two of its intervals."""
    return account["state"] != "ok" or waiting_intervals(account, status) > OVERDUE_INTERVALS


def badness(account: Document, status: Document) -> tuple[int, float, str]:
    """Return what sorts the worst accounts first: by state, then by how long they wait."""
    known = account["state"] in _ORDER
    return (
        _ORDER.index(account["state"]) if known else 0,
        -waiting_intervals(account, status),
        account["account"],
    )


def waiting_intervals(account: Document, status: Document) -> float:
    """Return how many of its intervals ago the account answered well, or the daemon started."""
    since: str = account["good_at"] or status["started_at"]
    interval_s: float = account["interval_s"]
    return max(0.0, between_s(since, status["at"])) / max(1e-9, interval_s)


def why(account: Document, status: Document) -> str:
    """Say in a few words what is wrong with an account."""
    # That it has not answered is what its age says already; what it answered instead is the news.
    first, second = ("error", "reason") if account["state"] == "stale" else ("reason", "error")
    said = account[first] or account[second]
    if said:
        return str(said)
    if is_wrong(account, status):
        overdue_s = account["next_due_s"]
        late = f", due for {age(-overdue_s)}" if overdue_s is not None and overdue_s < 0 else ""
        return f"no good answer for {waiting_intervals(account, status):.1f} intervals{late}"
    return ""


# poller status -----------------------------------------------------------------------------------


def show_status(whole: Document, found: Sequence[Document]) -> None:
    """The whole at a glance: what is wrong first."""
    screen = console()
    status = whole["status"]
    for line in headlines(status):
        screen.print(line, soft_wrap=True)
    screen.print()
    for name, line in _facts(status):
        screen.print(Text.assemble((f"{name:15}", "bold"), line), soft_wrap=True)
    if found:
        screen.print()
        screen.print(_worst_table(found, status))
    if whole["egress"]:
        screen.print()
        screen.print(egress_table(whole["egress"], min(BAR_CELLS, screen.width // 4)))
        _print_notes(screen, whole["egress"], "egress", egress_note)
    if whole["sinks"]:
        screen.print()
        screen.print(sinks_table(whole["sinks"]))
        _print_notes(screen, whole["sinks"], "sink", sink_note)


def headlines(status: Document) -> list[Text]:
    """Return the verdict, and a line for each thing that stands against it."""
    uptime = age(between_s(status["started_at"], status["at"]))
    about = f"  poller {status['version']}, up {uptime}, {clock_time(status['at'])} UTC"
    ready = is_ready(status)
    first = Text.assemble(("ready", "bold green") if ready else ("NOT READY", "bold red"), about)
    against = [
        Text.assemble(("  ✗ ", "red"), text(f"{check['name']}: {check['text']}"))
        for check in status["ready"]
        if not check["ok"]
    ]
    return [first, *against]


def _facts(status: Document) -> list[tuple[str, Text]]:
    store, configuration = status["outbox"], status["configuration"]
    full = Text("; FULL: nothing is accepted", style="red") if store["is_full"] else Text()
    oldest = f"; the oldest undelivered is {age(store['oldest_s'])} old" if store["oldest_s"] else ""
    share = store["used_bytes"] / max(1, store["max_bytes"])
    facts = [
        ("accounts", accounts_line(status)),
        (
            "polls",
            Text(f"{status['polls_per_s']:.1f}/s; clock offset {status['clock_offset_s'] * 1000:+.0f} ms"),
        ),
        (
            "outbox",
            Text(
                f"{store['records']:,} records, {size(store['used_bytes'])} of {size(store['max_bytes'])}"
                f" ({share:.0%}){oldest}"
            ).append_text(full),
        ),
        (
            "configuration",
            text(f"{configuration['path']}, loaded {clock_time(configuration['loaded_at'])} UTC"),
        ),
    ]
    facts += [("", text(f"  changed: {line}")) for line in configuration["changed"][:SHOWN_CHANGES]]
    if len(configuration["changed"]) > SHOWN_CHANGES:
        facts.append(("", Text(f"  and {len(configuration['changed']) - SHOWN_CHANGES:,} changes more")))
    if configuration["problems"]:
        refused = configuration["refused_at"]
        at = f" at {clock_time(refused)} UTC" if refused else ""
        facts.append(("", Text(f"the last reload{at} was refused:", style="red")))
        facts += [("", text(f"  {problem}", "red")) for problem in configuration["problems"]]
    return facts + [("discovery", _discovery(one)) for one in status["discoveries"]]


def accounts_line(status: Document) -> Text:
    """Return how many accounts there are, by state, and what they are worth."""
    line = Text(f"{status['accounts']:,}: ")
    shown = sorted(status["states"].items(), key=lambda item: -item[1])
    line.append_text(Text(", ").join(Text(f"{count:,} ").append_text(state(name)) for name, count in shown))
    if status["overdue"]:
        line.append(f"; {status['overdue']:,} overdue", "yellow")
    line.append(f"; {status['total_btc']} BTC")
    if status["unvalued"]:
        line.append(f" and {status['unvalued']:,} not valued")
    return line


def _discovery(one: Document) -> Text:
    line = text(f"{one['name']}: {one['found']:,} sub-accounts")
    for word in ("missing", "frozen", "gone"):
        if one[word]:
            named = ", ".join([*one[word][:5], *["..."] * (len(one[word]) > 5)])
            line.append_text(text(f"; {len(one[word]):,} {word}: {named}", "yellow"))
    if one["error"]:
        line.append_text(text(f"; {one['error']}", "red"))
    return line


def _worst_table(found: Sequence[Document], status: Document) -> Table:
    made = table("account", "state", ">last good", "egress", "why")
    for account in found:
        good_at = account["good_at"]
        made.add_row(
            text(account["account"]),
            state(account["state"] if account["state"] != "ok" else "overdue"),
            "never" if good_at is None else f"{age(between_s(good_at, status['at']))} ago",
            text(account["egress"]),
            text(why(account, status)),
        )
    return made


def egress_table(addresses: Sequence[Document], cells: int) -> Table:
    """Return a line an address: what of its weight is used by whom, and whether it pauses."""
    made = table("egress", "|weight", ">own", ">foreign", ">reported", ">allowed", ">accounts")
    for one in addresses:
        made.add_row(
            text(one["egress"]),
            weight_bar(one, cells),
            f"{one['own']:,}",
            f"{one['foreign']:,}",
            "" if one["reported"] is None else f"{one['reported']:,}",
            f"{one['allowed']:,}",
            f"{one['accounts']:,}",
        )
    return made


def weight_bar(one: Document, cells: int) -> Text:
    """Draw an address's window up to the exchange's limit: own weight full, that of others shaded."""
    parts = ((one["own"], "█", "green"), (one["foreign"], "▒", "yellow"))
    return bar(parts, one["limit"], cells)


def egress_note(one: Document) -> Text:
    """Say that an address pauses, or that its intervals stretch."""
    if one["pause_s"] > 0:
        return text(f"pauses {age(one['pause_s'])} more: {one['pause_cause']}", "red")
    stretched = {priority: factor for priority, factor in one["stretch"].items() if factor > 1.005}
    if stretched:
        return text(
            "intervals stretch: "
            + ", ".join(f"x{stretched[p]:.2f} (priority {p})" for p in sorted(stretched)),
            "yellow",
        )
    return Text()


def sinks_table(sinks: Sequence[Document]) -> Table:
    """Return a line a sink."""
    made = table("sink", "kind", ">backlog", ">lag", ">rate", ">dead", ">dropped")
    for one in sinks:
        failing = one["failing_s"] > 0 or bool(one["error"])
        made.add_row(
            text(one["sink"], "red" if failing else ""),
            text(one["kind"]),
            f"{one['backlog']:,}",
            age(one["lag_s"]) if one["lag_s"] else "",
            f"{one['rate_per_s']:.1f}/s",
            Text(f"{one['dead_letters']:,}", style="yellow" if one["dead_letters"] else ""),
            Text(f"{one['dropped']:,}", style="yellow" if one["dropped"] else ""),
        )
    return made


def sink_note(one: Document) -> Text:
    """Say what a sink fails with."""
    if not (one["error"] or one["failing_s"] > 0 or one["is_open"]):
        return Text()
    words = [f"fails for {age(one['failing_s'])}"] if one["failing_s"] > 0 else []
    words += ["single records are tried"] if one["is_open"] else []
    said = ", ".join(words)
    return text(": ".join(part for part in (said, one["error"]) if part), "red")


def _print_notes(
    screen: Console, documents: Sequence[Document], key: str, note: Callable[[Document], Text]
) -> None:
    """Print what there is to say beside a table's figures, a line each: it may be long."""
    for one in documents:
        if said := note(one):
            screen.print(Text("  ").append_text(text(f"{one[key]}: ")).append_text(said), soft_wrap=True)


# poller explain ----------------------------------------------------------------------------------


def show_detail(detail: Document) -> None:
    """One account, whole."""
    screen = console()
    one = detail["summary"]
    since = f" since {clock_time(one['since'])} UTC" if one["since"] else ""
    screen.print(
        Text.assemble(text(one["account"], "bold"), "  ", state(one["state"]), since), soft_wrap=True
    )
    if one["reason"]:
        screen.print(text(f"  {one['reason']}"), soft_wrap=True)
    screen.print()
    for sentence in detail["why"]:
        screen.print(Text("• ").append_text(text(sentence)), soft_wrap=True)
    screen.print()
    for name, line in _account_facts(detail):
        screen.print(Text.assemble((f"{name:11}", "bold"), line), soft_wrap=True)
    screen.print()
    _print_polls(screen, detail["polls"])


def _account_facts(detail: Document) -> list[tuple[str, Text]]:
    one = detail["summary"]
    stretch = f", stretched to {one['interval_s'] * one['stretch']:g} s" if one["stretch"] > 1.005 else ""
    labels = ", ".join(f"{name}={label}" for name, label in one["labels"].items())
    total = "value not known" if one["total_btc"] is None else f"{one['total_btc']} BTC"
    due_s = one["next_due_s"]
    due = (
        "none is planned" if due_s is None else f"in {age(due_s)}" if due_s >= 0 else f"overdue {age(-due_s)}"
    )
    good = "never since the start" if one["good_at"] is None else f"{clock_time(one['good_at'])} UTC"
    assets = len(detail["balances"])
    facts = [
        ("interval", f"{one['interval_s']:g} s{stretch}; priority {one['priority']}, egress {one['egress']}"),
        ("labels", labels or "none"),
        ("last good", good),
        ("next poll", due),
        ("balances", f"{assets} asset{'' if assets == 1 else 's'}, {total}; sequence {one['sequence']}"),
    ]
    if one["failures"]:
        facts.append(("failures", f"{one['failures']} in a row; the last: {one['error']}"))
    return [(name, text(line)) for name, line in facts]


def _print_polls(screen: Console, polls: Sequence[Document]) -> None:
    if not polls:
        screen.print("no poll since the start")
        return
    made = table("last polls", "outcome", ">late", ">latency", ">sequence", "")
    for poll in polls:
        made.add_row(
            clock_time(poll["at"]),
            Text(poll["outcome"], style="green" if poll["outcome"] == "ok" else "red"),
            f"{poll['lateness_s'] * 1000:,.0f} ms",
            "" if poll["latency_ms"] is None else f"{poll['latency_ms']:,.0f} ms",
            str(poll["sequence"]),
            text(poll["text"]),
        )
    screen.print(made)
