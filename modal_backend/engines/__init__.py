"""The engines there are, by name.

Rule: a registry you can read. An engine's heavy imports happen when it is made, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modal_backend.engine import Engine


def _demo(arguments: Mapping[str, Any]) -> Engine:
    from modal_backend.engines.demo import Demo

    return Demo(**arguments)


def _embed(arguments: Mapping[str, Any]) -> Engine:
    from modal_backend.engines.embed import make

    return make(arguments)


def _transformers(arguments: Mapping[str, Any]) -> Engine:
    from modal_backend.engines.transformers_engine import make

    return make(arguments)


def _vllm(arguments: Mapping[str, Any]) -> Engine:
    from modal_backend.engines.vllm_engine import make

    return make(arguments)


ENGINES: Mapping[str, Callable[[Mapping[str, Any]], Engine]] = {
    "demo": _demo,
    "embed": _embed,
    "transformers": _transformers,
    "vllm": _vllm,
}


def make_engine(name: str, arguments: Mapping[str, Any]) -> Engine:
    """The engine with this name, made with these arguments; raises ``ValueError`` that lists the names."""
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}; choose one of: {', '.join(ENGINES)}")
    return ENGINES[name](arguments)
