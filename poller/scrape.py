"""Gauges that are computed at the moment somebody asks: a scrape sees the present, never the last look.

A scrape may be rendered in any thread. The sources are asked on the event loop, in one go but for what is ready,
so what is seen is one moment; turning that into series is done where the scrape is. What has gone, such as a sink that a reload
removed, has no series any more.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar, get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from poller.budget import BudgetStatus
from poller.delivery import DeliveryStatus
from poller.health import AccountHealth
from poller.metrics import Metrics
from poller.model import Baseline, State
from poller.outbox import OutboxStats
from poller.overview import AccountState

ANSWER_S = 5.0  # within a scrape's own time-out
FRESH_INTERVALS = 2.0  # of the configured ones: what a fleet that does not fit cannot keep is not fresh

T = TypeVar("T")

_EMPTY = OutboxStats(1, 0, {}, 0, {}, 0, {}, 0, 0, is_full=False, commits=0, set_aside=None)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a scrape looks. Each is called anew every time; none may wait or do I/O.

    Attributes:
        budgets: one status for each egress address.
        deliveries: one for each sink.
        outbox: how it stands.
        waits_s: for how many seconds a sink's oldest record has waited.
        accounts: how each account is doing, also those whose keys nobody reaches: ``keyless``, for ever silent.
        baselines: what was last accepted of each configured account, for balances as gauges.
        ready: what ``/readyz`` holds against, by name.
        max_balances: so many balances become gauges at most; 0: none do.
    """

    budgets: Callable[[], Iterable[BudgetStatus]]
    deliveries: Callable[[], Iterable[DeliveryStatus]]
    outbox: Callable[[], OutboxStats]
    waits_s: Callable[[str], float]
    accounts: Callable[[], Iterable[AccountHealth]]
    baselines: Callable[[], Iterable[Baseline]] = tuple
    ready: Callable[[], Mapping[str, bool]] = dict
    max_balances: int = 0


@dataclass(frozen=True, slots=True)
class _Moment:
    """What the sources said, all at one moment."""

    budgets: Sequence[BudgetStatus] = ()
    deliveries: Sequence[DeliveryStatus] = ()
    outbox: OutboxStats = _EMPTY
    waits_s: Mapping[str, float] = field(default_factory=dict)
    accounts: Sequence[AccountHealth] = ()
    baselines: Sequence[Baseline] = ()
    ready: Mapping[str, bool] = field(default_factory=dict)


class Gauges(Collector):
    """Computes the gauges from their sources at each scrape.

    Args:
        loop: where the sources are asked.
    """

    def __init__(self, sources: Sources, loop: asyncio.AbstractEventLoop) -> None:
        self._sources = sources
        self._loop = loop

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every gauge as it is now.

        Raises:
            TimeoutError: the event loop does not answer.
        """
        yield from self._series(self._moment())

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Yield the names, without asking anybody, so that no name is given away twice."""
        yield from self._series(_Moment())

    def _moment(self) -> _Moment:
        # Of thousands of accounts each of the two takes a while: something else may come in between.
        ready = self._asked(lambda: dict(self._sources.ready()))
        return replace(self._asked(self._look), ready=ready)

    def _asked(self, look: Callable[[], T]) -> T:
        if _running_loop() is self._loop:
            return look()
        asked: concurrent.futures.Future[T] = concurrent.futures.Future()

        def answer() -> None:
            if not asked.set_running_or_notify_cancel():
                return
            try:
                asked.set_result(look())
            except Exception as error:  # noqa: BLE001  # whoever scrapes is told
                asked.set_exception(error)

        self._loop.call_soon_threadsafe(answer)
        try:
            return asked.result(ANSWER_S)
        except concurrent.futures.TimeoutError:
            asked.cancel()
            raise TimeoutError(f"the event loop has not answered for {ANSWER_S} s") from None

    def _look(self) -> _Moment:
        sources = self._sources
        outbox = sources.outbox()
        return _Moment(
            budgets=tuple(sources.budgets()),
            deliveries=tuple(sources.deliveries()),
            outbox=outbox,
            waits_s={sink: sources.waits_s(sink) for sink in outbox.backlogs},
            accounts=tuple(sources.accounts()),
            baselines=tuple(sources.baselines()) if sources.max_balances else (),
        )

    def _series(self, moment: _Moment) -> Iterator[GaugeMetricFamily]:
        yield from _of_accounts(moment.accounts)
        yield from _of_addresses(moment.budgets)
        yield from _of_outbox(moment)
        yield from _of_sinks(moment)
        ready = _gauge("ready", "Whether this is right, of what /readyz holds against.", "check")
        for check, is_right in moment.ready.items():
            ready.add_metric([check], is_right)
        yield ready
        if self._sources.max_balances:
            yield from _balances(moment.baselines, self._sources.max_balances)


@contextmanager
def scraped(metrics: Metrics, sources: Sources) -> Iterator[None]:
    """Let scrapes of these metrics see the sources while the context lasts. Enter it on the event loop."""
    gauges = Gauges(sources, asyncio.get_running_loop())
    metrics.registry.register(gauges)
    try:
        yield
    finally:
        metrics.registry.unregister(gauges)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"poller_{name}", text, labels=labels)


