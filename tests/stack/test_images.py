"""The files that images are made from, as far as they can be judged without a container engine.

Rule: what a Dockerfile says is read from it, never listed here. Its steps are also gone through, with the
files that .dockerignore lets pass and with pip, but without its base image.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.settings import load
from tests.backend.test_backend_command import running
from tests.cli.process import BOUND
from tests.clients.process import free_port, serving
from tests.conftest import ROOT
from tests.stack.dockerfiles import DOCKERFILES, PINNED, command, environment, ignored, instructions, last
from tests.test_project import PYPROJECT, pins, resolve, unsatisfied

KEYS = ("GATEWAY_API_KEY", "GATEWAY_METRICS_KEY", "MODAL_GATEWAY_ADMIN_KEY")
EXTRAS = {"server": ["redis", "postgres", "otel", "oidc", "tokenizers"]}
EXTRAS["modal"] = [*EXTRAS["server"], "modal"]


# --- Dockerfiles ---


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: `make test-slow` installs it")
    found = subprocess.run([hadolint, name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_made_from_a_pinned_one(name: str) -> None:
    bases = [arguments.split()[0] for word, arguments in instructions(name) if word == "FROM"]
    assert bases
    assert all(PINNED.fullmatch(base) for base in bases)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_that_is_installed_has_a_hash(name: str) -> None:
    installs = [
        each
        for word, arguments in instructions(name)
        if word == "RUN"
        for each in arguments.split("&&")
        if "pip install" in each
    ]
    assert installs
    for each in installs:
        assert "--no-deps" in each
        assert "--require-hashes" in each or "--no-index" in each


@pytest.mark.parametrize("name", DOCKERFILES)
def test_it_does_not_run_as_root(name: str) -> None:
    words = [word for word, _ in instructions(name)]
    assert last(name, "USER") == "10001"
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert not {"RUN", "COPY"} & set(words[words.index("USER") :])


def copied(name: str) -> list[str]:
    """Everything that is copied from the project, whichever extras are asked for."""
    lines = [arguments.split() for word, arguments in instructions(name) if word == "COPY"]
    sources = [source for words in lines if not words[0].startswith("--from") for source in words[:-1]]
    return [source.replace("${EXTRAS}", extras) for source in sources for extras in EXTRAS]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_there_and_reaches_the_builder(name: str) -> None:
    assert copied(name)
    for source in copied(name):
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
        "config/gateway.spool",
        "config/grafana/dashboards/gateway.json",
        "gateway/.env",
        "gateway/__pycache__/app.cpython-313.pyc",
        "tests/x.py",
    ],
)
def test_what_a_builder_need_not_see(path: str) -> None:
    assert ignored(path)


# --- what is installed ---


@pytest.mark.parametrize("extras", EXTRAS)
def test_a_lock_of_the_image_holds_what_it_is_named_for(extras: str) -> None:
    lock = ROOT / f"requirements-{extras}.lock"
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"]]
    for each in EXTRAS[extras]:
        wanted += project["optional-dependencies"][each]
    assert unsatisfied(resolve(wanted), lock) == []
    development = {str(pin) for pin, _ in pins(ROOT / "requirements-dev.lock")}
    assert [str(pin) for pin, _ in pins(lock) if str(pin) not in development] == []


def test_the_modal_sdk_is_there_only_if_it_is_asked_for() -> None:
    defaults = [arguments for word, arguments in instructions("Dockerfile") if word == "ARG"]
    assert defaults[0] == "EXTRAS=server"
    for extras in EXTRAS:
        names = {pin.name for pin, _ in pins(ROOT / f"requirements-{extras}.lock")}
        assert ("modal" in names) == (extras == "modal")


def test_the_model_s_lock_agrees_with_the_gateway_s() -> None:
    pin = re.compile(r"^([\w.-]+==\S+)", re.MULTILINE)
    ours, theirs = (
        set(pin.findall((ROOT / name).read_text()))
        for name in ("modal_backend/requirements.lock", "requirements.lock")
    )
    assert ours
    assert ours <= theirs


# --- what runs ---


def test_the_gateway_s_image_serves_its_configuration_to_other_machines() -> None:
    wanted = "modal-gateway serve --config /app/config/gateway.yaml --host 0.0.0.0"
    assert command("Dockerfile") == shlex.split(wanted)


@pytest.mark.parametrize("config", ["gateway.yaml", "compose.yaml"])
def test_what_the_gateway_writes_goes_to_its_volume(config: str) -> None:
    given = {name: f"sk-{name}" for name in KEYS} | environment("Dockerfile")
    store = load(ROOT / "config" / config, given).store
    volume = last("Dockerfile", "VOLUME")
    assert store.url is not None
    assert store.url.get_secret_value().startswith(f"sqlite:///{volume}/")
    assert store.spool.startswith(f"{volume}/")


def test_the_model_s_image_runs_and_knows_that_it_is_well() -> None:
    name = "modal_backend/Dockerfile"
    python, *arguments = command(name)
    assert python == "python"
    assert arguments[:2] == ["-m", "modal_backend"]
    assert arguments[arguments.index("--port") + 1] == last(name, "EXPOSE") == "8080"
    arguments[arguments.index("--port") + 1] = "0"
    with running(*arguments[2:]) as (_, ready):
        assert health(name, ready["port"]) == 0
    assert health(name, ready["port"]) != 0


def health(name: str, actual: int) -> int:
    """The exit code of a Dockerfile's health check, sent to the port that is really in use."""
    check = json.loads(last(name, "HEALTHCHECK").split("CMD", 1)[1])
    assert check[:2] == ["python", "-c"]
    program = check[2].replace(f", {last(name, 'EXPOSE')},", f", {actual},")
    assert program != check[2]
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode


def passed(folder: Path) -> None:
    """Copy there what .dockerignore lets pass to the builder of the gateway's image."""
    for source in copied("Dockerfile"):
        for file in [ROOT / source, *(ROOT / source).rglob("*")]:
            name = file.relative_to(ROOT).as_posix()
            if file.is_file() and not ignored(name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / name)


@pytest.mark.slow
def test_the_steps_of_the_gateway_s_image_give_a_gateway_that_is_well(tmp_path: Path) -> None:
    source, venv = tmp_path / "src", tmp_path / "venv"
    passed(source)
    builder = tmp_path / "builder"
    for each in (venv, builder):
        subprocess.run([sys.executable, "-m", "venv", each], check=True)
    quiet = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1"}
    steps = [
        arguments.replace("/venv/", f"{venv}/").replace("/wheels", str(tmp_path / "wheels"))
        for word, arguments in instructions("Dockerfile")
        if word == "RUN" and "pip" in arguments
    ]
    assert len(steps) == 2
    for step in steps:
        shell = {**quiet, "EXTRAS": "server", "PATH": f"{builder / 'bin'}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-ec", step], cwd=source, env=shell, check=True, timeout=20 * BOUND)
    assert not (venv / "bin" / "pip").exists()
    port = free_port()
    given = {
        name: value.replace("/data", str(tmp_path))
        for name, value in environment("Dockerfile").items()
        if name.startswith("GATEWAY_")
    }
    served = [str(venv / "bin" / "modal-gateway"), *command("Dockerfile")[1:], "--port", str(port)]
    served[served.index("--config") + 1] = str(source / "config" / "gateway.yaml")
    clean = {**given, "GATEWAY_API_KEY": "sk-one", "PYTHONPATH": ""}
    with serving(served, port, folder=tmp_path, environ=clean):
        assert health("Dockerfile", port) == 0
    assert health("Dockerfile", port) != 0
    assert (tmp_path / "gateway.db").exists()
