"""The engine that runs models with PyTorch and Hugging Face's ``transformers``, on a GPU or on a CPU.

Rule: one path for every request. Sampling, seeds, penalties, guides and log-probabilities differ row by row
in one batch, and an answer depends on its own request alone.

The library has continuous batching of its own. It is not used, because (transformers 5.23) its requests may
differ in temperature, top-k and top-p alone: seed, penalties, bias, guides, min-p and alternatives beside the
chosen token would each need the second, slow way. The loop in ``decoding.py`` runs the library's models on
memory of its own (``memory.py``) instead.
Knows nothing about HTTP.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

from modal_backend.engine import (
    About,
    Answer,
    BadRequest,
    Busy,
    ContextLengthExceeded,
    Done,
    EngineError,
    Piece,
    Request,
)
from modal_backend.engines.transformers_engine.decoding import Decoding, Item, Job, Rules
from modal_backend.engines.transformers_engine.guides import Guide, Guides
from modal_backend.engines.transformers_engine.loading import Loaded, Options, load

SAMPLING = frozenset(
    {
        "max_tokens", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
        "repetition_penalty", "seed", "logit_bias", "stop_token_ids", "logprobs",
    }
)  # fmt: skip
GUIDED = frozenset({"json_schema", "regex", "grammar"})


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the engine is. ``steps`` counts the batches since it started, prompts not included."""

    running: int
    waiting: int
    steps: int


class TransformersEngine:
    """Continues prompts with a model that is loaded."""

    def __init__(self, loaded: Loaded, options: Options) -> None:
        self._loaded = loaded
        self._options = options
        guided = GUIDED if _guides_installed(loaded) else frozenset[str]()
        self.about = About("transformers", SAMPLING | guided, f"model: {options.model}")
        self._guides: Guides | None = None
        # One thread, because a tokenizer's settings change while it encodes.
        self._reading = ThreadPoolExecutor(1, "tokenizer")
        # Only what differs from the library's defaults, which in version 4 cut to the 50 likeliest tokens.
        rules = Rules(loaded.tokenizer, loaded.ends, loaded.model.generation_config.to_diff_dict())
        self._decoding = Decoding(loaded.memory, rules, _send)

    @property
    def load(self) -> Load:
        return Load(self._decoding.running, self._decoding.waiting, self._decoding.steps)

    def fault(self) -> str | None:
        return self._decoding.fault

    async def close(self) -> None:
        await asyncio.to_thread(self._decoding.stop)
        self._reading.shutdown()

    async def generate(self, request: Request) -> Answer:
        if self._decoding.waiting >= self._options.max_queue:
            raise Busy(f"{self._options.max_queue} requests wait already")
        loop = asyncio.get_running_loop()
        prompt, guide = await loop.run_in_executor(self._reading, self._read, request)
        most = self._room(prompt, request)
        inbox = _Inbox(loop, joins=not request.stop)
        job = Job(request, prompt, most, guide, inbox)
        self._decoding.submit(job)
        try:
            async for item in inbox.items():
                yield item
        finally:
            self._decoding.cancel(job)

    def _read(self, request: Request) -> tuple[list[int], Guide | None]:
        """In the tokenizer's thread: both may take a while."""
        prompt = self._loaded.tokenizer.encode(request.prompt)
        if not prompt:
            raise BadRequest("`prompt` has no tokens, and this model has no token to begin with")
        for token in request.logit_bias or ():
            if token >= self._loaded.vocabulary:
                raise BadRequest(f"`logit_bias` names token {token}; there are {self._loaded.vocabulary}")
        if all(getattr(request, name) is None for name in GUIDED):
            return prompt, None
        if self._guides is None:
            loaded = self._loaded
            self._guides = Guides(loaded.tokenizer.inner, loaded.vocabulary, loaded.ends)
        return prompt, self._guides.guide(request)

    def _room(self, prompt: Sequence[int], request: Request) -> int:
        """Tokens the answer may have."""
        length = self._loaded.memory.length
        wanted = request.max_tokens
        if len(prompt) + (wanted or 1) > length:
            asked = f" and {wanted} for the answer" if wanted else ""
            raise ContextLengthExceeded(
                f"This model's maximum context length is {length} tokens. However, you asked for "
                f"{len(prompt)} in the prompt{asked} (context_length_exceeded)."
            )
        return wanted or length - len(prompt)


def make(arguments: Mapping[str, Any]) -> TransformersEngine:
    """Load the model that the arguments name, which are ``Options``' fields; raises ``ValueError``."""
    known = {one.name for one in fields(Options)}
    if unknown := sorted(set(arguments) - known):
        raise ValueError(f"the engine transformers has no argument {unknown[0]!r}; it has {sorted(known)}")
    if "model" not in arguments:
        raise ValueError("the engine transformers needs the argument 'model': a folder or a name on the hub")
    options = Options(**arguments)
    return TransformersEngine(load(options), options)


def _guides_installed(loaded: Loaded) -> bool:
    fast = hasattr(loaded.tokenizer.inner, "backend_tokenizer")
    return fast and bool(loaded.ends) and importlib.util.find_spec("llguidance") is not None


@dataclass(slots=True)
class _Inbox:
    """What the loop made for one answer, until it is taken."""

    loop: asyncio.AbstractEventLoop
    joins: bool
    """May pieces be joined? Where a stop may cut one, usage must be known token by token."""
    waiting: list[Item] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def items(self) -> Answer:
        """Pieces, joined where several wait, so that a busy event loop has less to do; then the end."""
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            items, self.waiting = self.waiting, []
            last = items[-1]
            pieces = [item for item in items if isinstance(item, Piece)]
            for piece in [_joined(pieces)] if self.joins and len(pieces) > 1 else pieces:
                yield piece
            if isinstance(last, EngineError):
                raise last
            if isinstance(last, Done):
                yield last
                return


def _joined(pieces: Sequence[Piece]) -> Piece:
    logprobs = tuple(entry for piece in pieces for entry in piece.logprobs)
    return Piece("".join(piece.text for piece in pieces), logprobs, pieces[-1].usage)


def _send(items: Sequence[tuple[Job, Item]]) -> None:
    """From the loop's thread to each answer's event loop, one call a loop and step."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Inbox, Item]]] = {}
    for job, item in items:
        by_loop.setdefault(job.receiver.loop, []).append((job.receiver, item))
    for loop, mine in by_loop.items():
        with suppress(RuntimeError):  # the event loop is closed, so nobody waits any more
            loop.call_soon_threadsafe(_arrive, mine)


def _arrive(items: Sequence[tuple[_Inbox, Item]]) -> None:
    for inbox, item in items:
        inbox.waiting.append(item)
        inbox.arrived.set()


__all__ = ["Load", "Options", "TransformersEngine", "make"]
