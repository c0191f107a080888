"""The Grafana dashboard: written by its script, whole, and asking for metrics and labels that exist."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.deploy.promql import metric_names
from tests.deploy.test_prometheus import known_names

pytestmark = pytest.mark.real_time

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "poller.json").read_text())


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_dashboard", GRAFANA / "make_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"^label_values\((.*), \w+\)$", r"\1", variable["definition"])


def test_it_is_what_the_script_writes() -> None:
    assert (GRAFANA / "poller.json").read_text() == script().text()


async def test_every_metric_that_it_asks_for_exists() -> None:
    asked = set().union(*(metric_names(expression) for expression in expressions()))
    assert len(asked) > 30
    assert asked - known_names() == set()


def test_every_panel_has_what_grafana_needs() -> None:
    assert DASHBOARD["uid"] == "poller"
    assert DASHBOARD["schemaVersion"] >= 36
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        assert panel["title"]
        assert panel["targets"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells


def test_every_variable_is_used_and_every_one_that_is_used_is_there() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == variables == {"datasource", "instance", "egress", "sink"}


def test_what_was_asked_for_is_shown() -> None:
    titles = {panel["title"] for panel in panels()}
    assert titles >= {
        "Freshness by priority", "Staleness when the next answer comes", "Lateness", "Weight", "Polls by outcome",
        "Lag", "Backlog", "Delivered", "Dead letters and drops", "Size", "Event loop's lag", "Memory",
    }  # fmt: skip
    [weight] = [panel for panel in panels() if panel["title"] == "Weight"]
    assert {target["legendFormat"] for target in weight["targets"]} >= {"own", "foreign", "reported", "limit"}
    assert "Pauses" in {annotation["name"] for annotation in DASHBOARD["annotations"]["list"]}
    assert "heatmap" in {panel["type"] for panel in panels() if panel["title"] == "Lateness"}
