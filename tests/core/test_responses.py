"""Responses requests become chats, and events become responses in a legal order, whole and streamed alike."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from gateway.core.encode import Head
from gateway.core.encode.responses import Ending, ResponseStream, ResponseWhole
from gateway.core.errors import BadRequest, GatewayError, UpstreamError, UpstreamTimeout
from gateway.core.events import Batch, Event, Extra, Finish, Reasoning, Text, ToolArgs, ToolStart, Usage
from gateway.core.items import Item
from gateway.core.responses import WORDING, ResponsesRequest, parse_responses, recalled, without_effect

HEAD = Head("resp_0123456789abcdef01234567", 1700000000, "my-model")
USED = Usage(3, 4, "upstream", {"completion_tokens_details": {"reasoning_tokens": 2}})
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
OURS = {"store", "presence_penalty", "frequency_penalty", "x_gateway"}
"""What we say beyond the types of OpenAI's SDK."""


def parsed(**fields: Any) -> ResponsesRequest:
    return parse_responses(json.dumps({"model": "m", "input": "hi", **fields}).encode())


def said(*items: Any, **fields: Any) -> list[Any]:
    return list(parsed(input=list(items), **fields).messages)


def refused(call: Callable[[], object]) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        call()
    return caught.value


# --- requests ---


def test_a_text_is_what_the_user_says_after_the_instructions() -> None:
    assert parsed(instructions="Be brief.").messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


def part(kind: str, text: str) -> dict[str, str]:
    return {"type": kind, "text": text}


def test_what_an_assistant_did_in_a_row_is_one_message() -> None:
    assert said(
        {"role": "user", "content": [part("input_text", "1 + "), part("input_text", "2?")]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [part("reasoning_text", "Add.")]},
        {"type": "message", "role": "assistant", "content": [part("output_text", "Let me see.")]},
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
        {"type": "function_call", "call_id": "call_2", "name": "sub", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "3"},
        {"type": "function_call_output", "call_id": "call_2", "output": [part("input_text", "4")]},
        {"type": "message", "role": "assistant", "content": "3."},
        {"type": "message", "role": "assistant", "content": "Anything else?"},
    ) == [
        {"role": "user", "content": "1 + 2?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "Add.",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}},
                {"id": "call_2", "type": "function", "function": {"name": "sub", "arguments": '{"a": 1}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
        {"role": "tool", "tool_call_id": "call_2", "content": "4"},
        {"role": "assistant", "content": "3."},
        {"role": "assistant", "content": "Anything else?"},
    ]


def test_calls_alone_have_no_content_and_calls_always_come_before_their_results() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    later = {"type": "message", "role": "assistant", "content": "and this"}
    [alone] = said(call)
    assert (alone["content"], len(alone["tool_calls"])) == (None, 1)
    [both] = said(call, later)
    assert (both["content"], len(both["tool_calls"])) == ("and this", 1)


def test_reasoning_that_only_openai_can_read_says_nothing() -> None:
    items = [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}]
    assert said(*items, {"role": "assistant", "content": "a"}) == [{"role": "assistant", "content": "a"}]


def test_images_become_parts_of_a_chat() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    [message] = said({"role": "user", "content": [{"type": "input_text", "text": "what?"}, image]})
    assert message["content"] == [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
    ]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ("hi", "input[0]"),
        ({}, "input[0].type"),
        ({"type": "web_search_call", "id": "ws_1"}, "input[0].type"),
        ({"role": "tool", "content": "x"}, "input[0].role"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": [1]}, "input[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}, "input[0].content[0].type"),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}, "input[0].content[0].type"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[0].call_id"),
        ({"type": "function_call", "name": "f", "arguments": {}, "call_id": "c"}, "input[0].arguments"),
        ({"type": "function_call_output", "output": "x"}, "input[0].call_id"),
        ({"type": "function_call_output", "call_id": "c", "output": {}}, "input[0].output"),
    ],
)
def test_a_wrong_item_is_named(item: Any, param: str) -> None:
    error = refused(lambda: said(item))
    assert error.param == param
    assert error.message.startswith("input[0]")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"include": ["everything"]}, "include[0]"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"truncation": "middle"}, "truncation"),
        ({"metadata": {"a": 1}}, "metadata.a"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    error = refused(lambda: parsed(**fields))
    assert (error.param, error.status) == (param, 400)
    assert param.partition("[")[0].partition(".")[0] in error.message


def test_fields_get_the_names_of_a_chat() -> None:
    tool = {
        "type": "function",
        "name": "f",
        "description": "d",
        "parameters": {"type": "object"},
        "strict": None,
    }
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    request = parsed(
        tools=[tool],
        tool_choice={"type": "function", "name": "f"},
        text={"format": schema, "verbosity": "low"},
        reasoning={"effort": "low"},
        max_output_tokens=9,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        temperature=0,
        seed=7,
        metadata={"a": "b"},
        store=True,
        mine=1,
    )  # fmt: skip
    assert request.tools == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    ]
    assert request.tool_choice == {"type": "function", "function": {"name": "f"}}
    inner = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert request.response_format == {"type": "json_schema", "json_schema": inner}
    assert (request.max_completion_tokens, request.temperature, request.seed) == (9, 0, 7)
    assert (request.logprobs, request.top_logprobs) == (True, 2)
    given = request.model_dump(exclude_none=True)
    assert (given["reasoning_effort"], given["verbosity"], given["mine"]) == ("low", "low", 1)
    assert not {"store", "metadata", "instructions", "input"} & (given.keys() - {"asked"})


