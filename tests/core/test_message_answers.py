"""Events become Anthropic's messages: blocks one after the other, whole and streamed alike."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.encode import Head
from gateway.core.encode.messages import MessageStream, MessageWhole, message_usage, messages_error
from gateway.core.errors import (
    BadRequest,
    ContextTooLong,
    Forbidden,
    GatewayError,
    Internal,
    NoContainer,
    NotFound,
    NotJson,
    Overloaded,
    TooLarge,
    Unauthorized,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.core.events import Batch, Event, Extra, Finish, Reasoning, Text, ToolArgs, ToolStart, Usage
from gateway.core.messages import MessagesRequest, parse_messages

HEAD = Head("msg_0123456789abcdef01234567", 1700000000, "my-model", 7)
USED = Usage(30, 4, "upstream", {"completion_tokens_details": {"reasoning_tokens": 2}})
THINKS = {"type": "enabled", "budget_tokens": 1024}


def asked(**fields: Any) -> MessagesRequest:
    said = [{"role": "user", "content": "hi"}]
    whole = {"model": "m", "max_tokens": 9, "messages": said, "thinking": THINKS, **fields}
    return parse_messages(json.dumps(whole).encode())


def streamed(batches: Sequence[Batch], **fields: Any) -> list[dict[str, Any]]:
    """The events of a whole stream, in the order in which they are sent."""
    encoder = MessageStream(HEAD, asked(**fields))
    fed = b"".join(encoder.feed(0, batch) for batch in batches)
    return events_of(encoder.opening() + fed + encoder.end(USED, {"usage": "upstream"}))


def events_of(data: bytes) -> list[dict[str, Any]]:
    told = []
    for block in data.decode().split("\n\n")[:-1]:
        name, payload = block.split("\n")
        event = json.loads(payload.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        told.append(event)
    return told


def collected(batches: Sequence[Batch], **fields: Any) -> dict[str, Any]:
    encoder = MessageWhole(HEAD, asked(**fields))
    for batch in batches:
        encoder.feed(0, batch)
    return dict(json.loads(encoder.answer(USED)))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
objects = st.dictionaries(texts, texts | st.integers(0, 9) | st.none(), max_size=2)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Any answer an upstream may give: arguments of several calls may take turns, and text come between."""
    calls = draw(st.lists(objects, max_size=3))
    kinds = draw(st.lists(st.sampled_from(["text", "think", "refuse", "x"]), max_size=4))
    lanes: list[list[Event]] = [[saying(kind, draw(texts)) for kind in kinds]]
    for index, arguments in enumerate(calls):
        whole = json.dumps(arguments)
        at = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
        pieces = [whole[a:b] for a, b in zip([0, *at], [*at, len(whole)], strict=True)]
        lanes.append([ToolStart(index, f"call_{index}", "f"), *(ToolArgs(index, p) for p in pieces)])
    told: list[Event] = []
    while any(lanes):
        lane = draw(st.sampled_from([lane for lane in lanes if lane]))
        told.append(lane.pop(0))
    return [*told, Finish(draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"])))]


def saying(kind: str, text: str) -> Event:
    one: dict[str, Event] = {
        "think": Reasoning(text),
        "refuse": Extra({"refusal": text}),
        "x": Extra({"annotations": []}),
    }
    return one.get(kind, Text(text))


class Client:
    """A strict reader of the events: it builds the message, and knows one open block, the last."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.message = message
        self.open = False
        self._given = ""

    def read(self, event: dict[str, Any]) -> None:
        content = self.message["content"]
        if event["type"] == "content_block_start":
            assert (event["index"], self.open) == (len(content), False)
            content.append(event["content_block"])
            self.open, self._given = True, ""
            return
        assert (event["index"], self.open) == (len(content) - 1, True)
        if event["type"] == "content_block_delta":
            self._grow(content[-1], event["delta"])
            return
        assert event["type"] == "content_block_stop"
        self.open = False
        if content[-1]["type"] == "tool_use":
            content[-1]["input"] = json.loads(self._given or "{}")

    def _grow(self, block: dict[str, Any], delta: dict[str, Any]) -> None:
        if delta["type"] == "input_json_delta":
            self._given += delta["partial_json"]
        elif delta["type"] == "signature_delta":
            block["signature"] = delta["signature"]
        else:
            name = delta["type"].removesuffix("_delta")
            assert name == block["type"] and delta[name]
            block[name] += delta[name]


@given(answers())
def test_every_stream_is_in_order_and_adds_up_to_the_whole_answer(told: list[Event]) -> None:
    start, ping, *between, delta, stop = streamed([told])
    assert (start["type"], ping, stop) == ("message_start", {"type": "ping"}, {"type": "message_stop"})
    assert start["message"]["usage"]["input_tokens"] == HEAD.prompt_tokens
    client = Client(start["message"])
    for event in between:
        client.read(event)
    assert not client.open
    assert (delta["type"], delta["x_gateway"]) == ("message_delta", {"usage": "upstream"})
    client.message.update(delta["delta"])
    client.message["usage"].update(delta["usage"])
    assert client.message == collected([told])


@given(answers())
def test_all_that_was_said_is_there(told: list[Event]) -> None:
    content = collected([told])["content"]
    said, thought, calls = "", "", {e.id: "" for e in told if isinstance(e, ToolStart)}
    for event in told:
        match event:
            case Text(text):
                said += text
            case Extra(fields):
                said += fields.get("refusal", "")
            case Reasoning(text):
                thought += text
            case ToolArgs(index, text):
                calls[f"call_{index}"] += text
    assert "".join(block["text"] for block in content if block["type"] == "text") == said
    assert "".join(block["thinking"] for block in content if block["type"] == "thinking") == thought
    inputs = {block["id"]: block["input"] for block in content if block["type"] == "tool_use"}
    assert inputs == {id: json.loads(arguments) for id, arguments in calls.items()}


@given(answers(), st.data())
def test_an_answer_does_not_depend_on_its_batches(told: list[Event], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(told)))
    assert streamed([told[:at], told[at:]]) == streamed([told])


@given(answers(), st.data())
def test_a_failure_is_the_last_event_and_a_ping_says_nothing(told: list[Event], data: st.DataObject) -> None:
    encoder = MessageStream(HEAD, asked())
    before = encoder.feed(0, told[: data.draw(st.integers(0, len(told)))])
    assert events_of(encoder.pause()) == [{"type": "ping"}]
    *others, last = events_of(encoder.opening() + before + encoder.error(UpstreamTimeout("too slow")))
    client = Client(others[0]["message"])
    for event in others[2:]:
        client.read(event)
    error = {"type": "timeout_error", "message": "too slow"}
    assert last == {"type": "error", "error": error, "request_id": "req_0123456789abcdef01234567"}


def test_calls_one_after_the_other_are_told_as_they_come() -> None:
    encoder = MessageStream(HEAD, asked())
    one: list[Event] = [ToolStart(0, "a", "f"), ToolArgs(0, '{"a"'), ToolArgs(0, ": 1}")]
    assert [e["type"] for e in events_of(encoder.feed(0, one))] == [
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
    ]
    stopped, started = events_of(encoder.feed(0, [ToolStart(1, "b", "f")]))
    assert (stopped["type"], started["index"]) == ("content_block_stop", 1)


def test_a_call_without_arguments_has_an_empty_input() -> None:
    told: list[Event] = [ToolStart(0, "a", "f"), ToolStart(1, "b", "f"), ToolArgs(1, "{}"), Finish()]
    assert [block["input"] for block in collected([told])["content"]] == [{}, {}]


@pytest.mark.parametrize("make", [MessageStream, MessageWhole])
@pytest.mark.parametrize(
    "told",
    [
        [ToolStart(0, "a", "f"), ToolArgs(0, '{"a": '), Finish("tool_calls")],
        [ToolStart(0, "a", "f"), ToolArgs(0, "[1]"), Finish("stop")],
        [ToolStart(0, "a", "f"), ToolArgs(0, "{}"), Text("x"), ToolArgs(0, "{}"), Finish("stop")],
    ],
)
def test_arguments_that_are_no_object_are_a_failure(make: Any, told: list[Event]) -> None:
    with pytest.raises(UpstreamError, match="no JSON object"):
        make(HEAD, asked()).feed(0, told)


def test_an_answer_that_was_cut_short_may_break_off_in_a_call() -> None:
    told: list[Event] = [ToolStart(0, "a", "f"), ToolArgs(0, '{"a": '), Finish("length")]
    assert collected([told])["content"][0]["input"] == {}
    *_, delta, stop, ending, _ = streamed([told])
    assert (delta["delta"]["partial_json"], stop["type"]) == ('{"a": ', "content_block_stop")
    assert ending["delta"]["stop_reason"] == "max_tokens"


def test_thoughts_that_nobody_asked_for_are_not_shown() -> None:
    told: list[Event] = [Reasoning("hm"), Text("yes"), Finish()]
    assert collected([told], thinking=None)["content"] == [{"type": "text", "text": "yes"}]
    thought, said = collected([told])["content"]
    assert thought == {"type": "thinking", "thinking": "hm", "signature": ""}
    assert said["text"] == "yes"


@pytest.mark.parametrize(
    ("finish", "reason", "sequence"),
    [
        (Finish("stop"), "end_turn", None),
        (Finish("stop", stopped_by="END"), "stop_sequence", "END"),
        (Finish("stop", stopped_by="<|im_end|>"), "end_turn", None),
        (Finish("length"), "max_tokens", None),
        (Finish("tool_calls"), "tool_use", None),
        (Finish("content_filter"), "refusal", None),
        (Finish("other"), "end_turn", None),
    ],
)
def test_why_an_answer_ended(finish: Finish, reason: str, sequence: str | None) -> None:
    answer = collected([[Text("a"), finish]], stop_sequences=["END", "x"])
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)


def test_an_answer_that_calls_a_tool_waits_for_it_whatever_its_server_says() -> None:
    told: list[Event] = [ToolStart(0, "a", "f"), Finish("stop")]
    assert collected([told])["stop_reason"] == "tool_use"


def test_an_answer_without_words_has_no_blocks() -> None:
    assert collected([[Text(""), Finish()]])["content"] == []
    assert [event["type"] for event in streamed([[Finish()]])] == [
        "message_start",
        "ping",
        "message_delta",
        "message_stop",
    ]


def test_what_a_cache_held_is_counted_apart() -> None:
    assert message_usage(Usage(30, 4, "upstream", {"prompt_tokens_details": {"cached_tokens": 20}})) == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 20,
        "output_tokens": 4,
    }
    assert message_usage(USED)["output_tokens_details"] == {"thinking_tokens": 2}
    odd = {"prompt_tokens_details": {"cached_tokens": 9}, "completion_tokens_details": 1}
    assert message_usage(Usage(3, 4, "upstream", odd))["input_tokens"] == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequest("x"), "invalid_request_error"),
        (Unauthorized("x"), "authentication_error"),
        (Forbidden("x"), "permission_error"),
        (NotFound("x"), "not_found_error"),
        (TooLarge("x"), "request_too_large"),
        (NotJson("x"), "invalid_request_error"),
        (Overloaded("x"), "rate_limit_error"),
        (Internal("x"), "api_error"),
        (UpstreamError("x"), "api_error"),
        (NoContainer("x"), "overloaded_error"),
        (UpstreamTimeout("x"), "timeout_error"),
    ],
)
def test_errors_have_this_apis_types(error: GatewayError, kind: str) -> None:
    told = json.loads(messages_error(error, "req_1"))
    assert told == {"type": "error", "error": {"type": kind, "message": "x"}, "request_id": "req_1"}


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_look_for() -> None:
    told = json.loads(messages_error(ContextTooLong.of(limit=10, prompt=11), "req_1"))
    assert told["error"]["message"].startswith("prompt is too long: ")


def test_an_answer_without_end_is_not_collected() -> None:
    encoder = MessageWhole(HEAD, asked())
    with pytest.raises(UpstreamError):
        for _ in range(40):
            encoder.feed(0, [Text("x" * (1 << 20))])


def test_arguments_without_end_are_not_held() -> None:
    encoder = MessageStream(HEAD, asked())
    encoder.feed(0, [ToolStart(0, "a", "f")])
    with pytest.raises(UpstreamError):
        for _ in range(40):
            encoder.feed(0, [ToolArgs(0, "x" * (1 << 20))])
