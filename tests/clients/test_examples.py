"""Every file in examples/ runs as its first lines say, against a running gateway.

Rule: a new example needs a row in examples/README.md and a test here; what a machine lacks is skipped, aloud.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.clients.process import ROOT, free_port, gateway, serving

EXAMPLES = ROOT / "examples"
FILES = sorted(path for path in EXAMPLES.iterdir() if path.is_file() and path.name != "README.md")
GREETING = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，欢迎问我任何问题。"
STOPPED = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，"


def front(name: str, key: str) -> str:
    """What stands after ``run:``, ``needs`` or another key in an example's first lines."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    found = re.search(rf"^(?:#|//) {key}:? (.+)$", text, re.MULTILINE)
    assert found, f"the first lines of examples/{name} have no {key}"
    return found[1]


def command(name: str) -> list[str]:
    """What its ``run`` line says, with our Python; skips where the machine lacks the program or a module."""
    program, *arguments = shlex.split(front(name, "run"))
    if program == "python":
        for module in re.findall(r"[\w-]+", front(name, "needs")):
            if importlib.util.find_spec(module.replace("-", "_")) is None:
                pytest.skip(f"{module} is not installed")
        return [sys.executable, *arguments]
    return [shutil.which(program) or pytest.skip(f"this machine has no {program}"), *arguments]


def run(name: str, environ: Mapping[str, str]) -> list[str]:
    """The lines that the example printed."""
    done = subprocess.run(
        command(name),
        cwd=ROOT,
        env={**os.environ, **environ},
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def environ(demo: str) -> dict[str, str]:
    """Where the examples find the demo."""
    return {"OPENAI_BASE_URL": f"{demo}/v1", "OPENAI_API_KEY": "unused"}


def test_the_table_lists_every_example_with_its_command() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(.+?)\]\(\1\) .*\| `(.+?)` \|$", table, re.MULTILINE)
    assert sorted(rows) == [(path.name, front(path.name, "run")) for path in FILES]


def test_every_example_is_run_by_a_test() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in FILES if f'"{path.name}"' not in tests] == []


def test_curl(environ: dict[str, str]) -> None:
    lines = run("curl.sh", environ)
    titles = ("whole", "streamed", "stopped before 欢迎")
    whole, streamed, stopped = (lines.index(f"--- {title}") for title in titles)
    assert GREETING in lines[whole + 1]
    assert lines[streamed + 1].startswith("data: ")
    assert "data: [DONE]" in lines[streamed:stopped]
    assert f'"{STOPPED}"' in lines[stopped + 1]


def test_openai_python(environ: dict[str, str]) -> None:
    models, whole, usage, stopped, stream, refused = run("openai_python.py", environ)
    assert "chatglm2-6b" in models
    assert whole.endswith(GREETING)
    assert re.search(r" \d+ tokens$", usage)
    assert stopped.endswith(f"{STOPPED} {STOPPED}")
    assert "1 2 3 4 5 6 7 8 9 10 " in stream
    assert "Error code: 400 - temperature" in refused


def test_streaming(environ: dict[str, str]) -> None:
    text, figures = run("streaming.py", environ)
    assert text == " ".join(str(number) for number in range(1, 31))
    assert re.fullmatch(r"\[first token after \d+ ms; \d+ tokens in [\d.]+ s, \d+ a second\]", figures)


def test_langchain_chat(environ: dict[str, str]) -> None:
    invoke, usage, stop, batch, chain, streamed = run("langchain_chat.py", environ)
    assert invoke == f"invoke: {GREETING}"
    assert "'total_tokens'" in usage
    assert stop.endswith(STOPPED)
    assert batch.endswith("['1 2 3', '1 2 3 4 5']")
    assert chain.endswith("春眠不觉晓，处处闻啼鸟。")
    assert streamed.endswith("The quick brown fox jumps over the lazy dog.")


@pytest.mark.clients
def test_langchain_modal(environ: dict[str, str], client_python: Callable[[str], Path]) -> None:
    python = client_python("langchain_community")
    done = subprocess.run(
        [python, EXAMPLES / "langchain_modal.py"],
        env={**os.environ, **environ},
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["invoke: 1 2 3 4 5", "chain:  count to 31 2 3"]


def test_agent_with_tools(environ: dict[str, str]) -> None:
    weather, called, told, add, added, total, *_ = run("agent_with_tools.py", environ)
    assert (weather, called) == (
        "What is the weather in Paris for 3 days?",
        '  calls get_weather({"city": "Paris", "days": 3})',
    )
    assert told.endswith("Paris: sun for 3 days")
    assert (add, added) == ("Please add 2.5 and 4", '  calls add({"a": 2.5, "b": 4})')
    assert total.endswith("6.5")


def test_async_batch(environ: dict[str, str]) -> None:
    *answers, summary = run("async_batch.py", environ)
    assert [answer.split()[-1] for answer in answers] == [str(number) for number in range(1, 21)]
    assert summary.startswith("20 answers in ")


def test_node(environ: dict[str, str]) -> None:
    stopped, streamed, refused = run("node.mjs", environ)
    assert (stopped, streamed) == (STOPPED, GREETING)
    assert refused.startswith("400: temperature")


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


def test_the_dummy_endpoint_needs_nothing_but_a_token_to_be_deployed(tmp_path: Path) -> None:
    command("modal_dummy_endpoint.py")
    deploy = shlex.split(front("modal_dummy_endpoint.py", "deploy"))
    done = subprocess.run(
        [sys.executable, "-m", *deploy],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path), "MODAL_CONFIG_PATH": str(tmp_path / "none.toml")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Token missing" in done.stderr
