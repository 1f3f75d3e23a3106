"""A whole chat answer: the same events, collected into one ``chat.completion`` object.

Shape: https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.core.encode import Head
from gateway.core.encode.bound import Bound
from gateway.core.encode.usage import usage_fields
from gateway.core.events import Batch, Event, Extra, Finish, Reasoning, Text, ToolArgs, ToolStart, Usage


@dataclass(slots=True)
class _Choice:
    text: list[str] = field(default_factory=list)
    logprobs: list[Mapping[str, Any]] | None = None
    reasoning: list[str] = field(default_factory=list)
    tools: dict[int, tuple[ToolStart, list[str]]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    finish: str = "stop"


class Collector:
    """The encoder of one whole answer with ``n`` choices."""

    def __init__(self, head: Head, n: int = 1, *, functions: bool = False) -> None:
        """``functions``: the one call is told in the older form, as ``function_call``."""
        self._head = head
        self._functions = functions
        self._choices = [_Choice() for _ in range(n)]
        self._bound = Bound()

    def feed(self, index: int, batch: Batch) -> None:
        choice = self._choices[index]
        for event in batch:
            self._bound.count(event)
            if type(event) is Text:
                choice.text.append(event.text)
                if event.logprobs is not None:
                    choice.logprobs = choice.logprobs or []
                    choice.logprobs.extend(event.logprobs)
            elif type(event) is Finish:
                choice.finish = event.reason
            else:
                _take(choice, event)

    def answer(self, usage: Usage) -> bytes:
        """The JSON body; called once, after every choice has finished."""
        return orjson.dumps(
            {
                "id": self._head.id,
                "object": "chat.completion",
                "created": self._head.created,
                "model": self._head.model,
                "choices": [self._fields(i, choice) for i, choice in enumerate(self._choices)],
                "usage": usage_fields(usage),
            }
        )

    def _fields(self, index: int, choice: _Choice) -> dict[str, Any]:
        fields = _choice_fields(index, choice)
        if self._functions and (calls := fields["message"].pop("tool_calls", None)):
            fields["message"]["function_call"] = calls[0]["function"]
            if fields["finish_reason"] == "tool_calls":
                fields["finish_reason"] = "function_call"
        return fields


def _take(choice: _Choice, event: Event) -> None:
    """What few answers have."""
    match event:
        case Reasoning(text):
            choice.reasoning.append(text)
        case ToolStart(call):
            choice.tools[call] = (event, [])
        case ToolArgs(call, text):
            choice.tools[call][1].append(text)
        case Extra(fields):
            _merge(choice.extra, fields)


def _merge(extra: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Add a delta's unknown fields to the message's: text and lists go on, anything else is replaced."""
    for name, value in fields.items():
        before = extra.get(name)
        same = type(before) is type(value) and isinstance(value, str | list)
        extra[name] = before + value if same else value


def _choice_fields(index: int, choice: _Choice) -> dict[str, Any]:
    text = "".join(choice.text)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, **choice.extra}
    if choice.reasoning:
        message["reasoning_content"] = message["reasoning"] = "".join(choice.reasoning)  # both are read
    if choice.tools:
        message["content"] = text or None
        message["tool_calls"] = [
            {
                "id": start.id,
                "type": "function",
                "function": {"name": start.name, "arguments": "".join(arguments)},
            }
            for _, (start, arguments) in sorted(choice.tools.items())
        ]
    logprobs = None if choice.logprobs is None else {"content": choice.logprobs, "refusal": None}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish}
