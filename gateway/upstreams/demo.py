"""Upstream kind ``demo``: fixed answers in this process, for trying the gateway out and for tests.

Rule: deterministic; it behaves like a container that streams, one piece a word (or a Chinese character),
each counted as one token. A text's vector is its hash. No model runs and no socket is opened.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from array import array
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.core.call import Call, EmbedCall, PromptCall, Traits
from gateway.core.decode.failure import Place, Said, failure
from gateway.core.events import Batch, Event, Finish, Text, Usage, Vectors
from gateway.upstreams import Observed, Traffic
from gateway.upstreams.body import encoded, fields_of
from gateway.upstreams.limits import Limits

# A word with the space before it, or one character of the scripts that write without spaces.
_PIECE = re.compile(r"\s*[\u2e80-\uffef]|\s*[^\s\u2e80-\uffef]+|\s+")
DIMENSIONS = 64  # of a text's vector


class Fail(BaseModel):
    """An error to raise, as a container of the prompt contract would report it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: int = Field(500, ge=400, le=599, description="its HTTP status")
    code: str | None = Field(None, description="a code of the contract: busy, out_of_memory, ...")
    message: str = Field("the demo was told to fail", description="its message")
    after: int = Field(0, ge=0, description="pieces of the answer that come before it")


def _status_alone(value: Any) -> Any:
    return {"status": value} if isinstance(value, int) and not isinstance(value, bool) else value


class DemoConfig(Limits):
    """Keys of ``kind: demo``."""

    kind: Literal["demo"] = "demo"
    responses: tuple[str, ...] = Field(
        ("This is a demonstration: no model runs here.",), min_length=1, description="answers, given in turn"
    )
    delay: float = Field(0, ge=0, le=60, allow_inf_nan=False, description="seconds before each piece")
    fail: Annotated[Fail | None, BeforeValidator(_status_alone)] = Field(
        None, description="fail every call: a status, or {status, code, message, after}"
    )

    @property
    def traits(self) -> Traits:
        return Traits("prompt")


class DemoUpstream:
    """Answers ``responses`` in turn; see ``Upstream``."""

    def __init__(self, name: str, config: DemoConfig, *, model: str = "", at: str = "") -> None:
        self.name = name
        self.traits = config.traits
        self._config = config
        self._place = Place(at or f"models.{model or name}.upstream")
        self._calls = 0

    async def events(self, call: Call) -> AsyncGenerator[Batch, None]:
        if isinstance(call, EmbedCall):
            yield self._embedded(call)
            return
        response = self._config.responses[self._calls % len(self._config.responses)]
        self._calls += 1
        pieces = _PIECE.findall(response)
        limit = fields_of(call).get("max_tokens")
        given = pieces[:limit] if isinstance(limit, int) else pieces
        fail = self._config.fail
        batch: list[Event] = []
        for piece in given if fail is None else given[: fail.after]:
            if self._config.delay:
                await asyncio.sleep(self._config.delay)
                yield [Text(piece)]
            else:
                batch.append(Text(piece))
        if fail is not None:
            if batch:
                yield batch
            raise failure(Said(fail.message, fail.code, fail.status), self._place)
        prompt = len(_PIECE.findall(call.prompt)) if isinstance(call, PromptCall) else 0
        reason = "stop" if len(given) == len(pieces) else "length"
        yield [*batch, Finish(reason, Usage(prompt, len(given)))]

    def _embedded(self, call: EmbedCall) -> Batch:
        if fail := self._config.fail:
            raise failure(Said(fail.message, fail.code, fail.status), self._place)
        counted = sum(len(_PIECE.findall(text)) for text in call.texts)
        return [Vectors(tuple(map(_vector, call.texts))), Finish(usage=Usage(counted, 0))]

    def body(self, call: Call) -> bytes:
        return encoded(fields_of(call))

    async def reachable(self) -> None:
        """There is nothing to connect to."""

    async def wake(self) -> None:
        """There is nothing to wake."""

    async def observed(self) -> Observed | None:
        return None

    def traffic(self) -> Traffic:
        return Traffic()

    async def aclose(self) -> None:
        """There is nothing to close."""


def _vector(text: str) -> array[float]:
    """A vector of length 1 that only this text has."""
    hashed = hashlib.shake_256(text.encode()).digest(2 * DIMENSIONS)
    values = [int.from_bytes(hashed[at : at + 2]) - 32767.5 for at in range(0, len(hashed), 2)]
    norm = math.sqrt(math.fsum(value * value for value in values))
    return array("f", [value / norm for value in values])
