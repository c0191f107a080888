"""The Kubernetes manifests: of the published shapes, one closed pod, and a configuration that loads."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from poller.config import load, read_secrets

pytestmark = pytest.mark.real_time

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes.yaml"
OBJECTS: dict[str, dict[str, Any]] = {
    manifest["kind"]: manifest for manifest in yaml.safe_load_all(MANIFESTS.read_text())
}
POD: dict[str, Any] = OBJECTS["StatefulSet"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
DRAIN_S = 20


@pytest.mark.parametrize("version", ["1.30", "1.34"])
@pytest.mark.parametrize("kind", OBJECTS)
def test_every_object_is_of_the_published_shape(kind: str, version: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        validate = pytest.importorskip("kubernetes_validate")
        validate.validate(OBJECTS[kind], version, strict=True)


def test_there_is_all_that_belongs_to_it() -> None:
    assert OBJECTS.keys() == {
        "ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service", "StatefulSet"
    }  # fmt: skip


def test_there_is_one_poller() -> None:
    assert OBJECTS["StatefulSet"]["spec"]["replicas"] == 1
    [claim] = OBJECTS["StatefulSet"]["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_the_pod_is_closed() -> None:
    assert POD["automountServiceAccountToken"] is False
    pod, container = POD["securityContext"], CONTAINER["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] > 999
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "limits" in CONTAINER["resources"]
    assert "requests" in CONTAINER["resources"]


def test_it_is_probed_where_it_answers_without_a_token_under_a_name_that_it_knows() -> None:
    for probe, path in (
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ):
        request = CONTAINER[probe]["httpGet"]
        assert request["path"] == path
        assert request["httpHeaders"] == [{"name": "Host", "value": "localhost:8080"}]
    [port] = CONTAINER["ports"]
    assert port["containerPort"] == 8080


def test_it_can_be_scraped_while_it_is_not_ready() -> None:
    assert OBJECTS["Service"]["spec"]["publishNotReadyAddresses"] is True


def test_it_has_time_to_drain() -> None:
    assert POD["terminationGracePeriodSeconds"] >= DRAIN_S + 30


def test_what_is_edited_is_seen_and_secrets_are_not_for_everybody() -> None:
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    assert all("subPath" not in mount for mount in mounts.values())
    assert mounts["config"]["readOnly"]
    assert mounts["secrets"]["readOnly"]
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert volumes["secrets"]["secret"]["defaultMode"] == 0o440
    assert CONTAINER["env"] == [{"name": "CREDENTIALS_DIRECTORY", "value": mounts["secrets"]["mountPath"]}]


def test_everything_finds_the_pod_by_its_labels() -> None:
    labels = OBJECTS["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        OBJECTS["StatefulSet"]["spec"]["selector"]["matchLabels"],
        OBJECTS["Service"]["spec"]["selector"],
        OBJECTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        OBJECTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector == labels


def test_the_monitor_that_is_shown_is_yaml() -> None:
    shown = MANIFESTS.read_text().partition("server.token.\n#\n")[2]
    monitor = yaml.safe_load(re.sub(r"^# ?", "", shown, flags=re.MULTILINE))
    assert monitor["kind"] == "ServiceMonitor"
    [relabelled, _] = monitor["spec"]["endpoints"][0]["relabelings"]
    host = relabelled["replacement"].partition(":")[0]
    assert host in yaml.safe_load(OBJECTS["ConfigMap"]["data"]["accounts.yaml"])["server"]["hosts"]


def test_its_configuration_loads_with_what_is_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = OBJECTS["ConfigMap"]["data"]["accounts.yaml"]
    (tmp_path / "accounts.yaml").write_text(text)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    pem = (
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    )
    for name in re.findall(r"credential:(\S+)", text):
        if name:
            (secrets / name).write_text(pem if name.endswith(".pem") else "made-up-made-up-made-up-made-up-1")
            (secrets / name).chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secrets))
    config = load(tmp_path / "accounts.yaml")
    assert read_secrets(config).credentials.keys() == {"treasury"}
