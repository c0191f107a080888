"""What ``poller plan`` shows: demand against budget as a table, a small picture, a verdict; or as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poller.config import Config
from poller.plan import Plan, count, plan
from poller.polling import WEIGHT
from poller.units import UnitError, parse_duration

BAR_CELLS = 30
SHORTEST_INTERVAL_S = 0.1  # as in the configuration
LONGEST_INTERVAL_S = 7 * 86_400.0


def show_plan(
    config: Config, *, as_json: bool, add: int, interval: str, priority: int, egress: str | None
) -> bool:
    """Show demand against budget with so many accounts more; return whether everybody gets their interval.

    Raises:
        ValueError: an option makes no sense; the text names it and the remedy.
    """
    interval_s = _interval_s(interval)
    plans = plan_fleet(config, add=add, interval_s=interval_s, priority=priority, egress=egress)
    if as_json:
        click.echo(orjson.dumps(_document(plans, interval_s), option=orjson.OPT_INDENT_2))
    else:
        console = Console(highlight=False)
        console.print(plan_table(plans))
        for one in plans:
            console.print()
            console.print(_picture(one, max(len(other.egress) for other in plans)))
            console.print(one.verdict, soft_wrap=True)
            console.print(_advice(one, interval_s), soft_wrap=True)
    return all(one.fits for one in plans)


def _interval_s(text: str) -> float:
    try:
        interval_s = parse_duration(text)
    except UnitError as error:
        raise ValueError(f"--interval: {error}; {error.remedy}") from error
    if not SHORTEST_INTERVAL_S <= interval_s <= LONGEST_INTERVAL_S:
        raise ValueError(f"--interval: {text!r} is out of range; write 100ms to 7d")
    return interval_s


def plan_fleet(
    config: Config,
    *,
    add: int = 0,
    interval_s: float = 60.0,
    priority: int = 0,
    egress: str | None = None,
) -> list[Plan]:
    """Plan every address that is used, or would be with so many accounts more.

    Raises:
        ValueError: there is no such egress; the text lists those there are.
    """
    if egress is not None and egress not in config.egress:
        raise ValueError(f"--egress: there is no {egress!r}; known here: {', '.join(config.egress)}")
    settings = config.budget
    used = {name: Counter[tuple[int, float]]() for name in config.egress}
    for account in config.accounts.values():
        used[account.egress].update(count([account]))
    if add:
        named = [name for name, wanted in used.items() if wanted]
        used[egress or (named[0] if len(named) == 1 else "default")][priority, interval_s] += add
    capacity = math.floor(settings.weight_limit * settings.share + 1e-9)  # as the budget itself counts
    return [
        plan(name, wanted, capacity=capacity, window_s=settings.window_s, weight=WEIGHT)
        for name, wanted in used.items()
        if wanted
    ]


def _document(plans: Sequence[Plan], interval_s: float) -> dict[str, object]:
    return {
        "fits": all(one.fits for one in plans),
        "addresses": [
            {
                "egress": one.egress,
                "accounts": one.accounts,
                "fits": one.fits,
                "verdict": one.verdict,
                "window_s": one.window_s,
                "capacity": one.capacity,
                "wanted": round(one.wanted, 3),
                "use": round(one.use, 4),
                "headroom": {
                    "weight": round(one.headroom, 3),
                    "polls": math.floor(one.headroom / one.weight),
                    "accounts": one.room_for(interval_s),
                    "interval_s": interval_s,
                },
                "priorities": [
                    {
                        "priority": demand.priority,
                        "accounts": demand.accounts,
                        "wanted": round(demand.wanted, 3),
                        "given": round(demand.given, 3),
                        "stretch": round(demand.stretch, 4),
                        "interval_s": [demand.shortest_s, demand.longest_s],
                        "achieved_s": [round(seconds, 3) for seconds in demand.achieved_s],
                    }
                    for demand in one.demands
                ],
            }
            for one in plans
        ],
    }


def plan_table(plans: Sequence[Plan]) -> Table:
    """Return one line per address and priority."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("egress", "priority", "accounts", "wanted", "given", "interval", "achieved", "stretch"):
        table.add_column(column, justify="left" if column == "egress" else "right")
    for one in plans:
        for place, demand in enumerate(one.demands):
            table.add_row(
                "" if place else one.egress,
                str(demand.priority),
                f"{demand.accounts:,}",
                f"{demand.wanted:,.0f}",
                f"{demand.given:,.0f}",
                _seconds(demand.shortest_s, demand.longest_s),
                _seconds(*demand.achieved_s),
                Text(f"{demand.stretch:.2f}", style="red" if demand.stretch > 1 + 1e-9 else ""),
            )
    return table


def _picture(one: Plan, name_cells: int) -> Text:
    """Draw the demand as blocks: full up to the capacity, dotted what is free, shaded what is too much."""
    cells = BAR_CELLS / max(1.0, one.use)  # of the capacity
    wanted = max(1, round(one.use * cells))
    inside = min(wanted, math.floor(cells) if one.use > 1 else wanted)
    return Text.assemble(
        (f"{one.egress:{name_cells}}  ", "bold"),
        ("█" * inside, "green"),
        ("▒" * (wanted - inside), "red"),
        ("·" * (BAR_CELLS - wanted), "dim"),
        (f"  {one.use:.0%}", "" if one.fits else "bold red"),
    )


def _advice(one: Plan, interval_s: float) -> str:
    if not one.fits:
        return "does not fit: intervals stretch; lengthen them, raise budget.share, or add an egress address"
    polls = math.floor(one.headroom / one.weight)
    return (
        f"fits, with room for {polls:,} polls per {one.window_s:g} s more:"
        f" {one.room_for(interval_s):,} accounts at {interval_s:g} s"
    )


def _seconds(shortest_s: float, longest_s: float) -> str:
    low, high = (f"{seconds:.1f}".removesuffix(".0") for seconds in (shortest_s, longest_s))
    return f"{low} s" if low == high else f"{low} to {high} s"
