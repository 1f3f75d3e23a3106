"""Log-probabilities of chosen tokens and of the likeliest ones.

Rule: they are the model's own, before bias, penalties, guide and temperature, so that they say what the model
thought and not what was done to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

Read: TypeAlias = tuple[float, list[tuple[int, float]]]
"""The chosen token's log-probability, and the likeliest ids with theirs, likeliest first."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the model thought, of those rows that want to know."""

    rows: list[int]
    counts: list[int]
    logprobs: torch.Tensor

    @classmethod
    def of(cls, wanted: Sequence[int | None], logits: torch.Tensor) -> Model | None:
        """``wanted``: how many alternatives for each row of ``logits``, None for no log-probabilities."""
        rows = [row for row, count in enumerate(wanted) if count is not None]
        if not rows:
            return None
        index = torch.tensor(rows, device=logits.device)
        return cls(rows, [wanted[row] or 0 for row in rows], logits[index].log_softmax(-1))

    def at(self, ids: torch.Tensor) -> Chances:
        """``ids``: the chosen tokens of all rows."""
        chosen = self.logprobs.gather(-1, ids[torch.tensor(self.rows, device=ids.device)][:, None])[:, 0]
        values, likeliest = self.logprobs.topk(min(max(self.counts), self.logprobs.shape[-1]), dim=-1)
        return Chances(self.rows, self.counts, chosen, values, likeliest)


@dataclass(frozen=True, slots=True)
class Chances:
    """Numbers on the accelerator that were asked for and not yet read."""

    rows: list[int]
    counts: list[int]
    chosen: torch.Tensor
    values: torch.Tensor
    ids: torch.Tensor

    def read(self) -> dict[int, Read]:
        """By row. Waits for the accelerator."""
        chosen, values, ids = self.chosen.tolist(), self.values.tolist(), self.ids.tolist()
        return {
            row: (chosen[at], list(zip(ids[at][:count], values[at][:count], strict=True)))
            for at, (row, count) in enumerate(zip(self.rows, self.counts, strict=True))
        }
