"""What ``poller outbox`` shows to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def show_sinks(answer: dict[str, Any]) -> None:
    """A line a sink, and how full the outbox is."""
    table = _table("sink", ">position", ">backlog", ">oldest", ">dead letters", ">dropped", "")
    for row in answer["sinks"]:
        notes = []
        if row["absent_s"] is not None:
            notes.append(f"not configured for {_age(row['absent_s'])}; forgotten after 7 d")
        if row["again"]:
            notes.append(f"{row['again']:,} dead letters are delivered again")
        table.add_row(
            row["sink"],
            f"{row['position']:,}",
            f"{row['backlog']:,}",
            "" if row["oldest_s"] is None else _age(row["oldest_s"]),
            f"{row['dead_letters']:,}",
            f"{row['dropped']:,}",
            "; ".join(notes),
        )
    console = _console()
    console.print(table)
    kept = f"records {answer['first_position']:,} to {answer['last_position']:,} are kept"
    if answer["first_position"] > answer["last_position"]:
        kept = "no records are kept"
    used, most = answer["used_bytes"], answer["max_bytes"]
    console.print(f"{kept}; {used:,} of {most:,} bytes{', FULL: polls pause' if answer['is_full'] else ''}")


def show_waiting(answer: Sequence[dict[str, Any]]) -> None:
    """A line a record that waits."""
    table = _table(">position", "id", "kind", "account", ">sequence", "reason", "accepted")
    for row in answer:
        table.add_row(
            str(row["position"]),
            row["id"],
            row["kind"],
            row["account"],
            str(row["sequence"]),
            row["reason"],
            row["accepted_at"],
        )
    _console().print(table if answer else "nothing waits")


def show_letters(answer: Sequence[dict[str, Any]]) -> None:
    """A line a dead letter."""
    table = _table(">position", "id", "account", ">sequence", "refused", "because")
    for row in answer:
        because = row["reason"] + (" (is delivered again)" if row["again"] else "")
        table.add_row(
            str(row["position"]),
            row["id"],
            row["account"],
            str(row["sequence"]),
            row["refused_at"],
            escape(because),
        )
    _console().print(table if answer else "no dead letters")


def show_record(answer: dict[str, Any]) -> None:
    """Everything about one record."""
    console = _console()
    console.print(
        f"position {answer['position']}, accepted {answer['accepted_at'] or 'long ago: only a dead letter is left'}"
    )
    console.print(f"waits for: {', '.join(answer['waits_for']) or 'nobody'}")
    for letter in answer["refused_by"]:
        again = " (is delivered again)" if letter["again"] else ""
        console.print(
            escape(f"refused by {letter['sink']} at {letter['refused_at']}: {letter['reason']}{again}")
        )
    console.print(
        escape(orjson.dumps(answer["record"], option=orjson.OPT_INDENT_2).decode()), highlight=False
    )


def show_replay(answer: dict[str, Any]) -> None:
    """What is delivered again, and what is not there any more."""
    console = _console()
    if "records" not in answer:
        console.print(f"{answer['dead_letters']:,} dead letters are delivered to {answer['sink']} again")
        return
    console.print(
        f"{answer['sink']} goes back from position {answer['before']:,} to {answer['after']:,}: "
        f"{answer['records']:,} records are delivered again"
    )
    if answer["dead_letters"]:
        console.print(f"{answer['dead_letters']:,} of them were dead letters, and are not any more")
    if answer["is_complete"] is False:
        console.print(
            f"older ones are not kept any more: the first is at {answer['first_position']:,}", style="yellow"
        )


def will_go(trial: dict[str, Any]) -> str:
    """What a drop would give up."""
    count, sink = f"{trial['count']:,}", trial["sink"]
    return {
        "dead": f"{count} dead letters of {sink} are deleted for good",
        "backlog": f"{sink} does not get {count} records that wait for it",
        "cursor": f"the place of {sink} is forgotten, and {count} records that wait for it",
    }[trial["what"]]


def show_drop(answer: dict[str, Any]) -> None:
    """What was given up."""
    words = {
        "dead": "dead letters deleted",
        "backlog": "records skipped",
        "cursor": "waiting records forgotten with its place",
    }
    _console().print(f"{answer['sink']}: {answer['count']:,} {words[answer['what']]}")


def show_vacuum(answer: dict[str, Any]) -> None:
    """What the disk got back."""
    _console().print(f"{answer['freed_bytes']:,} bytes given back")


def _console() -> Console:
    # Ids are copied from here, so no line is broken where nobody looks at a terminal.
    console = Console()
    return console if console.is_terminal else Console(width=240)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table


def _age(seconds: float) -> str:
    for unit_s, unit in _UNITS:
        if seconds >= unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds:.0f} s"
