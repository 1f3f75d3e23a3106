"""Anthropic's SDK in front of the gateway, in an environment of its own.

One program makes every call once and tells what it got; what it got is asserted here. Another reads many
answers with the SDK's types.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from gateway.core.encode.messages import messages_error
from gateway.core.errors import GatewayError
from gateway.core.events import Event
from tests.clients.conftest import Guarded
from tests.core.test_message_answers import answers, collected, streamed

PROGRAMS = Path(__file__).parent / "anthropic" / "programs"
GREETING = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，欢迎问我任何问题。"
COUNTED = "1 2 3 4 5 6 7 8 9 10"

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def gave(client_python: Callable[[str], Path], demo: str, guarded: Guarded) -> dict[str, Any]:
    """What each of the program's calls gave."""
    environ = {"DEMO_URL": demo, "GUARDED_URL": guarded.url, "GUARDED_KEY": guarded.key}
    printed = run(client_python("anthropic"), "asks.py", environ)
    return dict(json.loads(printed))


def run(python: Path, program: str, environ: dict[str, str], given: str = "") -> str:
    done = subprocess.run(
        [python, PROGRAMS / program],
        env={**os.environ, **environ},
        input=given,
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_whole_answer(gave: dict[str, Any]) -> None:
    answer = gave["whole"]
    assert answer["content"] == [{"type": "text", "text": GREETING}]
    assert (answer["model"], answer["stop_reason"]) == ("chatglm2-6b", "end_turn")
    assert answer["request"].startswith("req_")
    assert gave["cut_short"]["stop_reason"] == "max_tokens"


def test_a_stream_adds_up_to_the_whole_answer(gave: dict[str, Any]) -> None:
    seen = gave["streamed"]
    kinds = [event["type"] for event in seen["events"]]
    assert (kinds[0], kinds[1], kinds[-3:]) == (
        "message_start",
        "content_block_start",
        ["content_block_stop", "message_delta", "message_stop"],
    )
    assert kinds.count("content_block_delta") > 5
    for name in ("content", "stop_reason", "usage"):
        assert seen["final"][name] == seen["whole"][name], name
    assert seen["whole"]["content"][0]["text"] == COUNTED


def test_the_stop_sequence_is_named(gave: dict[str, Any]) -> None:
    assert gave["stopped"] == {"said": "1 2 3", "reason": "stop_sequence", "sequence": " 4"}


def test_the_async_client_asks_side_by_side(gave: dict[str, Any]) -> None:
    assert gave["side_by_side"] == ["1 2", "1 2 3", "1 2 3 4"]


def test_a_tool_is_called_and_its_result_told(gave: dict[str, Any]) -> None:
    seen = gave["tools"]
    for answer in (seen["called"], seen["forced"]):
        [call] = answer["content"]
        assert (call["name"], call["input"], answer["stop_reason"]) == (
            "get_weather",
            {"city": "Rome"},
            "tool_use",
        )
    [said] = seen["told"]["content"]
    assert "sunny" in said["text"]
    assert seen["told"]["stop_reason"] == "end_turn"


def test_the_sdk_runs_tools_by_itself(gave: dict[str, Any]) -> None:
    assert gave["runner"]["cities"] == ["Rome"]
    assert "sunny" in gave["runner"]["told"]["content"][0]["text"]


def test_an_answer_is_parsed_into_a_model(gave: dict[str, Any]) -> None:
    assert gave["parsed"] == [True, True]


def test_tokens_are_counted(gave: dict[str, Any]) -> None:
    few, more = (each["input_tokens"] for each in gave["counted"])
    assert 0 < few < more


@pytest.mark.parametrize(
    ("case", "error", "words"),
    [
        ("tool", ["BadRequestError", 400, "invalid_request_error", True], "tools[0].type"),
        ("prefill", ["BadRequestError", 400, "invalid_request_error", True], "prefill"),
        ("count", ["BadRequestError", 400, "invalid_request_error", True], "messages"),
        ("wrong", ["AuthenticationError", 401, "authentication_error", True], "API key"),
        ("unknown", ["NotFoundError", 404, "not_found_error", True], "nobody"),
        ("large", ["ContentTooLargeError", 413, "request_too_large", True], "max_body"),
        ("busy", ["RateLimitError", 429, "rate_limit_error", True], ""),
    ],
)
def test_refusals_are_the_sdks_own_errors(
    gave: dict[str, Any], case: str, error: list[Any], words: str
) -> None:
    *told, message = {**gave["refused"], **gave["guarded"]}[case]
    assert told == error
    assert words in message


def test_both_ways_to_send_a_key(gave: dict[str, Any]) -> None:
    assert gave["guarded"]["key"] == gave["guarded"]["token"] == "one two"


def test_a_failure_inside_a_stream_is_raised(gave: dict[str, Any]) -> None:
    *texts, kind = gave["guarded"]["broken"]
    assert ("".join(texts), kind) == ("one two", "overloaded_error")


def test_the_sdks_types_know_every_answer_event_and_error(client_python: Callable[[str], Path]) -> None:
    told: dict[str, list[Any]] = {"messages": [], "events": [], "errors": []}

    @given(answers())
    def draw(events: list[Event]) -> None:
        told["messages"].append(collected([events]))
        told["events"] += [event for event in streamed([events]) if event["type"] != "ping"]

    draw()
    for status in (400, 401, 403, 404, 405, 408, 415, 429, 431, 500, 502, 503, 504):  # it has no type for 413
        error = type("Failure", (GatewayError,), {"status": status})("why")
        told["errors"].append(json.loads(messages_error(error, "req_1")))
    kinds = {block["type"] for message in told["messages"] for block in message["content"]}
    assert kinds == {"text", "thinking", "tool_use"}
    assert run(client_python("anthropic"), "reads.py", {}, json.dumps(told)) == ""
