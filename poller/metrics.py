"""Every figure the poller counts about itself, by Prometheus conventions, in one registry of its own.

What is counted is here; what only has a present, such as a backlog, is computed when it is asked for, by
``scrape``. Figures are floats: amounts of money are exact everywhere else.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from poller import __version__

# A series more for each counter, which says when this process began to count: that is when it began.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the package's own

LATENCIES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
AGES_S = (0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1800, 3600)
LAGS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One object that components count on. Labels are configured names or fixed words, never foreign text."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._gauge("build_info", "Always 1; its label says what runs.", "version").labels(__version__).set(1)
        # Polls
        self.polls = self._counter(
            "polls",
            "Polls finished, by outcome (ok or the error's kind) and scope: who has to wait for it.",
            "egress",
            "outcome",
            "scope",
        )
        self.retries = self._counter("poll_retries", "Polls repeated at once, by reason.", "reason")
        self.lateness = self._histogram(
            "poll_lateness_seconds", "From due to granted.", LATENCIES_S, "egress"
        )
        self.latency = self._histogram(
            "poll_latency_seconds", "From sending a poll to the end of its answer.", LATENCIES_S, "egress"
        )
        self.staleness = self._histogram(
            "account_staleness_seconds",
            "Age of an account's last good answer at the moment the next one came.",
            AGES_S,
            "egress",
            "priority",
        )
        self.rejected_answers = self._counter(
            "rejected_answers", "Answers refused whole, by reason.", "reason"
        )
        self.unknown_fields = self._counter(
            "unknown_fields", "Fields in answers that the poller does not know."
        )
        self.missing_fields = self._counter(
            "missing_fields", "Optional fields that answers left out.", "field"
        )
        self.changes = self._counter("balance_changes", "Changed amounts seen.")
        self.discovered_sub_accounts = self._gauge(
            "discovered_sub_accounts",
            "Sub-accounts of a master account: matched, missing, frozen, gone.",
            "discover",
            "state",
        )
        # Budget
        self.weight_granted = self._counter("weight_granted", "Request weight spent.", "egress")
        self.interval_stretch = self._gauge(
            "interval_stretch", "Achieved interval over the configured one.", "egress", "priority"
        )
        self.pauses = self._counter(
            "pauses", "Times an address had to fall silent, by cause.", "egress", "cause"
        )
        self.clock_offset = self._gauge("clock_offset_seconds", "Exchange's clock minus ours.")
        # Outbox and delivery
        self.records_accepted = self._counter("records_accepted", "Records committed to the outbox.", "kind")
        self.commits = self._counter("outbox_commits", "Transactions committed.")
        self.records_delivered = self._counter("records_delivered", "Records a sink acknowledged.", "sink")
        self.delivery_failures = self._counter(
            "delivery_failures", "Writes that failed and are tried again, by error.", "sink", "error"
        )
        self.dead_letters = self._counter("dead_letters", "Records a sink refused for good.", "sink")
        self.records_dropped = self._counter(
            "records_dropped", "Records a sink had not acknowledged and will not get.", "sink", "policy"
        )
        self.records_replayed = self._counter(
            "records_replayed", "Records that came back to a sink by moving its cursor.", "sink"
        )
        # The process
        self.loop_lag = self._histogram(
            "loop_lag_seconds", "How much too late the event loop woke a task that slept.", LAGS_S
        )
        self.logs_dropped = self._counter("logs_dropped", "Log lines dropped because nobody read them.")
        self.trace_spans = self._counter(
            "trace_spans", "Spans for the collector of traces, by result.", "result"
        )
        self._reloads = self._counter(
            "config_reloads", "Attempts to reload the configuration, by result.", "result"
        )
        self._reload_successful = self._gauge(
            "config_last_reload_successful", "Whether the last attempt to load the configuration was good."
        )
        self._reload_successful.set(1)  # or else nothing would run
        self._reload_success_s = self._gauge(
            "config_last_reload_success_timestamp_seconds", "When what is in force was loaded."
        )
        for result in ("success", "failure"):
            self._reloads.labels(result)

    def config_loaded(self, at_s: float) -> None:
        """Note that the daemon began with a configuration.

        Args:
            at_s: when it was read, seconds since the epoch.
        """
        self._reload_successful.set(1)
        self._reload_success_s.set(at_s)

    def config_reloaded(self, at_s: float, *, accepted: bool) -> None:
        """Count an attempt to reload the configuration.

        Args:
            at_s: when that was, seconds since the epoch.
            accepted: it is in force now; or else the one before it still is.
        """
        self._reloads.labels("success" if accepted else "failure").inc()
        self._reload_successful.set(accepted)
        if accepted:
            self._reload_success_s.set(at_s)

    def forget_egress(self, egress: str) -> None:
        """Show no more how an address stands that was removed; what was counted of it stays."""
        _forget(self.interval_stretch, "egress", egress)

    def forget_discover(self, name: str) -> None:
        """Show no more what a master account said that is not asked any more."""
        _forget(self.discovered_sub_accounts, "discover", name)

    def value(self, name: str, **labels: str) -> float:
        """Return one sample's value, 0.0 if it was never touched; ``name`` without the ``poller_`` prefix."""
        return self.registry.get_sample_value(f"poller_{name}", labels) or 0.0

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of that name whose labels include the given ones."""
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == f"poller_{name}" and labels.items() <= sample.labels.items()
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="poller", registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace="poller", registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace="poller", registry=self.registry, buckets=buckets)


def _forget(gauge: Gauge, label: str, value: str) -> None:
    for sample in [sample for metric in gauge.collect() for sample in metric.samples]:
        if sample.labels[label] == value:
            gauge.remove(*sample.labels.values())
