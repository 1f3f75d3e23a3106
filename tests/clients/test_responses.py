"""The Responses API as its clients use it: OpenAI's SDK, and ChatOpenAI with ``use_responses_api``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.clients.conftest import Guarded
from tests.serve.house import Visit, house

GREETING = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，欢迎问我任何问题。"
MODEL = "chatglm2-6b"


@pytest.fixture
def client(demo: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{demo}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(demo: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{demo}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_a_whole_answer(client: OpenAI) -> None:
    answer = client.responses.create(model="gpt-3.5-turbo", input="你好", metadata={"a": "b"})
    assert answer.id.startswith("resp_")
    assert (answer.output_text, answer.status, answer.model) == (GREETING, "completed", "gpt-3.5-turbo")
    assert (answer.error, answer.incomplete_details, answer.metadata) == (None, None, {"a": "b"})
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert (answer._request_id or "").startswith("req_")


def test_an_answer_that_was_cut_short(client: OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="count to 10", max_output_tokens=3)
    assert answer.status == "incomplete"
    assert answer.incomplete_details
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_a_conversation_in_items(client: OpenAI) -> None:
    answer = client.responses.create(
        model=MODEL,
        instructions="Be brief.",
        input=[
            {"role": "user", "content": "count to 3"},
            {"role": "assistant", "content": "1 2 3"},
            {"role": "user", "content": [{"type": "input_text", "text": "你好"}]},
        ],
    )
    assert answer.output_text == GREETING
    own = [item.to_dict() for item in answer.output]
    again = client.responses.create(model=MODEL, input=[*own, {"role": "user", "content": "count to 4"}])  # type: ignore[list-item]
    assert again.output_text == "1 2 3 4"


def test_a_raw_stream(client: OpenAI) -> None:
    with client.responses.create(model=MODEL, input="count to 10", stream=True) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "1 2 3 4 5 6 7 8 9 10"
    assert len(deltas) > 1
    assert events[-1].type == "response.completed"


def test_the_accumulating_stream_helper_ends_with_the_whole_answer(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="你好") as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots[-1] == final.output_text == GREETING


async def test_the_async_client(async_client: AsyncOpenAI) -> None:
    async with async_client.responses.stream(model=MODEL, input="你好") as stream:
        final = await stream.get_final_response()
    assert final.output_text == (await async_client.responses.create(model=MODEL, input="你好")).output_text


def test_a_failure_inside_a_stream(guarded: Guarded) -> None:
    events: list[Any] = []
    with (
        OpenAI(base_url=f"{guarded.url}/v1", api_key=guarded.key, max_retries=0) as client,
        pytest.raises((openai.APIError, httpx.HTTPError)),
        client.responses.create(model="obedient-7b", input="break: one two", stream=True) as stream,
    ):
        for event in stream:
            events.append(event)
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"
    assert events[-1].response.output_text == "one two"


def test_refusals(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="hosted"):
        client.responses.create(model=MODEL, input="x", tools=[{"type": "web_search"}])
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.create(model=MODEL, input="x", background=True)
    with pytest.raises(openai.NotFoundError, match="retain"):
        client.responses.retrieve("resp_1")


# --- LangChain ---


@pytest.fixture
def llm(demo: str) -> Iterator[Any]:
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    with httpx.Client() as sync:
        yield langchain.ChatOpenAI(
            model=MODEL,
            base_url=f"{demo}/v1",
            api_key="unused",
            use_responses_api=True,
            max_retries=0,
            http_client=sync,
        )


def test_chat_openai_invokes_and_streams(llm: Any) -> None:
    answer = llm.invoke([("system", "Be brief."), ("user", "你好")])
    assert answer.text == GREETING
    assert answer.usage_metadata["output_tokens"] > 0
    pieces = list(llm.stream("你好"))
    assert "".join(piece.text for piece in pieces) == GREETING
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.usage_metadata["output_tokens"] == answer.usage_metadata["output_tokens"]


def test_chat_openai_goes_on_with_its_own_answer(llm: Any) -> None:
    said: list[Any] = [("user", "你好")]
    answer = llm.invoke(said)
    assert llm.invoke([*said, answer, ("user", "count to 3")]).text == "1 2 3"


@pytest.mark.parametrize("version", ["v0", "responses/v1", "v1"])
async def test_chat_openai_calls_tools_and_is_given_their_results(version: str) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    from langchain_core.messages import HumanMessage, ToolMessage

    async def chats(visit: Visit) -> None:
        await visit.start_stream()
        if any(message["role"] == "tool" for message in visit.json["messages"]):
            deltas: list[dict[str, Any]] = [{"content": "It is 3."}]
        else:
            function = {"name": "add", "arguments": '{"a": 1, '}
            deltas = [
                {"content": "Let me add."},
                {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": '"b": 2}'}}]},
            ]
        for delta in deltas:
            await visit.event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await visit.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        await visit.event("[DONE]")
        await visit.end_stream()

    def add(a: int, b: int) -> int:
        """The sum."""
        return a + b

    upstream = {"kind": "openai", "whole": "stream"}
    async with house(chats, upstream=upstream) as at, httpx.AsyncClient() as http:
        llm = langchain.ChatOpenAI(
            model="m",
            base_url=at.url,
            api_key="unused",
            use_responses_api=True,
            output_version=version,
            max_retries=0,
            http_async_client=http,
        )
        bound = llm.bind_tools([add])
        question = HumanMessage("1 + 2?")
        called = await bound.ainvoke([question])
        assert [(c["name"], c["args"]) for c in called.tool_calls] == [("add", {"a": 1, "b": 2})]
        streamed: Any = None
        async for piece in bound.astream([question]):
            streamed = piece if streamed is None else streamed + piece
        assert streamed.tool_calls == called.tool_calls
        result = ToolMessage("3", tool_call_id=called.tool_calls[0]["id"])
        assert (await bound.ainvoke([question, called, result])).text == "It is 3."
        asked, turn, told = at.container.visits[-1].json["messages"]
        assert (asked["content"], told["tool_call_id"], told["content"]) == ("1 + 2?", "call_1", "3")
        assert turn["content"] == "Let me add."
        assert json.loads(turn["tool_calls"][0]["function"]["arguments"]) == {"a": 1, "b": 2}
