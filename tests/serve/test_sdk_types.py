"""Every answer, chunk, event and error is one of the official SDK's types, and says nothing beyond them.

The types themselves take any field: what is found beyond them is compared with ``adds``, the names that are
ours on purpose, so that one more and one fewer both fail.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.shared import ErrorObject
from pydantic import BaseModel, TypeAdapter

from tests.core.tools.answers import TOOLS
from tests.serve.house import Script, Visit, house

CHAT, TEXT, RESPONSES = "/chat/completions", "/completions", "/responses"
TYPES: Mapping[str, tuple[Any, Any]] = {
    CHAT: (ChatCompletion, ChatCompletionChunk),
    TEXT: (Completion, Completion),
    RESPONSES: (Response, ResponseStreamEvent),
}
"""What an endpoint answers with, whole and piece by piece."""

ENTRY = {"token": "hi", "logprob": -0.5, "bytes": [104, 105]}
LOGPROBS = [{**ENTRY, "top_logprobs": [ENTRY, {"token": "é", "logprob": -1.5, "bytes": None}]}]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rom"}}\n</tool_call>'
HERMES = {"template": "chatml", "tools": "hermes"}
THINKS = {"reasoning": {"start": "<think>", "end": "</think>"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}
FUNCTION = {"type": "function", "strict": None, **TOOLS[0]["function"]}
REASONING = frozenset({"reasoning_content", "reasoning"})
USAGE = {"stream_options": {"include_usage": True}}
# The types of a response lack what OpenAI's own answers have: whether it was stored, and two penalties.
RESPONSE = frozenset({"store", "presence_penalty", "frequency_penalty"})


@dataclass(frozen=True)
class Case:
    """One question, asked whole and as a stream; ``says`` are the pieces of the container's answer."""

    path: str
    about: str
    says: Sequence[str | dict[str, Any]]
    fields: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    finish: str = "stop"
    adds: frozenset[str] = frozenset()
    streamed: frozenset[str] = frozenset()  # what only the stream adds


CASES = [
    Case(CHAT, "text", ["hel", "lo"]),
    Case(CHAT, "nothing", []),
    Case(CHAT, "usage", ["hi"], USAGE, streamed=frozenset({"x_gateway"})),
    Case(CHAT, "several", ["hi"], {"n": 3}),
    Case(CHAT, "cut", ["hi"], {"max_tokens": 1}, finish="length"),
    Case(
        CHAT,
        "logprobs",
        [{"prompt": "hi", "logprobs": LOGPROBS}],
        {"logprobs": True, "top_logprobs": 2},
        {"logprobs": True},
    ),
    Case(CHAT, "tools", ["See: ", CALL, CALL], {"tools": TOOLS}, HERMES),
    Case(CHAT, "function", [CALL], {"functions": [TOOLS[0]["function"]]}, HERMES),
    Case(CHAT, "reasoning", ["<think>so", "</think>hi"], {}, THINKS, adds=REASONING),
    Case(
        CHAT,
        "JSON",
        ['{"a": 1}'],
        {"response_format": FORMAT, **USAGE},
        streamed=frozenset({"x_gateway"}),
    ),
    Case(CHAT, "chat server", [{"content": "hi"}, {"refusal": "no"}], model={"upstream": {"kind": "openai"}}),
    Case(TEXT, "text", ["hel", "lo"]),
    Case(TEXT, "usage", ["hi"], USAGE, streamed=frozenset({"x_gateway"})),
    Case(TEXT, "several prompts", ["hi"], {"prompt": ["a", "b"], "n": 2, "echo": True}),
    Case(TEXT, "cut", ["hi"], {"max_tokens": 1}, finish="length"),
    Case(
        TEXT,
        "logprobs",
        [{"prompt": "hi", "logprobs": LOGPROBS}],
        {"logprobs": 2},
        {"logprobs": True},
    ),
    Case(RESPONSES, "text", ["hel", "lo"], adds=RESPONSE, streamed=frozenset({"x_gateway"})),
    Case(
        RESPONSES,
        "cut",
        ["hi"],
        {"max_output_tokens": 16, "instructions": "Be brief.", "metadata": {"a": "b"}, "temperature": 0},
        finish="length",
        adds=RESPONSE,
        streamed=frozenset({"x_gateway"}),
    ),
    Case(
        RESPONSES,
        "tools",
        ["See: ", CALL, CALL],
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "get_weather"}},
        {"template": "chatml", "tools": "hermes"},
        adds=RESPONSE,
        streamed=frozenset({"x_gateway"}),
    ),
    Case(
        RESPONSES,
        "reasoning",
        ["<think>so", "</think>hi"],
        {"reasoning": {"effort": "low"}},
        THINKS,
        adds=RESPONSE,
        streamed=frozenset({"x_gateway"}),
    ),
    Case(
        RESPONSES,
        "JSON",
        ['{"a": 1}'],
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}}},
        adds=RESPONSE,
        streamed=frozenset({"x_gateway"}),
    ),
    Case(
        RESPONSES,
        "logprobs",
        [{"prompt": "hi", "logprobs": LOGPROBS}],
        {"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
        {"logprobs": True},
        adds=RESPONSE,
        streamed=frozenset({"x_gateway", "bytes"}),  # the types of a delta's tokens lack their bytes
    ),
    Case(
        RESPONSES,
        "refusal",
        [{"content": "hi"}, {"refusal": "no"}],
        model={"upstream": {"kind": "openai", "whole": "stream"}},
        adds=RESPONSE,
        streamed=frozenset({"x_gateway"}),
    ),
]
EVENTS = {
    *("created", "in_progress", "completed", "incomplete", "failed"),
    *("output_item.added", "output_item.done", "content_part.added", "content_part.done"),
    *("output_text.delta", "output_text.done", "refusal.delta", "refusal.done"),
    *("reasoning_text.delta", "reasoning_text.done"),
    *("function_call_arguments.delta", "function_call_arguments.done"),
}
"""The events that a response may be told by, without ``response.``."""


