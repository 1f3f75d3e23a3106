"""Requests of Anthropic's Messages API as chats: bytes in, a frozen ``MessagesRequest`` out, or a 400.

Rule: a translation. What both APIs have gets chat's name, and what only Anthropic can do is refused by name.
Shapes: https://docs.anthropic.com/en/api/messages Knows nothing about models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from gateway.core.blocks import conversation
from gateway.core.body import checked, read_json
from gateway.core.errors import BadRequest
from gateway.core.places import NONE, Places, taken
from gateway.core.wire import MAX_MESSAGES, ChatRequest, Scalar
from gateway.core.wording import Wording, refuse

Name: TypeAlias = Annotated[str, Field(max_length=64)]


class Metadata(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    user_id: Annotated[str, Field(max_length=1024)] | None = None


class Thinking(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    display: Name | None = None


class OutputConfig(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    effort: Name | None = None
    format: dict[str, Any] | None = None


class ToolChoice(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessagesBody(BaseModel):
    """What the client sent. ``None``: it did not say. Bounds that a chat has too are left to the chat."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", protected_namespaces=())

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    system: str | list[dict[str, Any]] | None = None
    stop_sequences: Annotated[list[str], Field(max_length=256)] | None = None
    stream: bool | None = None
    temperature: Annotated[Scalar, Field(ge=0, le=1)] | None = None
    top_p: float | None = None
    top_k: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    metadata: Metadata | None = None
    thinking: Thinking | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=512)] | None = None
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None
    output_format: dict[str, Any] | None = None
    service_tier: Name | None = None
    cache_control: dict[str, Any] | None = None


class MessagesRequest(ChatRequest):
    """The chat that was asked for, with what it was asked as."""

    asked: MessagesBody
    places: Places = NONE  # of its images

    @property
    def shows_thinking(self) -> bool:
        """Whether thoughts are part of the answer: as that API has it, only where they were asked for."""
        return self.asked.thinking is not None and self.asked.thinking.type != "disabled"


def parse_messages(body: bytes) -> MessagesRequest:
    """The request in these bytes. Raises ``BadRequest`` that names the first wrong field or JSON position."""
    asked = checked(MessagesBody, read_json(body))
    if asked.max_tokens is None:
        raise BadRequest("max_tokens is required.", param="max_tokens", code="missing_required_parameter")
    return _request(asked)


def parse_count(body: bytes) -> MessagesRequest:
    """The same for a request whose tokens are counted: it says nothing of an answer."""
    return _request(checked(MessagesBody, read_json(body)))


def _request(asked: MessagesBody) -> MessagesRequest:
    refuse(asked, _ELSEWHERE, _ABSENT)
    said, places = taken(conversation(asked.system, asked.messages), "source")
    try:
        return checked(
            MessagesRequest, {**_chat_fields(asked), "messages": said, "asked": asked, "places": places}
        )
    except BadRequest as error:
        raise WORDING.error(error) from None


def reworded(error: BadRequest, request: MessagesRequest) -> BadRequest:
    """A refusal of the chat in the names of this API."""
    return WORDING.error(error, request.places)


# --- fields ---

_ELSEWHERE = {
    "stop": "stop_sequences", "max_completion_tokens": "max_tokens", "user": "metadata.user_id",
    "response_format": "output_config.format", "reasoning_effort": "output_config.effort",
    "functions": "tools", "function_call": "tool_choice",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}  # fmt: skip
"""Chat's names for what this API calls otherwise."""

_ABSENT = {
    "n": "a message is one answer",
    "logprobs": "a message has no place for them",
    "top_logprobs": "a message has no place for them",
    "mcp_servers": "servers of tools are not called from here",
    "container": "no code is run here",
}


def _chat_fields(asked: MessagesBody) -> dict[str, Any]:
    """The chat request but for its messages."""
    output, choice, tools = asked.output_config or OutputConfig(), asked.tool_choice, asked.tools
    alone = choice is not None and choice.disable_parallel_tool_use
    names = ("model", "stream", "max_tokens", "temperature", "top_p", "top_k")
    fields = {
        **(asked.model_extra or {}),
        **{name: getattr(asked, name) for name in names},
        "stop": asked.stop_sequences,
        "user": asked.metadata.user_id if asked.metadata else None,
        "tools": None if tools is None else [_tool(each, f"tools[{i}]") for i, each in enumerate(tools)],
        "tool_choice": _choice(choice) if choice is not None else None,
        "parallel_tool_calls": False if alone else None,
        "response_format": _format(asked.output_format or output.format),
        "reasoning_effort": output.effort,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _tool(tool: Mapping[str, Any], at: str) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        raise BadRequest(
            f"{at}.type: only tools of your own, with an input_schema, are available; "
            "server tools and others that Anthropic defines are not.",
            param=f"{at}.type",
            code="unsupported_parameter",
        )
    if tool.get("input_schema") is None:
        param = f"{at}.input_schema"
        raise BadRequest(f"{param} is required.", param=param, code="missing_required_parameter")
    function = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": {**function, "parameters": tool["input_schema"]}}


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.type != "tool":
        return {"auto": "auto", "any": "required", "none": "none"}[choice.type]
    if choice.name is None:
        param = "tool_choice.name"
        raise BadRequest(f"{param} is required.", param=param, code="missing_required_parameter")
    return {"type": "function", "function": {"name": choice.name}}


def _format(format: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if format is None:
        return None
    if format.get("type") != "json_schema":
        param = "output_config.format.type"
        raise BadRequest(f"{param} must be json_schema.", param=param, code="invalid_value")
    schema = {"schema": format["schema"]} if format.get("schema") is not None else {}
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, **schema}}


# --- what a refusal names ---

WORDING = Wording(
    (
        (re.compile(r"(^messages\b|\bmessages(?=\[))(\[\d+\](\.content(\[\d+\](\.\w+)*)?)?)?"), "messages"),
        (re.compile(r"^stop\b"), "stop_sequences"),
        (re.compile(r"\bresponse_format(\.json_schema)?"), "output_config.format"),
        (re.compile(r"(?<![.\w])reasoning_effort\b"), "output_config.effort"),
        (re.compile(r"^parallel_tool_calls\b"), "tool_choice.disable_parallel_tool_use"),
        (re.compile(r"\b(tools\[\d+\])\.function\.parameters\b"), r"\1.input_schema"),
        (re.compile(r"\b(tools\[\d+\]|tool_choice)\.function\b"), r"\1"),
    )
)
