"""Anthropic's Messages API over real sockets: asked and answered in blocks, refused in its own envelope."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serve.house import House, Visit, house, soon
from tests.serve.test_chat import greet
from tests.serve.test_never_500 import call as straight
from tests.serve.test_never_500 import values

KEYS = {"auth": {"keys": [{"name": "one", "key": "sk-one", "models": ["m"]}]}}
USER = [{"role": "user", "content": "hi"}]
ADD = {"name": "add", "description": "sum", "input_schema": {"type": "object", "properties": {}}}
COUNT = "/messages/count_tokens"


async def ask(
    at: House, path: str = "/messages", headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    body = {"model": "m", "max_tokens": 50, "messages": USER, **fields}
    async with httpx.AsyncClient(headers=headers) as client:
        return await client.post(at.url + path, json=body, timeout=10)


def events(body: str) -> list[dict[str, Any]]:
    told = []
    for block in body.split("\n\n")[:-1]:
        name, data = block.split("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {told[-1]['type']}"
    return told


def text(told: list[dict[str, Any]]) -> str:
    return "".join(e["delta"]["text"] for e in told if e["type"] == "content_block_delta")


def error(answer: httpx.Response) -> tuple[int, str]:
    """Status and type of an error, checked to be Anthropic's envelope with the request's id."""
    told = answer.json()
    assert set(told) == {"type", "error", "request_id"}
    assert (told["type"], set(told["error"])) == ("error", {"type", "message"})
    assert told["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
    return answer.status_code, told["error"]["type"]


async def test_an_answer_whole_and_streamed() -> None:
    async with house(greet) as at:
        whole = await ask(at)
        assert whole.headers["request-id"] == whole.headers["x-request-id"]
        answer = whole.json()
        assert answer.pop("id").startswith("msg_")
        assert answer == {
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [{"type": "text", "text": "hello world"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": 1,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 2,
            },
        }
        stream = await ask(at, stream=True)
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "request-id" in stream.headers
        told = events(stream.text)
        assert text(told) == "hello world"
        assert (told[0]["type"], told[-1]["type"]) == ("message_start", "message_stop")
        assert told[0]["message"]["usage"]["input_tokens"] == 1
        assert told[-2]["usage"]["input_tokens"] == 3


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_both_addresses_are_served_and_only_posts(prefix: str) -> None:
    async with house(greet) as at, httpx.AsyncClient() as client:
        client.base_url = httpx.URL(f"http://127.0.0.1:{at.port}{prefix}")
        body = {"model": "m", "max_tokens": 5, "messages": USER}
        for path in ("/messages", "/messages?beta=true", COUNT):
            assert (await client.post(path, json=body)).status_code == 200
        refused = await client.get("/messages")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert error(refused) == (405, "invalid_request_error")
        unknown = await client.post("/messages/batches", json={})
        assert error(unknown) == (404, "not_found_error")
        for response in (refused, unknown):
            assert response.headers["request-id"] == response.headers["x-request-id"]
            assert response.json()["request_id"] == response.headers["request-id"]


async def test_system_and_turns_reach_the_models_template() -> None:
    said = [*USER, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "bye"}]
    async with house(greet, template="chatml") as at:
        await ask(at, system=[{"type": "text", "text": "Be brief."}], messages=said, max_tokens=7, top_k=3)
        [visit] = at.container.visits
        places = [visit.json["prompt"].index(each) for each in ("Be brief.", "hi", "yes", "bye")]
        assert places == sorted(places)
        assert (visit.json["max_tokens"], visit.json["top_k"]) == (7, 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_stop_sequence_that_ended_an_answer_is_named(stream: bool) -> None:
    async def counts(visit: Visit) -> None:
        await visit.start_stream()
        for piece in ("one E", "N", "D two"):
            await visit.event({"prompt": piece})
        await visit.until_closed()
        visit.closed.set()

    async with house(counts) as at:
        answer = await ask(at, stream=stream, stop_sequences=["STOP", "END"])
        [visit] = at.container.visits
        assert "stop" not in visit.json
        await soon(visit.closed.wait())
        if stream:
            told = events(answer.text)
            said, ending = text(told), told[-2]["delta"]
        else:
            ending = answer.json()
            said = ending["content"][0]["text"]
        assert said == "one "
        assert (ending["stop_reason"], ending["stop_sequence"]) == ("stop_sequence", "END")


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_go_to_a_chat_server_and_its_calls_come_back(stream: bool) -> None:
    async def chats(visit: Visit) -> None:
        deltas: list[dict[str, Any]] = [
            {"reasoning_content": "Add them."},
            {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "add", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]},
        ]
        await visit.start_stream()
        for delta in deltas:
            await visit.event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await visit.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
        await visit.event("[DONE]")
        await visit.end_stream()

    async with house(chats, upstream={"kind": "openai", "whole": "stream"}) as at:
        choice = {"type": "tool", "name": "add", "disable_parallel_tool_use": True}
        fields = {"tools": [ADD], "tool_choice": choice, "thinking": {"type": "adaptive"}, "stream": stream}
        answer = await ask(at, **fields)
        [visit] = at.container.visits
        function = {"name": "add", "description": "sum", "parameters": ADD["input_schema"]}
        assert visit.json["tools"] == [{"type": "function", "function": function}]
        assert visit.json["tool_choice"] == {"type": "function", "function": {"name": "add"}}
        assert visit.json["parallel_tool_calls"] is False
        called = {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1}}
        if not stream:
            thought, call = answer.json()["content"]
            assert (thought["thinking"], call) == ("Add them.", called)
            return
        told = events(answer.text)
        starts = [e["content_block"] for e in told if e["type"] == "content_block_start"]
        assert starts[1] == {**called, "input": {}}
        deltas = [event["delta"] for event in told if event["type"] == "content_block_delta"]
        assert deltas[-1] == {"type": "input_json_delta", "partial_json": '{"a": 1}'}
        assert told[-2]["delta"]["stop_reason"] == "tool_use"


async def test_a_silent_stream_opens_and_is_kept_alive_by_pings() -> None:
    go = asyncio.Event()

    async def late(visit: Visit) -> None:
        await go.wait()
        await visit.say("hello")

    impatient = {"x-stainless-read-timeout": "0.2"}
    async with house(late, {"server": {"first_byte_grace": 0}}) as at, httpx.AsyncClient() as client:
        body = {"model": "m", "max_tokens": 5, "messages": USER, "stream": True}
        said = ""
        async with client.stream("POST", f"{at.url}/messages", json=body, headers=impatient) as answer:
            async for piece in answer.aiter_text():
                said += piece
                if said.count("event: ping") == 3:
                    go.set()
        told = events(said)
        assert [event["type"] for event in told[:4]] == ["message_start", "ping", "ping", "ping"]
        assert (text(told), told[-1]["type"]) == ("hello", "message_stop")


async def test_a_failure_in_a_stream_is_an_event_and_a_cut_connection() -> None:
    async def breaks(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "hello"})
        await visit.event({"error": {"message": "the engine died", "code": "engine_dead"}})
        await visit.end_stream()

    said = ""
    async with house(breaks) as at, httpx.AsyncClient() as client:
        body = {"model": "m", "max_tokens": 5, "messages": USER, "stream": True}
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("POST", f"{at.url}/messages", json=body) as answer:
                async for piece in answer.aiter_text():
                    said += piece
    *_, last = events(said)
    assert (last["type"], last["error"]["type"]) == ("error", "overloaded_error")
    assert last["request_id"] == answer.headers["request-id"]
    assert text(events(said)) == "hello"


async def test_a_client_that_leaves_ends_the_call() -> None:
    async def endless(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "hello"})
        await visit.until_closed()
        visit.closed.set()

    async with house(endless) as at, httpx.AsyncClient() as client:
        body = {"model": "m", "max_tokens": 5, "messages": USER, "stream": True}
        async with client.stream("POST", f"{at.url}/messages", json=body) as answer:
            await soon(anext(answer.aiter_raw()))
        await soon(at.container.visits[0].closed.wait())


@pytest.mark.parametrize("path", ["/messages", COUNT])
async def test_refusals_have_this_apis_envelope(path: str) -> None:
    async with house(greet, {**KEYS, "server": {"max_body": 1024}}) as at:
        key = {"x-api-key": "sk-one", "anthropic-version": "2023-06-01"}
        assert error(await ask(at, path)) == (401, "authentication_error")
        assert error(await ask(at, path, {"x-api-key": "sk-two"})) == (401, "authentication_error")
        assert error(await ask(at, path, key, model="x")) == (404, "not_found_error")
        assert error(await ask(at, path, key, temperature=2)) == (400, "invalid_request_error")
        assert error(await ask(at, path, key, system="x" * 1024)) == (413, "request_too_large")
        for name, value in key.items() | {("authorization", "Bearer sk-one")}:
            wanted = 401 if name == "anthropic-version" else 200
            assert (await ask(at, path, {name: value})).status_code == wanted
        assert len(at.container.visits) == (2 if path == "/messages" else 0)


async def test_without_keys_only_this_machine_is_answered_and_only_json() -> None:
    async with house(greet) as at:
        for path in ("/messages", COUNT):
            assert error(await ask(at, path, {"host": "evil.example"})) == (403, "permission_error")
            async with httpx.AsyncClient() as client:
                form = await client.post(at.url + path, content=b"{}", headers={"content-type": "text/plain"})
            assert error(form) == (415, "invalid_request_error")


async def test_what_has_no_effect_is_told_and_who_asked_is_recorded() -> None:
    async with house(greet) as at:
        answer = await ask(at, cache_control={"type": "ephemeral"}, metadata={"user_id": "someone"}, x=1)
        assert answer.headers["x-gateway-ignored"] == "cache_control, x"
        assert answer.headers["x-gateway-usage"] == "upstream"


async def test_images_reach_a_container_that_takes_them() -> None:
    png = "iVBORw0KGgo="
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}}
    elsewhere = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    async with house(greet, images=True, image_token="<image>") as at:
        for path in ("/messages", COUNT):
            said = [{"role": "user", "content": [{"type": "text", "text": "what?"}, image]}]
            assert (await ask(at, path, messages=said)).status_code == 200
            said = [{"role": "user", "content": "look"}, {"role": "user", "content": [image, elsewhere]}]
            refused = await ask(at, path, system="x", messages=said)
            assert error(refused) == (400, "invalid_request_error")
            assert refused.json()["error"]["message"].startswith("messages[1].content[1].source: ")
        [visit] = at.container.visits
        assert visit.json["images"] == [f"data:image/png;base64,{png}"]
        assert "<image>" in visit.json["prompt"]


async def test_json_is_asked_for_and_judged() -> None:
    async def answers(visit: Visit) -> None:
        await visit.say('Here: {"a": 1}')

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    async with house(answers, template="chatml") as at:
        answer = await ask(at, output_config={"format": {"type": "json_schema", "schema": schema}})
        assert answer.json()["content"][0]["text"] == '{"a": 1}'
        assert answer.headers["x-gateway-json"] == "validated"


# --- counting ---


async def test_tokens_are_counted_without_calling_anybody() -> None:
    async with house(greet, template="chatml") as at:
        short, long = await ask(at, COUNT), await ask(at, COUNT, system="Be brief. " * 20)
        assert set(short.json()) == {"input_tokens"}
        assert short.headers["x-gateway-usage"] == "estimate"
        assert 0 < short.json()["input_tokens"] < long.json()["input_tokens"]
        tools = await ask(at, COUNT, tools=[ADD])
        assert tools.json()["input_tokens"] > short.json()["input_tokens"]
        assert at.container.visits == []


async def test_a_count_is_what_an_answer_says_of_the_same_messages() -> None:
    async def silent(visit: Visit) -> None:
        await visit.answer({"prompt": "hello"})

    async with house(silent, template="chatml") as at:
        counted = (await ask(at, COUNT, system="Be brief.")).json()["input_tokens"]
        assert (await ask(at, system="Be brief.")).json()["usage"]["input_tokens"] == counted


async def test_the_models_tokenizer_counts_exactly(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, "[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    async with house(greet, tokenizer=str(tmp_path / "tokenizer.json")) as at:
        answer = await ask(at, COUNT, messages=[{"role": "user", "content": "one two three"}])
        assert (answer.json(), answer.headers["x-gateway-usage"]) == ({"input_tokens": 3}, "tokenizer")
        stream = events((await ask(at, messages=[{"role": "user", "content": "a b"}], stream=True)).text)
        assert stream[0]["message"]["usage"]["input_tokens"] == 2


async def test_messages_for_a_chat_server_are_estimated_without_their_images() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 4000}}
    called = [{"type": "tool_use", "id": "c", "name": "add", "input": {"a": 1}}]
    said = [
        {"role": "user", "content": [{"type": "text", "text": "what?"}, image]},
        {"role": "assistant", "content": called},
    ]
    async with house(greet, upstream={"kind": "openai"}, images=True) as at:
        answer = await ask(at, COUNT, messages=said, tools=[ADD])
        assert 10 < answer.json()["input_tokens"] < 100
        assert answer.headers["x-gateway-usage"] == "estimate"
        assert at.container.visits == []


FIELDS = (
    "system", "max_tokens", "stop_sequences", "stream", "temperature", "top_k", "metadata", "thinking",
    "tools", "tool_choice", "output_config", "output_format", "service_tier", "cache_control",
    "chat_template_kwargs", "x",
)  # fmt: skip
kinds = st.sampled_from(["text", "image", "tool_use", "tool_result", "thinking", "document"])
blocks = st.dictionaries(
    st.sampled_from(["type", "text", "source", "content", "tool_use_id", "id", "name", "input", "thinking"]),
    values | kinds,
)
speakers = st.sampled_from(["user", "assistant", "system"])
turns = st.fixed_dictionaries({"role": speakers, "content": values | st.lists(blocks, max_size=3)})


@given(st.lists(turns, max_size=3) | values, st.dictionaries(st.sampled_from(FIELDS), values, max_size=4))
def test_any_request_gets_an_answer_or_an_error_of_its_own(messages: Any, fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "max_tokens": 5, "messages": messages, **fields}).encode()
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        status, answer = asyncio.run(straight(body, path))
        refused = 400 <= status < 500 and json.loads(answer)["type"] == "error"
        assert status == 200 or refused, (status, answer)
