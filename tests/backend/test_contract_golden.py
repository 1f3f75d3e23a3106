"""Every byte of an answer, in files that the reading side of the contract can be tested with as well.

A file in golden/ holds what was asked for, what the engine made, and the answer that came over the wire.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from modal_backend.contract import contract_app
from modal_backend.engine import (
    Alternative,
    Busy,
    ContextLengthExceeded,
    Done,
    EngineDead,
    Logprob,
    Piece,
    Usage,
)
from tests.backend.conftest import Host
from tests.backend.scripted import Scripted, Step

FOLDER = Path(__file__).parent / "golden"

GREETING = ("你好", "！我是", "ChatGLM2-6B，", "欢迎问我", "任何问题。🗼")
LINES = ("line\r\n\u2028data: x\n\n", '{"prompt": 1}', '\x00\x85\t"\\')


def spoken(*texts: str, reason: str = "stop") -> tuple[Step, ...]:
    made = [Piece(text, usage=Usage(12, count)) for count, text in enumerate(texts, 1)]
    return (*made, Done(reason, Usage(12, len(texts))))


def token(text: str, logprob: float, *others: tuple[str, float]) -> Piece:
    top = tuple(Alternative(other, chance, other.encode()) for other, chance in ((text, logprob), *others))
    return Piece(text, (Logprob(text, logprob, text.encode(), top),))


CASES: Mapping[str, tuple[Mapping[str, Any], tuple[Step, ...]]] = {
    "whole": ({"prompt": "你好"}, spoken(*GREETING)),
    "stream": ({"prompt": "你好", "stream": True}, spoken(*GREETING)),
    "whole-stop": ({"prompt": "你好", "stop": ["欢迎"]}, spoken(*GREETING)),
    "stream-stop": ({"prompt": "你好", "stop": ["欢迎"], "stream": True}, spoken(*GREETING)),
    "stream-length": ({"prompt": "p", "stream": True}, spoken("one ", "two", reason="length")),
    "stream-line-breaks": ({"prompt": "p", "stream": True}, spoken(*LINES)),
    "whole-echo": ({"prompt": "Once upon ", "echo": True}, spoken("a time")),
    "stream-echo": ({"prompt": "Once upon ", "echo": True, "stream": True}, spoken("a ", "time")),
    "whole-ignored": ({"prompt": "p", "best_of": 2, "名": None, "n": 1}, spoken("x")),
    "stream-ignored": ({"prompt": "p", "best_of": 2, "n": 1, "stream": True}, spoken("x")),
    "whole-logprobs": (
        {"prompt": "p", "logprobs": 2},
        (token("He", -0.25, ("好", -1.5)), token("y", -0.5, ("i", -2.0)), Done("stop")),
    ),
    "stream-logprobs": (
        {"prompt": "p", "logprobs": 2, "stream": True},
        (token("He", -0.25, ("好", -1.5)), token("y", -0.5, ("i", -2.0)), Done("stop")),
    ),
    "whole-empty": ({"prompt": "p"}, spoken()),
    "stream-empty": ({"prompt": "p", "stream": True}, spoken()),
    "stream-no-usage": ({"prompt": "p", "stream": True}, (Piece("x"), Done("content_filter"))),
    "whole-busy": ({"prompt": "p"}, (Busy("all 32 places are taken"),)),
    "stream-too-long": (
        {"prompt": "p", "stream": True},
        (ContextLengthExceeded("the prompt has 9000 tokens, the model takes 8192"),),
    ),
    "stream-died": ({"prompt": "p", "stream": True}, (Piece("one "), EngineDead("the process is gone"))),
    "stream-without-end": ({"prompt": "p", "stream": True}, (Piece("one "),)),
    "bad-field": ({"prompt": "p", "temperature": 3}, ()),
}


def described(step: Step) -> dict[str, Any]:
    if isinstance(step, Piece):
        return {"piece": step.text}
    if isinstance(step, Done):
        return {"done": step.finish_reason}
    return {"raises": type(step).__name__, "message": str(step)}


@pytest.mark.parametrize("name", CASES)
async def test_the_bytes_of(name: str, host: Host, client: httpx.AsyncClient, golden: Any) -> None:
    request, steps = CASES[name]
    answered = await client.post(host.serve(contract_app(Scripted(*steps))), json=request)
    found = {
        "request": request,
        "engine": [described(step) for step in steps],
        "answer": {
            "status": answered.status_code,
            "content-type": answered.headers["content-type"],
            "body": answered.content.decode(),
        },
    }
    golden.check(FOLDER / f"{name}.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")


def test_no_file_is_left_over() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(CASES)
