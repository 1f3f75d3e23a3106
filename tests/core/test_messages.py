"""Requests of Anthropic's Messages API become chats; what cannot is refused by the client's own names."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.core.call import Call, ChatCall, Marks, PromptCall, Traits
from gateway.core.errors import BadRequest
from gateway.core.message_calls import message_call, message_calls
from gateway.core.messages import WORDING, MessagesRequest, parse_count, parse_messages
from gateway.core.plan import Origin
from gateway.core.spec import ModelSpec
from gateway.core.template import compile_template
from gateway.templates import load

ORIGIN = Origin("req_1", datetime(2026, 1, 2, tzinfo=UTC))
PROMPT = Traits("prompt")
CHAT = Traits("chat")
USER = [{"role": "user", "content": "hi"}]
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
ADD = {"name": "add", "description": "sum", "input_schema": {"type": "object", "properties": {}}}


def body(**fields: Any) -> bytes:
    whole = {"model": "m", "max_tokens": 9, "messages": USER, **fields}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def parsed(**fields: Any) -> MessagesRequest:
    return parse_messages(body(**fields))


def said(*messages: Any, **fields: Any) -> list[Any]:
    return list(parsed(messages=list(messages), **fields).messages)


def call(traits: Traits = PROMPT, spec: Any = None, **fields: Any) -> Call:
    [made] = message_calls(parsed(**fields), ModelSpec("m", load("chatml"), **(spec or {})), traits, ORIGIN)
    return made


def refused(call: Callable[[], object]) -> tuple[str | None, str | None]:
    with pytest.raises(BadRequest) as caught:
        call()
    assert caught.value.param is None or caught.value.param.partition("[")[0] in caught.value.message
    return caught.value.param, caught.value.code


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def use(id: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": "add", "input": given}


def result(id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, **fields}


# --- messages ---


@pytest.mark.parametrize("system", ["one\n\ntwo", [text("one"), text("two")]])
def test_the_system_text_comes_first(system: Any) -> None:
    assert said(*USER, system=system) == [{"role": "system", "content": "one\n\ntwo"}, *USER]


def test_an_empty_system_text_is_none() -> None:
    assert said(*USER, system="") == said(*USER, system=[]) == USER


def test_texts_of_one_speaker_are_one_message() -> None:
    assert said(
        user(text("one"), text("two")),
        {"role": "user", "content": "three"},
        assistant(text("four")),
        {"role": "assistant", "content": "five"},
        {"role": "system", "content": "six"},
        {"role": "user", "content": "seven"},
    ) == [
        {"role": "user", "content": "one\n\ntwo\n\nthree"},
        {"role": "assistant", "content": "four\n\nfive"},
        {"role": "system", "content": "six"},
        {"role": "user", "content": "seven"},
    ]


def test_calls_and_thoughts_belong_to_the_assistants_message_and_results_follow_it() -> None:
    thought = {"type": "thinking", "thinking": "Add.", "signature": ""}
    locked = {"type": "redacted_thinking", "data": "x"}
    assert said(
        *USER,
        assistant(thought, locked, text("Let me see."), use("c1", a=1), use("c2")),
        user(result("c1", content="3"), result("c2", content=[text("4"), text("5")]), text("And?")),
    ) == [
        *USER,
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "Add.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
                {"id": "c2", "type": "function", "function": {"name": "add", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": "4\n\n5"},
        {"role": "user", "content": "And?"},
    ]


def test_a_result_may_say_nothing_or_that_the_tool_failed() -> None:
    _, _, *results = said(*USER, assistant(use("c")), user(result("c"), result("c", content=[])))
    assert [each["content"] for each in results] == ["", ""]
    failed = result("c", content="no such file", is_error=True)
    image = result("c", content=[PNG], is_error=True)
    _, _, first, second = said(*USER, assistant(use("c")), user(failed, image))
    assert first["content"] == "Error: no such file"
    assert second["content"][0] == {"type": "text", "text": "Error: "}


def test_images_become_parts_of_a_chat() -> None:
    remote = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    [message] = said(user(text("what?"), PNG, remote), {"role": "user", "content": "well?"})
    assert message["content"] == [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "text", "text": "well?"},
    ]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "tool", "content": "x"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        (user(), "messages[0].content"),
        (user("x"), "messages[0].content[0]"),
        (user({"text": "x"}), "messages[0].content[0]"),
        (user({"type": "text"}), "messages[0].content[0].text"),
        (user(text("x"), {"type": "document", "source": {}}), "messages[0].content[1].type"),
        (user({"type": "a b"}), "messages[0].content[0].type"),
        (user({"type": "image", "source": {"type": "file"}}), "messages[0].content[0].source"),
        (user({"type": "image"}), "messages[0].content[0].source"),
        (user(result("c", content=[{"type": "search_result"}])), "messages[0].content[0].content[0].type"),
        (user({"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
        (assistant({"type": "server_tool_use"}), "messages[0].content[0].type"),
        (assistant({**use("c"), "input": "{}"}), "messages[0].content[0].input"),
        (assistant({"type": "tool_use"}), "messages[0].content[0].input"),
        ({"role": "system", "content": [PNG]}, "messages[0].content[0].type"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(message: Any, param: str) -> None:
    assert refused(lambda: said(message))[0] == param


# --- fields ---


def test_fields_get_a_chats_names() -> None:
    request = parsed(
        max_tokens=7,
        temperature=1,
        top_p=0.5,
        top_k=40,
        stop_sequences=["a", "b"],
        metadata={"user_id": "someone"},
        tools=[{**ADD, "type": "custom", "strict": True}],
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        seed=3,
        mine=1,
    )
    assert (request.max_tokens, request.temperature, request.top_p, request.top_k) == (7, 1, 0.5, 40)
    assert (request.stop, request.user, request.seed) == (["a", "b"], "someone", 3)
    function = {"name": "add", "description": "sum", "strict": True, "parameters": ADD["input_schema"]}
    assert request.tools == [{"type": "function", "function": function}]
    inner = {"name": "answer", "strict": True, "schema": {"type": "object"}}
    assert request.response_format == {"type": "json_schema", "json_schema": inner}
    assert request.model_extra == {"reasoning_effort": "low", "mine": 1}
    older = parsed(output_format={"type": "json_schema", "schema": {"type": "object"}})
    assert older.response_format == request.response_format


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "add"}, {"type": "function", "function": {"name": "add"}}),
    ],
)
def test_a_choice_of_tools(choice: dict[str, Any], wanted: Any) -> None:
    request = parsed(tools=[ADD], tool_choice=choice)
    assert request.tool_choice == wanted
    assert "parallel_tool_calls" not in (request.model_extra or {})
    single = parsed(tools=[ADD], tool_choice={**choice, "disable_parallel_tool_use": True})
    assert single.model_extra == {"parallel_tool_calls": False}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"max_tokens": ...}, "max_tokens", "missing_required_parameter"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"messages": ...}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"temperature": 1.5}, "temperature", "invalid_value"),
        ({"top_p": 2.0}, "top_p", "invalid_value"),
        ({"top_k": -1}, "top_k", "invalid_value"),
        ({"stop_sequences": ["x"] * 17 + ["y"]}, "stop_sequences", "invalid_value"),
        ({"stop_sequences": "x"}, "stop_sequences", "invalid_value"),
        ({"metadata": {"user_id": "x" * 1025}}, "metadata.user_id", "invalid_value"),
        ({"tools": [{"type": "web_search_20250305", "name": "x"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"name": "x"}]}, "tools[0].input_schema", "missing_required_parameter"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name", "missing_required_parameter"),
        ({"tool_choice": "auto"}, "tool_choice", "invalid_value"),
        ({"thinking": {"type": "deep"}}, "thinking.type", "invalid_value"),
        ({"output_config": {"format": {"type": "x"}}}, "output_config.format.type", "invalid_value"),
        ({"system": [PNG]}, "system[0].type", "unsupported_content"),
        ({"stop": "x"}, "stop", "unsupported_parameter"),
        ({"user": "x"}, "user", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers", "unsupported_parameter"),
    ],
)
def test_refusals_name_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    assert refused(lambda: parsed(**fields)) == (param, code)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{**ADD, "name": "a b"}]}, "tools[0].name"),
        ({"tools": [{**ADD, "input_schema": [1]}]}, "tools[0].input_schema"),
        ({"tools": [ADD], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"messages": [user(PNG)]}, "messages[0].content[0].type"),
        ({"messages": [*USER, *USER, user(text("a"), result("c", content=[text("b"), PNG]))]},
         "messages[2].content[1].content[1].type"),
        ({"messages": [*USER, assistant(text("The answer is ("))]}, "messages"),
        ({"seed": 1, "chat_template_kwargs": {"x": 1}}, "chat_template_kwargs"),
    ],
)  # fmt: skip
def test_what_the_plan_refuses_is_named_as_the_client_called_it(fields: Any, param: str) -> None:
    assert refused(lambda: call(**fields))[0] == param


def test_chats_words_for_a_field_become_ours() -> None:
    assert WORDING.text("messages[3].content[1]: parts of type 'x'") == "messages: parts of type 'x'"
    assert WORDING.text("messages[3].content[1].type") == "messages"
    assert WORDING.text("stop: accepts at most 16 strings") == "stop_sequences: accepts at most 16 strings"
    assert WORDING.text("response_format.json_schema.schema.type") == "output_config.format.schema.type"
    assert WORDING.text("tools[1].function.parameters") == "tools[1].input_schema"
    assert WORDING.text("nothing to stop here") == "nothing to stop here"


def test_a_count_needs_no_length_and_any_last_speaker_will_do() -> None:
    request = parse_count(body(max_tokens=..., messages=[*USER, assistant(text("yes"))]))
    made = message_call(request, ModelSpec("m", load("chatml")), PROMPT, ORIGIN)
    assert isinstance(made, PromptCall)
    assert "yes" in made.prompt


# --- calls ---


def test_the_clients_stops_are_left_to_the_gateway_where_it_watches() -> None:
    watched = call(stream=True, stop_sequences=["END"])
    assert isinstance(watched, PromptCall)
    assert watched.watch.stops == ("END",)
    assert watched.arguments["stop"] == list(watched.watch.boundary)
    unwatched = call(Traits("prompt", streams=False), stop_sequences=["END"])
    assert isinstance(unwatched, PromptCall)
    assert "END" in unwatched.arguments["stop"]
    chat = call(CHAT, stop_sequences=["END"])
    assert isinstance(chat, ChatCall)
    assert (chat.stream, chat.watch.stops, "stop" in chat.body) == (True, ("END",), False)
    kept = call(CHAT, {"stops": ("###",)}, stop_sequences=["END"])
    assert isinstance(kept, ChatCall)
    assert kept.body["stop"] == ["###"]


def test_thinking_is_asked_of_models_that_think() -> None:
    asked = {"type": "enabled", "budget_tokens": 2000}
    chat = call(CHAT, thinking=asked)
    assert isinstance(chat, ChatCall)
    told = {"enable_thinking": True, "thinking": True, "thinking_budget": 2000}
    assert chat.body["chat_template_kwargs"] == told
    assert chat.notes.ignored == ("thinking.budget_tokens",)
    unable = call(thinking={"type": "adaptive"})
    assert unable.notes.ignored == ("thinking",)
    able = call(PROMPT, {"reasoning": Marks()}, thinking={"type": "adaptive"})
    assert able.notes.ignored == ()
    off = call(CHAT, thinking={"type": "disabled"}, chat_template_kwargs={"thinking": True})
    assert isinstance(off, ChatCall)
    assert off.body["chat_template_kwargs"] == {"enable_thinking": False, "thinking": True}


def test_an_answer_begins_with_a_thought_only_where_the_prompt_opens_one() -> None:
    spec = {"reasoning": Marks(starts_open=True)}
    assert call(PROMPT, spec).watch.reasoning == Marks(starts_open=True)
    hears = "{{ messages[-1].content }}{% if thinking is defined and not thinking %} /short{% endif %}"
    model = ModelSpec("m", compile_template("hears", hears), **spec)
    for kind, opens in (("disabled", False), ("adaptive", True)):
        [made] = message_calls(parsed(thinking={"type": kind}), model, PROMPT, ORIGIN)
        assert made.watch.reasoning == Marks(starts_open=opens)
        assert made.notes.ignored == ()


def test_thinking_that_a_model_cannot_leave_is_named() -> None:
    off = call(PROMPT, {"reasoning": Marks()}, thinking={"type": "disabled"})
    assert off.notes.ignored == ("thinking",)
    said = call(output_config={"effort": "low"}, chat_template_kwargs={"reasoning_effort": "low"})
    assert said.notes.ignored == ("output_config.effort", "chat_template_kwargs.reasoning_effort")


def test_thoughts_are_shown_where_they_were_asked_for() -> None:
    shown = {kind: parsed(thinking={"type": kind}).shows_thinking for kind in ("enabled", "adaptive")}
    assert shown == {"enabled": True, "adaptive": True}
    assert not parsed().shows_thinking
    assert not parsed(thinking={"type": "disabled"}).shows_thinking


MARK = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (MARK, ("cache_control",)),
        ({"system": [{**text("x"), **MARK}]}, ("cache_control",)),
        ({"messages": [user({**text("x"), **MARK})]}, ("cache_control",)),
        ({"messages": [*USER, assistant(use("c")), user(result("c", content=[{**text("x"), **MARK}]))]},
         ("cache_control",)),
        ({"tools": [{**ADD, **MARK, "defer_loading": True}]}, ("cache_control", "tools.defer_loading")),
        ({"service_tier": "auto"}, ("service_tier",)),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, ("thinking", "thinking.display")),
        ({"tool_choice": {"type": "any"}}, ("tool_choice",)),
        ({"context_management": {"edits": []}}, ("context_management",)),
        ({"metadata": {"user_id": "x"}, "top_k": 1}, ()),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_named(fields: dict[str, Any], names: tuple[str, ...]) -> None:
    assert call(**fields).notes.ignored == names
