"""Answers of prompt backends, as the contract says and as they really are."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.decode.failure import Place
from gateway.core.decode.prompt import PromptDecoder, Shape
from gateway.core.decode.text import TextDecoder
from gateway.core.errors import ContextTooLong, GatewayError, UpstreamBusy, UpstreamError, UpstreamUnavailable
from gateway.core.events import Event, Finish, Text, Usage

AT = "models.m.upstream"
DONE = b"[DONE]"


def decoder(field: str = "prompt", **shape: bool) -> PromptDecoder:
    return PromptDecoder(Shape.of(field, **shape), Place(AT))


def dumped(*values: Any) -> list[bytes]:
    return [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]


def streamed(*values: Any, made: PromptDecoder | None = None) -> list[Event]:
    """All events of a stream of these payloads, one read each."""
    made = made or decoder()
    events = [event for payload in dumped(*values) for event in made.feed([payload])]
    if made.failed:
        raise made.failed
    return events + made.end()


def whole(value: Any, made: PromptDecoder | None = None) -> list[Event]:
    return (made or decoder()).whole(*dumped(value))


def entry(token: str, logprob: float = -0.5, **rest: Any) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()), "top_logprobs": [], **rest}


# --- the contract ---


def test_a_stream_is_its_deltas_and_one_finish() -> None:
    end = {
        "prompt": "",
        "finish_reason": "length",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        "ignored": ["min_p"],
    }
    assert streamed({"prompt": "he"}, {"prompt": "llo"}, end, DONE) == [
        Text("he"), Text("llo"), Finish("length", Usage(3, 2), ignored=("min_p",)),
    ]  # fmt: skip


def test_payloads_of_one_read_give_what_they_give_one_by_one() -> None:
    values = [{"prompt": "a"}, {"prompt": "b", "logprobs": [entry("b")]}, {}, {"finish_reason": "stop"}, DONE]
    made = decoder()
    assert made.feed(dumped(*values)) + made.end() == streamed(*values)


def test_a_whole_answer_gives_the_same_events() -> None:
    answer = {
        "prompt": "hello",
        "finish_reason": "length",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    assert whole(answer) == [Text("hello"), Finish("length", Usage(3, 2))]
    assert whole({"prompt": "hello"}) == [Text("hello"), Finish("stop")]
    assert whole({"prompt": ""}) == [Finish("stop")]


def test_logprobs_come_with_their_text_in_openais_shape() -> None:
    top = [{"token": "a", "logprob": -0.5}, {"token": "b"}, {"nonsense": 1}]
    [text, _] = whole({"prompt": "a", "logprobs": [{"token": "a", "logprob": -0.5, "top_logprobs": top}]})
    assert text == Text(
        "a",
        (
            {
                "token": "a",
                "logprob": -0.5,
                "bytes": [97],
                "top_logprobs": [
                    {"token": "a", "logprob": -0.5, "bytes": [97]},
                    {"token": "b", "logprob": -9999.0, "bytes": [98]},
                ],
            },
        ),
    )


def test_the_end_marker_alone_is_an_end() -> None:
    assert streamed({"prompt": "a"}, DONE) == [Text("a"), Finish("stop")]
    assert streamed(DONE) == [Finish("stop")]


def test_nothing_after_the_end_marker_is_decoded() -> None:
    made = decoder()
    assert made.feed(dumped({"prompt": "a"}, b" [DONE] ", {"prompt": "b"}, b"garbage")) == [Text("a")]
    assert made.done


def test_a_finish_reason_is_noted_before_the_end_marker() -> None:
    made = decoder()
    made.feed(dumped({"prompt": "a"}))
    assert (made.said, made.done) == (False, False)
    made.feed(dumped({"finish_reason": "stop"}))
    assert (made.said, made.done) == (True, False)
    made.feed([DONE])
    assert (made.said, made.done) == (True, True)


@pytest.mark.parametrize("values", [[{"prompt": "a"}], [{"prompt": ""}], [{}], []])
def test_a_stream_without_an_end_was_cut(values: list[Any]) -> None:
    with pytest.raises(UpstreamError) as caught:
        streamed(*values)
    assert caught.value.code == "upstream_cut"
    assert f"{AT}.ends: eof" in caught.value.message


def test_a_backend_that_marks_no_end_may_end_with_its_body() -> None:
    assert streamed({"prompt": "a"}, made=decoder(ends_at_eof=True)) == [Text("a"), Finish("stop")]
    with pytest.raises(UpstreamError) as caught:  # nothing at all is no answer
        streamed(made=decoder(ends_at_eof=True))
    assert caught.value.code == "upstream_cut"


# --- what backends write ---


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("stop", "stop"), ("eos", "stop"), ("eos_token", "stop"), ("stop_sequence", "stop"), ("EOS", "stop"),
        ("length", "length"), ("max_tokens", "length"), ("max_length", "length"),
        ("max_new_tokens", "length"),
        ("tool_calls", "tool_calls"), ("content_filter", "content_filter"), ("something new", "stop"),
    ],
)  # fmt: skip
def test_finish_reasons_become_openais(written: str, reason: str) -> None:
    assert streamed({"prompt": "a", "finish_reason": written})[-1] == Finish(reason)


@pytest.mark.parametrize("written", [None, "", 1, True, [], {}])
def test_what_is_no_finish_reason_ends_nothing(written: Any) -> None:
    with pytest.raises(UpstreamError):
        streamed({"prompt": "a", "finish_reason": written})


@pytest.mark.parametrize("written", ["abort", "cancelled", "error"])
def test_an_answer_that_the_server_broke_off_is_no_answer(written: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        streamed({"prompt": "a"}, {"finish_reason": written}, DONE)
    assert caught.value.code == "upstream_cut"


@pytest.mark.parametrize(
    "usage",
    [
        None, 1, "x", [], {}, {"prompt_tokens": 1}, {"completion_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1}, {"prompt_tokens": "1", "completion_tokens": 1},
    ],
)  # fmt: skip
def test_usage_that_is_no_count_is_left_out(usage: Any) -> None:
    assert whole({"prompt": "a", "usage": usage}) == [Text("a"), Finish("stop")]


def test_usage_keeps_openais_details() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 2}}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, **details, "x_tokens_details": 5}
    assert whole({"prompt": "a", "usage": usage})[-1] == Finish("stop", Usage(3, 1, details=details))


@pytest.mark.parametrize(
    "logprobs", [None, {}, [], [1], [{}], [{"token": 1, "logprob": -1}], [{"token": "a", "logprob": "x"}]]
)
def test_logprobs_of_another_shape_are_left_out(logprobs: Any) -> None:
    assert whole({"prompt": "a", "logprobs": logprobs}) == [Text("a"), Finish("stop")]


def test_ignored_names_are_bounded() -> None:
    [finish] = whole({"prompt": "", "ignored": ["a", 1, "", "b" * 100, *map(str, range(100))]})
    assert isinstance(finish, Finish)
    assert finish.ignored[:2] == ("a", "b" * 64)
    assert len(finish.ignored) <= 64


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ("prediction", {"prediction": "x"}),
        ("0.generated_text", [{"generated_text": "x"}]),
        ("generated_text", {"generated_text": "x", "details": {"finish_reason": "eos_token"}}),
        ("data.0.output.0", {"data": [{"output": ["x"]}]}),
        ("a.0.b", {"a": {"0": {"b": "x"}}}),
    ],
)
def test_the_text_is_where_response_field_says(field: str, answer: Any) -> None:
    assert whole(answer, decoder(field)) == [Text("x"), Finish("stop")]
    assert streamed(answer, DONE, made=decoder(field)) == [Text("x"), Finish("stop")]


def test_what_stands_beside_a_nested_text_counts() -> None:
    answer = [{"generated_text": "x", "details": {"finish_reason": "length", "generated_tokens": 20}}]
    assert whole(answer, decoder("0.generated_text")) == [Text("x"), Finish("length")]
    last = {"token": {"text": "x"}, "generated_text": "x", "details": {"finish_reason": "length"}}
    assert streamed({"token": {"text": "a"}}, last, made=decoder("token.text")) == [
        Text("a"), Text("x"), Finish("length"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"text": "x", "id": 1}, "an object with `text`, `id` without `prompt`"),
        ({"prompt": 1}, "a number or boolean at `prompt`"),
        ({"prompt": None}, "it is null at `prompt`"),
        ({"prompt": {"text": "x"}}, "an object with `text` at `prompt`"),
        ({"prompt": ["x"]}, "an array at `prompt`"),
        ([{"generated_text": "x"}], "an array whose first item is an object with `generated_text`"),
        ("hello", "a string without `prompt`"),
        (1, "a number or boolean without `prompt`"),
        (None, "null without `prompt`"),
        ([], "an array without `prompt`"),
        ([[[[[]]]]], "an array without `prompt`"),
        ({}, "an object without `prompt`"),
        ({"bad key\n": 1}, "an object without `prompt`"),
    ],
)
def test_text_that_is_elsewhere_is_an_error_that_names_the_key(answer: Any, shown: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        whole(answer)
    assert caught.value.code == "upstream_bad_response"
    assert shown in caught.value.message
    assert f"{AT}.response_field" in caught.value.message
    if answer != {}:  # as an event, an empty object is a sign of life
        with pytest.raises(UpstreamError) as caught:
            streamed(answer, DONE)
        assert shown in caught.value.message


def test_the_answer_itself_is_never_in_an_error() -> None:
    for field, answer in (
        ("x", {"prompt": "the answer"}),
        ("prompt", {"prompt": ["the answer"]}),
        ("x", "the answer"),
    ):
        with pytest.raises(UpstreamError) as caught:
            whole(answer, decoder(field))
        assert "the answer" not in caught.value.message
    with pytest.raises(UpstreamError) as caught:
        whole(b'{"prompt": "the answer')
    assert "the answer" not in caught.value.message


@pytest.mark.parametrize(
    "payload", [b"{", b"hello", b"\xff", b'{"prompt": NaN}', b'{"prompt":"a"} x', b"[" * 5000]
)
def test_what_is_not_json_is_an_error(payload: bytes) -> None:
    for read in (whole, streamed):
        with pytest.raises(UpstreamError) as caught:
            read(payload)
        assert caught.value.code == "upstream_bad_response"


def test_blank_payloads_and_empty_objects_are_signs_of_life() -> None:
    assert streamed(b"", b"  ", {}, {"prompt": "a"}, {"prompt": None, "usage": None}, DONE) == [
        Text("a"), Finish("stop"),
    ]  # fmt: skip


# --- cumulative ---


def test_cumulative_text_becomes_deltas() -> None:
    values = [
        {"prompt": "he"},
        {"prompt": "hello"},
        {"prompt": "hello"},
        {"prompt": "", "finish_reason": "stop"},
    ]
    assert streamed(*values, made=decoder(cumulative=True)) == [Text("he"), Text("llo"), Finish("stop")]


def test_a_character_that_is_still_in_pieces_waits() -> None:
    values = [{"prompt": "a\ufffd"}, {"prompt": "a\ufffd\ufffd"}, {"prompt": "a你"}, {"prompt": "a你b"}]
    assert streamed(*values, DONE, made=decoder(cumulative=True)) == [
        Text("a"), Text("你"), Text("b"), Finish("stop"),
    ]  # fmt: skip


def test_a_replacement_character_that_stays_is_text() -> None:
    values = [{"prompt": "a\ufffd"}, {"prompt": "a\ufffd"}]
    assert streamed(*values, DONE, made=decoder(cumulative=True)) == [
        Text("a"),
        Text("\ufffd"),
        Finish("stop"),
    ]


def test_deltas_where_cumulative_text_was_promised_are_an_error() -> None:
    with pytest.raises(UpstreamError) as caught:
        streamed({"prompt": "he"}, {"prompt": "llo"}, made=decoder(cumulative=True))
    assert f"{AT}.cumulative: false" in caught.value.message


@given(st.text(max_size=30), st.lists(st.integers(0, 30), max_size=8))
def test_cumulative_text_cut_anywhere_is_the_text(text: str, places: list[int]) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    values = [{"prompt": text[:at]} for at in sorted(places)] + [{"prompt": text}]
    events = streamed(*values, DONE, made=decoder(cumulative=True))
    assert "".join(event.text for event in events if isinstance(event, Text)) == text


# --- errors in answers ---


@pytest.mark.parametrize(
    ("error", "kind", "status", "code"),
    [
        ({"message": "no", "code": "bad_request", "status": 400}, GatewayError, 400, "upstream_bad_request"),
        (
            {"message": "no", "code": "context_length_exceeded"},
            ContextTooLong,
            400,
            "context_length_exceeded",
        ),
        ({"message": "no", "code": "busy", "status": 429}, UpstreamBusy, 429, "upstream_rate_limited"),
        ({"message": "no", "code": "out_of_memory"}, UpstreamUnavailable, 503, "out_of_memory"),
        ({"message": "no", "code": "engine_dead"}, UpstreamUnavailable, 503, "engine_dead"),
        ({"message": "no", "status": 504}, UpstreamError, 504, "upstream_timeout"),
        ({"message": "no", "code": "news"}, UpstreamError, 502, "upstream_error"),
        ({"message": None}, UpstreamError, 502, "upstream_error"),
        ("no", UpstreamError, 502, "upstream_error"),
    ],
)
def test_an_error_as_an_event_is_the_error(
    error: Any, kind: type[GatewayError], status: int, code: str
) -> None:
    for read in (whole, streamed):
        with pytest.raises(kind) as caught:
            read({"error": error})
        assert (caught.value.status, caught.value.code) == (status, code)


def test_text_before_an_error_is_given_first() -> None:
    made = decoder()
    error = {"error": {"message": "no", "code": "engine_dead"}}
    assert made.feed(dumped({"prompt": "a"}, error, {"prompt": "b"})) == [Text("a")]
    assert made.failed is not None
    assert made.failed.code == "engine_dead"


def test_a_null_error_is_none() -> None:
    assert whole({"prompt": "a", "error": None}) == [Text("a"), Finish("stop")]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.just("prompt"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["prompt", "finish_reason", "usage", "logprobs", "error", "ignored", "token", "x", "0"]
            )
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(
    st.lists(JSON | st.binary(max_size=8), max_size=5),
    st.sampled_from(["prompt", "0.x", "x.0"]),
    st.booleans(),
)
def test_nothing_that_json_can_hold_raises_anything_else(
    values: list[Any], field: str, cumulative: bool
) -> None:
    def text(value: Any) -> bytes:
        return value if isinstance(value, bytes) else json.dumps(value).encode()

    with suppress(GatewayError):
        streamed(*map(text, values), made=decoder(field, cumulative=cumulative))
    for value in values:
        try:
            events = whole(text(value), decoder(field))
        except GatewayError:
            continue
        assert isinstance(events[-1], Finish)


# --- bare text ---


def test_text_may_be_cut_inside_characters() -> None:
    data = "a你好🎉\u2028".encode()
    for size in range(1, len(data) + 1):
        made = TextDecoder()
        events = [event for at in range(0, len(data), size) for event in made.feed([data[at : at + size]])]
        assert "".join(event.text for event in events if isinstance(event, Text)) == data.decode()
        assert made.end() == [Finish()]


def test_text_that_ends_inside_a_character_was_cut() -> None:
    made = TextDecoder()
    made.feed(["你".encode()[:2]])
    with pytest.raises(UpstreamError) as caught:
        made.end()
    assert caught.value.code == "upstream_cut"


def test_a_byte_that_is_no_utf8_does_not_end_an_answer() -> None:
    assert TextDecoder().whole(b"a\xffb") == [Text("a\ufffdb"), Finish()]


def test_an_empty_text_is_an_answer_only_where_text_was_announced() -> None:
    assert TextDecoder(empty=True).whole(b"") == [Finish()]
    with pytest.raises(UpstreamError):
        TextDecoder(empty=False).whole(b"")
