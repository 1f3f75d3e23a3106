"""The transformers engine on a model that only takes its time: the real decode loop, sampling and tokenizer.

Rule: a step lasts as long as that of ``pacing.py``, and says the same numbered words. The vocabulary has a
few hundred tokens, so that sampling costs a CPU no more than it costs a GPU beside a step. Needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer as Inner
from tokenizers import decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from modal_backend.engines.tokens import Tokenizer
from modal_backend.engines.transformers_engine import Options, TransformersEngine
from modal_backend.engines.transformers_engine.loading import Loaded
from tests.bench.pacing import SLOTS, STEP, every, word

WORDS = 512
LENGTH = 100_000  # tokens of context


def vocabulary() -> dict[str, int]:
    """Every byte, and the words, in the letters that byte-level tokenizers write for bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [word(number).replace(" ", "Ġ").replace("\n", "Ċ") for number in range(WORDS)]
    return {token: at for at, token in enumerate([*letters, *words])}


class Timed:
    """As the engine's own memories; each slot only counts the tokens it was asked for."""

    def __init__(self, count: int, size: int, complete: Callable[[], bool]) -> None:
        self.count, self.length = count, LENGTH
        self._size = size
        self._at = [0] * count
        self._complete = complete

    def fill(self, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        for slot in slots:
            self._at[slot] = 0
        return self._logits(slots)

    def step(self, slots: Sequence[int], longest: int) -> torch.Tensor:
        self._complete()
        for slot in slots:
            self._at[slot] += 1
        return self._logits(slots)

    def put(self, slots: Sequence[int], ids: torch.Tensor) -> None:
        """What was chosen is known."""

    def free(self, slot: int) -> None:
        """Nothing is held."""

    def _logits(self, slots: Sequence[int]) -> torch.Tensor:
        """One word each, and no other."""
        logits = torch.full((len(slots), self._size), -torch.inf)
        first = self._size - WORDS
        for row, slot in enumerate(slots):
            logits[row, first + self._at[slot] % WORDS] = 0.0
        return logits


def made(slots: int = SLOTS, complete: Callable[[], bool] | None = None) -> TransformersEngine:
    """``complete`` blocks until a step is made; by default each lasts ``STEP`` seconds."""
    words = vocabulary()
    inner = Inner(models.BPE(vocab=words, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    model: Any = SimpleNamespace(generation_config=GenerationConfig())
    tokenizer = Tokenizer(PreTrainedTokenizerFast(tokenizer_object=inner))
    memory = Timed(slots, len(words), complete or every(STEP))
    return TransformersEngine(
        Loaded(model, tokenizer, memory, frozenset(), len(words)), Options(model="numbered words")
    )
