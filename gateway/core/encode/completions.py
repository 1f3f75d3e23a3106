"""Answers of the older completions API: events -> ``text_completion`` objects, whole or streamed.

Rule: choice i of prompt p has the index p * n + i. With ``echo`` each text begins with its prompt, where
offsets count from; tokens of the prompt itself are not known here. Shapes:
https://platform.openai.com/docs/api-reference/completions/object
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.core.completions import CompletionRequest
from gateway.core.encode import Head
from gateway.core.encode.bound import Bound
from gateway.core.encode.chunks import DONE
from gateway.core.encode.usage import usage_chunk, usage_fields
from gateway.core.errors import GatewayError
from gateway.core.events import Batch, Finish, Text, Usage

REASONS = ("stop", "length", "content_filter")


def _reason(finish: str) -> str:
    """A bare text calls no tools, whatever a server says of it."""
    return finish if finish in REASONS else "stop"


def legacy(entries: Iterable[Mapping[str, Any]], start: int) -> dict[str, list[Any]]:
    """Logprobs in this API's shape; ``start``: where the text of these tokens begins, in characters."""
    shown: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for entry in entries:
        token, logprob = entry["token"], entry["logprob"]
        others = {other["token"]: other["logprob"] for other in entry.get("top_logprobs", ())}
        shown["tokens"].append(token)
        shown["token_logprobs"].append(logprob)
        shown["top_logprobs"].append({token: logprob, **others})
        shown["text_offset"].append(start)
        start += len(token)
    return shown


class CompletionChunks:
    """The encoder of one streamed answer."""

    def __init__(self, head: Head, request: CompletionRequest, choices: int) -> None:
        same = {"id": head.id, "object": "text_completion", "created": head.created, "model": head.model}
        self._start = b"data: " + orjson.dumps(same)[:-1] + b',"choices":['
        options = request.stream_options
        self._include_usage = bool(options and options.include_usage)
        self._end = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"
        self._logprobs = request.logprobs is not None
        per = max(1, choices // max(1, len(request.texts)))
        self._echoes = [request.texts[index // per] if request.echo else "" for index in range(choices)]
        self._offsets = list(map(len, self._echoes))

    def opening(self) -> bytes:
        """The prompts, if they are to be repeated."""
        return b"".join(self._chunk(index, text) for index, text in enumerate(self._echoes) if text)

    def pause(self) -> bytes:
        return self._chunk(0, "")

    def feed(self, index: int, batch: Batch) -> bytes:
        parts: list[bytes] = []
        for event in batch:
            if type(event) is Text:
                parts.append(self._text(index, event))
            elif type(event) is Finish:
                parts.append(self._chunk(index, "", finish=_reason(event.reason)))
        return b"".join(parts)

    def _text(self, index: int, event: Text) -> bytes:
        start, self._offsets[index] = self._offsets[index], self._offsets[index] + len(event.text)
        if event.logprobs is None or not self._logprobs:
            return self._chunk(index, event.text) if event.text else b""
        return self._chunk(index, event.text, logprobs=legacy(event.logprobs, start))

    def end(self, usage: Usage, extension: dict[str, Any]) -> bytes:
        """``[DONE]``, and before it a chunk without choices if the client asked for usage."""
        if not self._include_usage:
            return DONE
        return usage_chunk(self._start, usage, extension) + DONE

    def error(self, error: GatewayError) -> bytes:
        return b"data: " + error.json() + b"\n\n"

    def _chunk(self, index: int, text: str, finish: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}
        return self._start + orjson.dumps(choice) + b"]" + self._end


@dataclass(slots=True)
class _Draft:
    """One answer as it is collected."""

    text: list[str] = field(default_factory=list)
    logprobs: list[Mapping[str, Any]] | None = None
    finish: str = "stop"

    @property
    def mean(self) -> float:
        """How likely the model found it, a token."""
        if not self.logprobs:
            return float("-inf")
        return sum(float(entry["logprob"]) for entry in self.logprobs) / len(self.logprobs)


class CompletionCollector:
    """The encoder of one whole answer; of the drafts for each prompt the best ``n`` are given."""

    def __init__(self, head: Head, request: CompletionRequest, choices: int) -> None:
        self._head = head
        self._request = request
        self._drafts = [_Draft() for _ in range(choices)]
        self._bound = Bound()

    def feed(self, index: int, batch: Batch) -> None:
        draft = self._drafts[index]
        for event in batch:
            self._bound.count(event)
            if isinstance(event, Text):
                draft.text.append(event.text)
                if event.logprobs is not None:
                    draft.logprobs = draft.logprobs or []
                    draft.logprobs.extend(event.logprobs)
            elif isinstance(event, Finish):
                draft.finish = _reason(event.reason)

    def answer(self, usage: Usage) -> bytes:
        """The JSON body; called once, after every choice has finished."""
        texts = self._request.texts
        given = [(text, draft) for place, text in enumerate(texts) for draft in self._best(place)]
        return orjson.dumps(
            {
                "id": self._head.id,
                "object": "text_completion",
                "created": self._head.created,
                "model": self._head.model,
                "choices": [self._choice(index, *each) for index, each in enumerate(given)],
                "usage": usage_fields(usage),
            }
        )

    def _best(self, place: int) -> Sequence[_Draft]:
        n, drawn = self._request.n or 1, self._request.drawn
        drafts = self._drafts[place * drawn : (place + 1) * drawn]
        return drafts if drawn == n else sorted(drafts, key=lambda draft: -draft.mean)[:n]

    def _choice(self, index: int, prompt: str, draft: _Draft) -> dict[str, Any]:
        echo = prompt if self._request.echo else ""
        shown = None
        if self._request.logprobs is not None and draft.logprobs is not None:
            shown = legacy(draft.logprobs, len(echo))
        text = echo + "".join(draft.text)
        return {"text": text, "index": index, "logprobs": shown, "finish_reason": draft.finish}
