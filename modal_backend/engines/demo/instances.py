"""Make a small value that a JSON Schema accepts.

Rule: a value is made by every keyword that bears on it, and a schema with one that is not understood is
refused with ``BadRequest``. Objects get their required properties alone, arrays their least length, and of
several ways the one that nests least is taken. ``oneOf`` is taken for ``anyOf``; ``format`` is a wish.
Knows nothing about the question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from modal_backend.engine import BadRequest
from modal_backend.engines.demo.keywords import Schema, items, mapping, size
from modal_backend.engines.demo.merging import both, of_type, same
from modal_backend.engines.demo.scalars import number, string

MAX_DEPTH = 32  # levels of nesting, a choice counted as one
MAX_HOPS = 64  # references and `allOf` on the way to one plain schema
MAX_STEPS = 20_000  # schemas looked at for one value

REFUSED = (
    "not", "if", "contains", "dependentRequired", "dependentSchemas", "dependencies",
    "patternProperties", "propertyNames", "$dynamicRef", "$recursiveRef",
)  # fmt: skip

HINTS: Mapping[str, tuple[str, ...]] = {
    "object": ("properties", "required", "minProperties", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
"""The type that a schema without one is taken to mean, by what else it says."""

# What may not stand beside a list of values: the values are not tried against it.
BEYOND_LISTS = ("anyOf", "oneOf", *(keyword for keywords in HINTS.values() for keyword in keywords))


class _TooDeep(Exception):
    """There is no value within the depth that is tried now."""


def instance(schema: Schema) -> Any:
    """The least nested value for ``schema`` that this module finds; raises ``BadRequest``."""
    making = _Making(schema)
    for deepest in range(1, MAX_DEPTH + 1):
        try:
            return making.value(schema, deepest)
        except _TooDeep:
            continue
        except RecursionError:
            raise BadRequest("`json_schema` is nested too deeply for the demo engine") from None
    raise BadRequest(f"`json_schema` accepts no value that nests at most {MAX_DEPTH} levels")


class _Making:
    """One search. It counts its steps, because a small schema can describe a very large value."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._steps = 0

    def value(self, schema: Any, depth: int) -> Any:
        schema = self._plain(schema, 0)
        if depth == 0:
            raise _TooDeep
        for keyword in REFUSED:
            if keyword in schema:
                raise BadRequest(f"the demo engine makes no value for a `json_schema` with `{keyword}`")
        if "const" in schema or "enum" in schema:
            return _listed(schema)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._any(_without(schema, keyword), items(schema, keyword), depth)
        if isinstance(kinds := schema.get("type"), list):
            return self._any(_without(schema, "type"), [{"type": kind} for kind in kinds], depth)
        return self._typed(schema, depth)

    def _plain(self, schema: Any, hops: int) -> Schema:
        """``schema`` with its references and ``allOf`` written out."""
        self._steps += 1
        if self._steps > MAX_STEPS or hops > MAX_HOPS:
            raise BadRequest("`json_schema` is too involved for the demo engine")
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            raise BadRequest("`json_schema` accepts no value at some place, or is not a JSON Schema")
        if "$ref" in schema:
            target = self._plain(self._target(schema["$ref"]), hops + 1)
            return self._plain(both(_without(schema, "$ref"), target), hops + 1)
        if "allOf" in schema:
            plain: Schema = self._plain(_without(schema, "allOf"), hops + 1)
            for part in items(schema, "allOf"):
                plain = self._plain(both(plain, self._plain(part, hops + 1)), hops + 1)
            return plain
        return schema

    def _target(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise BadRequest("`json_schema` has a `$ref` that does not point into the schema itself")
        found: Any = self._root
        for part in reference.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name in map(str, range(len(found))):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                raise BadRequest("`json_schema` has a `$ref` to a place that is not there")
        return found

    def _any(self, rest: Schema, choices: list[Any], depth: int) -> Any:
        """A value for ``rest`` together with the first of ``choices`` that has one."""
        problem: Exception = BadRequest("`json_schema` has a choice of nothing")
        for choice in choices:
            try:
                return self.value(both(rest, self._plain(choice, 0)), depth - 1)
            except _TooDeep as deeper:
                problem = deeper
            except BadRequest as refused:
                problem = problem if isinstance(problem, _TooDeep) else refused
        raise problem

    def _typed(self, schema: Schema, depth: int) -> Any:
        hinted = (kind for kind, keywords in HINTS.items() if any(keyword in schema for keyword in keywords))
        match schema.get("type", next(hinted, "null")):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return string(schema)
            case "integer" | "number" as kind:
                return number(schema, whole=kind == "integer")
            case "boolean":
                return False
            case "null":
                return None
            case _:
                raise BadRequest("`json_schema` has a `type` that JSON does not have")

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = mapping(schema, "properties")
        names = list(dict.fromkeys(name for name in items(schema, "required") if isinstance(name, str)))
        least = size(schema, "minProperties")
        more = [*properties, *(f"key{number}" for number in range(1, least + len(properties) + 1))]
        names += [name for name in dict.fromkeys(more) if name not in names][: max(least - len(names), 0)]
        if len(names) > size(schema, "maxProperties", len(names)):
            raise BadRequest("`json_schema` has an object that needs more properties than it may have")
        others = schema.get("additionalProperties", True)
        return {name: self.value(properties.get(name, others), depth - 1) for name in names}

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        least = size(schema, "minItems")
        if least > size(schema, "maxItems", least) or (least > 1 and schema.get("uniqueItems")):
            raise BadRequest("the demo engine makes no array for the bounds in this `json_schema`")
        first = items(schema, "prefixItems")[:least]
        rest = schema.get("items", True)
        return [self.value(item, depth - 1) for item in [*first, *[rest] * (least - len(first))]]


def _listed(schema: Schema) -> Any:
    """The first value that ``const`` and ``enum`` list and the type allows."""
    for keyword in BEYOND_LISTS:
        if keyword in schema:
            raise BadRequest(f"the demo engine makes no value for `enum` or `const` beside `{keyword}`")
    listed = items(schema, "enum") if "enum" in schema else [schema["const"]]
    for value in listed:
        if of_type(value, schema.get("type")) and ("const" not in schema or same(value, schema["const"])):
            return value
    raise BadRequest("`json_schema` lists no value that it allows")


def _without(schema: Schema, keyword: str) -> Schema:
    return {name: value for name, value in schema.items() if name != keyword}
