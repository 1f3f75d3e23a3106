"""JavaScript clients in front of the gateway: OpenAI's SDK, LangChain, and the Vercel AI SDK as it comes.

The programs are those of the page of clients, and in node/programs what else their users do; each prints
what is asserted. They run where node and the packages of node/package-lock.json are.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Guarded
from tests.clients.page import rows, shown
from tests.clients.process import ROOT
from tests.clients.refusing import refusing
from tests.serve.house import Visit, house

PROGRAMS = Path(__file__).parent / "node" / "programs"
PACKAGES = ROOT / ".venvs" / "node" / "node_modules"
OLDEST = 20  # the first node whose fetch and streams these packages run on
PATIENCE = 120.0  # seconds for one program on a busy machine; it takes a few
TITLES = ("openai-node", "ChatOpenAI in JavaScript", "Vercel AI SDK")
PERSON = {"name": "Li", "age": 30}
LOOKED = "I was told: sunny in Paris"

Run = Callable[..., list[Any]]

pytestmark = pytest.mark.clients


@pytest.fixture(scope="session")
def node() -> str:
    """The interpreter. Skips where it, or what it needs, is not installed."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node here")
    version = subprocess.run([found, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    if int(version.lstrip("v").partition(".")[0]) < OLDEST:
        pytest.skip(f"node is {version}, too old for these packages: {OLDEST} or newer is needed")
    if not PACKAGES.with_name(".installed").exists():
        pytest.skip("no packages in .venvs/node: `make test-clients` installs them")
    return found


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """``script(text)``: a file with this program, beside the packages."""
    (tmp_path / "node_modules").symlink_to(PACKAGES)

    def write(text: str) -> Path:
        file = tmp_path / "program.mjs"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def environ(url: str, key: str = "unused", **more: str) -> dict[str, str]:
    return {**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": key, "NO_COLOR": "1", **more}


def printed(node: str, file: Path, env: dict[str, str]) -> str:
    """What the program printed; it has ended well."""
    done = subprocess.run(
        [node, file], env=env, check=False, capture_output=True, encoding="utf-8", timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def told(node: str, script: Callable[[str], Path], demo: str) -> Callable[[str], dict[str, Any]]:
    """``told("langchain")``: what that program said of the demo, by what it did."""

    def run(name: str) -> dict[str, Any]:
        text = (PROGRAMS / f"{name}.mjs").read_text(encoding="utf-8")
        return dict(json.loads(line) for line in printed(node, script(text), environ(demo)).splitlines())

    return run


@pytest.mark.parametrize("title", TITLES)
def test_the_pages_program_asks_where_its_table_says(
    title: str, node: str, script: Callable[[str], Path]
) -> None:
    program, _ = shown(title)
    with refusing() as nobody:
        env = environ(nobody.url)
        subprocess.run([node, script(program)], env=env, check=False, capture_output=True, timeout=PATIENCE)
        assert {asked.path for asked in nobody.asked} == {rows()[title].asks}


@pytest.mark.parametrize("title", TITLES)
def test_the_page_shows_what_its_program_prints(
    title: str, node: str, script: Callable[[str], Path], demo: str
) -> None:
    program, output = shown(title)
    assert printed(node, script(program), environ(demo)) == output


def test_openai_node(told: Callable[[str], dict[str, Any]]) -> None:
    assert told("openai_node") == {
        "streamed call": {"city": "Paris"},
        "usage": True,
        "told": "I was told: sunny",
        "response": "1 2 3",
        "streamed response": "1 2 3",
        "parsed": PERSON,
        "embeddings": [256, 256],
        "same numbers": True,
        "models": "chatglm2-6b",
    }


def test_langchain(told: Callable[[str], dict[str, Any]]) -> None:
    each = {
        "streamed call": ["weather", {"city": "Paris"}],
        "usage": True,
        "told": "I was told: sunny",
        "jsonSchema": PERSON,
        "functionCalling": PERSON,
    }
    both = {f"{api}: {what}": value for api in ("chat", "responses") for what, value in each.items()}
    assert told("langchain") == {**both, "embeddings": [256, 256], "same numbers": True}


def test_the_ai_sdk_by_every_way_without_a_switch(told: Callable[[str], dict[str, Any]]) -> None:
    each = {
        "text": "1 2 3",
        "stream": ["1 2 3 4 5", "stop"],
        "loop": [2, LOOKED],
        "streamed loop": [LOOKED, 2],
        "next turn": "1 2 3 4",
    }
    objects = {"object": PERSON, "output": PERSON, "streamed output": PERSON}
    ways = {"responses": objects, "chat": objects, "compatible": {}, "structured": objects}
    wanted = {f"{way}: {what}": v for way, more in ways.items() for what, v in {**each, **more}.items()}
    vectors = {f"embeddings by {way}": [256, 256] for way in ("openai.embedding", "mine.embedding")}
    assert told("ai_sdk") == {**wanted, **vectors}


async def chats(visit: Visit) -> None:
    """A server that thinks, speaks and calls; and once it is told the result, says it."""
    await visit.start_stream()
    results = [message["content"] for message in visit.json["messages"] if message["role"] == "tool"]
    deltas: list[dict[str, Any]] = [{"content": f"It is {results[0]}."}] if results else [
        {"reasoning_content": "Add them."},
        {"content": "Let me add."},
        {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "add", "arguments": '{"a": 1, '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"b": 2}'}}]},
    ]  # fmt: skip
    for delta in deltas:
        await visit.event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    reason = "stop" if results else "tool_calls"
    await visit.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    await visit.event("[DONE]")
    await visit.end_stream()


async def test_a_loop_of_the_ai_sdk_refers_to_what_was_thought_and_said(
    node: str, script: Callable[[str], Path]
) -> None:
    file = script((PROGRAMS / "loop.mjs").read_text(encoding="utf-8"))
    async with house(chats, upstream={"kind": "openai", "whole": "stream"}) as at:
        env = environ(at.url.removesuffix("/v1"), MODEL="m")
        output = await asyncio.to_thread(printed, node, file, env)
        responses, chat, compatible = [json.loads(line) for line in output.splitlines()]
        assert responses == chat == [["It is 3."] * 2, [2, 2], ["", ""]]
        assert compatible == [["It is 3."] * 2, [2, 2], ["Add them."] * 2]
        asked = [visit.json["messages"] for visit in at.container.visits]
        for messages in (asked[1], asked[3]):  # by the Responses API
            _, turn, result = messages
            assert (turn["content"], turn["tool_calls"][0]["id"]) == ("Let me add.", "call_1")
            assert turn["reasoning_content"] == "Add them."
            assert (result["tool_call_id"], result["content"]) == ("call_1", "3")


def test_refusals_and_broken_streams_are_shown_by_every_client(
    node: str, script: Callable[[str], Path], guarded: Guarded
) -> None:
    file = script((PROGRAMS / "refusals.mjs").read_text(encoding="utf-8"))
    told = [json.loads(line) for line in printed(node, file, environ(guarded.url, guarded.key)).splitlines()]
    assert len(told) == 18
    words = {"key": "Incorrect API key", "model": "no-such-model", "broken": "engine died"}
    for client, what, status, message in told:
        assert words[what] in message, (client, what, message)
        if what != "broken":
            assert status == {"key": 401, "model": 404}[what], (client, what, status)
