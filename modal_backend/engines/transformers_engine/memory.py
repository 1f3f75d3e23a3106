"""Run the model: prompts into slots, then one token a step for all slots together.

Rule: a slot's result depends on its own tokens alone. ``Slots`` keeps keys and values of all slots in tensors
that never move, so that one launch of a recorded CUDA graph makes a step; slots that are free, and places
behind a slot's end, are masked. ``Apart`` is the way for models whose caches have other shapes: one after
another, correct for any model, without the speed of a batch.
Knows nothing about sampling, requests or threads: one thread calls it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import transformers

SHORTEST = 256  # tokens that a step attends to at least; the recorded lengths are its doubles

log = logging.getLogger("modal_backend")


class Memory(Protocol):
    """What both ways offer. ``put`` sets the tokens that the next step goes on with."""

    count: int
    length: int

    def fill(self, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> torch.Tensor: ...

    def step(self, slots: Sequence[int], longest: int) -> torch.Tensor: ...

    def put(self, slots: Sequence[int], ids: torch.Tensor) -> None: ...

    def free(self, slot: int) -> None: ...


def _forward(model: Any, ids: torch.Tensor, cache: Any, ends: torch.Tensor) -> torch.Tensor:
    """Fill ``cache``; logits (rows, vocabulary; float32) behind the last token of each row, at ``ends``."""
    rows = torch.arange(len(ids), device=ids.device)
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return model(input_ids=ids, past_key_values=cache, use_cache=True).logits[rows, ends].float()
    places, which = ends.unique(return_inverse=True)
    made = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=places).logits
    return made[rows, which].float()


class _Layer:
    """One layer's keys and values (slots, heads, length, size). Written at each slot's own position."""

    is_compileable = True
    is_sliding = False
    is_initialized = True

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, view: _View) -> None:
        self.keys, self.values = keys, values
        self._view = view

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        width, length = self._view.width, self._view.length
        rows = self._view.rows.to(keys.device)
        at = self._view.at.to(keys.device)
        self.keys[rows, :, at] = keys[:, :, 0]
        self.values[rows, :, at] = values[:, :, 0]
        return self.keys[:width, :, :length], self.values[:width, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._view.length, 0

    def get_seq_length(self) -> int:
        return 0  # the positions are passed explicitly

    def get_max_length(self) -> int:
        return self._view.length


class _View:
    """Which part of the slots the running step uses."""

    def __init__(self) -> None:
        self.width = self.length = 0
        self.rows = self.at = torch.empty(0, dtype=torch.long)


class Slots:
    """``count`` slots of ``length`` tokens each, prompt and answer."""

    def __init__(self, model: Any, count: int, length: int) -> None:
        self._model = model
        self.count, self.length = count, length
        device = model.device
        self.tokens = torch.zeros(count, dtype=torch.long, device=device)
        self.positions = torch.zeros(count, dtype=torch.long, device=device)
        self._slots: list[int] = []
        self._indexed = torch.empty(0, dtype=torch.long)
        self._view = _View()
        self._rows = torch.arange(count, device=device)
        self._layers = [
            _Layer(_room(layer.keys, count, length), _room(layer.values, count, length), self._view)
            for layer in probe(model).layers
        ]
        self._cache = transformers.Cache(layers=self._layers)
        self._windows = _windows(model.config)
        devices = {layer.keys.device for layer in self._layers}
        self._record = devices == {device} and device.type == "cuda"
        self._graphs: dict[tuple[int, int], tuple[Any, torch.Tensor]] = {}

    def fill(self, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits behind each prompt. Padding is on the right, where causal attention never looks."""
        device, width = self.tokens.device, max(map(len, prompts))
        ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], device=device)
        ends = torch.tensor([len(prompt) for prompt in prompts], device=device)
        cache = transformers.DynamicCache()
        logits = _forward(self._model, ids, cache, ends - 1)
        index = self._index(slots)
        for mine, made in zip(self._layers, cache.layers, strict=True):
            rows = index.to(mine.keys.device)
            mine.keys[rows, :, :width] = made.keys
            mine.values[rows, :, :width] = made.values
        self.positions[index] = ends
        return logits

    def step(self, slots: Sequence[int], longest: int) -> torch.Tensor:
        """Logits behind the next token of each of ``slots``, whose positions are all below ``longest``."""
        width = _doubled(1, max(slots) + 1, self.count)
        logits = self._run(width, _doubled(SHORTEST, longest, self.length))
        index = self._index(slots)
        self.positions[index] += 1
        return logits[index]

    def put(self, slots: Sequence[int], ids: torch.Tensor) -> None:
        """``ids`` are what the slots go on with."""
        self.tokens[self._index(slots)] = ids

    def _index(self, slots: Sequence[int]) -> torch.Tensor:
        if self._slots != slots:  # the same ones step after step, mostly
            self._slots = list(slots)
            self._indexed = torch.tensor(slots, device=self.tokens.device)
        return self._indexed

    def free(self, slot: int) -> None:
        """Nothing to do: what a slot held is masked, then overwritten."""

    def warm(self, longest: int) -> None:
        """Record the graphs for requests of up to ``longest`` tokens before they come."""
        if not self._record:
            return
        widths = {_doubled(1, slots, self.count) for slots in range(1, self.count + 1)}
        needed = range(1, min(longest, self.length) + 1)
        lengths = {_doubled(SHORTEST, tokens, self.length) for tokens in needed}
        with torch.inference_mode():
            for width in sorted(widths, reverse=True):  # the others fit into its pool
                for length in sorted(lengths, reverse=True):
                    self._run(width, length)

    def _run(self, width: int, length: int) -> torch.Tensor:
        if not self._record:
            return self._step(width, length)
        if (width, length) not in self._graphs:
            self._graphs[width, length] = self._recorded(width, length)
        graph, logits = self._graphs[width, length]
        graph.replay()
        return logits.clone()

    def _recorded(self, width: int, length: int) -> tuple[Any, torch.Tensor]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries allocate at their first call, which a recording cannot
            self._step(width, length)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._graphs.values()))[0].pool() if self._graphs else None
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            logits = self._step(width, length)
        return graph, logits

    def _step(self, width: int, length: int) -> torch.Tensor:
        view, at = self._view, self.positions[:width].clamp(max=length - 1)
        view.width, view.length, view.rows, view.at = width, length, self._rows[:width], at
        masks = {kind: self._mask(at, length, window) for kind, window in self._windows.items()}
        made = self._model(
            input_ids=self.tokens[:width, None],
            position_ids=at[:, None],
            attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
            past_key_values=self._cache,
            use_cache=True,
        )
        return made.logits[:, -1].float()

    def _mask(self, at: torch.Tensor, length: int, window: int | None) -> torch.Tensor:
        place = torch.arange(length, device=at.device)
        seen = place <= at[:, None]
        if window is not None:
            seen &= place > at[:, None] - window
        dtype = self._model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=at.device)
        return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None, None]


