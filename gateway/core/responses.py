"""Requests of OpenAI's Responses API as chat requests: bytes in, a frozen ``ResponsesRequest`` out, or a 400.

Rule: a translation. What both APIs have keeps its name, the rest gets chat's; what only OpenAI can do is
refused by name; what has no effect is noted. Shapes:
https://platform.openai.com/docs/api-reference/responses/create Knows nothing about models, or where
responses are stored: what a request refers to is given by whoever recalls it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from gateway.core.body import checked, read_json
from gateway.core.call import MAX_NOTED, Call
from gateway.core.errors import BadRequest
from gateway.core.items import Item, Message, Recall, kind_of, messages
from gateway.core.places import NONE, Places, taken
from gateway.core.wire import MAX_MESSAGES, ChatRequest
from gateway.core.wording import Wording, refuse

Text: TypeAlias = Annotated[str, Field(max_length=512)]


class Reasoning(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    effort: Annotated[str, Field(max_length=64)] | None = None
    summary: str | None = None
    generate_summary: str | None = None


class TextConfig(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    format: dict[str, Any] | None = None
    verbosity: Annotated[str, Field(max_length=64)] | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    include_obfuscation: bool | None = None


Include: TypeAlias = Literal[
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
    "reasoning.encrypted_content", "message.output_text.logprobs",
]  # fmt: skip


class ResponsesBody(BaseModel):
    """What the client sent. ``None``: it did not say. Bounds that a chat has too are left to the chat."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", protected_namespaces=())

    model: str | None = None
    input: str | Annotated[list[Any], Field(max_length=MAX_MESSAGES)] | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    metadata: Annotated[dict[Annotated[str, Field(max_length=64)], Text], Field(max_length=16)] | None = None
    include: Annotated[list[Include], Field(max_length=64)] | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=512)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    previous_response_id: Text | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None


class ResponsesRequest(ChatRequest):
    """The chat that was asked for, with what it was asked as."""

    asked: ResponsesBody
    places: Places = NONE  # of its images
    owner: str = ""  # id of the key that may read what is kept of it
    kept: bool = False  # its response will be stored


History: TypeAlias = Callable[[str], Sequence[Message]]
"""The messages up to and with the response of this id. Raises ``BadRequest``."""


def parse_responses(body: bytes) -> ResponsesRequest:
    """The request in these bytes. Raises ``BadRequest`` that names the first wrong field or JSON position.

    What it refers to is not there yet: see ``recalled``.
    """
    asked = checked(ResponsesBody, read_json(body))
    refuse(asked, _ELSEWHERE, _ABSENT)
    before: list[Message] = [{"role": "assistant", "content": ""}] if asked.previous_response_id else []
    said, places = taken(conversation(asked, _not_yet, before), "image_url")
    fields = {**_chat_fields(asked), "messages": said, "asked": asked, "places": places}
    return checked(ResponsesRequest, fields)


def reworded(error: BadRequest, request: ResponsesRequest) -> BadRequest:
    """A refusal of the chat in the names of this API."""
    return WORDING.error(error, request.places)


def recalled(request: ResponsesRequest, owner: str, history: History, recall: Recall) -> ResponsesRequest:
    """The same with what it refers to in its place, to be kept for ``owner``. Raises ``BadRequest``."""
    asked = request.asked
    told: dict[str, Any] = {"owner": owner, "kept": asked.store is not False}
    items = asked.input if isinstance(asked.input, list) else ()
    if asked.previous_response_id or any(kind_of(item, "") == "item_reference" for item in items):
        before = history(asked.previous_response_id) if asked.previous_response_id else ()
        told["messages"], told["places"] = taken(conversation(asked, recall, before), "image_url")
    return request.model_copy(update=told)


