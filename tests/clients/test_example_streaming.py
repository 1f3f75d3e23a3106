"""examples/streaming.py at work: thoughts and calls on a terminal, answers that break off, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import Guarded
from tests.clients.example import PATIENCE, command, ended, linked, on_terminal, run
from tests.clients.process import free_port, gateway, serving

CONFIG = """
auth: {mode: none}
models:
  thinker:
    upstream: {kind: demo, responses: ["<think>A city in France.</think>Paris."]}
    template: plain
    reasoning: {start: "<think>", end: "</think>"}
"""
pytestmark = pytest.mark.slow  # each starts a Python that imports the SDK

DIM, PLAIN = "\033[2m", "\033[0m"


def asking(*question: str) -> list[str]:
    return [*command("streaming.py")[:2], *question]


@pytest.fixture
def strict(guarded: Guarded) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"{guarded.url}/v1", "OPENAI_API_KEY": guarded.key, "MODEL": "obedient-7b"}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder, port = tmp_path_factory.mktemp("thinker"), free_port()
    (folder / "gateway.yaml").write_text(CONFIG)
    with serving(
        gateway("serve", "--config", "gateway.yaml", "--port", str(port)), port, folder=folder
    ) as url:
        yield {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "unused", "MODEL": "thinker"}


def test_thoughts_are_dim_on_a_terminal(thinker: dict[str, str], tmp_path: Path) -> None:
    code, shown = on_terminal(asking("Where is it?"), thinker, tmp_path)
    thought, answer, figures, *rest = shown.split("\n")
    assert (code, rest) == (0, [""])
    assert thought.replace(f"{PLAIN}{DIM}", "") == f"{DIM}A city in France.{PLAIN}"
    assert answer == "Paris."
    assert figures.startswith(f"{DIM}[first token after ")


def test_thoughts_have_a_line_of_their_own_in_a_file(thinker: dict[str, str], tmp_path: Path) -> None:
    done = run(asking("Where is it?"), thinker, tmp_path)
    assert done.stdout.startswith("A city in France.\nParis.\n[first token after ")


def test_calls_are_shown_as_they_are_written(environ: dict[str, str], tmp_path: Path) -> None:
    done = run(asking("--tools", "What is the weather in Paris?"), environ, tmp_path)
    call, figures = done.stdout.splitlines()
    assert call == 'calls get_weather {"city": "Paris"}'
    assert figures.endswith("finish: tool_calls]")


@pytest.mark.parametrize("what", ["break", "cut", "drop"])
def test_an_answer_that_breaks_off_is_an_error(what: str, strict: dict[str, str], tmp_path: Path) -> None:
    done = run(asking(f"{what}: one two"), strict, tmp_path)
    assert (done.returncode, done.stdout) == (1, "one two")
    assert done.stderr.startswith("\nerror: ")
    assert "Traceback" not in done.stderr


def test_a_refusal_is_an_error(strict: dict[str, str], tmp_path: Path) -> None:
    done = run(asking("say: one"), {**strict, "OPENAI_API_KEY": "sk-wrong"}, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_frees_the_container(guarded: Guarded, strict: dict[str, str], tmp_path: Path) -> None:
    with ended(
        subprocess.Popen(
            asking("wait: for a key"),
            cwd=linked(tmp_path),
            env={**os.environ, **strict},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(len("for a key")) == b"for a key"
        process.send_signal(signal.SIGINT)
        assert guarded.container.hung_up.get(timeout=PATIENCE) == "for a key"
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (130, b"\nstopped\n")
