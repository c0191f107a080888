"""The compose file: of the published shape, closed, and with a configuration that loads."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from poller.config import load, read_secrets
from tests.end_to_end.processes import simulating

pytestmark = pytest.mark.real_time

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
CHECK = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(CHECK is None, reason="check-jsonschema is not installed")
def test_it_is_of_the_published_shape() -> None:
    assert CHECK is not None
    result = subprocess.run(
        [CHECK, "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_it_shows_everything() -> None:
    assert SERVICES.keys() == {"exchange", "configure", "poller", "redis", "prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_closed(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert not service.get("privileged")
    assert "mem_limit" in service
    assert name == "configure" or "healthcheck" in service
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "for this machine only"
    for volume in service.get("volumes", []):
        source, _, *mode = volume.split(":")
        if source.startswith("."):
            assert mode == ["ro"]
            assert (DEPLOY / source).exists()
        else:
            assert source in COMPOSE["volumes"]
    tag = service["image"].rpartition(":")[2]
    assert re.search(r"\d", tag)


def test_no_secret_stands_in_it() -> None:
    for name, service in SERVICES.items():
        for key in service.get("environment", {}):
            assert not re.search(r"PASSWORD|SECRET|TOKEN|_KEY", key), name


def test_the_daemon_is_given_time_to_drain() -> None:
    assert int(SERVICES["poller"]["stop_grace_period"].removesuffix("s")) > 20


def test_prometheus_asks_for_the_daemon_by_a_name_that_it_knows() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    [scrape] = config["scrape_configs"]
    [target] = scrape["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    wanted = demo_configuration({})["server"]
    assert name in wanted["hosts"]
    assert wanted["listen"].endswith(f":{port}")
    assert SERVICES["exchange"]["networks"]["default"]["aliases"] == [name]
    assert SERVICES["poller"]["network_mode"] == "service:exchange"


def module() -> Any:
    spec = importlib.util.spec_from_file_location("configure", DEPLOY / "demo" / "configure.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def demo_configuration(simulated: dict[str, Any]) -> dict[str, Any]:
    configuration: dict[str, Any] = module().configuration(simulated)
    return configuration


def test_the_demos_configuration_loads_with_its_secrets(tmp_path: Path) -> None:
    demo, for_prometheus = tmp_path / "demo", tmp_path / "prometheus"
    for_prometheus.mkdir()
    count = SERVICES["exchange"]["command"][SERVICES["exchange"]["command"].index("--accounts") + 1]
    with simulating(demo, "--accounts", count):
        module().main(demo, for_prometheus)
    assert (demo / "server-token").stat().st_mode & 0o777 == 0o600
    assert (for_prometheus / "poller-token").read_text() == (demo / "server-token").read_text()
    config = load(demo / "poller.yaml")
    assert len(config.accounts) == int(count)
    assert read_secrets(config).credentials.keys() == config.accounts.keys()
