"""The registry as a scrape of a running daemon finds it, with figures that are easy to recognise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

from prometheus_client import Metric

from poller.budget import BudgetStatus
from poller.delivery import DeliveryStatus
from poller.health import AccountHealth
from poller.metrics import Metrics
from poller.model import Account, Balance, Baseline, State
from poller.outbox import OutboxStats
from poller.scrape import Sources

BUDGET = BudgetStatus(
    egress="default",
    limit=12_000,
    allowed=10_800,
    capacity=9_000,
    own=4_000,
    foreign=1_800,
    reported=5_800,
    in_flight=3,
    granted=70_000,
    pause_s=0.0,
    pause_cause="",
)
SINK = DeliveryStatus(
    "bus", backlog=7, delivered=90, dead_letters=2, failing_s=12.5, is_open=True, error="down"
)
OUTBOX = OutboxStats(
    first_position=1,
    last_position=40,
    backlogs={"bus": 7, "history": 0},
    records=38,
    letters={"bus": 2, "history": 0},
    dead_letters=2,
    dropped={"bus": 0, "history": 0},
    used_bytes=65_536,
    max_bytes=1 << 30,
    is_full=False,
    commits=30,
    set_aside=None,
)


def account(name: str, *, silent_s: float, state: str = State.OK, **settings: Any) -> AccountHealth:
    return AccountHealth(Account(name, 10.0, **settings), state, silent_s)


def baseline(account: str, **amounts: str) -> Baseline:
    balances = tuple(Balance(asset, Decimal(amount), locked=Decimal(1)) for asset, amount in amounts.items())
    return Baseline(account, 1, balances)


def sources(**settings: Any) -> Sources:
    found = Sources(
        budgets=lambda: [BUDGET],
        deliveries=lambda: [SINK],
        outbox=lambda: OUTBOX,
        waits_s=lambda sink: {"bus": 33.0}.get(sink, 0.0),
        accounts=lambda: [account("a", silent_s=5.0)],
    )
    return replace(found, **settings)


def exposed(metrics: Metrics) -> Iterator[tuple[str, Metric]]:
    """Every metric under the name that it has in queries: a histogram's without its endings."""
    for metric in metrics.registry.collect():
        yield metric.name + ("_total" if metric.type == "counter" else ""), metric
