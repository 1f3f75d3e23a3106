"""Requests: what OpenAI accepts is accepted, what is wrong is named."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.core.wire import parse_chat, text_of

USER = [{"role": "user", "content": "hi"}]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("messages", "model", "stream", "n", "stop", "max_tokens", "logprobs", "logit_bias", "tools", "seed")


def body(**fields: Any) -> bytes:
    return json.dumps({"messages": USER, **fields}).encode()


def refused(data: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse_chat(data)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [USER[0], {"role": "user", "name": 3}]}, "messages[1].name"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"stream": "true"}, "stream"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"top_p": -0.1}, "top_p"),
        ({"seed": 1 << 70}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a", 5]}, "stop[1]"),
        ({"stop": [str(i) for i in range(17)]}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"tools": {}}, "tools"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": "x"}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": [5]}]}]}, "messages[0].tool_calls[0].id"),
        ({"messages": [{"role": "assistant", "tool_calls": [5]}]}, "messages[0].tool_calls[0]"),
        ({"response_format": "json"}, "response_format"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    error = refused(body(**fields))
    assert error.status == 400
    assert error.param == param
    assert error.message.startswith(param)


def test_bad_json_is_placed() -> None:
    error = refused(b'{"messages": [}')
    assert error.code == "invalid_json"
    assert "line 1 column 15" in error.message


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'"x"', b"\xff\xfe", b"{" * 100_000, b"[" * 100_000])
def test_what_is_no_object_is_a_400(data: bytes) -> None:
    assert refused(data).status == 400


@pytest.mark.parametrize("number", ["1e999", "NaN", "Infinity", "-1e999"])
def test_numbers_beyond_json_are_refused(number: str) -> None:
    for field in (b"temperature", b"unknown"):
        start = b'{"messages": [{"role": "user", "content": "hi"}], "%s": ' % field
        assert refused(start + number.encode() + b"}").status == 400


def test_a_missing_field_says_required() -> None:
    assert refused(b"{}").message == "messages is required."


def test_no_input_value_is_repeated() -> None:
    assert "secret" not in refused(body(temperature="secret")).message


def test_null_is_absent() -> None:
    request = parse_chat(body(stop=None, n=None, temperature=None, tools=None, x=None))
    assert (request.stop, request.n, request.temperature, request.tools) == (None, None, None, None)


def test_unknown_fields_are_kept() -> None:
    assert parse_chat(body(best_of=3, x={"y": 1})).model_extra == {"best_of": 3, "x": {"y": 1}}


def test_too_many_unknown_fields_are_refused() -> None:
    assert refused(body(**{f"x{i}": 1 for i in range(65)})).status == 400


@pytest.mark.parametrize(("stop", "kept"), [("a", ["a"]), (["a", ""], ["a"]), ("", []), ([], [])])
def test_stop_takes_one_or_many_and_empty_ones_do_not_count(stop: Any, kept: list[str]) -> None:
    assert parse_chat(body(stop=stop)).stop == kept


def test_sixteen_stops_are_accepted() -> None:
    assert len(parse_chat(body(stop=[*(str(i) for i in range(16)), ""])).stop or []) == 16


def test_every_role_and_shape_of_content_is_accepted() -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": [{"type": "text", "text": "d"}]},
        {"role": "user", "content": "u", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
        {"role": "tool", "content": "t", "tool_call_id": "1"},
        {"role": "function", "content": "f", "name": "f"},
    ]
    request = parse_chat(body(messages=messages))
    assert [text_of(m["content"], "x") for m in request.messages] == ["s", "d", "u", "", "t", "f"]


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ([{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}], "c[0].type"),
        ([{"type": "text", "text": "a"}, {"type": "text"}], "c[1].text"),
        (["a"], "c[0]"),
        (7, "c"),
        ({"type": "text"}, "c"),
    ],
)
def test_other_parts_are_refused_by_name(content: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        text_of(content, "c")
    assert caught.value.param == param
    assert "example.com" not in caught.value.message


@given(anything, st.dictionaries(st.sampled_from(FIELDS), anything))
def test_any_json_is_a_request_or_a_400(value: Any, fields: dict[str, Any]) -> None:
    for data in (value, fields, {"messages": USER, **fields}):
        try:
            parse_chat(json.dumps(data).encode())
        except BadRequest as error:
            assert error.message


@given(st.binary(max_size=64))
def test_any_bytes_are_a_request_or_a_400(data: bytes) -> None:
    refused(data)


def test_a_text_may_speak_of_nan() -> None:
    assert parse_chat(body(messages=[{"role": "user", "content": "NaN, Infinity and 1e999"}]))
