"""A whole chat answer: the same events, collected into one ``chat.completion`` object.

Shape: https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.core.encode import Head
from gateway.core.encode.usage import usage_fields
from gateway.core.errors import UpstreamError
from gateway.core.events import Batch, Event, Extra, Finish, Reasoning, Text, ToolArgs, ToolStart, Usage

MAX_SIZE = 32 << 20  # characters and pieces of all choices
PIECE = 64  # what an event counts beside its text


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

    def __init__(self, head: Head, n: int = 1) -> None:
        self._head = head
        self._choices = [_Choice() for _ in range(n)]
        self._size = 0

    def feed(self, index: int, batch: Batch) -> None:
        choice = self._choices[index]
        for event in batch:
            self._bound(event)
            match event:
                case Text(text, logprobs):
                    choice.text.append(text)
                    if logprobs is not None:
                        choice.logprobs = choice.logprobs or []
                        choice.logprobs.extend(logprobs)
                case Reasoning(text):
                    choice.reasoning.append(text)
                case ToolStart(call):
                    choice.tools[call] = (event, [])
                case ToolArgs(call, text):
                    choice.tools[call][1].append(text)
                case Extra(fields):
                    _merge(choice.extra, fields)
                case Finish(reason):
                    choice.finish = reason

    def _bound(self, event: Event) -> None:
        """A backend that never ends must not fill the memory. Fields beside the text count by the piece."""
        self._size += PIECE + len(getattr(event, "text", ""))
        if self._size > MAX_SIZE:
            raise UpstreamError(
                "The upstream's answer is too large to be given whole; ask for a stream.",
                code="upstream_bad_response",
            )

    def answer(self, usage: Usage) -> bytes:
        """The JSON body; called once, after every choice has finished."""
        return orjson.dumps(
            {
                "id": self._head.id,
                "object": "chat.completion",
                "created": self._head.created,
                "model": self._head.model,
                "choices": [_choice_fields(i, choice) for i, choice in enumerate(self._choices)],
                "usage": usage_fields(usage),
            }
        )


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
        message["reasoning_content"] = "".join(choice.reasoning)
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
