"""What is wrong with a configuration, in one line that names the key and the nearest valid one.

Rule: no value of the file is repeated. Knows the shape of the configuration only from its JSON schema.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from pydantic import ValidationError

from gateway.upstreams.kinds import KINDS


def one_line(exc: ValidationError, data: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The first complaint, with the path of its key as ``data``, the file, has it."""
    errors = exc.errors(include_url=False)
    # A key that is not known says more than the one that is missing because of it.
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    loc = [part for part in first["loc"] if part not in KINDS]
    where = _path(_as_written(loc, data))
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key{nearest(str(loc[-1]), _keys_beside(loc, schema))}"
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "missing":
        message = "is required" if loc[-1] != "upstreams" else "is required (or upstream)"
    if first["type"] == "string_type" and isinstance(first["input"], bool | int | float | date):
        message = "must be text, which YAML takes for something else here: put it in quotes"
    if first["type"] == "union_tag_invalid":
        message = f"unknown kind; valid are {', '.join(KINDS)}"
    return f"{where}: {message}" if where else message


def _as_written(loc: list[int | str], data: Mapping[str, Any]) -> list[int | str]:
    """``upstreams[0]`` is called ``upstream`` where that is what the file says."""
    match loc:
        case ["models", str(name), "upstreams", 0, *rest] if "upstream" in data["models"][name]:
            return ["models", name, "upstream", *rest]
    return loc


def _path(loc: Sequence[int | str]) -> str:
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def nearest(name: str, known: Sequence[str] | frozenset[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _keys_beside(loc: Sequence[int | str], schema: Mapping[str, Any]) -> list[str]:
    """Valid keys of the section that ``loc`` points into, read from the JSON schema."""
    nodes = [schema]
    for part in loc[:-1]:
        nodes = [child for node in nodes for child in _children(node, part, schema)]
    return sorted({key for node in nodes for key in node.get("properties", {})} | {"upstream"})


def _children(
    node: Mapping[str, Any], part: int | str, schema: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    for child in (node.get("items"), node.get("properties", {}).get(part), node.get("additionalProperties")):
        if isinstance(child, dict):
            yield from _resolved(child, schema)


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    options = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    if ref := node.get("$ref"):
        options.append(schema["$defs"][str(ref).rsplit("/", 1)[-1]])
    if not options:
        yield node
    for option in options:
        yield from _resolved(option, schema)
