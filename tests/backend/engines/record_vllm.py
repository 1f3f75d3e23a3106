"""Record the signatures of vLLM that the engine uses.

    python -m tests.backend.engines.record_vllm [FOLDER]

FOLDER holds the package ``vllm``, as an unpacked wheel does; without it, vLLM must be installed. Prints what
changed and rewrites ``vllm_signatures.json`` beside this file.
Rule: the source is read, not imported, so that neither a GPU nor vLLM's dependencies are needed. The record
is beside the tests because only they read it.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("vllm_signatures.json")

WANTED: Mapping[str, tuple[str, ...]] = {
    "vllm.engine.arg_utils:AsyncEngineArgs": (),
    "vllm.config:StructuredOutputsConfig": (),
    "vllm.config:ModelConfig": ("get_diff_sampling_param", "is_multimodal_model", "max_model_len"),
    "vllm.v1.engine.async_llm:AsyncLLM": (
        "from_engine_args", "generate", "abort", "add_lora", "get_tokenizer", "shutdown", "errored",
        "model_config",
    ),
    "vllm.sampling_params:SamplingParams": (),
    "vllm.sampling_params:StructuredOutputsParams": (),
    "vllm.sampling_params:RequestOutputKind": ("DELTA",),
    "vllm.lora.request:LoRARequest": (),
    "vllm.inputs:TokensPrompt": (),
    "vllm.outputs:RequestOutput": (),
    "vllm.outputs:CompletionOutput": (),
    "vllm.logprobs:Logprob": (),
    "vllm.multimodal.utils:fetch_image": (),
    "vllm.utils.torch_utils:cuda_device_count_stateless": (),
    "vllm.v1.engine.exceptions:EngineDeadError": (),
    "vllm.v1.engine.exceptions:EngineGenerateError": (),
}  # fmt: skip
"""Where the engine and its tests import a name from. A class with members is used, others are made."""


def record(folder: Path, wanted: Mapping[str, tuple[str, ...]] = WANTED) -> dict[str, Any]:
    """What the source in ``folder`` says of all that is wanted. Raises ``LookupError`` for what it lacks."""
    version = ast.parse((folder / "vllm" / "_version.py").read_text(encoding="utf-8"))
    said = {
        target.id: node.value.value
        for node in version.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    names = {name: _described(folder, name, members) for name, members in wanted.items()}
    return {"version": said["__version__"], "commit": said["__commit_id__"].removeprefix("g"), "names": names}


def _described(folder: Path, wanted: str, members: tuple[str, ...]) -> dict[str, Any]:
    where, node = _find(folder, *wanted.split(":"))
    if isinstance(node, ast.ClassDef):
        if members:
            return {"defined_in": where, "members": {name: _member(wanted, node, name) for name in members}}
        return {"defined_in": where, **_constructor(folder, where, node)}
    return {"defined_in": where, **_parameters(node)}


def _find(folder: Path, module: str, name: str) -> tuple[str, ast.ClassDef | ast.FunctionDef]:
    """The definition of ``name``, and the module it is in, which may be one that ``module`` imports from."""
    path = folder.joinpath(*module.split("."))
    package = path.is_dir()
    tree = ast.parse((path / "__init__.py" if package else path.with_suffix(".py")).read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            parts = module.split(".")
            kept = parts[: len(parts) - node.level + package] if node.level else []
            return _find(folder, ".".join([*kept, *filter(None, [node.module])]), name)
    raise LookupError(f"there is no {name} in {module}")


def _constructor(folder: Path, where: str, node: ast.ClassDef) -> dict[str, Any]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            return _parameters(child)
    fields: dict[str, str | None] = {}
    for base in node.bases:  # a dataclass takes over the fields of its base
        if isinstance(base, ast.Name) and base.id not in ("TypedDict", "Enum", "Exception"):
            _, above = _find(folder, where, base.id)
            if isinstance(above, ast.ClassDef):
                fields |= _constructor(folder, where, above)["parameters"]
    return {"parameters": fields | dict(_fields(node))}


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str | None]]:
    for child in node.body:
        if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            if child.target.id.startswith("_"):
                continue
            value = ast.unparse(child.value) if child.value else None
            if value is None and ast.unparse(child.annotation).startswith("NotRequired"):
                value = "NotRequired"
            if "init=False" not in (value or ""):
                yield child.target.id, value


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, Any]:
    """Name -> source of its default, None for one without; ``self`` and ``cls`` are left out."""
    given = node.args
    names = [arg.arg for arg in (*given.posonlyargs, *given.args)]
    defaults = [None] * (len(names) - len(given.defaults)) + [ast.unparse(one) for one in given.defaults]
    found = {
        name: default for name, default in zip(names, defaults, strict=True) if name not in ("self", "cls")
    }
    only = {
        arg.arg: None if default is None else ast.unparse(default)
        for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    }
    made: dict[str, Any] = {"parameters": found | only}
    if only:
        made["keyword_only"] = list(only)
    if given.vararg or given.kwarg:
        made["takes_more"] = [f"*{given.vararg.arg}"] if given.vararg else []
        made["takes_more"] += [f"**{given.kwarg.arg}"] if given.kwarg else []
    return made


def _member(wanted: str, node: ast.ClassDef, name: str) -> Any:
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and child.name == name:
            decorators = {ast.unparse(one) for one in child.decorator_list}
            return "property" if "property" in decorators else _parameters(child)
        targets = [child.target] if isinstance(child, ast.AnnAssign) else getattr(child, "targets", [])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return "attribute"
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store) and inner.attr == name:
            return "attribute"
    raise LookupError(f"{wanted} has no {name}")


def main() -> None:
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
    elif (spec := importlib.util.find_spec("vllm")) and spec.origin:
        folder = Path(spec.origin).parents[1]
    else:
        sys.exit("vllm is not installed here: give the folder of an unpacked wheel")
    old = RECORD.read_text(encoding="utf-8") if RECORD.exists() else ""
    new = json.dumps(record(folder), indent=1, ensure_ascii=False) + "\n"
    RECORD.write_text(new, encoding="utf-8")
    changed = list(
        difflib.unified_diff(old.splitlines(), new.splitlines(), "before", "now", n=1, lineterm="")
    )
    print("\n".join(changed) if changed else "nothing changed")


if __name__ == "__main__":
    main()
