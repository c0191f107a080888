"""Every figure the poller keeps about itself, by Prometheus conventions, in one registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """One object that components count on. Labels are configured names or fixed words, never foreign text."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Polls
        self.polls = self._counter(
            "polls", "Polls finished, by outcome (ok or the error's kind).", "egress", "outcome"
        )
        self.retries = self._counter("poll_retries", "Polls repeated at once, by reason.", "reason")
        self.lateness = self._histogram("poll_lateness_seconds", "From due to granted.", "egress")
        self.latency = self._histogram(
            "poll_latency_seconds", "From sending a poll to the end of its answer.", "egress"
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
        self.accounts = self._gauge("accounts", "Accounts by state.", "state")
        self.discovered_sub_accounts = self._gauge(
            "discovered_sub_accounts",
            "Sub-accounts of a master account: matched, missing, frozen, gone.",
            "discover",
            "state",
        )
        # Budget
        self.weight_granted = self._counter("weight_granted", "Request weight spent.", "egress")
        self.weight_used = self._gauge("weight_used", "Own weight that may still be in the window.", "egress")
        self.weight_reported = self._gauge(
            "weight_reported", "Used weight as the exchange last said.", "egress"
        )
        self.weight_foreign = self._gauge(
            "weight_foreign", "Weight somebody else uses on this address.", "egress"
        )
        self.weight_limit = self._gauge("weight_limit", "Weight per window that we may use.", "egress")
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
            "delivery_failures", "Batches a sink did not take, by error.", "sink", "error"
        )
        self.dead_letters = self._counter("dead_letters", "Records a sink refused for good.", "sink")
        self.records_dropped = self._counter(
            "records_dropped", "Records a sink had not acknowledged and will not get.", "sink", "policy"
        )
        self.records_replayed = self._counter(
            "records_replayed", "Records that came back to a sink by moving its cursor.", "sink"
        )
        self.backlog = self._gauge("sink_backlog", "Records accepted and not yet acknowledged.", "sink")
        # Configuration
        self.config_reloads = self._counter(
            "config_reloads", "Attempts to read the configuration anew, by result.", "result"
        )
        self.config_last_reload_successful = self._gauge(
            "config_last_reload_successful", "1 if the last attempt to reload was good, or there was none."
        )
        self.config_last_reload_success = self._gauge(
            "config_last_reload_success_timestamp_seconds", "When what is in force was read."
        )
        self.config_last_reload_successful.set(1)
        # Logs
        self.logs_dropped = self._counter("logs_dropped", "Log lines dropped because nobody read them.")

    def config_reloaded(self, utc_ns: int) -> None:
        """Count that another configuration is in force, or the same one anew."""
        self.config_reloads.labels("success").inc()
        self.config_last_reload_successful.set(1)
        self.config_last_reload_success.set(utc_ns / 1e9)

    def config_refused(self) -> None:
        """Count that a configuration was refused."""
        self.config_reloads.labels("failure").inc()
        self.config_last_reload_successful.set(0)

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

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        buckets = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
        return Histogram(name, text, labels, namespace="poller", registry=self.registry, buckets=buckets)