def conversation(asked: ResponsesBody, recall: Recall, before: Sequence[Message]) -> list[Message]:
    """Instructions, then what was said before, then the input."""
    items: Sequence[Any] = asked.input if isinstance(asked.input, list) else ()
    said = [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else []
    said = [*before, *said, *messages(items, recall)]
    if not said:
        raise BadRequest("input is required.", param="input", code="missing_required_parameter")
    if len(said) > MAX_MESSAGES:
        message = f"The conversation has {len(said)} messages; {MAX_MESSAGES} are accepted."
        raise BadRequest(message, param="input", code="invalid_value")
    head = [{"role": "system", "content": asked.instructions}] if asked.instructions else []
    return head + said


def _not_yet(_: str) -> Item:
    return {"type": "message", "role": "assistant", "content": ""}


# --- fields ---

_ELSEWHERE = {
    "messages": "input", "max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format", "reasoning_effort": "reasoning.effort", "verbosity": "text.verbosity",
    "functions": "tools", "function_call": "tool_choice",
}  # fmt: skip
"""Chat's names for what this API calls otherwise."""

_ABSENT = {
    "background": "responses are made while the client waits",
    "conversation": "conversations are not kept; send the items, or previous_response_id where responses are",
    "prompt": "there are no stored prompts",
    "context_management": "nothing is left out of the input here",
    "n": "a response is one answer",
    "audio": "this gateway answers with text",
}


_SAME = (
    "model", "stream", "temperature", "top_p", "top_logprobs", "parallel_tool_calls", "prompt_cache_key",
    "safety_identifier", "user",
)  # fmt: skip


def _chat_fields(asked: ResponsesBody) -> dict[str, Any]:
    """The chat request but for its messages."""
    tools, choice = _tools(asked)
    logprobs = asked.top_logprobs or "message.output_text.logprobs" in (asked.include or ())
    text, reasoning = asked.text or TextConfig(), asked.reasoning or Reasoning()
    fields = {
        **(asked.model_extra or {}),
        **{name: getattr(asked, name) for name in _SAME},
        "max_completion_tokens": asked.max_output_tokens,
        "tools": tools,
        "tool_choice": choice,
        "response_format": _format(text.format),
        "verbosity": text.verbosity,
        "reasoning_effort": reasoning.effort,
    }
    if logprobs:
        fields["logprobs"] = True
    return {name: value for name, value in fields.items() if value is not None}


def _tools(asked: ResponsesBody) -> tuple[list[Any] | None, Any]:
    """Tools and choice as chat has them. Of allowed tools the others are not shown to the model."""
    tools = None if asked.tools is None else [_tool(t, f"tools[{i}]") for i, t in enumerate(asked.tools)]
    choice = asked.tool_choice
    if not isinstance(choice, dict):
        return tools, choice
    kind, name = choice.get("type"), choice.get("name")
    if kind == "function" and isinstance(name, str):
        return tools, {"type": "function", "function": {"name": name}}
    allowed = choice.get("tools")
    mode = choice.get("mode") or "auto"
    if kind == "allowed_tools" and isinstance(allowed, list) and mode in ("auto", "required"):
        return _allowed(tools or [], allowed), mode
    raise BadRequest(
        "tool_choice must be none, auto, required, a function by its name, or allowed_tools: auto, required.",
        param="tool_choice",
        code="invalid_value",
    )


def _allowed(tools: Sequence[Any], allowed: Sequence[Any]) -> list[Any]:
    """Those of the tools that are allowed. Raises ``BadRequest`` for one that is not among them."""
    named = {tool["function"].get("name"): tool for tool in tools}
    wanted = []
    for index, each in enumerate(allowed):
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str) or name not in named:
            where = f"tool_choice.tools[{index}]"
            message = f"{where} names a function that is not among the tools."
            raise BadRequest(message, param=where, code="invalid_value")
        wanted.append(name)
    return [tool for name, tool in named.items() if name in wanted]


def _tool(tool: Mapping[str, Any], at: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise BadRequest(
            f"{at}.type: only functions are available; hosted and custom tools are OpenAI's own.",
            param=f"{at}.type",
            code="unsupported_parameter",
        )
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {n: tool[n] for n in names if tool.get(n) is not None}}


def _format(format: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if format is None or format.get("type") == "text":
        return None
    if format.get("type") != "json_schema":
        return dict(format)
    inner = {name: value for name, value in format.items() if name != "type" and value is not None}
    return {"type": "json_schema", "json_schema": inner}


# --- what is said of it ---


def noted(call: Call, request: ResponsesRequest, *, stores: bool) -> Call:
    """The call, with what had no effect under the names of this API."""
    names = (*without_effect(request.asked, stores=stores), *map(WORDING.text, call.notes.ignored))
    ignored = tuple(dict.fromkeys(names))[:MAX_NOTED]
    return replace(call, notes=replace(call.notes, ignored=ignored))


def without_effect(asked: ResponsesBody, *, stores: bool) -> tuple[str, ...]:
    """Names of fields that changed nothing."""
    reasoning, options = asked.reasoning or Reasoning(), asked.stream_options or StreamOptions()
    idle = {
        "truncation": asked.truncation == "auto",
        "max_tool_calls": asked.max_tool_calls,
        "include": set(asked.include or ()) - {"message.output_text.logprobs"},
        "reasoning.summary": reasoning.summary or reasoning.generate_summary,
        "store": asked.store and not stores,
        "stream_options.include_obfuscation": options.include_obfuscation,
    }
    return tuple(name for name, given in idle.items() if given)


WORDING = Wording(
    (
        (re.compile(r"(^messages\b|\bmessages(?=\[))(\[\d+\])?(\.content(\[\d+\])?)?"), "input"),
        (re.compile(r"\bmax_(completion_)?tokens\b"), "max_output_tokens"),
        (re.compile(r"\bresponse_format(\.json_schema)?"), "text.format"),
        (re.compile(r"(?<![.\w])reasoning_effort\b"), "reasoning.effort"),
        (re.compile(r"^verbosity\b"), "text.verbosity"),
        (re.compile(r"^logprobs\b"), "top_logprobs"),
        (re.compile(r"\b(tools\[\d+\]|tool_choice)\.function\b"), r"\1"),
    )
)
