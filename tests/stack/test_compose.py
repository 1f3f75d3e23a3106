"""docker-compose.yml and the files that it mounts, as far as they can be judged without a container engine.

Rule: what one file says must fit what another one says: names, ports, paths, keys.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import Settings, load
from tests.conftest import ROOT
from tests.stack.dockerfiles import DOCKERFILES, PINNED, environment, last
from tests.stack.fleet import program

FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
GATEWAYS = [name for name in SERVICES if name.startswith("gateway")]
ALONE = [name for name, service in SERVICES.items() if "profiles" not in service]
ASKED = re.compile(r"(?<!\$)\$\{(\w+):\?[^}]+\}")  # a variable that stops the start where it is not set


def published(name: str) -> int:
    """The port inside the container that this machine may reach."""
    [port] = SERVICES[name]["ports"]
    found = re.fullmatch(r"127\.0\.0\.1:\d+:(\d+)", port)
    assert found, port
    return int(found[1])


def mounts(name: str) -> dict[str, str]:
    """Source -> where it is in the container."""
    parts = [volume.split(":") for volume in SERVICES[name].get("volumes", [])]
    return {source: target for source, target, *_ in parts}


def inside(name: str, path: str) -> Path:
    """The file of this project that a container sees there."""
    for source, target in mounts(name).items():
        if source.startswith("./") and path.startswith(f"{target}/"):
            return ROOT / source / path.removeprefix(f"{target}/")
    raise AssertionError(f"{name} sees nothing at {path}")


# --- the file itself ---


@pytest.mark.slow
def test_it_is_a_compose_file() -> None:
    check = Path(sys.executable).with_name("check-jsonschema")
    if not check.exists():
        pytest.skip("check-jsonschema is not installed: `make test-slow` installs it")
    schema = ["--builtin-schema", "vendor.compose-spec"]
    found = subprocess.run([check, *schema, FILE], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_one_command_starts_it_and_a_profile_scales_it() -> None:
    assert ALONE == ["gateway", "model", "prometheus", "grafana"]
    assert set(SERVICES) - set(ALONE) == {"gateway-1", "gateway-2", "balancer", "redis", "postgres"}
    assert all(SERVICES[name].get("profiles", ["scale"]) == ["scale"] for name in SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert int(service["user"]) > 0
    assert service["pids_limit"] > 0
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & set(service)
    assert "docker.sock" not in json.dumps(service)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_built_here_or_pinned(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        assert service["build"].get("dockerfile", "Dockerfile") in DOCKERFILES
        assert service["image"].endswith(":local")
    else:
        assert PINNED.fullmatch(service["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_says_whether_it_is_well_and_waits_for_those_it_needs(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        assert last(service["build"].get("dockerfile", "Dockerfile"), "HEALTHCHECK")
    else:
        assert service["healthcheck"]["test"][0] == "CMD"
    for other, condition in service.get("depends_on", {}).items():
        assert condition == {"condition": "service_healthy"}
        assert other in (ALONE if name in ALONE else SERVICES)


def test_only_this_machine_can_reach_what_is_published() -> None:
    ports = {name: published(name) for name in SERVICES if "ports" in SERVICES[name]}
    assert ports == {"gateway": 8000, "prometheus": 9090, "grafana": 3000, "balancer": 8080}


def test_what_asks_for_no_key_or_holds_the_books_is_seen_by_gateways_alone() -> None:
    networks = {name: set(service["networks"]) for name, service in SERVICES.items()}
    assert networks["model"] == {"models"}
    assert networks["redis"] == networks["postgres"] == {"data"}
    assert COMPOSE["networks"]["models"] == COMPOSE["networks"]["data"] == {"internal": True}
    assert {name for name in networks if "models" in networks[name]} == {*GATEWAYS, "model"}
    assert {name for name in networks if "data" in networks[name]} == {*GATEWAYS, "redis", "postgres"}


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_is_in_the_file(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search("KEY|PASSWORD|AUTH|_URL", variable):
            assert ASKED.search(value), variable
            rest = re.sub(r"://\w*:@", "://", ASKED.sub("", value))
            assert re.fullmatch(r"(\w+://[\w.:/-]+)?", rest), variable


def test_the_command_at_the_top_chooses_every_secret() -> None:
    head = FILE.read_text().partition("\nname:")[0]
    [loop] = re.findall(r"^#   for name in (.+)$", head, re.MULTILINE)
    assert set(loop.split()) == set(ASKED.findall(FILE.read_text()))


def test_a_dollar_is_a_secret_or_is_left_to_the_shell_inside() -> None:
    bare = re.sub(r"\$\$", "", ASKED.sub("", "\n".join(map(json.dumps, SERVICES.values()))))
    assert "$" not in bare


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_and_ours_stays_as_it_is(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source, _, *mode = volume.split(":")
        if source.startswith("."):
            assert (ROOT / source).exists(), volume
            assert mode == ["ro"], volume
        else:
            assert source in COMPOSE["volumes"], volume


# --- gateways ---


def settings(name: str) -> Settings:
    """What this gateway is told, by its file, its environment and its image."""
    command = SERVICES[name]["command"]
    given = {
        variable: ASKED.sub(r"\1", value) for variable, value in SERVICES[name].get("environment", {}).items()
    }
    return load(inside(name, command[command.index("--config") + 1]), {**environment("Dockerfile"), **given})


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_gateway_finds_the_model_and_one_of_its_keys_may_only_look_at_metrics(name: str) -> None:
    found = settings(name)
    assert [key.models for key in found.auth.keys] == [("*",), ()]
    (model,) = found.models.values()
    (upstream,) = model.upstreams
    assert str(upstream.url).rstrip("/") == f"http://model:{last('modal_backend/Dockerfile', 'EXPOSE')}"


def test_one_gateway_keeps_its_books_itself_and_several_share_them() -> None:
    alone, *shared = (settings(name) for name in GATEWAYS)
    assert alone.redis.url is None
    assert alone.store.url is not None
    assert alone.store.url.get_secret_value() == "sqlite:////data/gateway.db"
    database = SERVICES["postgres"]["environment"]
    who = f"{database['POSTGRES_USER']}:POSTGRES_PASSWORD"
    for each in shared:
        assert each.store.url is not None and each.redis.url is not None
        where = each.store.url.get_secret_value()
        assert where == f"postgresql://{who}@postgres:5432/{database['POSTGRES_DB']}"
        assert each.redis.url.get_secret_value() == "redis://:REDIS_PASSWORD@redis:6379/0"


def test_each_gateway_writes_to_a_volume_of_its_own() -> None:
    volumes = [source for name in GATEWAYS for source in mounts(name) if not source.startswith(".")]
    assert len(set(volumes)) == len(GATEWAYS)
    assert all("/data" in mounts(name).values() for name in GATEWAYS)
    assert last("Dockerfile", "VOLUME") == "/data"


@pytest.mark.parametrize("name", [*GATEWAYS, "balancer"])
def test_open_requests_get_the_drain_that_they_were_promised(name: str) -> None:
    grace = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    server = settings("gateway").server
    assert grace > server.leave_delay + server.drain_timeout + 10  # the ledger's close


def test_the_balancer_notices_before_a_gateway_that_leaves_closes_its_door() -> None:
    text = inside("balancer", "/usr/local/etc/haproxy/haproxy.cfg").read_text()
    [(period, fall)] = re.findall(r"check inter (\d+)s fall (\d+)", text)
    assert int(period) * int(fall) < settings("gateway-1").server.leave_delay
    assert "uri /health/ready" in text


# --- Prometheus and Grafana ---


def test_prometheus_scrapes_every_gateway_with_its_key() -> None:
    [script] = SERVICES["prometheus"]["command"]
    words = shlex.split(script)
    [file] = [word.partition("=")[2] for word in words if word.startswith("--config.file=")]
    config = yaml.safe_load(inside("prometheus", file).read_text())
    [job] = config["scrape_configs"]
    [names] = job["dns_sd_configs"]
    assert (names["names"], names["port"]) == (GATEWAYS, int(last("Dockerfile", "EXPOSE")))
    assert job["metrics_path"] == "/metrics"
    key = words[words.index(">") + 1]
    assert job["authorization"] == {"type": "Bearer", "credentials_file": key}
    assert key.rpartition("/")[0] in SERVICES["prometheus"]["tmpfs"]
    assert "$$GATEWAY_METRICS_KEY" in script
    [rules] = config["rule_files"]
    assert inside("prometheus", f"/etc/prometheus/{rules}").exists()


def test_grafana_finds_prometheus_and_its_dashboard() -> None:
    provisioning = "/etc/grafana/provisioning"
    read = inside("grafana", f"{provisioning}/datasources/prometheus.yaml").read_text()
    [source] = yaml.safe_load(read)["datasources"]
    assert source["url"] == f"http://prometheus:{published('prometheus')}"
    read = inside("grafana", f"{provisioning}/dashboards/gateway.yaml").read_text()
    [provider] = yaml.safe_load(read)["providers"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.rpartition("/")[0] == provider["options"]["path"]
    panels = json.loads(inside("grafana", home).read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels if "datasource" in panel} == {source["uid"]}


# --- the balancer ---


def test_the_balancer_is_told_every_address_that_its_file_asks_for() -> None:
    text = inside("balancer", "/usr/local/etc/haproxy/haproxy.cfg").read_text()
    given = SERVICES["balancer"]["environment"]
    assert set(re.findall(r'"\$\{(\w+)\}"', text)) == set(given)
    port = last("Dockerfile", "EXPOSE")
    assert [given["GATEWAY_1"], given["GATEWAY_2"]] == [f"{name}:{port}" for name in GATEWAYS[1:]]
    assert given["BALANCER"] == f"*:{published('balancer')}"
    assert SERVICES["balancer"]["healthcheck"]["test"][-1] == f"http://{given['BALANCER_HEALTH']}/health"


@pytest.mark.slow
def test_haproxy_takes_its_file_with_these_addresses() -> None:
    file = inside("balancer", "/usr/local/etc/haproxy/haproxy.cfg")
    given = {**os.environ, **SERVICES["balancer"]["environment"]}
    found = subprocess.run(
        [program("haproxy"), "-c", "-f", file], env=given, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
