"""A streamed chat answer: events -> ``chat.completion.chunk`` objects as server-sent events.

Rule: the first chunk of a choice carries the role, exactly one carries its finish reason, every chunk has
the same id, created and model; a failure is ``data: {"error": ...}`` and never ``[DONE]``. Shapes:
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.core.encode import Head
from gateway.core.encode.usage import usage_chunk
from gateway.core.errors import GatewayError
from gateway.core.events import (
    Batch,
    Event,
    Extra,
    Finish,
    Reasoning,
    Text,
    ToolArgs,
    ToolStart,
    Usage,
    Vectors,
)

DONE = b"data: [DONE]\n\n"
_NO_FINISH = b',"logprobs":null,"finish_reason":null}]'


class Chunks:
    """The encoder of one streamed answer with any number of choices.

    The constant parts of a chunk are encoded once; a text chunk costs one JSON string.
    """

    def __init__(
        self, head: Head, choices: int = 1, *, include_usage: bool = False, functions: bool = False
    ) -> None:
        """``functions``: the one call is told in the older form, as ``function_call``."""
        same = orjson.dumps(
            {"id": head.id, "object": "chat.completion.chunk", "created": head.created, "model": head.model}
        )
        self._start = b"data: " + same[:-1] + b',"choices":['
        # With include_usage every chunk but the last says usage: null (OpenAI's stream_options).
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._include_usage = include_usage
        self._choices = choices
        self._functions = functions
        self._texts: dict[int, tuple[bytes, bytes]] = {}

    def opening(self) -> bytes:
        """The first chunk of each choice, which carries the role."""
        return b"".join(
            self._chunk(index, {"role": "assistant", "content": ""}) for index in range(self._choices)
        )

    def pause(self) -> bytes:
        """A chunk that says nothing, for clients whose patience only chunks renew."""
        return self._chunk(0, {"content": ""})

    def feed(self, index: int, batch: Batch) -> bytes:
        """The chunks for these events of choice ``index``, to be sent as one write."""
        start, end = self._texts.get(index) or self._bind(index)
        dumps = orjson.dumps
        parts: list[bytes] = []
        for event in batch:
            if type(event) is Text and event.logprobs is None:
                if event.text:
                    parts += (start, dumps(event.text), end)
            else:
                parts.append(self._other(index, event))
        return b"".join(parts)

    def end(self, usage: Usage, extension: dict[str, Any]) -> bytes:
        """``[DONE]``, and before it a chunk without choices if the client asked for usage."""
        if not self._include_usage:
            return DONE
        return usage_chunk(self._start, usage, extension) + DONE

    def error(self, error: GatewayError) -> bytes:
        """A failure after the headers were sent, in the one form that every client raises on."""
        return b"data: " + error.json() + b"\n\n"

    def _bind(self, index: int) -> tuple[bytes, bytes]:
        start = self._start + b'{"index":%d,"delta":{"content":' % index
        self._texts[index] = (start, b"}" + _NO_FINISH + self._end)
        return self._texts[index]

    def _chunk(
        self, index: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._start + orjson.dumps(choice) + b"]" + self._end

    def _other(self, index: int, event: Event) -> bytes:
        match event:
            case Text(text, logprobs):
                return self._chunk(
                    index, {"content": text}, logprobs={"content": list(logprobs or ()), "refusal": None}
                )
            case Reasoning(text):
                return self._chunk(index, {"reasoning_content": text, "reasoning": text})
            case ToolStart(call, id, name):
                function = {"name": name, "arguments": ""}
                return self._call(index, function, {"index": call, "id": id, "type": "function"})
            case ToolArgs(call, text):
                return self._call(index, {"arguments": text}, {"index": call})
            case Extra(fields):
                return self._chunk(index, dict(fields))
            case Finish(reason):
                called = self._functions and reason == "tool_calls"
                return self._chunk(index, {}, finish="function_call" if called else reason)
            case Vectors():
                return b""  # no chat is answered with any

    def _call(self, index: int, function: dict[str, str], call: dict[str, Any]) -> bytes:
        if self._functions:
            return self._chunk(index, {"function_call": function})
        return self._chunk(index, {"tool_calls": [{**call, "function": function}]})
