"""An engine that does what a test tells it to, and remembers what was done to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from modal_backend.engine import About, Answer, Done, Embeddings, Piece, Request, Usage
from modal_backend.fields import APP_HONOURS, FIELDS

Step = Piece | Done | Exception | asyncio.Event

EVERYTHING = frozenset(FIELDS) - APP_HONOURS


class Scripted:
    """Takes its steps in order: yields values, raises exceptions, waits for events."""

    def __init__(self, *steps: Step, honours: frozenset[str] = EVERYTHING, broken: str | None = None) -> None:
        self.about = About("scripted", honours, "for tests")
        self.requests: list[Request] = []
        self.started = asyncio.Event()
        self.closed = asyncio.Event()
        self.taken = 0
        self._steps: Sequence[Step] = steps
        self._broken = broken

    def fault(self) -> str | None:
        return self._broken

    async def close(self) -> None:
        pass

    async def generate(self, request: Request) -> Answer:
        self.requests.append(request)
        self.started.set()
        try:
            for step in self._steps:
                self.taken += 1
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        finally:
            self.closed.set()


class Embedder:
    """Embeds and does not generate; waits for ``gate`` if it is given one."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.about = About("embedder")
        self.started = asyncio.Event()
        self.closed = asyncio.Event()
        self._gate = gate

    def fault(self) -> str | None:
        return None

    async def close(self) -> None:
        pass

    async def embed(self, texts: tuple[str, ...]) -> Embeddings:
        self.started.set()
        try:
            if self._gate is not None:
                await self._gate.wait()
            return Embeddings(tuple((float(len(text)), 0.5) for text in texts), Usage(sum(map(len, texts))))
        finally:
            self.closed.set()


def pieces(*texts: str, reason: str = "stop") -> tuple[Piece | Done, ...]:
    """The texts as pieces of one token each, and the end, with usage on all."""
    made = [Piece(text, usage=Usage(7, count)) for count, text in enumerate(texts, 1)]
    return (*made, Done(reason, Usage(7, len(texts))))
