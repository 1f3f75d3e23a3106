"""What the schema of a tool's parameters says of one value: the types that it may have.

Rule: rather too many types than too few. Nobody has checked these schemas, so what is no schema says
nothing. References are followed within the schema; each place is looked at once.
Knows nothing about how a value is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from gateway.core.errors import BadRequest
from gateway.core.structured.limits import target

Kinds: TypeAlias = frozenset[str]

ANY: Kinds = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
STRING: Kinds = frozenset({"string"})
MAX_PLACES = 256  # schemas looked at for one value


def kinds_of(parameters: Any, name: str) -> Kinds:
    """JSON Schema's names of the types that the property ``name`` may have; a number may be an integer."""
    met: dict[int, Kinds] = {}
    place: Any = parameters
    for _ in range(8):  # references to references
        members = place.get("properties") if isinstance(place, Mapping) else None
        if isinstance(members, Mapping) and name in members:
            return _kinds(members[name], parameters, met)
        if not isinstance(place, Mapping) or "$ref" not in place:
            break
        place = _target(parameters, place["$ref"])
    return _kinds(place.get("additionalProperties") if isinstance(place, Mapping) else None, parameters, met)


def kind_of(text: str) -> str:
    """The type of a JSON value by its source."""
    named = {'"': "string", "[": "array", "{": "object", "t": "boolean", "f": "boolean", "n": "null"}
    if kind := named.get(text.lstrip()[:1]):
        return kind
    return "number" if any(mark in text for mark in ".eE") else "integer"


def _kinds(schema: Any, root: Any, met: dict[int, Kinds]) -> Kinds:
    if not isinstance(schema, Mapping) or len(met) > MAX_PLACES:
        return ANY
    if id(schema) in met:
        return met[id(schema)]
    met[id(schema)] = frozenset()  # a reference to itself adds nothing
    found = _named(schema.get("type")) & _listed(schema)
    if "$ref" in schema:
        found &= _kinds(_target(root, schema["$ref"]), root, met)
    for keyword in ("anyOf", "oneOf"):
        if isinstance(inner := schema.get(keyword), list):
            found &= _either(_kinds(each, root, met) for each in inner)
    if isinstance(inner := schema.get("allOf"), list):
        for each in inner:
            found &= _kinds(each, root, met)
    met[id(schema)] = found
    return found


def _either(several: Iterable[Kinds]) -> Kinds:
    return frozenset[str]().union(*several)


def _named(said: Any) -> Kinds:
    """What ``type`` allows."""
    names = [said] if isinstance(said, str) else said if isinstance(said, list) else ()
    known = ANY.intersection(name for name in names if isinstance(name, str))
    return known | {"integer"} if "number" in known else known or ANY


def _listed(schema: Mapping[str, Any]) -> Kinds:
    """What ``const`` and ``enum`` allow."""
    if "const" in schema:
        return frozenset({_kind(schema["const"])})
    values = schema.get("enum")
    return frozenset(map(_kind, values)) if isinstance(values, list) and values else ANY


def _kind(value: Any) -> str:
    for kind, name in _PYTHON.items():
        if isinstance(value, kind):
            return name
    return "null"


_PYTHON = {  # a bool is an int to Python
    bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"
}  # fmt: skip


def _target(root: Any, ref: Any) -> Any:
    try:
        return target(root, ref)
    except BadRequest:
        return None
