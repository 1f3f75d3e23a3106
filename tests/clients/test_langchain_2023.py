"""Programs as people wrote them for LangChain in 2023, in an environment of that time; only URLs are changed.

Each is a plain script in langchain_2023/programs. What it prints and logs is what is asserted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.clients.conftest import Guarded
from tests.clients.told import ECHOED

PROGRAMS = Path(__file__).parent / "langchain_2023" / "programs"
STOPPED = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")

Run = Callable[..., list[str]]

pytestmark = pytest.mark.clients


@pytest.fixture
def run(client_python: Callable[[str], Path], demo_command: str, tmp_path: Path) -> Run:
    """``run("greeting.py", "out.log")``: the lines that it printed."""
    python = client_python("langchain_2023")

    def run(program: str, *arguments: str) -> list[str]:
        done = subprocess.run(
            [python, PROGRAMS / program, *arguments],
            cwd=tmp_path,
            env={**os.environ, "CHAT_URL": demo_command},
            check=False,
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return ESCAPES.sub("", done.stdout).splitlines()

    return run


def test_a_custom_llm_is_called_with_a_stop_word_and_a_log_file(run: Run, tmp_path: Path) -> None:
    cut_here, cut_there, name, parameters = run("greeting.py", "out.log")
    assert cut_here == STOPPED  # by the class itself, from an answer without a stop
    assert cut_there == STOPPED  # by the gateway
    assert name == "ChatGLM"
    assert all(part in parameters for part in ("endpoint", "chatglm2-6b", "0.1"))
    assert (tmp_path / "out.log").read_text(encoding="utf-8").splitlines() == [STOPPED, STOPPED]


def test_a_chain_is_run_with_a_question(run: Run, tmp_path: Path) -> None:
    answer, stopped, applied = run("question_chain.py", "chain.log", "什么是气候变化！为什么")
    assert answer == "什么是气候变化！为什么"
    assert stopped == "什么是气候变化"
    assert applied == "[{'text': '一'}, {'text': '二'}]"
    log = ESCAPES.sub("", (tmp_path / "chain.log").read_text(encoding="utf-8"))
    assert log.count("Prompt after formatting:\n重复：什么是气候变化！为什么") == 2
    assert log.count("> Finished chain.") == 3


def test_the_answer_is_typed_out_as_it_arrives(run: Run) -> None:
    assert run("typing_out.py") == [STOPPED]


def test_a_refusal_reaches_the_program_as_a_status_and_openais_envelope(run: Run) -> None:
    [line] = run("failing.py")
    status, _, body = line.partition(": ")
    assert status == "400"
    assert json.loads(body)["error"]["param"] == "temperature"


def test_an_endpoint_for_langchains_modal_class_serves_the_gateway_too(run: Run, guarded: Guarded) -> None:
    assert run("modal_class.py", f"{guarded.container.url}/echo", "你好") == [f"你好{ECHOED}"]
    answer = httpx.post(
        f"{guarded.url}/v1/chat/completions",
        json={"model": "echoing-7b", "messages": [{"role": "user", "content": "你好"}]},
        headers={"authorization": f"Bearer {guarded.key}"},
    )
    assert answer.json()["choices"][0]["message"]["content"] == ECHOED
