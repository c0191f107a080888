"""What ``poller top`` draws: every line of the screen, for a size. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from rich.cells import set_cell_size
from rich.text import Text

from poller.commands.drawing import STATE_STYLES, age, between_s, clock_time, size, text
from poller.commands.fleet_screen import (
    Document,
    accounts_line,
    egress_note,
    is_ready,
    is_wrong,
    sink_note,
    weight_bar,
    why,
)
from poller.commands.top_view import Layout, Seen, View

WIDE_CELLS: Final = 120
_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_CELLS: Final = 12

Column = tuple[str, int, bool]
"""Heading, width in cells, whether it stands to the right."""


def frame(view: View, width: int, height: int) -> list[Text]:
    """Return exactly ``height`` lines, none wider than ``width``."""
    parts = view.layout(height)
    lines = [*_header(view, parts), *_egress(view, parts, width), *_sinks(view, parts, width)]
    lines += _accounts(view, parts, width)
    lines += _feed(view, parts)
    body = height - 1
    lines = [*lines[:body], *[Text()] * (body - len(lines)), _footer(view)][: max(0, height)]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
        if view.waiting:
            line.stylize("dim")
    if view.waiting and lines:
        lines[0] = text(f" waiting for the daemon: {view.waiting}", "black on yellow")
        lines[0].truncate(width, overflow="ellipsis", pad=True)
    return lines


def _header(view: View, parts: Layout) -> list[Text]:
    if view.whole is None:
        return [Text("poller top")]
    status = view.whole["status"]
    ready = is_ready(status)
    uptime = age(between_s(status["started_at"], status["at"]))
    store = status["outbox"]
    first = Text.assemble(
        ("ready", "bold green") if ready else ("NOT READY", "bold red"),
        f"  poller {status['version']}, up {uptime}, {clock_time(status['at'])} UTC",
        f"  {status['polls_per_s']:.1f} polls/s",
        ("  outbox FULL", "bold red") if store["is_full"] else f"  outbox {size(store['used_bytes'])}",
    )
    if status["configuration"]["problems"]:
        first.append("  reload refused", "red")
    against = [check for check in status["ready"] if not check["ok"]][: parts.checks]
    return [
        first,
        Text("accounts ").append_text(accounts_line(status)),
        *(Text("✗ ", style="red").append_text(text(f"{one['name']}: {one['text']}")) for one in against),
    ]


def _egress(view: View, parts: Layout, width: int) -> Iterable[Text]:
    if view.whole is None:
        return
    cells = max(8, min(40, width // 4))
    addresses = sorted(view.whole["egress"], key=lambda one: -one["pause_s"])[: parts.egress]
    name_cells = min(16, max((len(one["egress"]) for one in addresses), default=0))
    for one in addresses:
        used = one["own"] + one["foreign"]
        line = text(set_cell_size(one["egress"], name_cells), "bold")
        line.append(" ").append_text(weight_bar(one, cells))
        line.append(f" {used:,} of {one['allowed']:,}")
        if width >= WIDE_CELLS:
            line.append(f" ({one['own']:,} own, {one['foreign']:,} of others) ")
            line.append_text(_weights(one, 30))
        yield line.append("  ").append_text(egress_note(one))


def _weights(one: Document, cells: int) -> Text:
    """Draw the weight of the last seconds; those of a pause in red."""
    drawn = Text()
    for second in one["seconds"][-cells:]:
        used = (second["own"] + second["foreign"]) / max(1, one["limit"])
        drawn.append(_SPARKS[min(7, int(used * 8))], "red" if second["is_paused"] else "cyan")
    return drawn


def _sinks(view: View, parts: Layout, width: int) -> Iterable[Text]:
    if view.whole is None:
        return
    sinks = sorted(view.whole["sinks"], key=lambda one: (-one["failing_s"], -one["backlog"]))[: parts.sinks]
    name_cells = min(16, max((len(one["sink"]) for one in sinks), default=0))
    for one in sinks:
        line = text(set_cell_size(one["sink"], name_cells), "bold red" if one["failing_s"] > 0 else "bold")
        kind = f" {one['kind']}" if width >= WIDE_CELLS else ""
        line.append(f"{kind} backlog {one['backlog']:,}, lag {age(one['lag_s'])}, {one['rate_per_s']:.1f}/s")
        if one["dead_letters"]:
            line.append(f", {one['dead_letters']:,} dead", "yellow")
        yield line.append("  ").append_text(sink_note(one))


# Accounts ----------------------------------------------------------------------------------------


def _accounts(view: View, parts: Layout, width: int) -> Iterable[Text]:
    chosen = view.chosen()
    columns = _columns(chosen, width)
    heading = Text(style="reverse")
    for name, cells, right in columns:
        heading.append(_cell(name, cells, right=right) + " ")
    heading.append(f"by {view.sort}, {len(chosen):,} of {len(view.accounts):,}")
    heading.truncate(width, pad=True)
    yield heading
    rows = max(0, parts.accounts - 1)
    # The fleet may have become smaller since somebody scrolled.
    first = max(0, min(view.first, len(chosen) - rows))
    shown = chosen[first : first + rows]
    for seen in shown:
        yield _row(seen, view, columns, width)
    for _ in range(rows - len(shown)):
        yield Text()


def _columns(chosen: Sequence[Seen], width: int) -> list[Column]:
    name_cells = max((len(seen.account["account"]) for seen in chosen), default=7)
    columns: list[Column] = [
        ("account", min(32 if width >= WIDE_CELLS else 18, max(7, name_cells)), False),
        ("state", 11, False),
        ("last good", 9, True),
        ("due", 7, True),
        ("late", 6, True),
        ("BTC", 14, True),
    ]
    if width >= WIDE_CELLS:
        columns += [("", _SPARK_CELLS, False), ("egress", 12, False), ("every", 8, True)]
    return columns


def _row(seen: Seen, view: View, columns: Sequence[Column], width: int) -> Text:
    assert view.whole is not None  # noqa: S101  # accounts are asked for after it
    one, status = seen.account, view.whole["status"]
    passed_s = max(0.0, between_s(seen.at, status["at"]))
    wrong = is_wrong(one, status)
    due_s = None if one["next_due_s"] is None else one["next_due_s"] - passed_s
    late_s = one["lateness_s"]
    cells = [
        (one["account"], "bold" if wrong else ""),
        (
            _state(one, wrong=wrong),
            "yellow" if wrong and one["state"] == "ok" else STATE_STYLES.get(one["state"], "red"),
        ),
        ("never" if one["good_at"] is None else _brief(between_s(one["good_at"], status["at"])), ""),
        ("" if due_s is None else _brief(due_s) if due_s >= 0 else f"-{_brief(-due_s)}", ""),
        (
            "" if late_s is None else f"{late_s:.1f} s",
            "yellow" if late_s and late_s > one["interval_s"] else "",
        ),
        ("?" if one["total_btc"] is None else _rounded(one["total_btc"], 14), ""),
    ]
    if width >= WIDE_CELLS:
        cells += [
            (_spark(one["line"]), "cyan"),
            (one["egress"], ""),
            (f"{one['interval_s'] * one['stretch']:g} s", "yellow" if one["stretch"] > 1.005 else ""),
        ]
    row = Text()
    for (content, style), (_, wide, right) in zip(cells, columns, strict=True):
        row.append_text(text(_cell(content, wide, right=right), style)).append(" ")
    return row.append_text(text(why(one, status), "red" if one["state"] != "ok" else "yellow"))


def _state(one: Document, *, wrong: bool) -> str:
    return "overdue" if wrong and one["state"] == "ok" else str(one["state"])


def _cell(content: str, cells: int, *, right: bool) -> str:
    return (
        " " * max(0, cells - len(content)) + set_cell_size(content, min(cells, len(content)))
        if right
        else (set_cell_size(content, cells))
    )


def _brief(seconds: float) -> str:
    """Return a length of time in its largest unit."""
    parts = age(seconds).split(" ")
    return " ".join(parts[:2])


def _rounded(amount: str, cells: int) -> str:
    """Return an amount that fits: cut off behind the point; if that is not enough, as a power of ten."""
    whole, _, fraction = amount.partition(".")
    if len(whole) > cells:
        return f"{Decimal(amount):.{max(0, cells - 8)}e}"
    return amount if len(amount) <= cells or not fraction else amount[:cells].rstrip(".")


def _spark(values: Sequence[float]) -> str:
    """Draw the last values between their own lowest and highest."""
    shown = list(values)[-_SPARK_CELLS:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high <= low:
        return _SPARKS[3] * len(shown)
    return "".join(_SPARKS[min(7, int((value - low) / (high - low) * 8))] for value in shown)


# What happened -----------------------------------------------------------------------------------


def _feed(view: View, parts: Layout) -> Iterable[Text]:
    if not parts.feed:
        return
    yield Text("─ what happened ", style="dim").append("─" * 200, "dim")
    for happening in list(view.happenings)[::-1][: parts.feed - 1]:
        yield _happened(happening)


def _happened(one: Document) -> Text:
    line = Text(f"{one['at'][11:19]} ", style="dim").append_text(text(one["account"], "bold")).append(" ")
    if one["kind"] == "status":
        line.append("turned ").append_text(text(one["reason"], STATE_STYLES.get(one["reason"], "red")))
        return line.append_text(text(f": {one['text']}" if one["text"] else ""))
    if not one["changes"]:
        return line.append(f"{one['reason']} snapshot, sequence {one['sequence']}")
    changes = [
        f"{each['asset']} {each['field']} {each['before']} → {each['after']}" for each in one["changes"]
    ]
    return line.append_text(text("; ".join(changes)))


def _footer(view: View) -> Text:
    if view.is_typing:
        return (
            Text("/", style="bold")
            .append_text(text(view.search))
            .append("█")
            .append("   enter: keep, escape: all", "dim")
        )
    found = f"   /{view.search} (escape: all)" if view.search else ""
    keys = "q quit  s sort  / filter  ↑↓ PgUp PgDn Home End scroll"
    return Text(keys, style="dim").append_text(text(found, "bold"))
