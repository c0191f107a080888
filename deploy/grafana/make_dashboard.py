"""Writes poller.json, the Grafana dashboard: python deploy/grafana/make_dashboard.py. The same text every time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
HERE = 'job="poller", instance=~"$instance"'
EGRESS = f'{HERE}, egress=~"$egress"'
SINK = f'{HERE}, sink=~"$sink"'

Panel = dict[str, Any]


def targets(**queries: str) -> list[dict[str, Any]]:
    """One query for each legend; in a name two underscores stand for a blank."""
    return [
        {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "expr": query,
            "legendFormat": legend.replace("__", " "),
        }
        for number, (legend, query) in enumerate(queries.items())
    ]


def labelled(*queries: tuple[str, str]) -> list[dict[str, Any]]:
    """One query for each legend that has labels in it."""
    return [
        {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for number, (legend, query) in enumerate(queries)
    ]


def panel(
    title: str,
    what: list[dict[str, Any]],
    *,
    unit: str = "short",
    kind: str = "timeseries",
    width: int = 8,
    text: str = "",
    least: float | None = 0,
    most: float | None = None,
    steps: list[tuple[str, float | None]] | None = None,
    stacked: bool = False,
) -> Panel:
    defaults: dict[str, Any] = {"unit": unit}
    if least is not None:
        defaults["min"] = least
    if most is not None:
        defaults["max"] = most
    if steps is not None:
        defaults["thresholds"] = {
            "mode": "absolute",
            "steps": [{"color": color, "value": value} for color, value in steps],
        }
    options: dict[str, Any] = {}
    if kind == "timeseries":
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 25 if stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "off" if steps is None else "dashed"},
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif kind == "stat":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "graphMode": "area",
        }
    elif kind == "heatmap":
        options = {
            "calculate": False,
            "yAxis": {"unit": unit},
            "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64},
            "tooltip": {"mode": "single", "yHistogram": True},
        }
        for target in what:
            target["format"] = "heatmap"
    return {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "targets": what,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "gridPos": {"w": width, "h": 4 if kind == "stat" else 8},
    }


def quantiles(metric: str, matchers: str, by: str) -> list[dict[str, Any]]:
    rate = f"sum by (le, {by}) (rate({metric}_bucket{{{matchers}}}[$__rate_interval]))"
    return labelled(
        (f"{{{{{by}}}}} median", f"histogram_quantile(0.5, {rate})"),
        (f"{{{{{by}}}}} 99 %", f"histogram_quantile(0.99, {rate})"),
    )


def heat(metric: str, matchers: str) -> list[dict[str, Any]]:
    return labelled(("{{le}}", f"sum by (le) (increase({metric}_bucket{{{matchers}}}[$__rate_interval]))"))


WATCHED = f'sum(poller_accounts{{{HERE}, state!="quarantined"}})'

ROWS: dict[str, list[Panel]] = {
    "The fleet": [
        panel(
            "Fresh accounts",
            targets(fresh=f"sum(poller_accounts_fresh{{{HERE}}}) / {WATCHED}"),
            unit="percentunit",
            kind="stat",
            width=4,
            most=1,
            steps=[("red", None), ("orange", 0.95), ("green", 0.99)],
            text="Last good answer within two intervals, of those whose key works.",
        ),
        panel("Accounts", targets(accounts=f"sum(poller_accounts{{{HERE}}})"), kind="stat", width=4),
        panel(
            "Quarantined",
            targets(quarantined=f'sum(poller_accounts{{{HERE}, state="quarantined"}})'),
            kind="stat",
            width=4,
            steps=[("green", None), ("orange", 1)],
        ),
        panel(
            "Polls a second",
            targets(polls=f"sum(rate(poller_polls_total{{{HERE}}}[$__rate_interval]))"),
            unit="ops",
            kind="stat",
            width=4,
        ),
        panel(
            "Paused for",
            targets(pause=f"max(poller_pause_left_seconds{{{HERE}}})"),
            unit="s",
            kind="stat",
            width=4,
            steps=[("green", None), ("red", 1)],
        ),
        panel(
            "Oldest undelivered record",
            targets(oldest=f"max(poller_outbox_oldest_seconds{{{HERE}}})"),
            unit="s",
            kind="stat",
            width=4,
            steps=[("green", None), ("orange", 60), ("red", 300)],
        ),
        panel(
            "Freshness by priority",
            labelled(
                (
                    "priority {{priority}}",
                    (f"sum by (priority) (poller_accounts_fresh{{{HERE}}})"
                    f' / sum by (priority) (poller_accounts{{{HERE}, state!="quarantined"}})'),
                )
            ),
            unit="percentunit",
            most=1,
            text="The objective is 99 %.",
        ),
        panel(
            "Staleness when the next answer comes",
            quantiles("poller_account_staleness_seconds", EGRESS, "priority"),
            unit="s",
            text="How old the data was at worst between two good answers; at best the interval.",
        ),
        panel(
            "Accounts by state",
            labelled(("{{state}}", f"sum by (state) (poller_accounts{{{HERE}}})")),
            stacked=True,
        ),
    ],
    "Polls": [
        panel(
            "Polls by outcome",
            labelled(
                (
                    "{{outcome}} ({{scope}})",
                    f"sum by (outcome, scope) (rate(poller_polls_total{{{EGRESS}}}[$__rate_interval]))",
                )
            ),
            unit="ops",
            stacked=True,
            text="In brackets who has to wait for it.",
        ),
        panel("Lateness", heat("poller_poll_lateness_seconds", EGRESS), unit="s", kind="heatmap", least=None),
        panel("Latency", quantiles("poller_poll_latency_seconds", EGRESS, "egress"), unit="s"),
        panel(
            "Stretch of intervals",
            labelled(("{{egress}} {{priority}}", f"poller_interval_stretch{{{EGRESS}}}")),
            least=1,
            text="1 when the whole fleet fits its budget.",
        ),
        panel("In flight", labelled(("{{egress}}", f"poller_polls_in_flight{{{EGRESS}}}"))),
        panel("Clock: the exchange's minus ours", targets(offset=f"poller_clock_offset_seconds{{{HERE}}}"), unit="s", least=None),
    ],
    "Weight of $egress": [
        panel(
            "Weight",
            labelled(
                ("own", f"sum(poller_weight_used{{{EGRESS}}})"),
                ("foreign", f"sum(poller_weight_foreign{{{EGRESS}}})"),
                ("reported", f"sum(poller_weight_reported{{{EGRESS}}})"),
                ("left to us", f"sum(poller_weight_capacity{{{EGRESS}}})"),
                ("our share", f"sum(poller_weight_allowed{{{EGRESS}}})"),
                ("limit", f"sum(poller_weight_limit{{{EGRESS}}})"),
            ),
            width=16,
            text="In the exchange's window. Choose one address; of several it is the sum.",
        ),
        panel(
            "Pauses",
            labelled(
                ("{{egress}} {{cause}}", f"sum by (egress, cause) (poller_pause_left_seconds{{{EGRESS}}}) > 0"),
                ("begun: {{egress}} {{cause}}", f"sum by (egress, cause) (increase(poller_pauses_total{{{EGRESS}}}[$__rate_interval])) > 0"),
            ),
            unit="s",
        ),
    ],
    "Sinks": [
        panel("Lag", labelled(("{{sink}}", f"poller_sink_lag_seconds{{{SINK}}}")), unit="s"),
        panel("Backlog", labelled(("{{sink}}", f"poller_sink_backlog_records{{{SINK}}}"))),
        panel(
            "Delivered",
            labelled(("{{sink}}", f"sum by (sink) (rate(poller_records_delivered_total{{{SINK}}}[$__rate_interval]))")),
            unit="ops",
        ),
        panel(
            "Failures",
            labelled(
                ("{{sink}} {{error}}", f"sum by (sink, error) (rate(poller_delivery_failures_total{{{SINK}}}[$__rate_interval]))")
            ),
            unit="ops",
        ),
        panel("Failing for", labelled(("{{sink}}", f"poller_sink_failing_seconds{{{SINK}}}")), unit="s"),
        panel(
            "Dead letters and drops",
            labelled(
                ("dead: {{sink}}", f"poller_sink_dead_letters{{{SINK}}}"),
                ("dropped: {{sink}} {{policy}}", f"poller_records_dropped_total{{{SINK}}}"),
            ),
        ),
    ],
    "Outbox": [
        panel(
            "Size",
            labelled(("used", f"poller_outbox_bytes{{{HERE}}}"), ("limit", f"poller_outbox_max_bytes{{{HERE}}}")),
            unit="bytes",
        ),
        panel("Records", labelled(("kept", f"poller_outbox_records{{{HERE}}}"))),
        panel(
            "Accepted",
            labelled(
                ("{{kind}}", f"sum by (kind) (rate(poller_records_accepted_total{{{HERE}}}[$__rate_interval]))"),
                ("commits", f"rate(poller_outbox_commits_total{{{HERE}}}[$__rate_interval])"),
            ),
            unit="ops",
        ),
    ],
    "The process": [
        panel("Event loop's lag", quantiles("poller_loop_lag_seconds", HERE, "instance"), unit="s"),
        panel("Processor", labelled(("{{instance}}", f"rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval])")), unit="percentunit"),
        panel("Memory", labelled(("{{instance}}", f"process_resident_memory_bytes{{{HERE}}}")), unit="bytes"),
        panel(
            "File descriptors",
            labelled(("open", f"process_open_fds{{{HERE}}}"), ("limit", f"process_max_fds{{{HERE}}}")),
        ),
        panel("Log lines dropped", labelled(("{{instance}}", f"increase(poller_logs_dropped_total{{{HERE}}}[$__rate_interval])"))),
        panel(
            "Configuration in force",
            labelled(("good", f"poller_config_last_reload_successful{{{HERE}}}")),
            kind="stat",
            steps=[("red", None), ("green", 1)],
        ),
    ],
}  # fmt: skip


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def annotation(name: str, expression: str, color: str, title: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "expr": expression,
        "step": "15s",
        "iconColor": color,
        "titleFormat": title,
    }


def placed(rows: dict[str, list[Panel]]) -> list[Panel]:
    """Return the panels with ids and places, each row below the one before."""
    ids = itertools.count(1)
    found: list[Panel] = []
    top = 0
    for title, panels in rows.items():
        found.append(
            {
                "id": next(ids),
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
            }
        )
        top, left, height = top + 1, 0, 0
        for one in panels:
            size = one["gridPos"]
            if left + size["w"] > WIDTH:
                top, left, height = top + height, 0, 0
            found.append({"id": next(ids), **one, "gridPos": {"x": left, "y": top, **size}})
            left, height = left + size["w"], max(height, size["h"])
        top += height
    return found


def dashboard() -> dict[str, Any]:
    return {
        "uid": "poller",
        "title": "poller",
        "description": "The balances of a fleet of Binance accounts: how fresh, from which weight, and where they go.",
        "tags": ["poller"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "utc",
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "graphTooltip": 1,
        "templating": {
            "list": [
                {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus"},
                variable("instance", "Instance", 'label_values(poller_build_info{job="poller"}, instance)'),
                variable("egress", "Egress", f"label_values(poller_weight_limit{{{HERE}}}, egress)"),
                variable("sink", "Sink", f"label_values(poller_sink_backlog_records{{{HERE}}}, sink)"),
            ]
        },
        "annotations": {
            "list": [
                annotation(
                    "Pauses",
                    f'poller_pause_left_seconds{{{EGRESS}, cause!="none"}} > 0',
                    "red",
                    "{{egress}}: {{cause}}",
                ),
                annotation(
                    "Starts", f"changes(process_start_time_seconds{{{HERE}}}[1m]) > 0", "blue", "started"
                ),
                annotation(
                    "Reloads",
                    f"increase(poller_config_reloads_total{{{HERE}}}[1m]) > 0",
                    "green",
                    "reload: {{result}}",
                ),
            ]
        },
        "panels": placed(ROWS),
    }


def text() -> str:
    """Return the dashboard as it is written."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "poller.json").write_text(text(), encoding="utf-8")
