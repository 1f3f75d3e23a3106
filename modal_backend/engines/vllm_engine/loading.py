"""Start vLLM with the deployment's arguments, and find the adapters that callers may name.

Rule: every argument is known, or refused before anything is loaded. What is not an argument of this engine is
one of vLLM's own, under vLLM's own name.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vllm
from vllm.config import StructuredOutputsConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.utils.torch_utils import cuda_device_count_stateless
from vllm.v1.engine.async_llm import AsyncLLM

WRITTEN_FOR = "0.19.0"
"""The version of vLLM whose signatures this engine was written and tested against."""
TOKENIZERS = ("hf", "slow")
"""Kinds of tokenizer that read special tokens in a text, as the contract wants it."""
PARALLEL = frozenset({"tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"})
ADAPTER = "adapter_config.json"  # what every adapter's folder has

log = logging.getLogger("modal_backend")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The engine's own arguments. ``vllm`` holds the others, which are vLLM's."""

    model: str
    """A folder, or a name on the Hugging Face hub."""
    context_length: int | None = None
    """Tokens of a request, prompt and answer; the default is the model's own."""
    adapters: Mapping[str, str] | str | None = None
    """LoRA adapters: name to path, or a folder with one folder for each."""
    max_requests: int = 1024
    """Running and waiting; more are refused as ``busy``."""
    skip_special_tokens: bool = True
    """False writes special tokens into the answer, for models whose tool calls or channels are such."""
    vllm: Mapping[str, Any]


def options(arguments: Mapping[str, Any]) -> Options:
    """Raises ``ValueError`` for an argument that neither this engine nor vLLM has."""
    own = {one.name for one in dataclasses.fields(Options)} - {"vllm"}
    theirs = {one.name for one in dataclasses.fields(AsyncEngineArgs)}
    if unknown := sorted(set(arguments) - own - theirs):
        raise ValueError(
            f"the engine vllm has no argument {unknown[0]!r}: it has {', '.join(sorted(own))} and those of "
            "vLLM's AsyncEngineArgs. Options of the program `vllm serve` alone need `serve: server`"
        )
    if "model" not in arguments:
        raise ValueError("the engine vllm needs the argument 'model': a folder or a name on the hub")
    if (kind := arguments.get("tokenizer_mode", TOKENIZERS[0])) not in TOKENIZERS:
        raise ValueError(f"tokenizer_mode must be one of {', '.join(TOKENIZERS)}, not {kind!r}")
    given = {name: value for name, value in arguments.items() if name in own}
    return Options(**given, vllm={name: value for name, value in arguments.items() if name not in own})


def engine_args(made: Options) -> AsyncEngineArgs:
    """What vLLM is started with. Raises what vLLM raises for a wrong value, ``ValueError`` mostly."""
    given: dict[str, Any] = {"model": made.model, "tokenizer_mode": TOKENIZERS[0], **made.vllm}
    if made.context_length is not None:
        given.setdefault("max_model_len", made.context_length)
    if made.adapters:
        given.setdefault("enable_lora", True)
    if not PARALLEL & set(given):
        given["tensor_parallel_size"] = max(1, cuda_device_count_stateless())
    # The library of the transformers engine, so that the same guides are understood by both.
    guides = {"backend": "guidance", "disable_any_whitespace": True}
    guides = given.get("structured_outputs_config", guides)
    given["structured_outputs_config"] = StructuredOutputsConfig(**guides)
    return AsyncEngineArgs(**given)


def start(made: Options) -> AsyncLLM:
    """Load the model. Raises ``ValueError`` or ``OSError`` that says why it cannot be."""
    if vllm.__version__ != WRITTEN_FOR:
        log.warning("vllm %s is here; this engine was written for %s", vllm.__version__, WRITTEN_FOR)
    try:
        return AsyncLLM.from_engine_args(engine_args(made))
    except RuntimeError as exc:  # its own process could not load the model, and has logged why
        raise ValueError(f"vLLM did not start: {exc}") from exc


def adapters(given: Mapping[str, str] | str | None) -> dict[str, str]:
    """Name -> path. Raises ``ValueError`` for a folder without adapters."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    found = {path.parent.name: str(path.parent) for path in sorted(Path(given).glob(f"*/{ADAPTER}"))}
    if not found:
        raise ValueError(f"adapters: no folder in {given} has an {ADAPTER}")
    return found
