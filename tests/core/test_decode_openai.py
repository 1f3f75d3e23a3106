"""Answers of chat servers, as OpenAI's API says and as its many servers write them."""

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.decode.failure import Place
from gateway.core.decode.openai import MAX_TOOLS, OpenAIDecoder
from gateway.core.errors import GatewayError, UpstreamBadRequest, UpstreamError, UpstreamUnavailable
from gateway.core.events import Event, Extra, Finish, Reasoning, Text, ToolArgs, ToolStart, Usage

DONE = b"[DONE]"


def decoder() -> OpenAIDecoder:
    numbers = count()
    return OpenAIDecoder(Place("models.m.upstream"), lambda: f"call_{next(numbers)}")


def dumped(*values: Any) -> list[bytes]:
    return [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]


def streamed(*values: Any) -> list[Event]:
    """All events of a stream of these payloads, one read each."""
    made = decoder()
    events = [event for payload in dumped(*values) for event in made.feed([payload])]
    if made.failed:
        raise made.failed
    return events + made.end()


def whole(value: Any) -> list[Event]:
    return decoder().whole(*dumped(value))


def part(delta: Any = None, reason: str | None = None, **choice: Any) -> dict[str, Any]:
    """One chunk."""
    first = {"index": 0, "delta": delta or {}, "finish_reason": reason, **choice}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [first]}


def message(content: Any = None, reason: str = "stop", **fields: Any) -> dict[str, Any]:
    first = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **fields},
        "finish_reason": reason,
    }
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [first]}


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_a_stream_is_its_deltas_and_one_finish() -> None:
    values = [
        part({"role": "assistant", "content": ""}), part({"content": "he"}), part({"content": "llo"}),
        part({}, "length"), {"choices": [], "usage": USAGE}, DONE,
    ]  # fmt: skip
    assert streamed(*values) == [Text("he"), Text("llo"), Finish("length", Usage(3, 2))]
    made = decoder()
    assert made.feed(dumped(*values)) + made.end() == streamed(*values)


def test_usage_may_come_in_the_last_chunk() -> None:
    assert streamed(part({"content": "a"}), {**part({}, "stop"), "usage": USAGE}) == [
        Text("a"), Finish("stop", Usage(3, 2)),
    ]  # fmt: skip