def test_of_allowed_tools_the_others_are_not_shown() -> None:
    tools = [{"type": "function", "name": name} for name in "abc"]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}
    request = parsed(tools=tools, tool_choice=allowed)
    assert request.tools == [{"type": "function", "function": {"name": "b"}}]
    assert request.tool_choice == "required"


def test_an_allowed_tool_that_is_not_there_is_refused() -> None:
    tools = [{"type": "function", "name": "a"}]
    for named in ({"type": "function", "name": "typo"}, {"type": "function"}, "a"):
        allowed = {"type": "allowed_tools", "tools": [tools[0], named]}
        with pytest.raises(BadRequest) as caught:
            parsed(tools=tools, tool_choice=allowed)
        assert caught.value.param == "tool_choice.tools[1]"


def test_what_has_no_effect_is_named() -> None:
    request = parsed(
        truncation="auto",
        include=["reasoning.encrypted_content"],
        reasoning={"effort": "low", "summary": "auto"},
        store=True,
        max_tool_calls=3,
        stream_options={"include_obfuscation": True},
    )
    names = {
        "truncation",
        "include",
        "reasoning.summary",
        "max_tool_calls",
        "stream_options.include_obfuscation",
    }
    assert set(without_effect(request.asked, stores=True)) == names
    assert set(without_effect(request.asked, stores=False)) == {*names, "store"}
    assert without_effect(parsed(truncation="disabled", store=False).asked, stores=False) == ()


def test_chats_words_for_a_field_become_ours() -> None:
    assert WORDING.text("messages[3].content[1]: parts of type 'x'") == "input: parts of type 'x'"
    assert WORDING.text("max_completion_tokens") == WORDING.text("max_tokens") == "max_output_tokens"
    assert WORDING.text("response_format.json_schema.schema.type") == "text.format.schema.type"
    assert WORDING.text("tools[1].function.name") == "tools[1].name"
    assert WORDING.text("temperature") == "temperature"
    assert (
        WORDING.text("The template refused these messages: no") == "The template refused these messages: no"
    )


def test_what_a_request_refers_to_stands_where_it_belongs() -> None:
    stored: dict[str, Item] = {
        "fc_1": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    }
    items = [
        {"type": "item_reference", "id": "fc_1"},
        {"type": "function_call_output", "call_id": "c", "output": "3"},
    ]
    request = parsed(input=items, instructions="new", previous_response_id="resp_1")
    before = [{"role": "user", "content": "before"}]
    told = recalled(request, "me", lambda id: before if id == "resp_1" else [], stored.__getitem__)
    assert [message["role"] for message in told.messages] == ["system", "user", "assistant", "tool"]
    assert told.messages[2]["tool_calls"][0]["id"] == "c"  # type: ignore[index]
    assert (told.owner, told.kept) == ("me", True)


def test_a_conversation_goes_on_without_a_word() -> None:
    body = {"model": "m", "previous_response_id": "resp_1", "instructions": "go on"}
    request = parse_responses(json.dumps(body).encode())
    told = recalled(request, "me", lambda _: [{"role": "user", "content": "before"}], dict[str, Item]().get)
    assert [message["role"] for message in told.messages] == ["system", "user"]


# --- answers ---


def ending(kept: list[dict[str, Any]] | None = None) -> Ending:
    return Ending(lambda: 1700000002.5, (kept if kept is not None else []).append)


def streamed(batches: Sequence[Batch], **fields: Any) -> list[dict[str, Any]]:
    """The events of a whole stream, in the order in which they are sent."""
    encoder = ResponseStream(HEAD, parsed(**fields), ending())
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
    encoder = ResponseWhole(HEAD, parsed(**fields), ending())
    for batch in batches:
        encoder.feed(0, batch)
    return dict(json.loads(encoder.answer(USED)))


