"""docs/clients.md keeps its word: its programs run as they stand and print what is shown, its table is true.

Only the variables that the table names hold the address, and the port of the page is replaced. Clients that
cannot share our environment run in their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clients.page import ADDRESS, Block, rows, sections
from tests.clients.refusing import Refusing, refusing

OURS = ("curl", "openai-python", "ChatOpenAI")
ENVIRONMENTS: Mapping[str, str] = {
    "Pydantic AI": "pydantic_ai",
    "OpenAI Agents SDK": "openai_agents",
    "LlamaIndex": "llamaindex",
    "LiteLLM": "litellm",
    "Instructor": "instructor",
    "llm": "llm",
    "Anthropic SDK": "anthropic",
}
ELSEWHERE = ("openai-node", "ChatOpenAI in JavaScript", "Vercel AI SDK", "A language without an SDK")
NOT_RUN = ("Open WebUI",)

KEY = "sk-of-the-page"
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it asks the network for prices, three times
SILENT: Mapping[str, None] = {"curl": None, "ChatOpenAI": None}  # they name no time limit: they keep none


def clients() -> list[Any]:
    """Every client that runs here, marked with what it needs."""
    ours = [pytest.param(name, marks=[pytest.mark.slow] if name == "ChatOpenAI" else []) for name in OURS]
    return [*ours, *[pytest.param(name, marks=pytest.mark.clients) for name in ENVIRONMENTS]]


Run = Callable[[str, Block, str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(client_python: Callable[[str], Path], tmp_path: Path) -> Run:
    """``run("llm", block, "http://127.0.0.1:1")``: the block in the client's environment, at that address."""

    def run(client: str, block: Block, url: str) -> subprocess.CompletedProcess[str]:
        if client == "curl" and shutil.which("curl") is None:
            pytest.skip("this machine has no curl")
        python = client_python(ENVIRONMENTS[client]) if client in ENVIRONMENTS else Path(sys.executable)
        text = block.text.replace(f"http://{ADDRESS}", url)
        command = [str(python), "-c"] if block.kind == "python" else ["bash", "-euo", "pipefail", "-c"]
        return subprocess.run(
            [*command, text],
            cwd=tmp_path,
            env=environ(client, url, tmp_path) | {"PATH": f"{python.parent}:{os.environ['PATH']}"},
            check=False,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )

    return run


def environ(client: str, url: str, folder: Path) -> dict[str, str]:
    """The address in the variables that the table names, or in OpenAI's where the block itself reads it."""
    names = rows()[client].variables or ("OPENAI_BASE_URL",)
    address = {name: url if name.startswith("ANTHROPIC") else f"{url}/v1" for name in names}
    keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}
    return {**os.environ, **OFFLINE, **address, **keys, "LLM_USER_PATH": str(folder)}


@pytest.fixture
def nobody() -> Iterator[Refusing]:
    with refusing() as server:
        yield server


def test_every_client_of_the_table_has_a_section_and_is_run() -> None:
    assert set(rows()) | {"A language without an SDK"} == set(sections())
    assert {*OURS, *ENVIRONMENTS, *ELSEWHERE, *NOT_RUN} == set(sections())


@pytest.mark.parametrize("client", clients())
def test_its_programs_print_what_is_shown(client: str, demo: str, run: Run) -> None:
    blocks = [block for block in sections()[client] if block.shows is not None]
    assert blocks
    for block in blocks:
        done = run(client, block, demo)
        assert done.returncode == 0, done.stdout + done.stderr
        assert printed(done.stdout) == printed(str(block.shows))


def printed(text: str) -> Any:
    """The text; or the object that it is, without what differs from answer to answer."""
    try:
        answer = json.loads(text)
    except ValueError:
        return text.strip()
    return {key: value for key, value in answer.items() if key not in ("id", "created")}


@pytest.mark.parametrize("client", clients())
def test_it_asks_where_the_table_says_with_its_key_and_waits_as_long(
    client: str, nobody: Refusing, run: Run
) -> None:
    row = rows()[client]
    for block in sections()[client]:
        if block.shows is not None:
            run(client, block, nobody.url)
    assert {asked.path for asked in nobody.asked} == {row.asks}
    assert {asked.key for asked in nobody.asked} == {KEY}
    wanted = SILENT.get(client, row.waits.removesuffix(" s"))
    assert {asked.waits and str(int(float(asked.waits))) for asked in nobody.asked} == {wanted}
