"""The manifests fit each other, the image and the configuration; there is no cluster to try them on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import settings_from
from tests.conftest import ROOT
from tests.stack.dockerfiles import command, environment, last

FOLDER = ROOT / "config" / "kubernetes"
FILES = sorted(FOLDER.iterdir())
LEDGER = 10.0  # seconds that a gateway gives its last rows


def manifest(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return read


DEPLOYMENT = manifest("deployment.yaml")["spec"]
POD = DEPLOYMENT["template"]["spec"]
[GATEWAY] = POD["containers"]
SECRET = manifest("secret.yaml.example")["stringData"]
CONFIG = manifest("configmap.yaml")["data"]


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_kubernetes_knows_every_field(file: Path) -> None:
    validate = Path(sys.executable).with_name("kubernetes-validate")
    if not validate.exists():
        pytest.skip("kubernetes-validate is not installed: `make test-slow` installs it")
    found = subprocess.run([validate, "--strict", file], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_applying_the_folder_leaves_the_secret_alone_and_its_form_holds_none() -> None:
    applied = [file.name for file in FILES if file.suffix in (".yaml", ".yml", ".json")]
    assert applied == ["configmap.yaml", "deployment.yaml", "hpa.yaml", "pdb.yaml", "service.yaml"]
    assert set(SECRET.values()) == {""}


def test_the_gateway_takes_the_configuration_with_what_the_secret_gives() -> None:
    given = {**environment("Dockerfile"), **dict.fromkeys(SECRET, "x")}
    given |= {"GATEWAY_DATABASE_URL": "postgresql://u:p@h/d", "GATEWAY_REDIS_URL": "redis://h:6379/0"}
    settings = settings_from(yaml.safe_load(CONFIG["gateway.yaml"]), given)
    assert settings.redis.url is not None
    assert settings.server.log == "json"
    arguments = GATEWAY["args"]
    mounted = {mount["name"]: mount["mountPath"] for mount in GATEWAY["volumeMounts"]}
    assert arguments[arguments.index("--config") + 1] == f"{mounted['settings']}/gateway.yaml"
    assert arguments[0] == command("Dockerfile")[1]
    assert settings.store.spool.startswith(f"{mounted['data']}/")
    assert set(mounted) == {volume["name"] for volume in POD["volumes"]}


def test_names_and_labels_fit() -> None:
    service, budget, scaler = (manifest(f"{name}.yaml") for name in ("service", "pdb", "hpa"))
    labels = DEPLOYMENT["template"]["metadata"]["labels"]
    selectors = [DEPLOYMENT["selector"]["matchLabels"], service["spec"]["selector"]]
    selectors += [budget["spec"]["selector"]["matchLabels"]]
    assert all(selector == labels for selector in selectors)
    assert scaler["spec"]["scaleTargetRef"]["name"] == manifest("deployment.yaml")["metadata"]["name"]
    assert scaler["spec"]["minReplicas"] == DEPLOYMENT["replicas"] == 2
    assert manifest("configmap.yaml")["metadata"]["name"] == POD["volumes"][0]["configMap"]["name"]
    assert manifest("secret.yaml.example")["metadata"]["name"] == GATEWAY["envFrom"][0]["secretRef"]["name"]


def test_the_port_is_the_image_s_and_every_probe_asks_it() -> None:
    [port] = GATEWAY["ports"]
    assert str(port["containerPort"]) == last("Dockerfile", "EXPOSE")
    probes = [GATEWAY[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [probe["path"] for probe in probes] == ["/health/ready", "/health/ready", "/health/live"]
    assert {probe["port"] for probe in probes} == {port["name"]}
    assert manifest("service.yaml")["spec"]["ports"][0]["targetPort"] == port["name"]
    annotations = DEPLOYMENT["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_open_requests_get_the_drain_before_the_pod_is_killed() -> None:
    drain = float(yaml.safe_load(CONFIG["gateway.yaml"])["server"]["drain_timeout"])
    _, leaving = GATEWAY["lifecycle"]["preStop"]["exec"]["command"]
    assert POD["terminationGracePeriodSeconds"] >= float(leaving) + drain + LEDGER
    assert DEPLOYMENT["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_pod_may_do_no_more_than_it_needs() -> None:
    assert POD["automountServiceAccountToken"] is False
    assert str(POD["securityContext"]["runAsUser"]) == last("Dockerfile", "USER")
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert GATEWAY["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