def extras(value: Any, at: str = "") -> Iterator[str]:
    """Where a value of the SDK's types holds a field that its type has not."""
    if isinstance(value, BaseModel):
        yield from (f"{at}.{name}" for name in value.model_extra or ())
        for name in type(value).model_fields:
            yield from extras(getattr(value, name), f"{at}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from extras(each, at)


def foreign(value: Any) -> set[str]:
    """The extras that are not ours; the SDK's entries of a delta's logprobs lack their bytes."""
    return {
        place
        for place in extras(value)
        if place.rpartition(".")[2] not in OURS and not (place.endswith(".bytes") and ".logprobs" in place)
    }


ENTRY = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "b", "logprob": -1.0}]}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
reasons = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Any answer that an upstream may give: calls may be interleaved with each other and with text."""
    calls = 0
    told: list[Event] = []
    for kind in draw(st.lists(st.sampled_from(["text", "logprobs", "think", "call", "args", "refuse", "x"]))):
        text = draw(texts)
        if kind == "call":
            told.append(ToolStart(calls, f"call_{calls}", "f"))
            calls += 1
        elif kind == "args" and calls:
            told.append(ToolArgs(draw(st.integers(0, calls - 1)), text))
        elif kind == "logprobs":
            told.append(Text(text, (ENTRY,)))
        else:
            one: dict[str, Event] = {
                "think": Reasoning(text),
                "refuse": Extra({"refusal": text}),
                "x": Extra({"annotations": []}),
            }
            told.append(one.get(kind, Text(text)))
    return [*told, Finish(draw(reasons))]


class Client:
    """A strict reader of the events: it builds the answer from the deltas and minds the order."""

    def __init__(self) -> None:
        self.items: dict[int, dict[str, Any]] = {}
        self.done: dict[int, dict[str, Any]] = {}

    def read(self, event: dict[str, Any]) -> None:
        kind, index = event["type"].removeprefix("response."), event.get("output_index", -1)
        if kind == "output_item.added":
            assert index == len(self.items)
            assert event["item"]["status"] == "in_progress"
            self.items[index] = {**event["item"]}
            return
        item = self.items[index]
        assert index not in self.done
        assert item["id"] == event.get("item_id", item["id"])
        if kind == "output_item.done":
            assert {**item, "status": event["item"]["status"]} == event["item"]
            self.done[index] = event["item"]
        elif kind.startswith("function_call_arguments."):
            self._arguments(item, kind, event)
        else:
            self._content(item, kind, event)

    def _arguments(self, item: dict[str, Any], kind: str, event: dict[str, Any]) -> None:
        if kind.endswith(".delta"):
            item["arguments"] += event["delta"]
        else:
            assert item["arguments"] == event["arguments"]

    def _content(self, item: dict[str, Any], kind: str, event: dict[str, Any]) -> None:
        content = item["content"]
        if kind == "content_part.added":
            assert event["content_index"] == len(content)
            content.append(event["part"])
            return
        assert event["content_index"] == len(content) - 1
        part = content[-1]
        name = "refusal" if part["type"] == "refusal" else "text"
        if kind == "content_part.done":
            assert part == event["part"]
        elif kind == part["type"] + ".delta":
            part[name] += event["delta"]
            if "logprobs" in part:
                part["logprobs"] += event["logprobs"]
        else:
            assert kind == part["type"] + ".done"
            assert part[name] == event[name]


@given(answers())
def test_every_stream_is_in_order_and_ends_with_the_whole_answer(told: list[Event]) -> None:
    first, second, *between, last = streamed([told])
    assert (first["type"], second["type"]) == ("response.created", "response.in_progress")
    assert first["response"]["output"] == second["response"]["output"] == []
    client = Client()
    for event in between:
        client.read(event)
    assert list(client.done.values()) != []
    assert [client.done[index] for index in sorted(client.done)] == last["response"]["output"]
    whole = collected([told])
    assert last["response"] == whole
    assert last["type"] == f"response.{whole['status']}"
    assert last["x_gateway"] == {"usage": "upstream"}
    assert [e["sequence_number"] for e in (first, second, *between, last)] == list(range(len(between) + 3))


@given(answers())
def test_the_sdks_types_know_every_event_and_answer(told: list[Event]) -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    fields = {
        "tools": [tool],
        "text": {"format": schema},
        "reasoning": {"effort": "low"},
        "metadata": {"a": "b"},
        "user": "u",
    }
    for event in streamed([told], **fields):
        known = EVENT.validate_python(event)
        assert known.type == event["type"]
        assert foreign(known) == set()
    assert foreign(Response.model_validate(collected([told], **fields))) == set()


@given(answers(), st.data())
def test_an_answer_does_not_depend_on_its_batches(told: list[Event], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(told)))
    assert streamed([told[:at], told[at:]]) == streamed([told])


@given(answers(), st.data())
def test_a_failure_ends_the_stream_with_what_was_said(told: list[Event], data: st.DataObject) -> None:
    encoder = ResponseStream(HEAD, parsed(), ending())
    before = encoder.feed(0, told[: data.draw(st.integers(0, len(told) - 1))])
    *others, last = events_of(encoder.opening() + before + encoder.error(UpstreamTimeout("too slow")))
    client = Client()
    for event in others[2:]:
        client.read(event)
    assert last["type"] == "response.failed"
    output = last["response"]["output"]
    assert {each["status"] for each in output} <= {"completed", "incomplete"}
    assert [{**each, "status": ""} for each in output] == [{**e, "status": ""} for e in client.items.values()]
    assert last["response"]["error"]["message"] == "too slow"
    assert foreign(EVENT.validate_python(last)) == set()


@given(answers(), st.data())
def test_a_pause_says_nothing_at_any_point(told: list[Event], data: st.DataObject) -> None:
    encoder = ResponseStream(HEAD, parsed(), ending())
    at = data.draw(st.integers(0, len(told)))
    opening, before = encoder.opening(), encoder.feed(0, told[:at])
    [pause] = events_of(encoder.pause())
    rest = encoder.feed(0, told[at:])
    assert foreign(EVENT.validate_python(pause)) == set()
    client = Client()
    for event in events_of(before):
        client.read(event)
    if pause["type"] == "response.in_progress":
        assert pause["response"]["output"] == [client.done[index] for index in sorted(client.done)]
    else:
        assert pause["delta"] == ""
        client.read(pause)
    for event in events_of(rest):
        client.read(event)
    final = events_of(encoder.end(USED, {}))[0]
    assert [client.done[index] for index in sorted(client.done)] == final["response"]["output"]
    assert len(events_of(opening)) == 2


def test_statuses() -> None:
    cut = collected([[Text("a"), Finish("length")]])
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (cut["output"][0]["status"], cut["completed_at"]) == ("incomplete", None)
    full = collected([[Text("a"), Finish("stop")]])
    assert (full["status"], full["incomplete_details"], full["completed_at"]) == (
        "completed",
        None,
        1700000002,
    )


def test_of_an_answer_that_was_cut_only_the_last_item_is_incomplete() -> None:
    calls = [ToolStart(0, "call_0", "f"), ToolArgs(0, "{}"), ToolStart(1, "call_1", "f"), ToolArgs(1, "{")]
    for events, statuses in (
        ([Reasoning("so"), Text("a"), Finish("length")], ["completed", "incomplete"]),
        ([*calls, Finish("length")], ["completed", "incomplete"]),
        ([*calls, Text("a"), Finish("length")], ["completed", "completed", "incomplete"]),
    ):
        assert [item["status"] for item in collected([events])["output"]] == statuses


def test_a_choice_among_allowed_tools_is_shown_with_its_mode() -> None:
    allowed = {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]}
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    answer = collected([[Finish()]], tools=[tool], tool_choice=allowed)
    assert answer["tool_choice"] == {**allowed, "mode": "auto"}


def test_an_answer_without_words_is_an_empty_message() -> None:
    [message] = collected([[Finish("stop")]])["output"]
    [part] = message["content"]
    assert (message["type"], part["text"]) == ("message", "")


def test_usage_in_this_apis_words() -> None:
    assert collected([[Finish()]])["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 7,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamTimeout("x"), "server_error"),
        (BadRequest("x", code="invalid_value"), "invalid_prompt"),
        (type("Busy", (GatewayError,), {"status": 429})("x"), "rate_limit_exceeded"),
    ],
)
def test_a_failure_has_one_of_the_apis_codes(error: GatewayError, code: str) -> None:
    [event] = events_of(ResponseStream(HEAD, parsed(), ending()).error(error))
    assert event["response"]["error"]["code"] == code
    assert event["response"]["error"]["type"] == (error.code or error.type)


def test_the_response_that_ended_is_handed_over_once_and_a_failed_one_never() -> None:
    kept: list[dict[str, Any]] = []
    encoder = ResponseStream(HEAD, parsed(), ending(kept))
    encoder.feed(0, [Text("a"), Finish()])
    [last] = events_of(encoder.end(USED, {}))
    assert kept == [last["response"]]
    failed = ResponseStream(HEAD, parsed(), ending(kept))
    failed.error(UpstreamTimeout("x"))
    assert len(kept) == 1


def test_an_answer_without_end_is_not_collected() -> None:
    for make in (ResponseStream, ResponseWhole):
        encoder = make(HEAD, parsed(), ending())
        with pytest.raises(UpstreamError):
            for _ in range(40):
                encoder.feed(0, [Text("x" * (1 << 20))])