def _single(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"poller_{name}", text, value=value)


def _of_accounts(accounts: Sequence[AccountHealth]) -> Iterator[GaugeMetricFamily]:
    counts = Counter((health.account.priority, str(health.state)) for health in accounts)
    fresh = Counter(health.account.priority for health in accounts if is_fresh(health))
    priorities = sorted({priority for priority, _ in counts})
    counted = _gauge("accounts", "Accounts by priority and state.", "priority", "state")
    for priority in priorities:
        for state in get_args(AccountState):
            counted.add_metric([str(priority), state], counts[priority, state])
    yield counted
    up_to_date = _gauge(
        "accounts_fresh",
        "Accounts, not quarantined, whose last good answer is at most two of their intervals old.",
        "priority",
    )
    for priority in priorities:
        up_to_date.add_metric([str(priority)], fresh[priority])
    yield up_to_date


def is_fresh(health: AccountHealth) -> bool:
    """Say whether an account's data is as young as its interval promises."""
    # Before its first poll after a start nobody can tell: it counts as fresh until it could have been polled twice.
    return (
        health.state != State.QUARANTINED and health.silent_s <= FRESH_INTERVALS * health.account.interval_s
    )


def _of_addresses(budgets: Sequence[BudgetStatus]) -> Iterator[GaugeMetricFamily]:
    figures: list[tuple[str, str, Callable[[BudgetStatus], float | None]]] = [
        ("weight_limit", "What the exchange grants the address, weight per window.", lambda it: it.limit),
        ("weight_allowed", "Our share of the limit.", lambda it: it.allowed),
        ("weight_capacity", "What others leave us of our share.", lambda it: it.capacity),
        ("weight_used", "Own weight that may still be in the window.", lambda it: it.own),
        ("weight_foreign", "Weight that others used in the window, at least.", lambda it: it.foreign),
        ("weight_reported", "Used weight as the exchange last said.", lambda it: it.reported),
        ("budget_share_ratio", "Our share, of 1.", lambda it: it.allowed / it.limit),
        ("polls_in_flight", "Requests without an answer yet.", lambda it: it.in_flight),
    ]
    for name, text, figure in figures:
        gauge = _gauge(name, text, "egress")
        for budget in budgets:
            if (value := figure(budget)) is not None:
                gauge.add_metric([budget.egress], value)
        yield gauge
    pauses = _gauge("pause_left_seconds", "Silence left, and its cause; none is 0.", "egress", "cause")
    for budget in budgets:
        pauses.add_metric([budget.egress, budget.pause_cause or "none"], budget.pause_s)
    yield pauses


def _of_outbox(moment: _Moment) -> Iterator[GaugeMetricFamily]:
    stats = moment.outbox
    oldest_s = max(moment.waits_s.values(), default=0.0)
    yield _single("outbox_records", "Records kept, delivered ones included.", stats.records)
    yield _single("outbox_bytes", "What they take in the file.", stats.used_bytes)
    yield _single("outbox_max_bytes", "What they may take.", stats.max_bytes)
    yield _single("outbox_full", "Whether nothing is accepted, by size or for want of disk.", stats.is_full)
    yield _single("outbox_oldest_seconds", "Age of the oldest record that some sink has not got.", oldest_s)
    letters = _gauge("sink_dead_letters", "Records a sink refused for good that are kept.", "sink")
    for sink, count in stats.letters.items():
        letters.add_metric([sink], count)
    yield letters


def _of_sinks(moment: _Moment) -> Iterator[GaugeMetricFamily]:
    figures: list[tuple[str, str, Callable[[DeliveryStatus], float]]] = [
        ("sink_backlog_records", "Records accepted and not yet acknowledged.", lambda it: it.backlog),
        ("sink_lag_seconds", "Age of the oldest of them.", lambda it: moment.waits_s.get(it.name, 0.0)),
        ("sink_failing_seconds", "Since the first failure after the last success.", lambda it: it.failing_s),
        (
            "sink_breaker_open",
            "Whether it failed so often that single records are tried.",
            lambda it: it.is_open,
        ),
    ]
    for name, text, figure in figures:
        gauge = _gauge(name, text, "sink")
        for delivery in moment.deliveries:
            gauge.add_metric([delivery.name], figure(delivery))
        yield gauge


def _balances(baselines: Iterable[Baseline], most: int) -> Iterator[GaugeMetricFamily]:
    held = [
        ([baseline.account, balance.asset], balance)
        for baseline in baselines
        for balance in baseline.balances or ()
    ]
    gauge = _gauge("balance", "What an account holds in total; rounded to a float.", "account", "asset")
    for labels, balance in islice(held, most):
        gauge.add_metric(labels, float(balance.total))
    yield gauge
    yield _single(
        "balance_series_omitted", "Balances that are beyond metrics.max_series.", max(0, len(held) - most)
    )
