"""Turn what an engine yields into the answer the contract promises: echo, stops, logprobs, exactly one end.

Rule: one path. A whole answer is the collected stream. The engine is closed before the text of a stop match
is handed on, so that no slow reader keeps it generating.
Knows the contract's JSON; knows nothing about sockets.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from modal_backend.engine import Alternative, Done, Embeddings, EngineDead, Generates, Logprob, Piece, Usage
from modal_backend.fields import ToContinue
from modal_backend.stops import StopCutter

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

LOWEST_LOGPROB = -9999.0  # what OpenAI sends for a token that could not be; JSON has no minus infinity

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
# Line breaks to Unicode, data to JSON: clients that split lines by the former tear an event apart.
_BREAKS = re.compile("[\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Delta:
    """Some more of the answer."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """The end of the answer; nothing follows."""

    finish_reason: str
    usage: Usage | None = None


async def answer(engine: Generates, asked: ToContinue) -> AsyncGenerator[Delta | End, None]:
    """The deltas and the end of one answer; raises what the engine raises.

    Nothing is yielded before the engine's first item, so that an early failure can still become a status.
    """
    pending = _Pending(asked.request.stop)
    echo = asked.request.prompt if asked.echo else ""
    end: End | None = None
    last = Delta("")
    async with aclosing(engine.generate(asked.request)) as items:
        async for item in items:
            if isinstance(item, Done):
                last, end = pending.end(), End(item.finish_reason, item.usage)
                break
            delta = pending.feed(item)
            if pending.stopped:
                last, end = delta, End("stop", item.usage)
                break
            if echo or delta.text or delta.logprobs:
                yield Delta(echo + delta.text, delta.logprobs)
                echo = ""
    if end is None:
        raise EngineDead("the engine ended without a finish reason")
    if echo or last.text or last.logprobs:
        yield Delta(echo + last.text, last.logprobs)
    yield end


class _Pending:
    """Text on its way through the stop cutter, with the logprobs of the pieces it came in.

    The logprobs of a piece go out with its last character; of a piece that a stop cut, only those of the
    tokens that are wholly before the cut, so that they never tell more than the text.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._cutter = StopCutter(stops)
        self._waiting: deque[tuple[int, tuple[Logprob, ...]]] = deque()  # (end of a piece, its logprobs)
        self._arrived = 0  # characters, as `_gone`
        self._gone = 0

    @property
    def stopped(self) -> bool:
        return self._cutter.stopped

    def feed(self, piece: Piece) -> Delta:
        self._arrived += len(piece.text)
        if piece.logprobs:
            self._waiting.append((self._arrived, piece.logprobs))
        return self._release(self._cutter.feed(piece.text))

    def end(self) -> Delta:
        return self._release(self._cutter.end())

    def _release(self, text: str) -> Delta:
        self._gone += len(text)
        logprobs: list[Logprob] = []
        while self._waiting and self._waiting[0][0] <= self._gone:
            logprobs += self._waiting.popleft()[1]
        if self.stopped and self._waiting:
            ends, cut = self._waiting.popleft()
            at = ends - sum(len(entry.token) for entry in cut)
            for entry in cut:
                at += len(entry.token)
                if at > self._gone:
                    break
                logprobs.append(entry)
            self._waiting.clear()
        return Delta(text, tuple(logprobs))


class Collected:
    """A whole answer, put together from the same events that a stream sends one by one."""

    def __init__(self, asked: ToContinue) -> None:
        self._asked = asked
        self._texts: list[str] = []
        self._logprobs: list[Logprob] = []

    def add(self, delta: Delta) -> None:
        self._texts.append(delta.text)
        self._logprobs.extend(delta.logprobs)

    def body(self, end: End) -> bytes:
        answer: dict[str, Any] = {"prompt": "".join(self._texts), "finish_reason": end.finish_reason}
        if end.usage is not None:
            answer["usage"] = _usage(end.usage)
        if self._asked.request.logprobs is not None:
            answer["logprobs"] = [_logprob(entry) for entry in self._logprobs]
        answer["ignored"] = list(self._asked.ignored)
        return json_bytes(answer)


def event(item: Delta | End, asked: ToContinue) -> bytes:
    """One server-sent event; the end brings its ``[DONE]`` along."""
    if isinstance(item, Delta):
        fields: dict[str, Any] = {"prompt": item.text}
        if asked.request.logprobs is not None:
            fields["logprobs"] = [_logprob(entry) for entry in item.logprobs]
        return _event(fields)
    fields = {"finish_reason": item.finish_reason}
    if item.usage is not None:
        fields["usage"] = _usage(item.usage)
    fields["ignored"] = list(asked.ignored)
    return _event(fields) + DONE


def error_event(message: str, code: str, status: int) -> bytes:
    return _event(_error(message, code, status))


def error_body(message: str, code: str, status: int) -> bytes:
    return json_bytes(_error(message, code, status))


def embeddings_body(made: Embeddings, ignored: tuple[str, ...]) -> bytes:
    return json_bytes({"embeddings": made.vectors, "usage": _usage(made.usage), "ignored": ignored})


def json_bytes(value: object) -> bytes:
    """JSON in UTF-8. Half a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
    return _encode(value).encode(errors="replace")


def _event(fields: dict[str, Any]) -> bytes:
    text = _encode(fields)
    if not text.isascii():
        text = _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return b"data: %b\n\n" % text.encode(errors="replace")


def _error(message: str, code: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, "status": status}}


def _usage(usage: Usage) -> dict[str, int]:
    counted = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    return counted if usage.cached_tokens is None else {**counted, "cached_tokens": usage.cached_tokens}


def _logprob(entry: Logprob) -> dict[str, Any]:
    """One token in the shape of OpenAI's chat completions."""
    return {**_alternative(entry), "top_logprobs": [_alternative(other) for other in entry.top]}


def _alternative(entry: Alternative | Logprob) -> dict[str, Any]:
    logprob = entry.logprob if math.isfinite(entry.logprob) else LOWEST_LOGPROB
    own = None if entry.bytes is None else list(entry.bytes)
    return {"token": entry.token, "logprob": logprob, "bytes": own}
