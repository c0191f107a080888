"""docs/metrics.md lists every metric as it is exposed, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from poller.metrics import Metrics
from poller.scrape import scraped
from tests.registry import baseline, exposed, sources

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def listed() -> dict[str, tuple[str, list[str]]]:
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \|([\w, ]*)\| [^|]+ \| [^|]+ \|$", PAGE.read_text(), re.MULTILINE
    )
    assert len({name for name, *_ in rows}) == len(rows)
    return {name: (kind, sorted(filter(None, labels.strip().split(", ")))) for name, kind, labels in rows}


async def test_the_page_lists_every_metric_with_its_type_and_labels() -> None:
    metrics = Metrics()
    touched = {
        "polls": ("default", "ok", "none"),
        "retries": ("r",),
        "lateness": ("default",),
        "latency": ("default",),
        "staleness": ("default", "0"),
        "rejected_answers": ("r",),
        "missing_fields": ("f",),
        "discovered_sub_accounts": ("desk", "missing"),
        "weight_granted": ("default",),
        "interval_stretch": ("default", "0"),
        "pauses": ("default", "banned"),
        "records_accepted": ("snapshot",),
        "records_delivered": ("bus",),
        "delivery_failures": ("bus", "timeout"),
        "dead_letters": ("bus",),
        "records_dropped": ("bus", "conflate"),
        "records_replayed": ("bus",),
        "trace_spans": ("sent",),
    }
    for attribute, labels in touched.items():
        getattr(metrics, attribute).labels(*labels)
    everything = sources(
        baselines=lambda: [baseline("a", BTC="1")], ready=lambda: {"clock": True}, max_balances=1
    )
    with scraped(metrics, everything):
        found = {
            name: (
                metric.type,
                sorted({label for sample in metric.samples for label in sample.labels} - {"le"}),
            )
            for name, metric in exposed(metrics)
        }
    assert listed() == found
