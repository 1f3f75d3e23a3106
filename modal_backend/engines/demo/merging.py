"""Two JSON Schemas as one that accepts what both accept.

Rule: exact, or refused with ``BadRequest``. Both schemas have their references and ``allOf`` written out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from modal_backend.engine import BadRequest
from modal_backend.engines.demo.keywords import Schema, bound, items, mapping

TELLING = (
    "title", "description", "default", "examples", "format", "deprecated", "readOnly", "writeOnly",
    "discriminator", "$comment", "$id", "$schema", "$anchor", "$defs", "definitions",
)  # fmt: skip
"""Keywords that say nothing about which values are valid: the latter one stays."""

TIGHTEST: Mapping[str, Callable[[float, float], float]] = {
    "minimum": max, "exclusiveMinimum": max, "minLength": max, "minItems": max, "minProperties": max,
    "maximum": min, "exclusiveMaximum": min, "maxLength": min, "maxItems": min, "maxProperties": min,
}  # fmt: skip

_PYTHON: Mapping[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str,
    "boolean": bool, "null": type(None), "number": (int, float),
}  # fmt: skip


def both(one: Schema, other: Schema) -> Schema:
    """What is valid for ``one`` and for ``other``."""
    if ("prefixItems" in one and "items" in other) or ("prefixItems" in other and "items" in one):
        raise BadRequest("the demo engine cannot join `items` and `prefixItems` of a `json_schema`")
    merged = {**one, **other}
    for keyword in one.keys() & other.keys():
        if keyword not in (*TELLING, "properties") and not same(one[keyword], other[keyword]):
            merged[keyword] = _joined(keyword, one, other)
    if "properties" in merged:
        merged["properties"] = _properties(one, other)
    return merged


def _joined(keyword: str, one: Schema, other: Schema) -> Any:
    """The one value of ``keyword`` that says what both of its values say."""
    if keyword in TIGHTEST:
        return TIGHTEST[keyword](bound(one, keyword, 0), bound(other, keyword, 0))
    match keyword:
        case "required":
            return [*items(one, keyword), *items(other, keyword)]
        case "enum":
            allowed = items(other, keyword)
            return [value for value in items(one, keyword) if any(same(value, too) for too in allowed)]
        case "type":
            return _types(one[keyword], other[keyword])
        case "items" | "additionalProperties":
            return {"allOf": [one[keyword], other[keyword]]}
        case _:
            raise BadRequest(f"the demo engine cannot join two `{keyword[:40]}` of a `json_schema`")


def of_type(value: Any, kind: Any) -> bool:
    """Whether ``value`` has the type that a schema names: one, a list of them, or None for any."""
    if isinstance(kind, list):
        return any(of_type(value, one) for one in kind)
    if kind is None:
        return True
    if kind == "integer":
        return of_type(value, "number") and value == int(value)
    known = _PYTHON.get(str(kind), ())
    return isinstance(value, known) and (kind == "boolean" or not isinstance(value, bool))


def same(one: Any, other: Any) -> bool:
    """Equal as JSON, where true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _types(one: Any, other: Any) -> list[Any]:
    left, right = (kind if isinstance(kind, list) else [kind] for kind in (one, other))
    shared = [kind for kind in left if kind in right]
    if "number" in left + right and "integer" in left + right and "integer" not in shared:
        shared.append("integer")
    return shared


def _properties(one: Schema, other: Schema) -> dict[str, Any]:
    """Each property with what both schemas say of it, be it only as one of the additional properties."""
    sides = [(mapping(it, "properties"), it.get("additionalProperties", True)) for it in (one, other)]
    names = dict.fromkeys(name for properties, _ in sides for name in properties)
    return {name: {"allOf": [properties.get(name, others) for properties, others in sides]} for name in names}
