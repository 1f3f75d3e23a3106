"""The demo, as it is served, holds what the Open Responses specification asks of a server.

The requests are those by which servers are accepted there: a text, a system prompt, several turns, an image,
tools, JSON; each whole and streamed. Fields that it requires are there, and OpenAI's types know all others.
https://www.openresponses.org/specification
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from openai.types.responses import Response

from tests.core.test_responses import EVENT, foreign

MODEL = "gpt-4o-mini"
PIXEL = (  # a PNG of one pixel
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PLACE = {"type": "string", "description": "city and state"}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place",
    "parameters": {"type": "object", "properties": {"location": PLACE}, "required": ["location"]},
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def said(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


LOOK = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PIXEL}]
CASES: Mapping[str, dict[str, Any]] = {
    "text": {"input": [said("user", "Say: hello")]},
    "count": {"input": [said("user", "Count from 1 to 5.")]},
    "system prompt": {"input": [said("system", "Talk like a pirate."), said("user", "Say: ahoy")]},
    "turns": {
        "input": [
            said("user", "My name is Alice."),
            said("assistant", "Hello Alice!"),
            said("user", "What is my name?"),
        ]
    },
    "image": {"input": [said("user", LOOK)]},
    "tools": {"input": [said("user", "What's the weather in San Francisco?")], "tools": [WEATHER]},
    "told": {
        "input": [
            said("user", "What's the weather in San Francisco?"),
            {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "fog"},
        ],
        "tools": [WEATHER],
    },
    "JSON": {
        "input": [said("user", '"Li" is 30.')],
        "text": {"format": {"type": "json_schema", "name": "person", "schema": PERSON, "strict": True}},
    },
}

RESPONSE = {
    "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model",
    "previous_response_id", "instructions", "output", "error", "tools", "tool_choice", "truncation",
    "parallel_tool_calls", "text", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs",
    "temperature", "reasoning", "usage", "max_output_tokens", "max_tool_calls", "store", "background",
    "service_tier", "metadata", "safety_identifier", "prompt_cache_key",
}  # fmt: skip
ITEMS = {
    "message": {"type", "id", "status", "role", "content"},
    "function_call": {"type", "id", "call_id", "name", "arguments", "status"},
}
PART = {"type", "text", "annotations"}
SPAN = {"item_id", "output_index", "content_index"}
CALL = {"item_id", "output_index"}
EVENTS = {
    **{kind: {"response"} for kind in ("created", "in_progress", "completed")},
    **{kind: {"output_index", "item"} for kind in ("output_item.added", "output_item.done")},
    **{kind: {*SPAN, "part"} for kind in ("content_part.added", "content_part.done")},
    "output_text.delta": {*SPAN, "delta"},
    "output_text.done": {*SPAN, "text"},
    "function_call_arguments.delta": {*CALL, "delta"},
    "function_call_arguments.done": {*CALL, "arguments"},
}
"""The fields that must be there, by type."""


@pytest.fixture
def http(demo: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo, timeout=30) as client:
        yield client


def asked(http: httpx.Client, case: str, **fields: Any) -> httpx.Response:
    answer = http.post("/v1/responses", json={"model": MODEL, **CASES[case], **fields})
    assert answer.status_code == 200, answer.text
    return answer


def checked(response: dict[str, Any]) -> dict[str, Any]:
    """A whole response, which has all that it must and nothing that nobody knows."""
    assert not RESPONSE - set(response)
    assert foreign(Response.model_validate(response, strict=True)) == set()
    for item in response["output"]:
        assert ITEMS[item["type"]] <= set(item)
        assert all(set(part) >= PART for part in item.get("content", ()))
    return response


def events(body: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("case", CASES)
def test_a_whole_answer(case: str, http: httpx.Client) -> None:
    response = checked(asked(http, case).json())
    assert (response["status"], response["error"]) == ("completed", None)
    [item] = response["output"]
    if case == "tools":
        assert (item["name"], json.loads(item["arguments"])) == ("get_weather", {"location": "San Francisco"})
        return
    [part] = item["content"]
    assert part["text"]
    wanted = {"text": "hello", "count": "1 2 3 4 5", "system prompt": "ahoy", "told": "I was told: fog"}
    assert part["text"] == wanted.get(case, part["text"])
    if case == "JSON":
        assert json.loads(part["text"]) == {"name": "Li", "age": 30}


@pytest.mark.parametrize("case", CASES)
def test_a_stream(case: str, http: httpx.Client) -> None:
    told = events(asked(http, case, stream=True).text)
    for number, event in enumerate(told):
        kind = event["type"].removeprefix("response.")
        assert (event["sequence_number"], EVENTS[kind] - set(event)) == (number, set())
        assert foreign(EVENT.validate_python(event, strict=True)) == set()
    kinds = [event["type"].removeprefix("response.") for event in told]
    assert (kinds[:2], kinds[-1]) == (["created", "in_progress"], "completed")
    final = checked(told[-1]["response"])
    assert [each["item"] for each in told if each["type"].endswith("output_item.done")] == final["output"]
    deltas = "".join(each["delta"] for each in told if each["type"].endswith(".delta"))
    [item] = final["output"]
    assert deltas == (item["arguments"] if case == "tools" else item["content"][0]["text"])
    assert told[0]["response"]["status"] == told[1]["response"]["status"] == "in_progress"
