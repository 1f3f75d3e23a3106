"""What a deployment file says of its model, as keys of a model's entry: ``from: qwen3-8b``.

Rule: keys that the entry itself has win. Only facts that a gateway needs are read here; the rest of the file
belongs to whoever deploys it, and is checked there. Raises ``ValueError`` that says what is wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.document import document

BUILT_IN = Path(__file__).resolve().parents[1] / "modal_backend" / "presets"
"""Files that ship beside this package. They are read as data; that package is never imported."""

FACTS: Mapping[str, str] = {
    "template": "template",
    "context_length": "context_length",
    "stops": "stop",
    "dialect": "tools",
    "price": "price",
    "tokenizer": "tokenizer",
    "aliases": "aliases",
}
"""Key of a deployment file -> key of a model's entry."""
_PATHS = ("template", "tokenizer")  # relative to the file they stand in, if there is such a file
_SERVERS = ("vllm", "sglang")  # with `serve: server` they speak OpenAI's API


def with_facts(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The entry with what its ``from`` says of the rest. ``folder`` is where relative paths start."""
    file = find(str(entry["from"]), folder)
    data = document(file)
    if not isinstance(data, dict):
        raise ValueError(f"{file} must hold a mapping with `model:` and `engine:`")
    facts = {key: data[name] for name, key in FACTS.items() if data.get(name) is not None}
    for key in _PATHS:
        if key in facts and (near := file.parent / str(facts[key])).exists():
            facts[key] = str(near.resolve())
    for key in ("stop", "aliases"):
        if isinstance(facts.get(key), str):  # one stands for a list of one, as where it is deployed
            facts[key] = [facts[key]]
    merged = {**facts, **entry}
    if data.get("engine") in _SERVERS and data.get("serve") == "server":
        for key in ("upstream", "upstreams"):
            if key in merged:
                merged[key] = _speaking_openai(merged[key], file.stem)
    return merged


def find(name: str, folder: Path) -> Path:
    """The deployment file that is meant: a path, one in ``models/`` below ``folder``, or a built-in one."""
    if name.endswith((".yaml", ".yml")):
        if not (folder / name).is_file():
            raise ValueError(f"there is no file {folder / name}")
        return folder / name
    for place in (folder / "models", BUILT_IN):
        if (file := place / f"{name}.yaml").is_file():
            return file
    known = sorted(path.stem for path in BUILT_IN.glob("*.yaml"))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"there is no deployment file {name}{hint} (a file of your own ends in .yaml)")


def _speaking_openai(upstreams: Any, served: str) -> Any:
    """The kind, and the name that the server knows, where an upstream says neither."""
    if isinstance(upstreams, list | tuple):
        return [_speaking_openai(each, served) for each in upstreams]
    if not isinstance(upstreams, dict) or upstreams.get("kind", "openai") != "openai":
        return upstreams
    return {"model": served, **upstreams, "kind": "openai"}
