"""Choose the next token of many requests at once, each by its own parameters.

Rule: a request's choice depends on its own logits, parameters and random numbers alone, never on who shares
the batch; the same seed gives the same tokens. One uniform number picks from the cumulated chances, so a seed
needs no generator on the accelerator.
The order is: logit bias, penalties, guide (in ``edits``); then temperature, top-k, min-p, top-p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modal_backend.engine import Request

COLDEST = 1e-5  # a temperature below is greedy: dividing by it overflows
MOST_RANKED = 1024  # with a top_k up to here the best are found without sorting the vocabulary


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request chooses. ``top_k`` 0 and the others' 1, 0 or 1 turn a limit off."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    @property
    def greedy(self) -> bool:
        return self.temperature < COLDEST

    @property
    def limited(self) -> bool:
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


def sampling(request: Request, defaults: Mapping[str, Any]) -> Sampling:
    """What the request says; where it does not, the model's own ``defaults``; then no limit."""

    def first(name: str, otherwise: float) -> float:
        for value in (getattr(request, name), defaults.get(name)):
            if value is not None:
                return float(value)
        return otherwise

    return Sampling(
        temperature=first("temperature", 1.0),
        top_p=first("top_p", 1.0),
        top_k=max(0, int(first("top_k", 0))),
        min_p=first("min_p", 0.0),
    )


def choose(logits: torch.Tensor, rows: Sequence[Sampling], uniforms: Sequence[float]) -> torch.Tensor:
    """The token ids for ``logits`` (rows, vocabulary; float32), by one uniform number of [0, 1) a row."""
    chosen = logits.argmax(-1)
    for limited in (False, True):
        picked = [i for i, row in enumerate(rows) if not row.greedy and row.limited is limited]
        if not picked:
            continue
        everyone = len(picked) == len(rows)
        index = None if everyone else torch.tensor(picked, device=logits.device)
        part = logits if index is None else logits[index]
        numbers = [(rows[i].temperature, rows[i].top_p, rows[i].top_k, rows[i].min_p) for i in picked]
        settings = torch.tensor(numbers, dtype=torch.float32).to(logits.device, non_blocking=True)
        points = torch.tensor([uniforms[i] for i in picked], dtype=torch.float64)
        points = points.to(logits.device, non_blocking=True)[:, None]
        scaled = part / settings[:, 0:1]
        if limited:
            ids = _limited(scaled, settings, points, [rows[i] for i in picked])
        else:
            ids = _pick(scaled.softmax(-1), points)[:, 0]
        if index is None:
            return ids
        chosen[index] = ids
    return chosen


def _limited(
    scaled: torch.Tensor, settings: torch.Tensor, points: torch.Tensor, rows: Sequence[Sampling]
) -> torch.Tensor:
    """Ranking by ``topk`` and by ``sort`` differ in ties, so a row's own parameters decide which it is."""
    ranked = [i for i, row in enumerate(rows) if 0 < row.top_k <= MOST_RANKED]
    if len(ranked) == len(rows):
        values, order = scaled.topk(min(MOST_RANKED, scaled.shape[-1]), dim=-1)
        return order.gather(-1, _pick(_cut(values, settings), points))[:, 0]
    if not ranked:
        values, order = scaled.sort(dim=-1, descending=True, stable=True)
        return order.gather(-1, _pick(_cut(values, settings), points))[:, 0]
    chosen = torch.empty(len(rows), dtype=torch.long, device=scaled.device)
    sorted_ = [i for i in range(len(rows)) if i not in set(ranked)]
    for part in (ranked, sorted_):
        index = torch.tensor(part, device=scaled.device)
        chosen[index] = _limited(scaled[index], settings[index], points[index], [rows[i] for i in part])
    return chosen


def _cut(values: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    """Chances, likeliest first, with those outside the limits at zero. The likeliest always stays."""
    top_p, top_k, min_p = settings[:, 1:2], settings[:, 2:3], settings[:, 3:4]
    rank = torch.arange(values.shape[-1], device=values.device)
    values = values.masked_fill((top_k > 0) & (rank >= top_k), -torch.inf)
    chances = values.softmax(-1)
    chances = chances.masked_fill(chances < min_p * chances[:, :1], 0.0)
    chances = chances / chances.sum(-1, keepdim=True)
    before = chances.cumsum(-1) - chances
    return chances.masked_fill((before >= top_p) & (rank > 0) & (top_p < 1), 0.0)


def _pick(chances: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Where the cumulated chances pass the point. A token without a chance is never picked."""
    total = chances.cumsum(-1, dtype=torch.float64)
    last = total[:, -1:]
    # A point that rounds up to the total would lie behind the last token that has a chance.
    target = torch.minimum(points * last, last * (1 - 1e-12))
    return torch.searchsorted(total, target, right=True)


class Edits:
    """What one request does to its logits before they are sampled: bias and penalties.

    Presence and frequency count what was generated, as OpenAI's; repetition counts the prompt, too, as
    Hugging Face's. ``row`` is changed in place.
    """

    def __init__(
        self, request: Request, repetition: float, prompt: Sequence[int], logits: torch.Tensor
    ) -> None:
        size, device = logits.shape[-1], logits.device
        bias = request.logit_bias or {}
        self._places = torch.tensor(list(bias), dtype=torch.long, device=device) if bias else None
        self._weights = torch.tensor(list(bias.values()), dtype=torch.float32, device=device)
        self._presence = request.presence_penalty or 0.0
        self._frequency = request.frequency_penalty or 0.0
        self._repetition = repetition
        self._counts = torch.zeros(size, dtype=torch.float32, device=device)
        self._seen = torch.zeros(size, dtype=torch.bool, device=device)
        self._seen[torch.tensor(list(prompt), dtype=torch.long, device=device)] = True

    def apply(self, row: torch.Tensor) -> None:
        if self._places is not None:
            row[self._places] += self._weights
        if self._repetition != 1.0:
            worse = torch.where(row > 0, row / self._repetition, row * self._repetition)
            row.copy_(torch.where(self._seen, worse, row))
        if self._presence or self._frequency:
            row -= self._frequency * self._counts + self._presence * (self._counts > 0)

    def note(self, token: torch.Tensor) -> None:
        """``token``: the chosen id, one element; a tensor, so that nothing waits for the accelerator."""
        self._counts.index_add_(0, token, torch.ones(1, device=token.device))
        self._seen.index_fill_(0, token, True)


def edits(
    request: Request, defaults: Mapping[str, Any], prompt: Sequence[int], logits: torch.Tensor
) -> Edits | None:
    """The request's edits, or None if its logits stay as they are."""
    repetition = request.repetition_penalty
    if repetition is None:
        repetition = defaults.get("repetition_penalty") or 1.0
    if request.logit_bias or request.presence_penalty or request.frequency_penalty or repetition != 1.0:
        return Edits(request, repetition, prompt, logits)
    return None
