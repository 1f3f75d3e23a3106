"""The embedding engine: texts to unit vectors, by an encoder model from a folder or the hub.

Rule: a text's vector depends on that text alone; padding is masked. The mean of the last layer's states over
the text's tokens, unless the model is made for sentence-transformers, which then says how it pools.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import torch
import transformers

from modal_backend.engine import (
    About,
    ContextLengthExceeded,
    Embeddings,
    EngineDead,
    OutOfMemory,
    Usage,
)
from modal_backend.engines.transformers_engine.loading import default_device, dtype

Vectors: TypeAlias = list[tuple[float, ...]]
Encode: TypeAlias = Callable[[list[list[int]]], torch.Tensor]

log = logging.getLogger("modal_backend")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The engine's arguments."""

    model: str
    """A folder, or a name on the Hugging Face hub."""
    revision: str | None = None
    dtype: str = "auto"
    device: str | None = None
    trust_remote_code: bool = False
    pooling: str = "mean"
    """``mean``, ``cls`` (the first token) or ``last`` (the last one)."""
    context_length: int | None = None
    """Tokens of one text; the default is what the tokenizer says, at most the model's positions."""
    batch_tokens: int = 16384
    """Padded tokens that go through the model together."""


POOLING: tuple[str, ...] = ("mean", "cls", "last")


class EmbedEngine:
    """Embeds texts, one batch of one request at a time."""

    def __init__(self, model: Any, tokenizer: Any, options: Options) -> None:
        if options.pooling not in POOLING:
            raise ValueError(f"pooling must be one of {', '.join(POOLING)}, not {options.pooling!r}")
        self._model, self._tokenizer, self._options = model, tokenizer, options
        self.about = About("embed", frozenset(), f"model: {options.model}")
        self.length = options.context_length or _length(model, tokenizer)
        self._fault: str | None = None
        self._working = ThreadPoolExecutor(1, "embedding")

    def fault(self) -> str | None:
        return self._fault

    async def close(self) -> None:
        await asyncio.to_thread(self._working.shutdown, cancel_futures=True)

    async def embed(self, texts: tuple[str, ...]) -> Embeddings:
        loop = asyncio.get_running_loop()
        ids = await loop.run_in_executor(self._working, self._tokens, texts)
        vectors: list[tuple[float, ...]] = [()] * len(texts)
        for batch in _batches(ids, self._options.batch_tokens):  # cancelled between two of them
            made = await loop.run_in_executor(self._working, self._encode, [ids[at] for at in batch])
            for at, vector in zip(batch, made, strict=True):
                vectors[at] = vector
        return Embeddings(tuple(vectors), Usage(sum(map(len, ids))))

    def _tokens(self, texts: tuple[str, ...]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(list(texts))["input_ids"] if texts else []
        for at, one in enumerate(ids):
            if len(one) > self.length:
                raise ContextLengthExceeded(
                    f"This model's maximum context length is {self.length} tokens. However, input[{at}] "
                    f"has {len(one)} (context_length_exceeded)."
                )
        return ids

    def _encode(self, batch: list[list[int]]) -> Vectors:
        try:
            with torch.inference_mode():
                return [tuple(vector) for vector in self._pooled(batch).tolist()]
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            raise OutOfMemory("these texts did not fit into the accelerator's memory") from None
        except RuntimeError as exc:
            log.critical("the embedding model has failed", exc_info=exc)
            self._fault = f"the model failed ({type(exc).__name__}); the container's log says more"
            raise EngineDead(self._fault) from None

    def _pooled(self, batch: list[list[int]]) -> torch.Tensor:
        """Unit vectors (texts, size; float32). A text without tokens has a vector of zeros."""
        width = max(1, max(map(len, batch)))
        pad = self._tokenizer.pad_token_id or 0
        device = self._model.device
        ids = torch.tensor([[*one, *[pad] * (width - len(one))] for one in batch], device=device)
        lengths = torch.tensor([len(one) for one in batch], device=device)[:, None]
        mask = torch.arange(width, device=device) < lengths
        states = self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        if self._options.pooling == "mean":
            summed = (states * mask[:, :, None]).sum(1) / lengths.clamp(min=1)
        elif self._options.pooling == "cls":
            summed = states[:, 0]
        else:
            summed = states[torch.arange(len(batch), device=device), lengths[:, 0].clamp(min=1) - 1]
        return torch.nn.functional.normalize(summed * (lengths > 0), dim=-1)


def _batches(ids: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Places of texts of like length, so that little is padded: at most ``most`` tokens a batch."""
    batches: list[list[int]] = []
    for at in sorted(range(len(ids)), key=lambda at: len(ids[at])):
        if batches and (len(batches[-1]) + 1) * max(1, len(ids[at])) <= most:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches


def _length(model: Any, tokenizer: Any) -> int:
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(min(positions, tokenizer.model_max_length))


def _pooling(model: str, revision: str | None) -> str | None:
    """What a sentence-transformers model says of its pooling, if it is one."""
    file = transformers.utils.cached_file(
        model, "1_Pooling/config.json", revision=revision, _raise_exceptions_for_missing_entries=False
    )
    if file is None:
        return None
    said = json.loads(Path(file).read_text())
    modes = {"pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
    return next((name for key, name in modes.items() if said.get(key)), "mean")


def make(arguments: Mapping[str, Any]) -> EmbedEngine:
    """Load the model that the arguments name, which are ``Options``' fields; raises ``ValueError``."""
    known = {one.name for one in fields(Options)}
    if unknown := sorted(set(arguments) - known):
        raise ValueError(f"the engine embed has no argument {unknown[0]!r}; it has {sorted(known)}")
    if "model" not in arguments:
        raise ValueError("the engine embed needs the argument 'model': a folder or a name on the hub")
    if "pooling" not in arguments and (said := _pooling(arguments["model"], arguments.get("revision"))):
        arguments = {**arguments, "pooling": said}
    options = Options(**arguments)
    source = {"revision": options.revision, "trust_remote_code": options.trust_remote_code}
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model, **source)
    model = transformers.AutoModel.from_pretrained(options.model, **dtype(options.dtype), **source)
    return EmbedEngine(model.to(options.device or default_device()).eval(), tokenizer, options)
