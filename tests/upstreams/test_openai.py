"""Kind ``openai``: what is sent, and what servers of that API send back."""

from typing import Any

import pytest
from orjson import dumps, loads

from gateway.core.call import ChatCall, PromptCall, Traits
from gateway.core.events import Finish, Text
from gateway.upstreams.openai import OpenAIConfig, OpenAIUpstream
from tests.upstreams import fake
from tests.upstreams.calling import AT, chat, chatting, outcome
from tests.upstreams.conformance import KITS, chunks, delta
from tests.upstreams.fake import soon

URL = "http://127.0.0.1:1/v1"
MESSAGES = [{"role": "user", "content": "hi"}]


def sent(call: ChatCall, **config: Any) -> Any:
    """The JSON body of this call."""
    return loads(OpenAIUpstream("m-0", OpenAIConfig(url=URL, **config), model="m", at=AT).body(call))


@pytest.mark.parametrize(
    ("call", "config", "wanted"),
    [
        (ChatCall({"messages": MESSAGES}), {}, {"messages": MESSAGES, "model": "m"}),
        (ChatCall({"messages": MESSAGES}), {"model": "vicuna"}, {"messages": MESSAGES, "model": "vicuna"}),
        (
            ChatCall({"messages": MESSAGES, "seed": 1}, stream=True),
            {},
            {
                "messages": MESSAGES, "model": "m", "seed": 1, "stream": True,
                "stream_options": {"include_usage": True},
            },
        ),
        (
            ChatCall({"messages": MESSAGES, "max_tokens": 5}, stream=True),
            {"request_fields": {"stream_options": None, "max_tokens": "max_completion_tokens"}},
            {"messages": MESSAGES, "model": "m", "max_completion_tokens": 5, "stream": True},
        ),
    ],
)  # fmt: skip
def test_the_body_is_what_the_config_says(call: ChatCall, config: dict[str, Any], wanted: Any) -> None:
    assert sent(call, **config) == wanted


def test_without_a_model_name_the_models_own_is_sent() -> None:
    upstream = OpenAIUpstream("label", OpenAIConfig(url=URL))
    assert loads(upstream.body(ChatCall({})))["model"] == "label"


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("v1", "/v1/chat/completions"),
        ("v1/", "/v1/chat/completions"),
        ("", "/chat/completions"),
        ("v1/chat/completions", "/v1/chat/completions"),
        ("v1?x=1", "/v1/chat/completions?x=1"),
    ],
)
async def test_where_chats_are_posted(path: str, wanted: str) -> None:
    async with fake.serving(fake.always(KITS["openai"].whole)) as server:
        async with chatting(server.url + path) as upstream:
            assert (await soon(outcome(upstream, chat()))).text == "he llo"
        assert [request.path for request in server.requests] == [wanted]


@pytest.mark.parametrize("path", ["v1", "v1/", "v1/chat/completions", "v1/completions", "v1/embeddings"])
async def test_where_bare_texts_are_posted(path: str) -> None:
    answer = {"choices": [{"text": "he llo", "index": 0, "finish_reason": "stop"}]}
    async with fake.serving(fake.always(fake.response(dumps(answer)))) as server:
        async with chatting(server.url + path) as upstream:
            got = await soon(outcome(upstream, PromptCall("hi", {"max_tokens": 5}, {"x": 1})))
            assert got.text == "he llo"
        [request] = server.requests
        assert request.path == "/v1/completions"
        assert loads(request.body) == {"model": "m", "prompt": "hi", "max_tokens": 5, "x": 1}


def test_traits() -> None:
    assert OpenAIConfig(url=URL).traits == Traits("chat", True, "auto", "never", frozenset())
    assert OpenAIConfig(url=URL, stream="none", whole="plain", forward="all").traits == Traits(
        "chat", False, "plain", "never", "all"
    )


@pytest.mark.parametrize("kind", ["text/event-stream; charset=utf-8", "text/plain", ""])
async def test_a_stream_is_known_by_its_type_or_by_having_asked(kind: str) -> None:
    body = chunks(delta("a"), delta(None, "stop"), fake.event("[DONE]"))
    answer = fake.head(kind) + body + fake.LAST_CHUNK
    async with fake.serving(fake.always(answer)) as server, chatting(server.url) as upstream:
        assert (await soon(outcome(upstream, chat()))).events == [Text("a"), Finish("stop")]


async def test_a_server_that_refuses_stream_options_is_told_apart() -> None:
    refusal = fake.response(
        b'{"error":{"message":"Unknown field: stream_options","type":"invalid_request_error"}}',
        status="400 Bad Request",
    )
    async with fake.serving(fake.always(refusal)) as server:
        async with chatting(server.url) as upstream:
            failure = (await soon(outcome(upstream, chat()))).failure
        assert (failure.status, failure.code) == (502, "upstream_refused")
        assert "models.m.upstream.request_fields: {stream_options: null}" in failure.message
        async with chatting(server.url, request_fields={"stream_options": None}) as upstream:
            failure = (await soon(outcome(upstream, chat()))).failure
        assert failure.status == 400


async def test_usage_comes_after_the_finish_reason() -> None:
    answer = KITS["openai"].first + KITS["openai"].rest
    async with fake.serving(fake.always(answer)) as server, chatting(server.url) as upstream:
        usage = (await soon(outcome(upstream, chat()))).finish.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 2)
