"""``modal-gateway conformance`` as it is typed: what it prints, how it exits, and that no secret is shown."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli.commands import run
from gateway.settings import settings_from
from tests.cli.process import run as run_command
from tests.clients.process import free_port, serving
from tests.conformance.faulty import faulty
from tests.serve.house import listening

SECRETS = {"MODAL_KEY": "wk-secret", "MODAL_SECRET": "ws-secret"}
HEADERS = ["--header", "X-Team: t-secret", "--header", "Authorization: Bearer b-secret"]


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A model container with the demo engine."""
    port = free_port()
    command = [sys.executable, "-m", "modal_backend", "--engine", "demo", "--delay", "0", "--port", str(port)]
    with serving(command, port, folder=tmp_path_factory.mktemp("container")) as url:
        yield url


def test_the_container_of_this_project_passes(container: str, tmp_path: Path) -> None:
    done = run_command("conformance", container, *HEADERS, cwd=tmp_path, env=SECRETS)
    assert done.returncode == 0, done.stdout + done.stderr
    table, printed, summary = done.stdout.split("\n\n")
    results = {line[:16].strip(): line[17:].lstrip().split("  ")[0] for line in table.splitlines()[1:]}
    assert [name for name, result in results.items() if result != "ok"] == ["fields", "BOS"]
    assert results["fields"] == "not supported"
    assert results["BOS"] == "inconclusive"
    assert summary.endswith("nothing is wrong\n")
    assert "secret" not in done.stdout.replace("modal_secret", "") + done.stderr
    data = yaml.safe_load(printed)
    names = ("MODAL_KEY", "MODAL_SECRET", "UPSTREAM_API_KEY", "X_TEAM")
    [model] = settings_from(data, {name: f"value-of-{name}" for name in names}).models.values()
    upstream: Any = model.upstreams[0]
    assert upstream.url == container
    assert upstream.headers["X-Team"].get_secret_value() == "value-of-X_TEAM"
    assert upstream.api_key.get_secret_value() == "value-of-UPSTREAM_API_KEY"
    assert upstream.modal_secret.get_secret_value() == "value-of-MODAL_SECRET"


def test_a_script_reads_the_same_as_json(container: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["conformance", container, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is True
    assert data["url"] == data["config"]["models"]["my-model"]["upstream"]["url"] == container
    assert {each["check"]: each["result"] for each in data["checks"]}["stops"] == "ok"
    assert all(set(each) == {"check", "result", "why"} for each in data["checks"])


async def test_something_wrong_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    async with listening(faulty("leaks")) as port:
        code = await asyncio.to_thread(run, ["conformance", f"http://127.0.0.1:{port}/"])
    assert code == 1
    assert capsys.readouterr().out.endswith(" requests; wrong: stops\n")


MISTAKES = [
    (["http://127.0.0.1:1/"], "http://127.0.0.1:1/: cannot connect: "),
    (["ftp://host/"], "models.my-model.upstream.url: must be a URL"),
    (["http://127.0.0.1:1/", "--header", "no colon"], "--header takes 'Name: value'"),
    (["http://127.0.0.1:1/", "--header", "Host: elsewhere"], "Host is set by the gateway"),
    (["http://127.0.0.1:1/", "--modal-key", "wk-1"], "--modal-secret is missing"),
]


@pytest.mark.parametrize(("arguments", "line"), MISTAKES)
def test_a_question_that_cannot_be_asked_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["conformance", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert line in said.err
    assert said.err.count("\n") == 1


def test_nothing_that_serves_loads_it() -> None:
    script = "import sys, gateway.app; print([name for name in sys.modules if 'conformance' in name])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
