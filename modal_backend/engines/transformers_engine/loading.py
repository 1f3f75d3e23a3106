"""Load a model and its tokenizer from a folder or the hub, and find out how much room it has.

Rule: everything that changes what is loaded is explicit; code that comes with a model runs only if it is
asked for. Room for keys and values is taken when the engine starts, so that no answer runs out of it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from modal_backend.engines.tokens import Tokenizer
from modal_backend.engines.transformers_engine.memory import Apart, Memory, Slots, batchable, probe

LONGEST = 8192  # tokens of a request, where neither the caller nor the model says less
SHARE = 0.8  # of the accelerator's free memory, for keys and values; the rest is for the calculation
SHARE_OF_HOST = 0.25  # the same of the machine's memory, on a CPU

QUANTIZERS: Mapping[str, str] = {
    "awq": "AwqConfig",
    "bitsandbytes": "BitsAndBytesConfig",
    "gptq": "GPTQConfig",
}

log = logging.getLogger("modal_backend")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The engine's arguments."""

    model: str
    """A folder, or a name on the Hugging Face hub."""
    revision: str | None = None
    dtype: str = "auto"
    """``auto`` is what the weights were saved in; else a name of torch: ``bfloat16``, ``float32``."""
    device: str | None = None
    """``cuda``, ``cpu``, ...; the default is CUDA where there is one."""
    device_map: str | Mapping[str, Any] | None = None
    """Spread over several accelerators: ``auto``, or layer by layer. Needs the package ``accelerate``."""
    trust_remote_code: bool = False
    attention: str | None = None
    """Transformers' ``attn_implementation``; the default is its own choice."""
    quantization: Mapping[str, Any] | None = None
    """``{"method": "bitsandbytes", "load_in_4bit": true}``: the arguments of the method's config class.
    Weights that were saved quantised say so themselves and need none."""
    context_length: int | None = None
    """Tokens of a request, prompt and answer; the default is the model's own, at most ``LONGEST``."""
    max_batch: int = 64
    """Answers that run at once; others wait. Fewer where memory is short."""
    max_queue: int = 1024
    skip_special_tokens: bool = True
    """False writes special tokens into the answer, for models whose tool calls or channels are such."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to run."""

    model: Any
    tokenizer: Tokenizer
    memory: Memory
    ends: frozenset[int]
    vocabulary: int


def load(options: Options) -> Loaded:
    """Raises what the library does: ``OSError`` for a model that is not there, ``ValueError`` for options."""
    source = {"revision": options.revision, "trust_remote_code": options.trust_remote_code}
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model, **source)
    settings: dict[str, Any] = {**source, **dtype(options.dtype)}
    if options.device_map is not None:
        settings["device_map"] = options.device_map
    if options.attention is not None:
        settings["attn_implementation"] = options.attention
    if options.quantization is not None:
        settings["quantization_config"] = quantization(options.quantization)
    model = transformers.AutoModelForCausalLM.from_pretrained(options.model, **settings)
    if options.device_map is None and options.quantization is None:
        model = model.to(options.device or default_device())
    return ready(model.eval(), tokenizer, options)


def ready(model: Any, tokenizer: Any, options: Options) -> Loaded:
    """``model`` and ``tokenizer`` are Hugging Face's, loaded or made in any way."""
    return Loaded(
        model=model,
        tokenizer=Tokenizer(tokenizer, skip_special=options.skip_special_tokens),
        memory=_memory(model, options),
        ends=_ends(model, tokenizer),
        vocabulary=_vocabulary(model),
    )


def dtype(name: str) -> dict[str, Any]:
    """The argument that says so, which had another name in versions that some models still need."""
    value = name if name == "auto" else getattr(torch, name, None)
    if value != "auto" and not isinstance(value, torch.dtype):
        raise ValueError(f"dtype must be `auto` or a type of torch such as bfloat16, not {name!r}")
    major, minor, *_ = transformers.__version__.split(".")
    return {"dtype" if (int(major), int(minor)) >= (4, 56) else "torch_dtype": value}


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def quantization(given: Mapping[str, Any]) -> Any:
    method = str(given.get("method"))
    if method not in QUANTIZERS:
        raise ValueError(f"quantization.method must be one of {', '.join(QUANTIZERS)}, not {method!r}")
    arguments = {name: value for name, value in given.items() if name != "method"}
    return getattr(transformers, QUANTIZERS[method])(**arguments)


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends an answer: the model's generation config names them, or else the tokenizer."""
    named = getattr(model.generation_config, "eos_token_id", None)
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        return frozenset()
    return frozenset(named if isinstance(named, list) else [named])


def _memory(model: Any, options: Options) -> Memory:
    length = options.context_length or min(_own_length(model.config), LONGEST)
    if not batchable(model):
        return Apart(model, options.max_batch, length)
    each = sum(layer.keys.nbytes + layer.values.nbytes for layer in probe(model).layers)
    room = _room(model.device)
    count = max(1, min(options.max_batch, room // (each * length)))
    if count < options.max_batch:
        log.warning("memory is there for %d answers of %d tokens at once", count, length)
    slots = Slots(model, count, length)
    slots.warm(1024)
    return slots


def _own_length(config: Any) -> int:
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    names = ("max_position_embeddings", "seq_length", "model_max_length", "n_positions")
    return next((found for name in names if (found := getattr(config, name, None))), LONGEST)


def _vocabulary(model: Any) -> int:
    """As many logits as it makes, which may be more than its tokenizer has tokens."""
    with torch.inference_mode():
        made = model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device))
    return int(made.logits.shape[-1])


def _room(device: Any) -> int:
    """Bytes for keys and values."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * SHARE)
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * SHARE_OF_HOST)
