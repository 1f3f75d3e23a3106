"""Answers of OpenAI's Responses API: a ``response`` object, and the events of a streamed one.

Rule: the object says what was asked, in every event the same; events are numbered from 0, each is one write,
and the last is ``completed``, ``incomplete`` or ``failed``. Shapes:
https://platform.openai.com/docs/api-reference/responses/object Knows nothing about where responses are kept:
it hands over what it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from gateway.core.encode import Head
from gateway.core.encode.output import Output, place_of
from gateway.core.errors import GatewayError
from gateway.core.events import Batch, Usage
from gateway.core.responses import ResponsesBody, ResponsesRequest

Keep: TypeAlias = Callable[[dict[str, Any]], None]
"""Takes a response that has ended well."""


@dataclass(slots=True, frozen=True)
class Ending:
    """What an answer needs at its end: ``time`` in seconds since 1970, and who wants to have it."""

    time: Callable[[], float]
    keep: Keep


class _Answer:
    """What both ways share: the items, and the object around them."""

    def __init__(self, head: Head, request: ResponsesRequest, ending: Ending) -> None:
        self._output = Output(head.id.partition("_")[2])
        self._ending = ending
        self._same = {**_identity(head), **_echoed(request)}

    def _response(self, status: str, output: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
        return {**self._same, "status": status, "output": output, **changed}

    def _ended(self, usage: Usage) -> dict[str, Any]:
        """The finished response, after it was handed over."""
        why = self._output.incomplete
        response = self._response(
            "incomplete" if why else "completed",
            self._output.items(),
            incomplete_details={"reason": why} if why else None,
            completed_at=None if why else int(self._ending.time()),
            usage=response_usage(usage),
        )
        self._ending.keep(response)
        return response


class ResponseStream(_Answer):
    """The encoder of one streamed answer."""

    def __init__(self, head: Head, request: ResponsesRequest, ending: Ending) -> None:
        super().__init__(head, request, ending)
        self._number = 2  # the opening has 0 and 1, whenever it is asked for

    def opening(self) -> bytes:
        """``created`` and ``in_progress``."""
        fields = {"response": self._response("in_progress", [])}
        return _event("created", 0, fields) + _event("in_progress", 1, fields)

    def feed(self, _: int, batch: Batch) -> bytes:
        """The events of the only choice."""
        feed = self._output.feed
        return b"".join([self._event(*told) for event in batch for told in feed(event)])

    def pause(self) -> bytes:
        """Nothing more of the text that grows; else that it is in progress."""
        grows = self._output.growing()
        if grows is None:
            return self._progress()
        item, kind = grows
        logprobs: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        return self._event(f"{kind}.delta", {**place_of(item), "delta": "", **logprobs})

    def end(self, usage: Usage, extension: dict[str, Any]) -> bytes:
        """``completed`` or ``incomplete``, with the whole response."""
        response = self._ended(usage)
        told = {"x_gateway": extension} if extension else {}
        return self._event(response["status"], {"response": response, **told})

    def error(self, error: GatewayError) -> bytes:
        """``failed``, with what was said until then."""
        self._output.abandon()
        failed = self._response("failed", self._output.items(), error=response_error(error))
        return self._event("failed", {"response": failed})

    def _progress(self) -> bytes:
        return self._event("in_progress", {"response": self._response("in_progress", self._output.ended())})

    def _event(self, name: str, fields: Mapping[str, Any]) -> bytes:
        self._number += 1
        return _event(name, self._number - 1, fields)


class ResponseWhole(_Answer):
    """The encoder of one whole answer."""

    def feed(self, _: int, batch: Batch) -> None:
        for event in batch:
            for _told in self._output.feed(event):
                pass

    def answer(self, usage: Usage) -> bytes:
        """The JSON body; called once, after the end."""
        return orjson.dumps(self._ended(usage))


def _event(name: str, number: int, fields: Mapping[str, Any]) -> bytes:
    kind = "response." + name
    data = orjson.dumps({"type": kind, "sequence_number": number, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def _identity(head: Head) -> dict[str, Any]:
    """Every field of a response, as it is before anything was said."""
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created,
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": head.model,
        "output": [],
        "usage": None,
        "service_tier": "default",
        "truncation": "disabled",
    }


def _echoed(request: ResponsesRequest) -> dict[str, Any]:
    """What was asked. Numbers that the client left out are shown as OpenAI's defaults."""
    asked = request.asked
    return {
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": {"effort": asked.reasoning.effort if asked.reasoning else None, "summary": None},
        "safety_identifier": asked.safety_identifier,
        "store": request.kept,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "top_logprobs": asked.top_logprobs or 0,
        "text": _text_config(asked),
        "tool_choice": _choice(asked.tool_choice),
        "tools": [_tool(tool) for tool in asked.tools or ()],
        "user": request.user,
    }


def _text_config(asked: ResponsesBody) -> dict[str, Any]:
    text = asked.text
    format = (text and text.format) or {"type": "text"}
    if format.get("type") == "json_schema":
        names = ("type", "name", "description", "schema", "strict")
        format = {name: format.get(name) for name in names}
    return {"format": format, **({"verbosity": text.verbosity} if text and text.verbosity else {})}


def _choice(choice: str | Mapping[str, Any] | None) -> str | dict[str, Any]:
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        return {**choice, "mode": choice.get("mode") or "auto"}
    return dict(choice) if isinstance(choice, Mapping) else choice or "auto"


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    names = ("type", "name", "description", "parameters", "strict")
    return {name: tool.get(name) for name in names}


def response_usage(usage: Usage) -> dict[str, Any]:
    """OpenAI's ``usage`` of a response."""
    details = usage.details or {}
    read, written = details.get("prompt_tokens_details"), details.get("completion_tokens_details")
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": _count(read, "cached_tokens"), "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": _count(written, "reasoning_tokens")},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _count(details: Any, name: str) -> int:
    value = details.get(name) if isinstance(details, Mapping) else None
    return value if isinstance(value, int) else 0


def response_error(error: GatewayError) -> dict[str, Any]:
    """The error of a failed response: one of the API's few codes, and ours as its type."""
    if error.status == 429:
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if error.status < 500 else "server_error"
    return {"code": code, "message": error.message, "param": error.param, "type": error.code or error.type}
