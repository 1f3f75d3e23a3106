"""Answers of the prompt contract: events -> ``{"prompt": text, ...}``, whole or as server-sent events.

Rule: what the gateway reads from containers it writes to its own callers, field by field; a failure has the
contract's fields and OpenAI's. With ``echo`` the answer begins with the prompt. Shape: docs/contract.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.core.contract import ContractRequest
from gateway.core.encode import Head
from gateway.core.encode.bound import Bound
from gateway.core.encode.chunks import DONE
from gateway.core.errors import GatewayError
from gateway.core.events import Batch, Finish, Text, Usage

CODES = frozenset({"bad_request", "context_length_exceeded", "busy", "out_of_memory", "engine_dead"})
_BY_STATUS = {400: "bad_request", 429: "busy"}  # the contract's words; for what it does not know, ours


def contract_error(error: GatewayError) -> bytes:
    """The body of a refusal, or of the event that ends a stream."""
    code = error.code or error.type
    if code not in CODES:
        code = _BY_STATUS.get(error.status, code)
    return orjson.dumps({"error": {**error.body()["error"], "code": code, "status": error.status}})


def _end(finish: Finish, usage: Usage) -> dict[str, Any]:
    counted = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    return {"finish_reason": finish.reason, "usage": counted, "ignored": list(finish.ignored)}


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


class ContractStream:
    """The encoder of one streamed answer."""

    def __init__(self, head: Head, request: ContractRequest, choices: int) -> None:
        self._echo = request.prompt if request.echo else ""
        self._finish = Finish()

    def opening(self) -> bytes:
        """The prompt, if it is to be repeated."""
        return _event({"prompt": self._echo}) if self._echo else b""

    def pause(self) -> bytes:
        return _event({"prompt": ""})

    def feed(self, index: int, batch: Batch) -> bytes:
        """Text at once; the finish waits for ``end``, because usage stands beside it."""
        parts: list[bytes] = []
        for event in batch:
            if isinstance(event, Text) and event.logprobs is not None:
                parts.append(_event({"prompt": event.text, "logprobs": list(event.logprobs)}))
            elif isinstance(event, Text) and event.text:
                parts.append(_event({"prompt": event.text}))
            elif isinstance(event, Finish):
                self._finish = event
        return b"".join(parts)

    def end(self, usage: Usage, extension: dict[str, Any]) -> bytes:
        return _event({"prompt": "", **_end(self._finish, usage), "x_gateway": extension}) + DONE

    def error(self, error: GatewayError) -> bytes:
        return b"data: " + contract_error(error) + b"\n\n"


class ContractWhole:
    """The encoder of one whole answer."""

    def __init__(self, head: Head, request: ContractRequest, choices: int) -> None:
        self._text = [request.prompt] if request.echo else []
        self._logprobs: list[Mapping[str, Any]] = []
        self._finish = Finish()
        self._bound = Bound()

    def feed(self, index: int, batch: Batch) -> None:
        for event in batch:
            self._bound.count(event)
            if isinstance(event, Text):
                self._text.append(event.text)
                self._logprobs.extend(event.logprobs or ())
            elif isinstance(event, Finish):
                self._finish = event

    def answer(self, usage: Usage) -> bytes:
        logprobs = {"logprobs": self._logprobs} if self._logprobs else {}
        return orjson.dumps({"prompt": "".join(self._text), **_end(self._finish, usage), **logprobs})
