"""The container files, as far as they can be judged without a container engine."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import load
from tests.backend.test_backend_command import running

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("Dockerfile", "modal_backend/Dockerfile")
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?")


def instructions(name: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, continued lines joined."""
    text = "\n".join(line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def last(name: str, instruction: str) -> str:
    return [arguments for word, arguments in instructions(name) if word == instruction][-1]


def ignored(path: str) -> bool:
    """What .dockerignore says of a path: the last line that fits it, or a folder above it, decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").removeprefix("**/")
            parts = path.split("/")
            above = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
            fits = any(fnmatch(part, pattern) for part in (parts if "**/" in line else above))
            verdict = not line.startswith("!") if fits else verdict
    return verdict


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return read


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


# --- Dockerfiles ---


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_made_from_a_pinned_one(name: str) -> None:
    bases = [arguments.split()[0] for word, arguments in instructions(name) if word == "FROM"]
    assert bases
    assert all(PINNED.fullmatch(base) for base in bases)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_that_is_installed_has_a_hash(name: str) -> None:
    installs = [
        command
        for word, arguments in instructions(name)
        if word == "RUN"
        for command in arguments.split("&&")
        if "pip install" in command
    ]
    assert installs
    for command in installs:
        assert "--no-deps" in command
        assert "--require-hashes" in command or "--no-index" in command


@pytest.mark.parametrize("name", DOCKERFILES)
def test_it_does_not_run_as_root(name: str) -> None:
    words = [word for word, _ in instructions(name)]
    assert last(name, "USER") == "10001"
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert not {"RUN", "COPY"} & set(words[words.index("USER") :])


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_there_and_reaches_the_builder(name: str) -> None:
    copied = [arguments.split() for word, arguments in instructions(name) if word == "COPY"]
    sources = [source for words in copied if not words[0].startswith("--from") for source in words[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".env",
        "config/.env",
        "config/gateway.db",
        "config/gateway.db-wal",
        "gateway/__pycache__/app.cpython-313.pyc",
        "tests/x.py",
    ],
)
def test_what_a_builder_need_not_see(path: str) -> None:
    assert ignored(path)


def test_the_gateway_s_image_serves_its_configuration_to_other_machines() -> None:
    command = json.loads(last("Dockerfile", "ENTRYPOINT")) + json.loads(last("Dockerfile", "CMD"))
    wanted = "modal-gateway serve --config /app/config/gateway.yaml --host 0.0.0.0"
    assert command == shlex.split(wanted)


def test_the_model_s_image_runs_and_knows_that_it_is_well() -> None:
    name = "modal_backend/Dockerfile"
    python, *arguments = json.loads(last(name, "ENTRYPOINT")) + json.loads(last(name, "CMD"))
    assert python == "python"
    assert arguments[:2] == ["-m", "modal_backend"]
    assert arguments[arguments.index("--port") + 1] == last(name, "EXPOSE") == "8080"
    arguments[arguments.index("--port") + 1] = "0"
    with running(*arguments[2:]) as (_, ready):
        assert health(name, "8080", ready["port"]) == 0
    assert health(name, "8080", ready["port"]) != 0


def health(name: str, port: str, actual: int) -> int:
    """The exit code of a Dockerfile's health check, sent to the port that is really in use."""
    command = json.loads(last(name, "HEALTHCHECK").split("CMD", 1)[1])
    assert command[:2] == ["python", "-c"]
    program = command[2].replace(f", {port},", f", {actual},")
    assert program != command[2]
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode


def test_the_gateway_s_image_asks_its_own_port_whether_it_is_well() -> None:
    check = last("Dockerfile", "HEALTHCHECK")
    port = last("Dockerfile", "EXPOSE")
    assert f"('127.0.0.1', {port}, timeout=4); c.request('GET', '/health/live')" in check


def test_the_model_s_lock_agrees_with_the_gateway_s() -> None:
    pin = re.compile(r"^([\w.-]+==\S+)", re.MULTILINE)
    ours, theirs = (
        set(pin.findall((ROOT / name).read_text()))
        for name in ("modal_backend/requirements.lock", "requirements.lock")
    )
    assert ours
    assert ours <= theirs


# --- docker-compose.yml ---


def test_every_service_is_hardened(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"]) > 0, name
        assert service.get("read_only") or service.get("secrets"), name
        assert "privileged" not in service, name


def test_every_service_is_built_here_or_pinned(services: dict[str, Any]) -> None:
    for service in services.values():
        if "build" in service:
            dockerfile = service["build"].get("dockerfile", "Dockerfile")
            assert dockerfile in DOCKERFILES
            assert service["image"].endswith(":local")
        else:
            assert PINNED.fullmatch(service["image"])


def test_every_service_says_whether_it_is_well(services: dict[str, Any]) -> None:
    for service in services.values():
        if "build" in service:
            assert last(service["build"].get("dockerfile", "Dockerfile"), "HEALTHCHECK")
        else:
            assert service["healthcheck"]["test"][0] == "CMD"
        for other, condition in service.get("depends_on", {}).items():
            assert other in services
            assert condition == {"condition": "service_healthy"}


def test_only_this_machine_can_reach_what_is_published(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_the_model_container_is_seen_by_the_gateway_alone(compose: dict[str, Any]) -> None:
    networks = {name: set(service["networks"]) for name, service in compose["services"].items()}
    assert networks["model"] == {"models"}
    assert compose["networks"]["models"] == {"internal": True}
    assert [name for name in networks if "models" in networks[name]] == ["gateway", "model"]


def test_no_secret_is_in_the_files(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert re.fullmatch(rf"\$\{{{name}:\?[^}}]+\}}", value)
    assert all(set(secret) == {"environment"} for secret in compose["secrets"].values())
    keys = yaml.safe_load((ROOT / "config/compose.yaml").read_text())["auth"]["keys"]
    given = compose["services"]["gateway"]["environment"]
    assert [key["key"] for key in keys] == [f"${{{name}}}" for name in given]


def test_what_is_mounted_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]
            assert known, volume
        assert set(service.get("secrets", [])) <= set(compose["secrets"])


def test_a_service_may_write_where_it_keeps_things(services: dict[str, Any]) -> None:
    volumes = services["gateway"]["volumes"]
    writable = {volume.split(":")[1] for volume in volumes if not volume.endswith(":ro")}
    assert writable == {last("Dockerfile", "VOLUME")} == {"/data"}


# --- the configuration of both ---


def test_the_gateway_accepts_the_configuration_and_finds_the_model(services: dict[str, Any]) -> None:
    command = services["gateway"]["command"]
    file = ROOT / command[command.index("--config") + 1].removeprefix("/app/")
    keys = {name: f"sk-{name.lower()}-0123456789abcdef" for name in services["gateway"]["environment"]}
    settings = load(file, keys)
    assert [key.models for key in settings.auth.keys] == [("*",), ()]  # the one for metrics may use no model
    (model,) = settings.models.values()
    (upstream,) = model.upstreams
    assert str(upstream.url).rstrip("/") == f"http://model:{last('modal_backend/Dockerfile', 'EXPOSE')}"
    assert settings.store.url is not None
    assert settings.store.url.get_secret_value() == "sqlite:////data/gateway.db"


def test_prometheus_scrapes_the_gateway_with_its_key(compose: dict[str, Any]) -> None:
    services = compose["services"]
    config = yaml.safe_load((ROOT / "config/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["static_configs"] == [{"targets": [f"gateway:{last('Dockerfile', 'EXPOSE')}"]}]
    (secret,) = services["prometheus"]["secrets"]
    assert job["authorization"] == {"type": "Bearer", "credentials_file": f"/run/secrets/{secret}"}
    assert compose["secrets"][secret]["environment"] in services["gateway"]["environment"]
    mounted = services["prometheus"]["volumes"][0].split(":")[1]
    assert f"--config.file={mounted}" in services["prometheus"]["command"]
