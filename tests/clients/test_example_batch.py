"""examples/batch.py at work: what it asks, how it goes on, and what it says of failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Guarded
from tests.clients.example import PATIENCE, command, ended, linked, on_terminal, run

pytestmark = pytest.mark.slow  # each starts a Python that imports the SDK


@pytest.fixture
def strict(guarded: Guarded) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"{guarded.url}/v1", "OPENAI_API_KEY": guarded.key, "MODEL": "obedient-7b"}


def asking(folder: Path, *lines: Any, at_once: int = 4) -> list[str]:
    """The command for these questions; answers go to answers.jsonl in ``folder``."""
    written = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "questions.jsonl").write_text("".join(f"{line}\n" for line in written))
    return [*command("batch.py")[:2], "questions.jsonl", "answers.jsonl", "--at-once", str(at_once)]


def answers(folder: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_bytes().splitlines()]
    found = {line["id"]: line["answer"] for line in lines}
    assert len(found) == len(lines), "an id has two answers"
    return found


def test_every_question_is_answered_once(environ: dict[str, str], tmp_path: Path) -> None:
    asked = asking(
        tmp_path,
        *({"id": number, "prompt": f"count to {number}"} for number in range(1, 21)),
        {"id": "cut", "prompt": "count to 100", "max_tokens": 3},
        {"id": "chat", "messages": [{"role": "user", "content": "repeat: 好"}], "model": "chatglm2-6b"},
    )
    done = run(asked, environ, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    counted = {str(last): " ".join(map(str, range(1, last + 1))) for last in range(1, 21)}
    assert answers(tmp_path) == {**counted, "cut": "1 2 3", "chat": "好"}
    assert '"finish_reason": "length"' in (tmp_path / "answers.jsonl").read_text()


def test_a_second_run_asks_what_has_no_answer(environ: dict[str, str], tmp_path: Path) -> None:
    asked = asking(tmp_path, *({"id": name, "prompt": f"repeat: {name}"} for name in "abcd"))
    whole, half = '{"id": "a", "answer": "from before"}\n', '{"id": "b", "ans'
    (tmp_path / "answers.jsonl").write_text(whole + half)
    done = run(asked, environ, tmp_path)
    assert done.stdout.startswith("3 answers in ")
    assert done.stdout.endswith(" s, 1 from before\n")
    assert answers(tmp_path) == {"a": "from before", "b": "b", "c": "c", "d": "d"}
    assert run(asked, environ, tmp_path).stdout.startswith("0 answers in ")


def test_failures_are_told_at_the_end_and_asked_again(environ: dict[str, str], tmp_path: Path) -> None:
    good = {"id": "good", "prompt": "repeat: yes"}
    done = run(asking(tmp_path, {**good, "id": "hot", "temperature": 3}, good), environ, tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("1 answers in ")
    assert done.stderr.startswith("1 failed, 0 not asked:\n  hot: ")
    assert "temperature" in done.stderr
    assert answers(tmp_path) == {"good": "yes"}
    assert run(asking(tmp_path, {**good, "id": "hot"}, good), environ, tmp_path).returncode == 0
    assert answers(tmp_path) == {"good": "yes", "hot": "yes"}


def test_with_a_wrong_key_the_rest_is_not_asked(strict: dict[str, str], tmp_path: Path) -> None:
    asked = asking(tmp_path, *({"id": each, "prompt": "say: x"} for each in range(9)), at_once=1)
    done = run(asked, {**strict, "OPENAI_API_KEY": "sk-wrong"}, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("1 failed, 8 not asked:\n  0: ")
    assert answers(tmp_path) == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"prompt": "no id"}, "line 2: a question has an id, and a prompt or messages"),
        ({"id": "x"}, "line 2: a question has an id, and a prompt or messages"),
        ("{", "line 2: "),
        ({"id": "first", "prompt": "again"}, "line 2: a second question with the id first"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_asked(
    line: Any, said: str, environ: dict[str, str], tmp_path: Path
) -> None:
    done = run(asking(tmp_path, {"id": "first", "prompt": "count to 1"}, line), environ, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"questions.jsonl, {said}")
    assert not (tmp_path / "answers.jsonl").exists()


def test_a_terminal_shows_a_bar(environ: dict[str, str], tmp_path: Path) -> None:
    asked = asking(tmp_path, *({"id": each, "prompt": "count to 1"} for each in range(4)))
    code, shown = on_terminal(asked, environ, tmp_path)
    assert code == 0
    bar, summary = shown.removesuffix("\n").split("\n")
    assert bar.split("\r") == ["", *(f"[{'#' * 10 * done:40}] {done}/4" for done in range(1, 5))]
    assert summary.startswith("4 answers in ")


def test_ctrl_c_keeps_what_was_answered_and_frees_the_containers(
    guarded: Guarded, strict: dict[str, str], tmp_path: Path
) -> None:
    asked = asking(
        tmp_path,
        {"id": "early", "prompt": "say: early"},
        *({"id": each, "prompt": f"wait: batch {each}"} for each in range(9)),
        at_once=3,
    )

    def waiting() -> list[str]:
        return [call["prompt"] for call in guarded.container.calls if "wait: batch" in call["prompt"]]

    with ended(
        subprocess.Popen(asked, cwd=linked(tmp_path), env={**os.environ, **strict}, stderr=subprocess.PIPE)
    ) as process:
        deadline = time.monotonic() + PATIENCE
        while len(waiting()) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)  # the container has no other way to tell us
        process.send_signal(signal.SIGINT)
        left = {guarded.container.hung_up.get(timeout=PATIENCE) for _ in range(3)}
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.endswith(b"stopped; the same command goes on from here\n")
    assert left == {"batch 0", "batch 1", "batch 2"}
    assert len(waiting()) == 3, "more at once than was asked for"
    assert answers(tmp_path) == {"early": "early"}