def _doubled(start: int, needed: int, most: int) -> int:
    """``start``, doubled until it is enough, or ``most``: few sizes, so that few graphs are recorded."""
    while start < needed:
        start *= 2
    return min(start, most)


def _room(like: torch.Tensor, count: int, length: int) -> torch.Tensor:
    """Zeros, not whatever was there: a masked NaN would still spread."""
    shape = (count, like.shape[1], length, like.shape[3])
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


def _windows(config: Any) -> dict[str, int | None]:
    """How far back each kind of layer sees; None is all the way. One kind: its mask is passed alone."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if not kinds:
        return {"full_attention": window}
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}


class Apart:
    """A cache of its own for each slot, whatever that is, and a call of the model for each of them.

    Asks of a model only what models of every age give: logits, and ``past_key_values`` to pass back.
    """

    def __init__(self, model: Any, count: int, length: int) -> None:
        self._model = model
        self.count, self.length = count, length
        self._placed = "position_ids" in inspect.signature(model.forward).parameters
        self._caches: dict[int, Any] = {}
        self._filled: dict[int, int] = {}
        self._next: dict[int, torch.Tensor] = {}

    def fill(self, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        device = self._model.device
        made = []
        for slot, prompt in zip(slots, prompts, strict=True):
            self.free(slot)
            made.append(self._go_on(slot, torch.tensor([list(prompt)], device=device)))
        return torch.cat(made)

    def step(self, slots: Sequence[int], longest: int) -> torch.Tensor:
        return torch.cat([self._go_on(slot, self._next[slot][None]) for slot in slots])

    def put(self, slots: Sequence[int], ids: torch.Tensor) -> None:
        for at, slot in enumerate(slots):
            self._next[slot] = ids[at : at + 1]

    def free(self, slot: int) -> None:
        for kept in (self._caches, self._filled, self._next):
            kept.pop(slot, None)

    def _go_on(self, slot: int, ids: torch.Tensor) -> torch.Tensor:
        filled = self._filled.get(slot, 0)
        self._filled[slot] = filled + ids.shape[1]
        places = torch.arange(filled, self._filled[slot], device=ids.device)[None]
        placed = {"position_ids": places} if self._placed else {}
        made = self._model(input_ids=ids, past_key_values=self._caches.get(slot), use_cache=True, **placed)
        self._caches[slot] = made.past_key_values
        return made.logits[:, -1].float()


def probe(model: Any) -> Any:
    """The cache after one token: the shape of each layer's share."""
    cache = transformers.DynamicCache()
    with torch.inference_mode():
        model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device), past_key_values=cache)
    return cache


def batchable(model: Any) -> bool:
    """Does ``Slots`` give what the model itself gives? Tried with a few tokens."""
    ids = list(range(1, 8))
    with torch.inference_mode():
        try:
            slots = Slots(model, 2, 16)
            slots.fill([1], [ids[:-1]])
            slots.tokens[1] = ids[-1]
            found = slots._step(2, 16)[1]
            wanted = model(input_ids=torch.tensor([ids], device=model.device)).logits[0, -1].float()
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as exc:  # noqa: BLE001 - a model's own code may fail in any way with this cache
            log.warning("this model runs one request after another: its cache does not batch (%r)", exc)
            return False
    alike = torch.nn.functional.cosine_similarity(found, wanted, dim=0).item()
    if alike < 0.99:
        log.warning("this model runs one request after another: batched it answers differently (%.3f)", alike)
    return bool(alike >= 0.99)
