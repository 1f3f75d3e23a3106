"""The engine that runs models with vLLM, in this process: its ``AsyncLLM`` without its HTTP server.

Rule: vLLM samples, batches and caches; what the contract promises beyond that is kept here: one beginning of
sequence, exact counts, the contract's error codes, and no request that runs on without its caller.
It was written against the signatures of one version (``loading.WRITTEN_FOR``) and was not run against a real
vLLM yet. Knows nothing about HTTP.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import torch
from vllm.inputs import TokensPrompt
from vllm.lora.request import LoRARequest
from vllm.multimodal.utils import fetch_image
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from modal_backend.engine import (
    About,
    Alternative,
    Answer,
    BadRequest,
    Busy,
    ContextLengthExceeded,
    Done,
    EngineDead,
    EngineError,
    Logprob,
    OutOfMemory,
    Piece,
    Request,
    Usage,
)
from modal_backend.engines.tokens import Tokenizer
from modal_backend.engines.vllm_engine.loading import Options, adapters, options, start
from modal_backend.engines.vllm_engine.sampling import HONOURS, sampling_params

DEAD = "vLLM's engine process has ended; the container's log says more"
BROKEN_OFF = frozenset({"abort", "error"})  # finish reasons that are no end of an answer
TOO_LONG = re.compile(r"longer than the maximum model length|maximum context length")
SHOWN = 500  # characters of a message of vLLM's that a caller gets to see


class VllmEngine:
    """Continues prompts with a vLLM that is started."""

    def __init__(self, llm: AsyncLLM, made: Options) -> None:
        self._llm = llm
        self._options = made
        self._tokenizer = Tokenizer(llm.get_tokenizer(), skip_special=made.skip_special_tokens)
        self._defaults: Mapping[str, Any] = llm.model_config.get_diff_sampling_param()
        paths = adapters(made.adapters).items()
        self._adapters = {name: LoRARequest(name, n, path) for n, (name, path) in enumerate(paths, 1)}
        self._loaded: set[str] = set()  # adapters
        honours = HONOURS | ({"lora"} if self._adapters else set())
        honours |= {"images"} if llm.model_config.is_multimodal_model else set()
        self.about = About("vllm", honours, f"model: {made.model}")
        self._reading = ThreadPoolExecutor(1, "tokenizer")  # a tokenizer's settings change while it encodes
        self._running = 0
        self._fault: str | None = None
        self._closed = False

    def fault(self) -> str | None:
        if self._fault is None and not self._closed and self._llm.errored:
            self._fault = DEAD
        return self._fault

    async def close(self) -> None:
        self._closed = True  # from here on an engine process that ends is no fault
        await asyncio.to_thread(self._llm.shutdown)
        self._reading.shutdown()

    async def generate(self, request: Request) -> Answer:
        if self._running >= self._options.max_requests:
            raise Busy(f"{self._running} requests run or wait already")
        self._running += 1
        try:
            async with aclosing(self._answer(request)) as items:
                async for item in items:
                    yield item
        except EngineError:
            raise
        except Exception as exc:
            if (meaning := self._meaning(exc)) is None:
                raise
            raise meaning from exc
        finally:
            self._running -= 1

    async def _answer(self, request: Request) -> Answer:
        adapter = await self._adapter(request.lora)
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(self._reading, self._read, request)
        skip = self._options.skip_special_tokens
        try:
            params = sampling_params(request, self._defaults, skip_special=skip)
        except ValueError as exc:
            raise _refusal(exc) from exc
        said, usage, reason = 0, None, None
        async with aclosing(self._outputs(prompt, params, adapter)) as outputs:
            async for output in outputs:
                [made] = output.outputs
                said += len(made.token_ids)
                usage = Usage(len(output.prompt_token_ids), said, output.num_cached_tokens)
                logprobs = tuple(self._logprobs(made, request.logprobs))
                if made.text or logprobs:
                    yield Piece(made.text, logprobs, usage)
                reason = made.finish_reason
        if reason is None or reason in BROKEN_OFF:
            raise RuntimeError(f"vLLM broke off: {reason}")
        yield Done(reason, usage)

    async def _outputs(
        self, prompt: TokensPrompt, params: Any, adapter: LoRARequest | None
    ) -> AsyncGenerator[Any, None]:
        """vLLM's outputs. However this ends, vLLM does not go on with the request."""
        name = uuid.uuid4().hex  # not the caller's, which need not be unique, and aborting goes by name
        begun = finished = False
        try:
            running = self._llm.generate(prompt, params, name, lora_request=adapter)
            async with aclosing(running) as outputs:
                async for output in outputs:
                    begun, finished = True, output.finished
                    yield output
        except ValueError as exc:
            if begun or self._llm.errored:
                raise
            raise _refusal(exc) from exc
        finally:
            if not finished and not self._llm.errored:
                # vLLM aborts by itself, except where it was cancelled while it took the request in.
                await asyncio.shield(self._llm.abort(name))

    async def _adapter(self, name: str | None) -> LoRARequest | None:
        """Load an adapter before its first use: one that cannot be loaded in a step would end the engine."""
        if name is None:
            return None
        if (adapter := self._adapters.get(name)) is None:
            raise BadRequest(f"there is no adapter {name!r}; there are: {', '.join(self._adapters)}")
        if name not in self._loaded:
            await self._llm.add_lora(adapter)
            self._loaded.add(name)
        return adapter

    def _read(self, request: Request) -> TokensPrompt:
        """In the tokenizer's thread: tokens and images may take a while."""
        ids = self._tokenizer.encode(request.prompt)
        if not ids:
            raise BadRequest("`prompt` has no tokens, and this model has no token to begin with")
        length = self._llm.model_config.max_model_len
        if len(ids) + (request.max_tokens or 1) > length:
            asked = f" and {request.max_tokens} for the answer" if request.max_tokens else ""
            raise ContextLengthExceeded(
                f"This model's maximum context length is {length} tokens. However, you asked for {len(ids)} "
                f"in the prompt{asked} (context_length_exceeded)."
            )
        if not request.images:
            return TokensPrompt(prompt_token_ids=ids)
        images = [_image(at, url) for at, url in enumerate(request.images)]
        return TokensPrompt(prompt_token_ids=ids, multi_modal_data={"image": images})

    def _logprobs(self, made: Any, wanted: int | None) -> Iterator[Logprob]:
        """The tokens that the text is made of; the one that ended it is not among them."""
        if wanted is None:
            return
        tokens: Sequence[int] = made.token_ids
        if made.finish_reason == "stop":
            tokens = tokens[:-1]
        named = self._tokenizer.token
        for token, chances in zip(tokens, made.logprobs or (), strict=False):
            ranked = sorted(chances.items(), key=lambda item: -item[1].logprob)
            top = [(named(other), chance.logprob) for other, chance in ranked[:wanted]]
            text, own = named(token)
            alternatives = tuple(Alternative(name, value, raw) for (name, raw), value in top)
            yield Logprob(text, chances[token].logprob, own, alternatives)

    def _meaning(self, exc: Exception) -> EngineError | None:
        """What a failure of vLLM's is in the contract; None for one that nobody foresaw."""
        if isinstance(exc, EngineDeadError) or self._llm.errored:
            self._fault = self.fault() or (None if self._closed else DEAD)
            return EngineDead(DEAD)
        if _out_of_memory(exc):
            return OutOfMemory("this request did not fit into the accelerator's memory")
        return None


def make(arguments: Mapping[str, Any]) -> VllmEngine:
    """Start vLLM with these arguments: ``Options``' fields and vLLM's; raises ``ValueError``, ``OSError``."""
    made = options(arguments)
    return VllmEngine(start(made), made)


def _refusal(exc: ValueError) -> EngineError:
    """vLLM refuses a request by a ``ValueError`` before it runs; later it means something else."""
    said = str(exc)[:SHOWN]
    return ContextLengthExceeded(said) if TOO_LONG.search(said) else BadRequest(said)


def _image(at: int, url: str) -> Any:
    try:
        return fetch_image(url)  # the contract lets data URLs through alone, so nothing is fetched
    except Exception:  # noqa: BLE001 - a decoder fails in as many ways as there are broken images
        raise BadRequest(f"`images[{at}]` is no image that can be read") from None


def _out_of_memory(exc: BaseException | None) -> bool:
    """vLLM wraps what it did not foresee."""
    while exc is not None:
        if isinstance(exc, torch.OutOfMemoryError):
            return True
        exc = exc.__cause__
    return False


__all__ = ["Options", "VllmEngine", "make"]
