"""Answers of Anthropic's Messages API: a ``message`` object, the events of a streamed one, and errors.

Rule: ``message_start``, blocks, ``message_delta``, ``message_stop``; a failure is ``event: error`` and
nothing follows it. Tokens of the prompt that a cache held are told apart from the others, as that API does.
Shapes: https://docs.anthropic.com/en/api/messages-streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.core.encode import Head
from gateway.core.encode.blocks import Blocks, Told
from gateway.core.encode.bound import Bound
from gateway.core.errors import GatewayError
from gateway.core.events import Batch, Usage
from gateway.core.messages import MessagesRequest

REASONS = {
    "stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal",
}  # fmt: skip
"""Why an answer ended, in this API's words."""

ERRORS = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip
"""Status -> type; of others it is ``invalid_request_error`` below 500 and ``api_error`` from there on."""

_DELTAS = {
    "thinking": ("thinking_delta", "thinking"),
    "signature": ("signature_delta", "signature"),
    "tool_use": ("input_json_delta", "partial_json"),
}
_TEXT = (  # most events are this one
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":%b}}\n\n'
)


def _event(kind: str, fields: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


PING = _event("ping", {})


def messages_error(error: GatewayError, request_id: str) -> bytes:
    """The body of a refusal, or of the event that ends a stream."""
    kind = ERRORS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    message = error.message
    if error.code == "context_length_exceeded":  # the words by which clients know that they should say less
        message = f"prompt is too long: {message}"
    told = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    return orjson.dumps(told)


def message_usage(usage: Usage) -> dict[str, Any]:
    """The ``usage`` object. What a cache held is not counted among the other tokens of the prompt."""
    details = usage.details or {}
    cached = min(_count(details.get("prompt_tokens_details"), "cached_tokens"), usage.prompt_tokens)
    thought = _count(details.get("completion_tokens_details"), "reasoning_tokens")
    return {
        **_read(usage.prompt_tokens - cached, cached),
        "output_tokens": usage.completion_tokens,
        **({"output_tokens_details": {"thinking_tokens": thought}} if thought else {}),
    }


def _read(tokens: int, cached: int = 0) -> dict[str, int]:
    return {"input_tokens": tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached}


def _count(details: Any, name: str) -> int:
    value = details.get(name) if isinstance(details, Mapping) else None
    return value if isinstance(value, int) else 0


class _Answer:
    """What both ways share: the blocks, and the message around them."""

    def __init__(self, head: Head, request: MessagesRequest, _: int = 1) -> None:
        self._head = head
        self._stops = request.stop or ()
        self._blocks = Blocks(thinks=request.shows_thinking)

    def _ending(self) -> dict[str, Any]:
        finish, called = self._blocks.finish, self._blocks.called
        if called and finish.reason == "stop":
            return {"stop_reason": "tool_use", "stop_sequence": None}
        if finish.reason == "stop" and finish.stopped_by in self._stops:
            return {"stop_reason": "stop_sequence", "stop_sequence": finish.stopped_by}
        return {"stop_reason": REASONS.get(finish.reason, "end_turn"), "stop_sequence": None}

    def _message(
        self, content: list[dict[str, Any]], ending: Mapping[str, Any], usage: Mapping[str, Any]
    ) -> dict[str, Any]:
        same = {"id": self._head.id, "type": "message", "role": "assistant", "model": self._head.model}
        return {**same, "content": content, **ending, "usage": usage}


class MessageStream(_Answer):
    """The encoder of one streamed answer."""

    def opening(self) -> bytes:
        """``message_start``, with the tokens of the prompt as far as they are known."""
        ending = {"stop_reason": None, "stop_sequence": None}
        usage = {**_read(self._head.prompt_tokens), "output_tokens": 0}
        return _event("message_start", {"message": self._message([], ending, usage)}) + PING

    def feed(self, _: int, batch: Batch) -> bytes:
        """The events of the only choice."""
        feed = self._blocks.feed
        return b"".join([_written(told) for event in batch for told in feed(event)])

    def pause(self) -> bytes:
        return PING

    def end(self, usage: Usage, extension: dict[str, Any]) -> bytes:
        """Why it ended and what it used, then ``message_stop``."""
        told = {"x_gateway": extension} if extension else {}
        delta = {"delta": self._ending(), "usage": message_usage(usage), **told}
        return _event("message_delta", delta) + _event("message_stop", {})

    def error(self, error: GatewayError) -> bytes:
        request_id = "req_" + self._head.id.partition("_")[2]
        return b"event: error\ndata: %b\n\n" % messages_error(error, request_id)


class MessageWhole(_Answer):
    """The encoder of one whole answer."""

    def __init__(self, head: Head, request: MessagesRequest, _: int = 1) -> None:
        super().__init__(head, request)
        self._content: list[dict[str, Any]] = []
        self._pieces: list[str] = []  # of the last block
        self._bound = Bound()

    def feed(self, _: int, batch: Batch) -> None:
        for event in batch:
            self._bound.count(event)
            for told in self._blocks.feed(event):
                self._take(told)

    def _take(self, told: Told) -> None:
        kind, _, value = told
        if kind == "start":
            self._content.append(value)
            self._pieces = []
        elif kind != "stop":
            self._pieces.append(value)
        elif self._content[-1]["type"] == "tool_use":
            self._content[-1]["input"] = value or {}
        else:
            self._content[-1][self._content[-1]["type"]] = "".join(self._pieces)

    def answer(self, usage: Usage) -> bytes:
        """The JSON body; called once, after the end."""
        return orjson.dumps(self._message(self._content, self._ending(), message_usage(usage)))


def _written(told: Told) -> bytes:
    kind, index, value = told
    if kind == "text":
        return _TEXT % (index, orjson.dumps(value))
    if kind == "start":
        return _event("content_block_start", {"index": index, "content_block": value})
    if kind == "stop":
        return _event("content_block_stop", {"index": index})
    name, field = _DELTAS[kind]
    return _event("content_block_delta", {"index": index, "delta": {"type": name, field: value}})
