"""What an engine is: the values that pass between it and the contract, and how it fails.

Rule: an answer is any number of ``Piece`` and then exactly one ``Done``; a failure is a raised
``EngineError``, never a value. Every value is frozen. Closing the iterator that ``generate`` returned cancels
the request.
Knows nothing about HTTP, JSON or any model library.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to continue, and how. ``None`` and the empty tuple mean that the caller did not say.

    A field that the engine does not declare in ``About.honours`` is never set. ``stop`` is for information:
    the contract app cuts the text itself and closes the engine on a match.
    """

    prompt: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    logit_bias: Mapping[int, float] | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    """Alternatives wanted beside each token; 0 asks for the chosen tokens alone."""
    json_schema: Mapping[str, Any] | None = None
    regex: str | None = None
    grammar: str | None = None
    images: tuple[str, ...] = ()
    """Data URLs, in the order in which the prompt's image tokens stand."""
    lora: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request, counted by the engine's own tokenizer."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int | None = None
    """Of the prompt's, those whose calculation was kept from earlier requests; None if that is not known."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have stood here, the natural logarithm of its chance, and its bytes if known."""

    token: str
    logprob: float
    bytes: bytes | None = None


@dataclass(frozen=True, slots=True)
class Logprob:
    """The token that was chosen, and the likeliest ones at its place, likeliest first."""

    token: str
    logprob: float
    bytes: bytes | None = None
    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Some more text. ``usage`` counts up to here, so that an answer which a stop cuts is counted too."""

    text: str
    logprobs: tuple[Logprob, ...] = ()
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The end, which the engine itself came to: ``stop``, ``length`` or a reason of its own."""

    finish_reason: str
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector a text, in the order of the texts."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class About:
    """What an engine says about itself. ``honours`` names the contract's fields that it obeys."""

    name: str
    honours: frozenset[str] = frozenset()
    note: str = ""


class EngineError(Exception):
    """A request that was not answered. The message goes to the caller: no path, secret or prompt in it."""

    code: ClassVar[str]
    status: ClassVar[int]


class BadRequest(EngineError):
    """The caller asked for something that cannot be; asking again does not help."""

    code = "bad_request"
    status = 400


class ContextLengthExceeded(EngineError):
    """The prompt, with the tokens asked for, is longer than the model's context."""

    code = "context_length_exceeded"
    status = 400


class Busy(EngineError):
    """The engine has as many requests as it takes; later it will have room."""

    code = "busy"
    status = 429


class OutOfMemory(EngineError):
    """This request did not fit into the accelerator's memory; the engine lives on."""

    code = "out_of_memory"
    status = 503


class EngineDead(EngineError):
    """The engine cannot answer any more; the container should be replaced."""

    code = "engine_dead"
    status = 503


Answer: TypeAlias = AsyncGenerator[Piece | Done, None]


@runtime_checkable
class Engine(Protocol):
    """What every engine has. It is made with all it needs, and used on one event loop."""

    @property
    def about(self) -> About: ...

    def fault(self) -> str | None:
        """Why this engine can serve nothing any more, or None while it can. Cheap: health checks call it."""
        ...

    async def close(self) -> None:
        """Give back what the engine holds. Called once, when no request is running."""
        ...


@runtime_checkable
class Generates(Engine, Protocol):
    """An engine that continues prompts."""

    def generate(self, request: Request) -> Answer:
        """Yield pieces as they are made, then ``Done``; raise ``EngineError``. Closing the iterator ends the
        work.
        """
        ...


@runtime_checkable
class Embeds(Engine, Protocol):
    """An engine that turns texts into vectors."""

    async def embed(self, texts: tuple[str, ...]) -> Embeddings:
        """One vector a text; raise ``EngineError``. Cancelling the call ends the work."""
        ...
