"""Every file in examples/ runs as its first lines say, and prints what the README shows.

Rule: a new example needs a row in the README's tables and, if it asks a gateway, a section with its output.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest
import yaml
from openai.types.chat import ChatCompletionMessageParam

from gateway.settings import settings_from
from tests.clients.example import EXAMPLES, FILES, Section, command, front, run, sections
from tests.clients.process import ROOT, free_port, gateway, serving

ENDPOINTS = ("modal_dummy_endpoint.py", "streaming_shim.py")  # these answer a gateway
ENVIRONMENTS = {"langchain_modal.py": "langchain_community"}  # these need one of their own


def marked(section: Section) -> object:
    if section.name in ENVIRONMENTS:
        marks = [pytest.mark.clients]
    else:
        marks = [pytest.mark.slow] if "langchain" in front(section.name, "needs") else []
    return pytest.param(section, id=section.name, marks=marks)


def test_the_readme_lists_every_example() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[(.+?)\]\(\1\) \|", table, re.MULTILINE)) == [path.name for path in FILES]


def test_the_readme_shows_how_each_is_run() -> None:
    shown = [(section.name, section.run) for section in sections()]
    wanted = [(path.name, front(path.name, "run")) for path in FILES if path.name not in ENDPOINTS]
    assert sorted(shown) == wanted


def test_clients_take_the_same_variables() -> None:
    for path in FILES:
        if path.name not in (*ENDPOINTS, "modal_ask_documents.py"):
            text = path.read_text(encoding="utf-8")
            assert all(name in text for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "MODEL")), path.name


@pytest.mark.parametrize("section", [marked(section) for section in sections()])
def test_an_example_prints_what_is_shown(
    section: Section, environ: dict[str, str], client_python: Callable[[str], Path], tmp_path: Path
) -> None:
    environment = ENVIRONMENTS.get(section.name)
    python = None if environment is None else client_python(environment)
    done = run(command(section.name, python=python), environ, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert section.describes(done.stdout), done.stdout


def test_the_dummy_endpoint_behind_the_gateway(tmp_path: Path) -> None:
    port, before = free_port(), free_port()
    program, script = command("modal_dummy_endpoint.py")
    dummy = [program, str(ROOT / script)]
    with (
        serving(dummy, port, folder=tmp_path, ready="/openapi.json", environ={"PORT": str(port)}) as url,
        serving(gateway("serve", "--url", url, "--port", str(before)), before, folder=tmp_path) as address,
    ):
        assert httpx.post(url, json={"prompt": "hi"}).json() == {"prompt": "hello world"}
        with openai.OpenAI(base_url=f"{address}/v1", api_key="unused") as client:
            messages: list[ChatCompletionMessageParam] = [
                {"role": "user", "content": "Identify yourself, bot!"}
            ]
            whole = client.chat.completions.create(model="gpt-3.5-turbo", messages=messages)
            chunks = client.chat.completions.create(model="gpt-3.5-turbo", messages=messages, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert whole.choices[0].message.content == streamed == "hello world"


def test_the_streaming_shim_speaks_the_contract(tmp_path: Path) -> None:
    port = free_port()
    program, script = command("streaming_shim.py")
    shim = [program, str(ROOT / script)]
    with serving(shim, port, folder=tmp_path, ready="/openapi.json", environ={"PORT": str(port)}) as url:
        done = subprocess.run(
            gateway("conformance", url, "--json"), cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60
        )
    assert done.returncode == 0, done.stdout + done.stderr
    results = {each["check"]: each["result"] for each in json.loads(done.stdout)["checks"]}
    lacking = ("fields", "stops", "BOS", "unknown fields")  # what thirty lines leave out
    assert [name for name, result in results.items() if result != "ok" and name not in lacking] == []


@pytest.mark.parametrize(
    ("name", "key"), [("modal_dummy_endpoint.py", "deploy"), ("modal_ask_documents.py", "on modal")]
)
def test_nothing_but_a_token_is_missing_on_modal(name: str, key: str, tmp_path: Path) -> None:
    command(name)
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(front(name, key))],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path), "MODAL_CONFIG_PATH": str(tmp_path / "none.toml")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Token missing" in done.stderr


def test_the_function_on_modal_takes_the_gateway_from_a_secret(tmp_path: Path) -> None:
    python, script, _ = command("modal_ask_documents.py")
    # Modal has no public way to read a function back before it is deployed.
    asked = "from modal_ask_documents import ask; print(ask._spec_)"
    done = run([python, "-c", asked], {"PYTHONPATH": str((ROOT / script).parent)}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Secret.from_name('modal-gateway')" in done.stdout


def test_the_configuration_that_is_shown_is_accepted() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    settings = settings_from(yaml.safe_load(shown))
    assert {alias for model in settings.models.values() for alias in model.aliases} == {
        "gpt-4o-mini",
        "text-embedding-3-small",
    }
