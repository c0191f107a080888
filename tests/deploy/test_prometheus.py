"""The alert rules: each fires when it should and not else, asks for what exists, and has its paragraph."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from poller.metrics import Metrics
from poller.scrape import scraped
from tests.deploy.promql import metric_names
from tests.registry import exposed, sources

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
OPERATIONS = ROOT / "docs" / "operations.md"
WANTED = {
    "AccountsNotFresh", "AccountsQuarantined", "Banned", "ClockOffset", "ConfigReloadFailed", "DeadLetters",
    "EgressPaused", "ForeignWeight", "LogsDropped", "LoopLag", "NeverFits", "OutboxFilling", "OutboxFull",
    "PollerDown", "PollerNotReady", "RecordsDropped", "RestartLoop", "SinkFailing", "SinkLagging",
    "SubAccountsMissing",
}  # fmt: skip

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def known_names() -> set[str]:
    """Every name that a query can use: histograms by their three."""
    metrics = Metrics()
    names = {"up"}
    with scraped(metrics, sources(max_balances=1)):
        for name, metric in exposed(metrics):
            names |= (
                {f"{name}_{end}" for end in ("bucket", "sum", "count")}
                if metric.type == "histogram"
                else {name}
            )
    return names


def promtool(*arguments: str) -> str:
    result = subprocess.run(
        ["promtool", *arguments], check=False, capture_output=True, text=True, timeout=100, cwd=PROMETHEUS
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@needs_promtool
def test_the_rules_are_valid_and_none_is_there_twice() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml")


@needs_promtool
def test_each_rule_fires_when_it_should_and_not_else() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml")


@needs_promtool
def test_the_configuration_is_valid(tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_every_rule_is_tried_both_ways() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == names
    assert {check["alertname"] for check in checks if not check["exp_alerts"]} == names | {"Banned"}


def test_what_was_asked_for_is_watched() -> None:
    assert {rule["alert"] for rule in alerts()} >= WANTED


def test_every_alert_says_how_serious_it_is_what_it_is_and_what_to_do() -> None:
    for rule in alerts():
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_every_alert_has_its_paragraph_and_every_paragraph_its_alert() -> None:
    section = OPERATIONS.read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    headings = re.findall(r"^### (\w+)\n\n(\S.*)$", section, re.MULTILINE)
    assert [name for name, _ in headings] == list(dict.fromkeys(sorted(rule["alert"] for rule in alerts())))
    assert all(len(first) > 40 for _, first in headings)


def asked_for() -> Iterator[str]:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        yield from metric_names(rule["expr"]) - recorded


async def test_every_metric_of_the_rules_exists() -> None:
    assert set(asked_for()) - known_names() == set()


def test_the_job_is_called_as_the_rules_call_it() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    [scrape] = config["scrape_configs"]
    assert scrape["job_name"] == "poller"
    assert config["rule_files"] == ["alerts.yaml"]
    assert scrape["authorization"]["credentials_file"].startswith("/"), "no token in the file"


def test_names_are_taken_out_of_queries() -> None:
    query = """sum by (a, b) (rate(x_total{c="d_e", f!~"g|h"}[5m])) / on (i) group_left (j) (max(k:l:ratio offset 15m) > 1e3)"""
    assert metric_names(query) == {"x_total", "k:l:ratio"}
