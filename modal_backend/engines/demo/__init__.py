"""The demo engine: no model runs. It answers by a few fixed rules, so that everything around it can be tried.

Rule: deterministic. The same request gives the same text, tokens, logprobs and vectors on every machine; only
the pace is set. What it says of itself, and all it answers but one fixed greeting, tells that it is no model.
"""

from __future__ import annotations

import asyncio
import json
from itertools import islice

from modal_backend.engine import About, Answer, ContextLengthExceeded, Done, Embeddings, Piece, Request, Usage
from modal_backend.engines.demo.arguments import arguments, quoted
from modal_backend.engines.demo.calls import called
from modal_backend.engines.demo.instances import instance
from modal_backend.engines.demo.pictures import told, without_marks
from modal_backend.engines.demo.questions import question
from modal_backend.engines.demo.replies import reply
from modal_backend.engines.demo.scalars import string
from modal_backend.engines.demo.tokens import logprob, tokens
from modal_backend.engines.demo.vectors import vector


class Demo:
    """Answers in small pieces, ``delay`` seconds apart, to prompts of at most ``context_length`` tokens."""

    about = About(
        name="demo",
        honours=frozenset({"max_tokens", "logprobs", "json_schema", "images"}),
        note="no model runs: answers come from fixed rules",
    )

    def __init__(self, *, delay: float = 0.02, context_length: int = 32_768) -> None:
        self._delay = delay
        self._context_length = context_length

    def fault(self) -> str | None:
        return None

    async def close(self) -> None:
        """Nothing is held."""

    async def generate(self, request: Request) -> Answer:
        prompt_tokens = self._count(request.prompt)
        text = _text(request)
        spoken = 0
        for token in tokens(text):
            if spoken == request.max_tokens:
                yield Done("length", Usage(prompt_tokens, spoken))
                return
            await asyncio.sleep(self._delay)
            chances = () if request.logprobs is None else (logprob(token, spoken, request.logprobs),)
            spoken += 1
            yield Piece(token, chances, Usage(prompt_tokens, spoken))
        yield Done("stop", Usage(prompt_tokens, spoken))

    async def embed(self, texts: tuple[str, ...]) -> Embeddings:
        vectors = []
        counted = 0
        for text in texts:
            counted += self._count(text)
            vectors.append(vector(text))
            await asyncio.sleep(0)  # let other requests in between
        return Embeddings(tuple(vectors), Usage(counted))

    def _count(self, text: str) -> int:
        most = self._context_length
        counted = sum(1 for _ in islice(tokens(text), most + 1))
        if counted > most:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {most} tokens. "
                "However, your prompt has more (context_length_exceeded)."
            )
        return counted


def _text(request: Request) -> str:
    if (said := called(request.prompt, request.json_schema)) is not None:
        return said
    asked, seen = question(request.prompt), told(request.images)
    if seen:
        asked = without_marks(asked)
    if request.json_schema == {"type": "object"}:  # any will do: the quoted words are its keys
        return json.dumps({key: string({}) for key in quoted(asked)}, ensure_ascii=False)
    if request.json_schema is not None:
        return json.dumps(
            arguments(request.json_schema, asked, instance(request.json_schema)), ensure_ascii=False
        )
    return reply(asked, seen)