def asked(case: Case) -> dict[str, Any]:
    question: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    if case.path != CHAT:
        question = {"prompt" if case.path == TEXT else "input": "hi"}
    return {"model": "m", **question, **case.fields}


def saying(case: Case) -> Script:
    """A container of the contract, or a chat server, that gives these pieces and ends."""
    chats = case.model.get("upstream", {}).get("kind") == "openai"

    async def script(visit: Visit) -> None:
        if chats:
            await (_chunks if visit.json.get("stream") else _message)(visit, case)
        else:
            await (_events if visit.json.get("stream") else _answer)(visit, case)

    return script


async def _events(visit: Visit, case: Case) -> None:
    await visit.start_stream()
    for piece in case.says:
        await visit.event({"prompt": piece} if isinstance(piece, str) else piece)
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    await visit.event({"finish_reason": case.finish, "usage": usage})
    await visit.end_stream()


async def _answer(visit: Visit, case: Case) -> None:
    pieces = [{"prompt": piece} if isinstance(piece, str) else piece for piece in case.says]
    answer: dict[str, Any] = {"prompt": "".join(piece["prompt"] for piece in pieces)}
    if logprobs := [entry for piece in pieces for entry in piece.get("logprobs", ())]:
        answer["logprobs"] = logprobs
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    await visit.answer({**answer, "finish_reason": case.finish, "usage": usage})


async def _chunks(visit: Visit, case: Case) -> None:
    await visit.start_stream()
    for delta in case.says:
        await visit.event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    await visit.event({"choices": [{"index": 0, "delta": {}, "finish_reason": case.finish}]})
    await visit.event("[DONE]")
    await visit.end_stream()


async def _message(visit: Visit, case: Case) -> None:
    message = {"role": "assistant"}
    for delta in case.says:
        assert isinstance(delta, dict)
        message |= delta
    await visit.answer({"choices": [{"index": 0, "message": message, "finish_reason": case.finish}]})