def test_the_latest_of_continuous_usage_counts() -> None:
    early = {**part({"content": "a"}), "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    assert streamed(early, {**part({}, "stop"), "usage": USAGE})[-1] == Finish("stop", Usage(3, 2))


def test_a_whole_answer_gives_the_same_events() -> None:
    assert whole({**message("hello", "length"), "usage": USAGE}) == [
        Text("hello"),
        Finish("length", Usage(3, 2)),
    ]
    assert whole(message(None)) == [Finish("stop")]


def test_only_the_first_choice_is_ours() -> None:
    second = {"index": 1, "delta": {"content": "b"}, "finish_reason": None}
    both = part({"content": "a"})
    both["choices"].append(second)
    assert streamed(both, {"choices": [second]}, part({}, "stop")) == [Text("a"), Finish("stop")]


def test_logprobs_come_with_their_text() -> None:
    entry = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    logprobs = {"content": [entry], "refusal": None}
    wanted = [Text("a", (entry,)), Finish("stop")]
    assert streamed(part({"content": "a"}, logprobs=logprobs), part({}, "stop")) == wanted
    answer = message("a")
    answer["choices"][0]["logprobs"] = logprobs
    assert whole(answer) == wanted


def texted(text: Any, reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    """An answer to a bare text, or a piece of one."""
    choice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": reason}
    return {"object": "text_completion", "choices": [choice]}


def test_answers_to_bare_texts_give_the_same_events() -> None:
    assert whole({**texted("hello", "length"), "usage": USAGE}) == [
        Text("hello"),
        Finish("length", Usage(3, 2)),
    ]
    pieces = streamed(texted("he"), texted("llo"), texted("", "stop"))
    assert pieces == [Text("he"), Text("llo"), Finish("stop")]
    assert whole(texted("", "stop")) == [Finish("stop")]


def test_their_logprobs_stand_side_by_side() -> None:
    lists = {"tokens": ["a", "b"], "token_logprobs": [None, -1], "top_logprobs": [None, {"b": -1, "c": -2}]}
    [text, _] = whole(texted("ab", "stop", lists))
    assert isinstance(text, Text) and text.logprobs
    assert [(entry["token"], entry["logprob"]) for entry in text.logprobs] == [("a", -9999.0), ("b", -1)]
    assert [[top["token"] for top in entry["top_logprobs"]] for entry in text.logprobs] == [[], ["b", "c"]]


@pytest.mark.parametrize(
    "lists",
    [
        {"tokens": ["a"], "token_logprobs": []},
        {"tokens": "a", "token_logprobs": "b"},
        {"tokens": [1], "token_logprobs": [-1]},
        {"tokens": ["a"], "token_logprobs": ["x"], "top_logprobs": [{"a": "x"}]},
        {"tokens": ["a"]},
    ],
)
def test_lists_that_do_not_match_count_as_none(lists: Any) -> None:
    assert whole(texted("a", "stop", lists)) == [Text("a"), Finish("stop")]


def test_reasoning_under_either_name() -> None:
    for name in ("reasoning_content", "reasoning"):
        assert streamed(part({name: "hm"}), part({"content": "a"}), part({}, "stop")) == [
            Reasoning("hm"), Text("a"), Finish("stop"),
        ]  # fmt: skip
        assert whole(message("a", **{name: "hm"})) == [Reasoning("hm"), Text("a"), Finish("stop")]
    both = {"reasoning": "hm", "reasoning_content": "hm"}
    assert streamed(part(both), DONE) == [Reasoning("hm"), Finish("stop")]


def test_unknown_fields_of_a_delta_survive() -> None:
    fields = {"refusal": "no", "annotations": [{"x": 1}], "audio": None}
    wanted = Extra({"refusal": "no", "annotations": [{"x": 1}]})
    assert streamed(part(fields), part({}, "stop")) == [wanted, Finish("stop")]
    assert whole(message("a", **fields)) == [Text("a"), wanted, Finish("stop")]


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert whole(message(parts)) == [Text("ab"), Finish("stop")]


def call(index: int | None = 0, id: str | None = None, name: str | None = None, arguments: Any = None) -> Any:
    made: dict[str, Any] = {"function": {}} if index is None else {"index": index, "function": {}}
    if id is not None:
        made |= {"id": id, "type": "function"}
    made["function"] |= {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    return made


TWO = [
    ToolStart(0, "a", "f"), ToolArgs(0, '{"x"'), ToolArgs(0, ":1}"),
    ToolStart(1, "b", "g"), ToolArgs(1, "{}"), Finish("tool_calls"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("calls", "wanted"),
    [
        pytest.param(
            [
                call(0, "a", "f", ""),
                call(0, None, None, '{"x"'),
                call(0, None, None, ":1}"),
                call(1, "b", "g", "{}"),
            ],
            TWO,
            id="OpenAI",
        ),
        pytest.param(
            [call(0, "a", "f", '{"x"'), call(0, "a", "f", ":1}"), call(1, "b", "g", "{}")],
            TWO,
            id="id and name repeated",
        ),
        pytest.param(
            [call(0, "a", "f", '{"x"'), call(0, "z", None, ":1}"), call(1, "b", "g", "{}")],
            TWO,
            id="a new id each time",
        ),
        pytest.param(
            [call(None, "a", "f", '{"x"'), call(None, None, None, ":1}"), call(None, "b", "g", "{}")],
            TWO,
            id="no index",
        ),
        pytest.param(
            [call(0, "a", "f", '{"x"'), call(0, None, None, ":1}"), call(0, "b", "g", "{}")],
            TWO,
            id="always index 0",
        ),
        pytest.param(
            [call(3, "a", "f", '{"x"'), call(3, None, None, ":1}"), call(7, "b", "g", "{}")],
            TWO,
            id="odd indexes",
        ),
        pytest.param(
            [call(0, None, "f", {"x": 1})],
            [ToolStart(0, "call_0", "f"), ToolArgs(0, '{"x":1}'), Finish("tool_calls")],
            id="no id, arguments as an object",
        ),
    ],
)
def test_tool_calls_have_an_index_and_their_id_and_name_once(calls: list[Any], wanted: list[Event]) -> None:
    end = part({}, "tool_calls")
    assert streamed(*[part({"tool_calls": [one]}) for one in calls], end) == wanted
    assert streamed(part({"tool_calls": calls}), end) == wanted
    assert streamed(part({"tool_calls": calls}, "tool_calls")) == wanted


def test_whole_tool_calls_have_no_index() -> None:
    calls = [call(None, "a", "f", '{"x":1}'), call(None, "b", "g", "{}")]
    assert whole(message(None, "tool_calls", tool_calls=calls)) == [
        ToolStart(0, "a", "f"), ToolArgs(0, '{"x":1}'),
        ToolStart(1, "b", "g"), ToolArgs(1, "{}"), Finish("tool_calls"),
    ]  # fmt: skip


def test_the_old_function_call_is_a_tool_call() -> None:
    parts = [{"name": "f", "arguments": ""}, {"arguments": "{"}, {"arguments": "}"}]
    events = streamed(*[part({"function_call": one}) for one in parts], part({}, "function_call"))
    assert events == [ToolStart(0, "call_0", "f"), ToolArgs(0, "{"), ToolArgs(0, "}"), Finish("tool_calls")]


@pytest.mark.parametrize(
    "calls", ["x", {"x": 1}, [1], [{}], [{"function": 1}], [call(0, None, None, "{}")], [call(0, "a", "")]]
)
def test_what_is_no_tool_call_is_an_error(calls: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        streamed(part({"tool_calls": calls}), DONE)
    assert caught.value.code == "upstream_bad_response"


NONE = {"function": {"name": "f", "arguments": None}}


def test_a_call_without_arguments_has_an_empty_object_of_them_unless_it_was_cut() -> None:
    events = [ToolStart(0, "call_0", "f"), ToolArgs(0, "{}"), Finish("tool_calls")]
    assert whole(message(None, "tool_calls", tool_calls=[NONE])) == events
    assert streamed(part({"tool_calls": [NONE]}), part({}, "tool_calls")) == events
    assert streamed(part({"tool_calls": [call(0, None, "f")]}), part({}, "tool_calls")) == events
    assert streamed(part({"tool_calls": [NONE]}), part({}, "length"))[-2:] == [events[0], Finish("length")]
    two = [part({"tool_calls": [each]}) for each in (call(0, "a", "f"), call(1, "b", "g", "[]"))]
    assert streamed(*two, part({}, "tool_calls"))[-3:-1] == [ToolArgs(1, "[]"), ToolArgs(0, "{}")]


def test_tool_calls_are_bounded() -> None:
    calls = [call(i, f"id{i}", "f", "{}") for i in range(MAX_TOOLS + 1)]
    assert len(streamed(part({"tool_calls": calls[:-1]}), DONE)) == 2 * MAX_TOOLS + 1
    with pytest.raises(UpstreamError):
        whole(message(None, tool_calls=calls))


@pytest.mark.parametrize(
    "values", [[part({"content": "a"})], [part({"role": "assistant"})], [{"choices": []}], [b""], []]
)
def test_a_stream_without_an_end_was_cut(values: Sequence[Any]) -> None:
    with pytest.raises(UpstreamError) as caught:
        streamed(*values)
    assert caught.value.code == "upstream_cut"


def test_an_answer_that_the_server_broke_off_is_no_answer() -> None:
    with pytest.raises(UpstreamError) as caught:
        streamed(part({"content": "a"}), part({}, "abort"), DONE)
    assert caught.value.code == "upstream_cut"


@pytest.mark.parametrize(
    "value",
    [
        1, "x", [], None, {"x": 1}, {"choices": None, "x": 1}, {"choices": {}}, {"choices": [1]},
        {"choices": [{"delta": 1}]}, {"choices": [{"delta": {"content": 1}}]}, b"{", b"hello",
    ],
)  # fmt: skip
def test_what_is_no_chat_completion_is_an_error(value: Any) -> None:
    for read in (streamed, whole):
        with pytest.raises(UpstreamError) as caught:
            read(value)
        assert caught.value.code == "upstream_bad_response"


def test_a_whole_answer_needs_a_message() -> None:
    for value in (
        {"choices": []},
        {"choices": [{"index": 1}]},
        {"choices": [{"message": "x"}]},
        {},
        {"usage": USAGE},
    ):
        with pytest.raises(UpstreamError) as caught:
            whole(value)
        assert caught.value.code == "upstream_bad_response"


def test_empty_chunks_are_signs_of_life() -> None:
    filtered = {"choices": [], "prompt_filter_results": []}  # Azure's first
    assert streamed(filtered, {}, part(None), {"choices": [{"index": 0}]}, DONE) == [Finish("stop")]


# --- FastChat 0.2.36 ---


def test_fastchats_chunks_without_object_and_created() -> None:
    def bare(delta: Any, reason: str | None = None) -> dict[str, Any]:
        return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    assert streamed(bare({"role": "assistant"}), bare({"content": "a"}), part({}, "stop"), DONE) == [
        Text("a"), Finish("stop"),
    ]  # fmt: skip


def test_fastchats_error_as_text_in_a_stream_is_an_error() -> None:
    made = decoder()
    error = {"text": "**NETWORK ERROR DUE TO HIGH TRAFFIC**", "error_code": 50002}
    assert made.feed(dumped(part({"content": "a"}), error, DONE)) == [Text("a")]
    assert isinstance(made.failed, UpstreamUnavailable)
    with pytest.raises(UpstreamUnavailable):
        streamed(error, DONE)


def test_errors_in_a_stream() -> None:
    with pytest.raises(UpstreamBadRequest):
        streamed({"error": {"message": "x", "type": "BadRequestError", "code": 400}})
    with pytest.raises(UpstreamError):
        streamed({"error": "Internal error"})


NAMES = [
    "choices", "delta", "message", "content", "index", "finish_reason", "tool_calls", "function", "name",
    "id",
    "arguments", "logprobs", "usage", "error", "reasoning", "function_call", "object", "code", "error_code",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3) | st.just("stop"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=4), st.booleans())
def test_nothing_that_json_can_hold_raises_anything_else(values: list[Any], as_delta: bool) -> None:
    chunks = [{"choices": [{"delta": value}]} for value in values] if as_delta else values
    with suppress(GatewayError):
        streamed(*chunks)
    for value in values:
        try:
            events = whole({"choices": [{"message": value}]} if as_delta else value)
        except GatewayError:
            continue
        assert isinstance(events[-1], Finish)
