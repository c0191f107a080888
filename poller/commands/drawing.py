"""What screens draw with: tables, bars, ages and sizes, and text that cannot move the terminal's cursor."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

HOW_ASSETS_ARE_WRITTEN = "names of assets are as the exchange writes them, such as BTC"
PIPED_CELLS = 240  # where nobody looks at a terminal: no line is broken
STATE_STYLES = {"ok": "green", "stale": "yellow", "quarantined": "red", "keyless": "red", "damaged": "red"}
_AGES = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
_EXACT_S = 10.0  # shorter ages are shown with a digit behind the point


def console() -> Console:
    """Return the console for a command's result."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PIPED_CELLS)


def table(*columns: str) -> Table:
    """Return a table without lines.

    A column whose name begins with ``>`` stands to the right. What is too long is folded and never cut off: it
    may be an amount. Only columns that begin with ``|`` keep their width, which a bar needs.
    """
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(
            column.lstrip(">|"),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
            no_wrap=column.startswith("|"),
        )
    return made


def text(said: str, style: str = "") -> Text:
    """Return what somebody else said, as text: no markup, and nothing that a terminal would obey."""
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in said)
    return Text(safe, style=style)


def state(name: str) -> Text:
    """Return the state of an account."""
    return text(name, STATE_STYLES.get(name, "red"))


def age(seconds: float) -> str:
    """Return a length of time in its two largest units, such as ``4 h 10 min``."""
    if seconds < _EXACT_S:
        return f"{max(0.0, seconds):.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for large_s, large, small_s, small in _AGES:
        if whole >= large_s:
            rest = whole % large_s // small_s
            return f"{whole // large_s} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def size(count_bytes: float) -> str:
    """Return a size in the unit that fits, such as ``3.0 MiB``."""
    for unit in _SIZES:
        if count_bytes < 1024 or unit == _SIZES[-1]:
            return f"{count_bytes:.0f} {unit}" if unit == "B" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1024
    raise AssertionError  # the last unit takes everything


def moment(at: str) -> datetime:
    """Return the instant that a document's RFC 3339 text names."""
    return datetime.fromisoformat(at)


def between_s(earlier: str, later: str) -> float:
    """Return the seconds from one instant of a document to another."""
    return (moment(later) - moment(earlier)) / timedelta(seconds=1)


def clock_time(at: str) -> str:
    """Return an instant without its fraction: ``2026-01-01 12:00:00``."""
    return at[:19].replace("T", " ")


def bar(parts: Iterable[tuple[float, str, str]], whole: float, cells: int) -> Text:
    """Draw parts of a whole side by side: each an amount, a character and a style; dots for the rest."""
    drawn = Text()
    used, amount = 0, 0.0
    for part, character, style in parts:
        amount += part
        # Ends are rounded and not lengths, so that no part is longer for those before it.
        end = min(cells, round(amount / whole * cells)) if whole > 0 else 0
        if part > 0 and end == used < cells:
            end += 1  # what is there is seen
        drawn.append(character * max(0, end - used), style)
        used = max(used, end)
    return drawn.append("·" * (cells - used), "dim")