async def post(url: str, path: str, body: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(url + path, json=body, timeout=10)


def told(body: str) -> list[dict[str, Any]]:
    """The objects of a stream."""
    lines = [line.removeprefix("data: ") for line in body.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def extras(value: Any) -> Iterator[str]:
    """Names of fields that a value of the SDK's types has and its type has not."""
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for name in value.model_fields_set & type(value).model_fields.keys():
            yield from extras(getattr(value, name))
    elif isinstance(value, list):
        for each in value:
            yield from extras(each)


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def found(kind: Any, value: Any) -> set[str]:
    """What ``value`` adds to its type. Raises where it is not of that type."""
    return set(extras(adapter(kind).validate_python(value, strict=True)))


def beyond(path: str, pieces: Sequence[dict[str, Any]]) -> set[str]:
    """What the pieces of a stream add to their type."""
    if path == TEXT:  # until a text ends its finish_reason is null at OpenAI too, which the type leaves out
        for choice in [choice for piece in pieces for choice in piece["choices"]]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
    return set().union(*[found(TYPES[path][1], each) for each in pieces])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.path.strip('/')} {case.about}")
async def test_answers_are_of_the_official_types(case: Case) -> None:
    async with house(saying(case), **case.model) as at:
        answer = await post(at.url, case.path, asked(case))
        assert answer.status_code == 200, answer.text
        assert found(TYPES[case.path][0], answer.json()) == case.adds
        stream = await post(at.url, case.path, {**asked(case), "stream": True})
        assert stream.status_code == 200, stream.text
        assert beyond(case.path, told(stream.text)) == case.adds | case.streamed


async def test_every_event_of_a_response_is_among_them() -> None:
    kinds: set[str] = set()
    for case in CASES:
        if case.path == RESPONSES:
            async with house(saying(case), **case.model) as at:
                stream = await post(at.url, case.path, {**asked(case), "stream": True})
                kinds |= {event["type"].removeprefix("response.") for event in told(stream.text)}
    assert kinds == EVENTS - {"failed"}


async def test_vectors_are_of_the_official_type() -> None:
    async def embed(visit: Visit) -> None:
        vectors = [[0.5, -1.0, 2.0] for _ in visit.json["input"]]
        await visit.answer({"embeddings": vectors, "usage": {"prompt_tokens": 2, "completion_tokens": 0}})

    async with house(embed) as at:
        for form in ("float", "base64"):
            body = {"model": "m", "input": ["a", "b"], "encoding_format": form}
            answer = (await post(at.url, "/embeddings", body)).json()
            for item in answer["data"] if form == "base64" else ():
                item["embedding"] = list(struct.unpack("<3f", base64.b64decode(item["embedding"])))
            assert found(CreateEmbeddingResponse, answer) == set()


async def test_models_are_of_the_official_type() -> None:
    async with house(saying(CASES[0])) as at, httpx.AsyncClient() as client:
        listed = (await client.get(f"{at.url}/models")).json()
        assert set(listed) == {"object", "data"}
        one = (await client.get(f"{at.url}/models/m")).json()
        ours = {"x_gateway", "root", "parent", "permission"}
        assert [found(Model, each) <= ours for each in [*listed["data"], one]] == [True, True]


REFUSED: list[tuple[str, str, Any, int]] = [
    ("POST", CHAT, {"model": "m", "messages": []}, 400),
    ("POST", CHAT, {"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": 99}, 400),
    ("POST", CHAT, {"model": "m"}, 400),
    ("POST", CHAT, [], 400),
    ("POST", CHAT, {"model": "none", "messages": [{"role": "user", "content": "hi"}]}, 404),
    ("POST", TEXT, {"model": "m", "prompt": []}, 400),
    ("POST", "/embeddings", {"model": "m", "input": []}, 400),
    ("POST", RESPONSES, {"model": "m", "input": "hi", "background": True}, 400),
    ("GET", RESPONSES + "/resp_none", None, 404),
    ("GET", "/models/none", None, 404),
    ("GET", "/nothing/here", None, 404),
    ("GET", CHAT, None, 405),
    ("POST", CHAT, {"model": "m", "messages": [{"role": "user", "content": "hi"}]}, 502),
    ("POST", TEXT, {"model": "m", "prompt": "hi", "stream": True}, 502),
    ("POST", RESPONSES, {"model": "m", "input": "hi", "stream": True}, 502),
]


async def test_errors_are_of_the_official_type() -> None:
    async def fails(visit: Visit) -> None:
        await visit.answer({"detail": "oops"}, status="500 Oops")

    async with house(fails) as at, httpx.AsyncClient() as client:
        for method, path, body, status in REFUSED:
            answer = await client.request(method, at.url + path, json=body)
            assert (answer.status_code, set(answer.json())) == (status, {"error"}), (path, answer.text)
            assert found(ErrorObject, answer.json()["error"]) == set(), path


@pytest.mark.parametrize("path", [CHAT, TEXT, RESPONSES])
async def test_a_failure_in_a_stream_is_of_the_official_types(path: str) -> None:
    async def breaks(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "hello"})
        await visit.event({"error": {"message": "the engine died", "code": "engine_dead"}})
        await visit.end_stream()

    body = ""
    async with house(breaks) as at, httpx.AsyncClient() as client:
        question = {**asked(Case(path, "", [])), "stream": True}
        with pytest.raises(httpx.RemoteProtocolError):  # nobody takes it for an answer that ended well
            async with client.stream("POST", at.url + path, json=question, timeout=10) as answer:
                async for piece in answer.aiter_text():
                    body += piece
    *before, last = told(body)
    assert beyond(path, before) <= RESPONSE
    if path == RESPONSES:
        assert last["type"] == "response.failed"
        assert found(ResponseStreamEvent, last) == RESPONSE
    else:
        assert set(last) == {"error"}
        assert found(ErrorObject, last["error"]) == set()
