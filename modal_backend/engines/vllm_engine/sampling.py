"""What vLLM calls the contract's fields, one by one.

Rule: a field that is not in the table is not honoured, and the caller is told so. A value that vLLM would
take for something else becomes the one that means the same; no other number of the caller is changed.
``stop`` is not in it: the contract app cuts the text itself, by the stop that completes first, where vLLM
goes by the order of its list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from modal_backend.engine import Request

COLDEST = 1e-5  # a temperature below is greedy, here as in the transformers engine
SMALLEST = 1e-6  # the top_p of someone who wants the likeliest token alone; vLLM refuses 0
OTHER_SEED = (1 << 63) - 1  # stands for the seed -1, which means none to vLLM


def _same(value: Any) -> Any:
    return value


def _temperature(value: float) -> float:
    return 0.0 if value < COLDEST else value


def _top_p(value: float) -> float:
    return max(value, SMALLEST)


def _seed(value: int) -> int:
    return OTHER_SEED if value == -1 else value


FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "max_tokens": ("max_tokens", _same),
    "temperature": ("temperature", _temperature),
    "top_p": ("top_p", _top_p),
    "top_k": ("top_k", _same),
    "min_p": ("min_p", _same),
    "presence_penalty": ("presence_penalty", _same),
    "frequency_penalty": ("frequency_penalty", _same),
    "repetition_penalty": ("repetition_penalty", _same),
    "seed": ("seed", _seed),
    "logit_bias": ("logit_bias", dict),
    "stop_token_ids": ("stop_token_ids", list),
    "logprobs": ("logprobs", _same),
}
"""Field of the contract -> keyword of ``SamplingParams``, and how its value is written there."""

GUIDES: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "json_schema": ("json", dict),
    "regex": ("regex", _same),
    "grammar": ("grammar", _same),
}
"""The same for ``StructuredOutputsParams``."""

HONOURS = frozenset(FIELDS) | frozenset(GUIDES)

DEFAULTS = frozenset({"temperature", "top_p", "top_k", "min_p", "repetition_penalty"})
"""What the model's ``generation_config.json`` may say where the caller does not."""


def sampling_params(request: Request, defaults: Mapping[str, Any], *, skip_special: bool) -> SamplingParams:
    """Raises ``ValueError`` for what vLLM refuses. ``defaults`` are the model's own, by vLLM's names."""
    given = {name: value for name, value in defaults.items() if name in DEFAULTS}
    given |= _written(request, FIELDS)
    given.setdefault("max_tokens", None)  # as many as the context has room for; vLLM's own default is 16
    if guide := _written(request, GUIDES):
        given["structured_outputs"] = StructuredOutputsParams(**guide)
    return SamplingParams(
        **given, output_kind=RequestOutputKind.DELTA, skip_special_tokens=skip_special, detokenize=True
    )


def _written(request: Request, table: Mapping[str, tuple[str, Callable[[Any], Any]]]) -> dict[str, Any]:
    """The table's fields that the request has, as vLLM writes them."""
    found = ((getattr(request, field), name, write) for field, (name, write) in table.items())
    return {name: write(value) for value, name, write in found if value is not None and value != ()}
