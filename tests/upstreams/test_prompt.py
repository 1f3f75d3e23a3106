"""Kind ``prompt``: what is sent for each config key, and how each form of answer is read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orjson import loads

from gateway.core.call import PromptCall, Traits
from gateway.core.errors import BadRequest
from gateway.core.events import Finish, Text, Usage
from gateway.upstreams.body import rename
from gateway.upstreams.prompt import PromptConfig, PromptUpstream
from tests.upstreams import fake
from tests.upstreams.calling import AT, ask, asked
from tests.upstreams.conformance import chunks

URL = "http://127.0.0.1:1/"


def sent(call: PromptCall, **config: Any) -> Any:
    """The JSON body of this call."""
    return loads(PromptUpstream("m", PromptConfig(url=URL, **config), model="m", at=AT).body(call))


PLAIN = PromptCall("hi", {}, request_id="req_1")
FULL = PromptCall(
    "hi",
    {"max_tokens": 5, "temperature": 0.5, "stop": ["a"], "logit_bias": {"1": -100}},
    unknown={"best_of": 2, "prompt": "not this", "max_tokens": 9},
    stream=True,
    request_id="req_1",
)
ARGUMENTS = {"max_tokens": 5, "temperature": 0.5, "stop": ["a"], "logit_bias": {"1": -100}}


@pytest.mark.parametrize(
    ("call", "config", "wanted"),
    [
        (PLAIN, {}, {"prompt": "hi"}),
        (FULL, {}, {"prompt": "hi", **ARGUMENTS, "best_of": 2, "stream": True}),
        (PLAIN, {"model": "big"}, {"prompt": "hi", "model": "big"}),
        (PLAIN, {"stream": "none"}, {"prompt": "hi"}),
        (FULL, {"request_fields": {"stream": None, "best_of": None}}, {"prompt": "hi", **ARGUMENTS}),
        (PLAIN, {"request_fields": {"prompt": "inputs", "seed": "x.y"}}, {"inputs": "hi"}),
        (PLAIN, {"request_fields": {"request_id": "request_id"}}, {"prompt": "hi", "request_id": "req_1"}),
        (PLAIN, {"request_fields": {"request_id": "meta.id"}}, {"prompt": "hi", "meta": {"id": "req_1"}}),
        (
            FULL,
            {
                "request_fields": {
                    "prompt": "inputs",
                    "max_tokens": "parameters.max_new_tokens",
                    "temperature": "parameters.temperature",
                    "stop": "parameters.stop.sequences",
                    "logit_bias": None,
                    "stream": None,
                }
            },
            {
                "inputs": "hi",
                "best_of": 2,
                "parameters": {"max_new_tokens": 5, "temperature": 0.5, "stop": {"sequences": ["a"]}},
            },
        ),
    ],
)
def test_the_body_is_what_the_config_says(call: PromptCall, config: dict[str, Any], wanted: Any) -> None:
    assert sent(call, **config) == wanted


def test_renamed_fields_go_into_an_object_that_is_there_and_leave_it_as_it_was() -> None:
    own = {"x": 1}
    body = {"parameters": own, "max_tokens": 5, "top_k": 2}
    fields = {"max_tokens": "parameters.max_new_tokens", "top_k": "parameters.top_k"}
    assert rename(body, fields) == {"parameters": {"x": 1, "max_new_tokens": 5, "top_k": 2}}
    assert own == {"x": 1}
    assert rename({"parameters": "text", "max_tokens": 5}, fields) == {"parameters": {"max_new_tokens": 5}}


NAMES = st.sampled_from(["a", "b", "c", "d"])


@given(
    st.dictionaries(NAMES, st.integers() | st.dictionaries(NAMES, st.integers(), max_size=2)),
    st.dictionaries(NAMES, st.none() | st.sampled_from(["x", "x.y", "a.b", "b.c.d"]), max_size=2),
)
def test_renaming_changes_nothing_that_was_passed_in(
    body: dict[str, Any], fields: dict[str, str | None]
) -> None:
    before = repr(body)
    renamed = rename(body, fields)
    assert repr(body) == before
    assert {name: value for name, value in body.items() if name not in fields}.keys() <= renamed.keys()


@pytest.mark.parametrize("value", [2**70, "\ud800", {"a": [None] * 3, "b": "\udfff"}])
def test_what_cannot_be_sent_is_the_clients_fault(value: Any) -> None:
    with pytest.raises(BadRequest):
        sent(PromptCall("hi", {}, unknown={"x": value}))


def test_nesting_without_end_is_the_clients_fault() -> None:
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(BadRequest):
        sent(PromptCall("hi", {}, unknown={"x": deep}))


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, Traits("prompt", True, "auto", "auto", frozenset())),
        (
            {"stream": "none", "whole": "plain", "echo": "always", "forward": "all"},
            Traits("prompt", False, "plain", "always", "all"),
        ),
        (
            {"stream": "sse", "whole": "stream", "echo": "never", "forward": ["a", "b"]},
            Traits("prompt", True, "stream", "never", frozenset({"a", "b"})),
        ),
    ],
)
def test_traits_tell_the_plan_what_it_must_know(config: dict[str, Any], wanted: Traits) -> None:
    assert PromptConfig(url=URL, **config).traits == wanted


# --- how answers are read ---

EVENTS = [
    {"prompt": "he"},
    {"prompt": "llo"},
    {"finish_reason": "length", "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
]
SSE = b"".join(map(fake.event, EVENTS)) + fake.event("[DONE]")
LINES = b"".join(fake.event(value)[6:-1] for value in EVENTS)
WHOLE = b'{"prompt":"hello","finish_reason":"length"}'


def streamed(body: bytes, kind: str) -> bytes:
    return fake.head(kind) + (fake.chunk(body) if body else b"") + fake.LAST_CHUNK


@pytest.mark.parametrize(
    ("mode", "stream", "kind", "body", "reason"),
    [
        ("auto", True, "text/event-stream", SSE, "length"),
        ("auto", True, "Text/Event-Stream; charset=utf-8", SSE, "length"),
        ("auto", False, "text/event-stream", SSE, "length"),
        ("auto", True, "application/x-ndjson", LINES, "length"),
        ("auto", True, "application/jsonl", LINES, "length"),
        ("auto", True, "application/json-lines", LINES, "length"),
        ("auto", True, "application/json", WHOLE, "length"),  # it ignores `stream`
        ("auto", False, "application/json; charset=utf-8", WHOLE, "length"),
        ("auto", False, "application/vnd.x+json", WHOLE, "length"),
        ("auto", True, "text/plain; charset=utf-8", b"hello", "stop"),
        ("auto", True, "", b"hello", "stop"),
        ("none", False, "text/plain", WHOLE, "length"),
        ("none", False, "application/json", WHOLE, "length"),
        ("sse", True, "text/plain", SSE, "length"),
        ("sse", True, "application/json", WHOLE, "length"),
        ("sse", False, "application/json", WHOLE, "length"),
        ("ndjson", True, "application/json", LINES, "length"),
        ("ndjson", False, "application/json", WHOLE, "length"),
        ("ndjson", True, "text/plain", LINES, "length"),
        ("text", True, "text/html", b"hello", "stop"),
        ("text", True, "application/json", b"hello", "stop"),
        ("text", False, "application/json", WHOLE, "length"),
    ],
)
async def test_an_answer_is_read_as_what_it_is(
    mode: str, stream: bool, kind: str, body: bytes, reason: str
) -> None:
    async with fake.serving(fake.always(streamed(body, kind))) as server:
        got = await asked(server.url, ask(stream), stream=mode)
    assert got.text == "hello"
    assert got.finish.reason == reason


@pytest.mark.parametrize("kind", ["text/html", "image/png", "application/xml", "a" * 200, "x/y\x7f"])
async def test_an_answer_of_another_type_is_an_error(kind: str) -> None:
    async with fake.serving(fake.always(streamed(b"hello", kind))) as server:
        failure = (await asked(server.url)).failure
    assert (failure.status, failure.code) == (502, "upstream_bad_response")
    assert failure.message.isprintable()
    assert len(failure.message) < 250


@pytest.mark.parametrize(
    ("config", "answer", "text"),
    [
        ({"response_field": "prediction"}, {"prediction": "x"}, "x"),
        ({"response_field": "0.generated_text"}, [{"generated_text": "x"}], "x"),
        ({"cumulative": True}, {"prompt": "x"}, "x"),
    ],
)
async def test_config_keys_of_the_answer(config: dict[str, Any], answer: Any, text: str) -> None:
    import json

    async with fake.serving(fake.always(fake.response(json.dumps(answer).encode()))) as server:
        got = await asked(server.url, **config)
        assert got.events == [Text(text), Finish()]


async def test_cumulative_streams() -> None:
    events = chunks(
        *[fake.event({"prompt": text}) for text in ("he", "hello", "hello")], fake.event("[DONE]")
    )
    async with fake.serving(fake.always(fake.head() + events + fake.LAST_CHUNK)) as server:
        assert (await asked(server.url, cumulative=True)).text == "hello"


async def test_lines_without_a_marker() -> None:
    answer = streamed(LINES.rsplit(b"\n", 2)[0], "application/x-ndjson")
    async with fake.serving(fake.always(answer)) as server:
        got = await asked(server.url, ends="eof")
        assert (got.text, got.finish.reason) == ("hello", "stop")
        failure = (await asked(server.url)).failure
        assert failure.code == "upstream_cut"
        assert "models.m.upstream.ends: eof" in failure.message


async def test_lines_without_a_marker_that_are_cut_are_no_answer() -> None:
    async with fake.serving(fake.once(fake.head("application/x-ndjson") + fake.chunk(LINES[:16]))) as server:
        assert (await asked(server.url, ends="eof")).failure.code == "upstream_cut"


async def test_an_empty_body_is_an_answer_only_as_text() -> None:
    for kind, code in (
        ("text/plain", None),
        ("", "upstream_cut"),
        ("application/json", "upstream_bad_response"),
    ):
        async with fake.serving(fake.always(fake.response(b"", kind))) as server:
            got = await asked(server.url)
            assert (got.error.code if got.error else None) == code
    async with fake.serving(fake.always(streamed(b"", "text/event-stream"))) as server:
        assert (await asked(server.url)).failure.code == "upstream_cut"


async def test_usage_and_finish_after_the_text_are_waited_for() -> None:
    """The finish reason comes in one read, the usage in the next."""
    import asyncio

    async def script(peer: fake.Peer) -> None:
        await peer.request()
        await peer.send(fake.head() + chunks(fake.event({"prompt": "x", "finish_reason": "stop"})))
        await asyncio.sleep(0.05)
        usage = fake.event({"usage": {"prompt_tokens": 1, "completion_tokens": 1}})
        await peer.send(chunks(usage, fake.event("[DONE]")))
        await peer.gone()

    async with fake.serving(script) as server:
        got = await asked(server.url)
        assert got.finish == Finish("stop", Usage(1, 1))


async def test_a_server_that_hangs_after_the_finish_reason_does_not_hold_the_answer() -> None:
    async def script(peer: fake.Peer) -> None:
        await peer.request()
        await peer.send(fake.head() + chunks(fake.event({"prompt": "x", "finish_reason": "stop"})))
        await peer.gone()

    async with fake.serving(script) as server:
        got = await asked(server.url)
        assert (got.text, got.finish.reason) == ("x", "stop")
        await server.left()
