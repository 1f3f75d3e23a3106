"""The demo's JSON: valid for the schema that was asked for, or a refusal."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_backend.engine import BadRequest
from modal_backend.engines.demo.arguments import arguments
from modal_backend.engines.demo.instances import instance

NODE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "required": ["value", "next"],
            "properties": {
                "value": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
        }
    },
}

CASES: list[tuple[Any, Any]] = [
    ({}, None),
    ({"type": "object"}, {}),
    ({"type": "array"}, []),
    ({"type": "string"}, "demo"),
    ({"type": "integer"}, 0),
    ({"type": "number"}, 0),
    ({"type": "boolean"}, False),
    ({"type": "null"}, None),
    ({"type": ["null", "string"]}, None),
    ({"type": ["string", "null"], "minLength": 6}, "demo d"),
    ({"const": {"a": 1}}, {"a": 1}),
    ({"enum": ["red", "green"]}, "red"),
    ({"enum": [1, "one"], "type": "string"}, "one"),
    ({"enum": [True, 1], "type": "integer"}, 1),
    ({"properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}, {"a": "demo"}),
    ({"required": ["anything"]}, {"anything": None}),
    ({"required": ["a"], "additionalProperties": {"type": "integer"}}, {"a": 0}),
    ({"minProperties": 2, "properties": {"a": {"type": "null"}}}, {"a": None, "key1": None}),
    ({"items": {"type": "boolean"}, "minItems": 2}, [False, False]),
    ({"prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 3}, "minItems": 3}, [1, 2, 3]),
    ({"type": "string", "maxLength": 2}, "de"),
    ({"type": "string", "minLength": 12}, "demo demo de"),
    ({"type": "string", "format": "date"}, "2024-01-01"),
    ({"type": "string", "format": "unheard-of"}, "demo"),
    ({"type": "string", "pattern": "^[A-Z]{4}$"}, "DEMO"),
    ({"type": "string", "pattern": "^\\d+$", "minLength": 3}, "000"),
    ({"type": "integer", "minimum": 3}, 3),
    ({"type": "integer", "exclusiveMinimum": 3}, 4),
    ({"type": "integer", "maximum": -3}, -3),
    ({"type": "integer", "minimum": 5, "multipleOf": 4}, 8),
    ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
    ({"type": "number", "minimum": 1.5}, 2),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "demo"),
    ({"oneOf": [{"const": 1}, {"const": 2}]}, 1),
    ({"anyOf": [False, {"const": 2}]}, 2),
    ({"anyOf": [{"type": "string", "pattern": "no such (thing"}, {"type": "null"}]}, None),
    ({"type": "object", "required": ["a"], "anyOf": [{"properties": {"a": {"const": 1}}}]}, {"a": 1}),
    ({"allOf": [{"type": "integer", "minimum": 2}, {"minimum": 5}, {"maximum": 6}]}, 5),
    ({"allOf": [{"type": "number"}, {"type": "integer"}]}, 0),
    ({"allOf": [{"enum": [1, 2, 3]}, {"enum": [3, 2]}]}, 2),
    (
        {
            "required": ["a"],
            "allOf": [{"properties": {"a": {"minimum": 2}}}, {"properties": {"a": {"type": "integer"}}}],
        },
        {"a": 2},
    ),
    (
        {
            "required": ["b"],
            "allOf": [{"additionalProperties": {"minimum": 2}}, {"properties": {"b": {"minimum": 1}}}],
        },
        {"b": 2},
    ),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 1}}}, 1),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}, "minimum": 4}, 4),
    ({"$ref": "#/definitions/a%20b", "definitions": {"a b": {"const": 1}}}, 1),
    (NODE, {"value": 0, "next": None}),
    ({"type": "object", "properties": {"again": {"$ref": "#"}}}, {}),
    (
        {"discriminator": {}, "oneOf": [{"properties": {"k": {"const": 1}}, "required": ["k"]}]},
        {"k": 1},
    ),
]


@pytest.mark.parametrize(("schema", "wanted"), CASES, ids=[json.dumps(schema)[:60] for schema, _ in CASES])
def test_the_value_for(schema: Any, wanted: Any) -> None:
    made = instance(schema)
    assert json.dumps(made) == json.dumps(wanted)  # where True is not 1
    assert valid(made, schema, schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strange"},
        {"type": {}},
        {"enum": []},
        {"enum": ["a"], "type": "integer"},
        {"enum": [1, 5], "minimum": 3},
        {"const": 1, "enum": [2]},
        {"not": {}},
        {"if": {}, "then": False},
        {"anyOf": []},
        {"anyOf": [False]},
        {"properties": []},
        {"required": "a"},
        {"required": ["a"], "additionalProperties": False},
        {"required": ["a", "b"], "maxProperties": 1},
        {"type": "object", "minProperties": 5, "maxProperties": 1},
        {"type": "object", "patternProperties": {"a": {}}},
        {"type": "array", "minItems": 2, "uniqueItems": True},
        {"type": "array", "minItems": 2, "maxItems": 1},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "minItems": 1, "items": False},
        {"type": "array", "minItems": -1},
        {"type": "string", "minLength": 2.5},
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "^very particular$"},
        {"type": "string", "pattern": 5},
        {"type": "string", "pattern": "a" * 5000},
        {"type": "integer", "minimum": 1, "maximum": 0},
        {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
        {"type": "integer", "multipleOf": 0},
        {"type": "integer", "minimum": "1"},
        {"type": "integer", "minimum": 10**400},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/missing"},
        {"$ref": 5},
        {"$ref": "#"},
        {"$ref": "#/allOf/0", "allOf": [{"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}]},
        {"type": "object", "required": ["again"], "properties": {"again": {"$ref": "#"}}},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"allOf": [{"pattern": "a"}, {"pattern": "b"}]},
        {"allOf": {}},
        {"required": ["b"], "allOf": [{"additionalProperties": False}, {"properties": {"b": {}}}]},
        {"minItems": 1000, "items": {"minItems": 1000, "items": {"minItems": 1000}}},
        {"required": [[], {}, 5], "minProperties": 2000},
    ],
    ids=lambda schema: json.dumps(schema)[:60],
)
def test_a_schema_that_it_cannot_serve_is_refused(schema: Any) -> None:
    with pytest.raises(BadRequest):
        instance(schema)


def test_a_schema_nested_beyond_reason_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(900):
        schema = {"anyOf": [schema]}
    with pytest.raises(BadRequest):
        instance(schema)


# --- a search for schemas that give a wrong value ---

bounds = st.integers(-3, 5)
scalars = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {}, {"enum": ["a", 1, None]}, {"const": 0}]),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={
            "minimum": bounds,
            "maximum": bounds,
            "exclusiveMinimum": st.floats(-3, 3),
            "exclusiveMaximum": bounds,
            "multipleOf": st.integers(1, 4),
        },
    ),
    st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={
            "minLength": st.integers(0, 9),
            "maxLength": st.integers(0, 9),
            "pattern": st.sampled_from(["^d", "[0-9]", "^[A-Z]+$", "x"]),
        },
    ),
)
names = st.sampled_from(["a", "b", "c"])
schemas = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object")},
            optional={
                "properties": st.dictionaries(names, inner, max_size=3),
                "required": st.lists(names, max_size=3, unique=True),
                "additionalProperties": st.booleans() | inner,
                "minProperties": st.integers(0, 3),
                "maxProperties": st.integers(0, 3),
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("array")},
            optional={
                "items": inner,
                "prefixItems": st.lists(inner, max_size=2),
                "minItems": st.integers(0, 3),
                "maxItems": st.integers(0, 3),
            },
        ),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=2)}),
        st.builds(lambda schema, choice: {**schema, "anyOf": [choice]}, inner, inner),
    ),
    max_leaves=6,
)


@given(schema=schemas)
def test_any_schema_gives_a_valid_value_or_a_refusal(schema: Any) -> None:
    try:
        made = instance(schema)
    except BadRequest:
        return
    assert valid(made, schema, schema)
    assert valid(arguments(schema, "4 'demo' of 0.5 'a', as D wrote", made), schema, schema)


keywords = st.sampled_from([
    "type", "enum", "const", "anyOf", "allOf", "$ref", "items", "prefixItems", "minItems", "minLength",
    "pattern", "minimum", "multipleOf", "properties", "required", "additionalProperties", "minProperties",
])  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just("#/items"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords, inner, max_size=3),
)


@given(schema=st.dictionaries(keywords, anything, max_size=5))
def test_anything_in_a_schema_s_place_gives_a_value_or_a_refusal(schema: Any) -> None:
    try:
        json.dumps(instance(schema))
    except BadRequest as refused:
        assert str(refused)


TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def valid(value: Any, schema: Any, root: Any) -> bool:
    """A plain reading of JSON Schema 2020-12, for the keywords that the tests use."""
    if isinstance(schema, bool):
        return schema
    kinds = schema.get("type", ["any"])
    checks = [
        "$ref" not in schema or valid(value, at(root, schema["$ref"]), root),
        "const" not in schema or json.dumps(value) == json.dumps(schema["const"]),
        "enum" not in schema or json.dumps(value) in map(json.dumps, schema["enum"]),
        any(is_a(value, kind) for kind in (kinds if isinstance(kinds, list) else [kinds])),
        all(valid(value, part, root) for part in schema.get("allOf", [])),
        any(valid(value, part, root) for part in schema.get("anyOf", [True])),
        sum(valid(value, part, root) for part in schema.get("oneOf", [True])) == 1,
    ]
    if is_a(value, "number"):
        checks += numeric_checks(value, schema)
    elif isinstance(value, str):
        checks.append(schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)))
        checks.append("pattern" not in schema or re.search(schema["pattern"], value) is not None)
    elif isinstance(value, list):
        first, rest = schema.get("prefixItems", []), schema.get("items", True)
        parts = [*first, *[rest] * (len(value) - len(first))]
        checks.append(schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)))
        checks += [valid(item, part, root) for item, part in zip(value, parts, strict=False)]
    elif isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        checks.append(schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)))
        checks += [name in value for name in schema.get("required", [])]
        checks += [valid(item, properties.get(name, others), root) for name, item in value.items()]
    return all(checks)


def is_a(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (kind == "number" or value == int(value))
    return kind == "any" or isinstance(value, TYPES[kind])


def numeric_checks(value: float, schema: Any) -> list[bool]:
    return [
        value >= schema.get("minimum", value),
        value <= schema.get("maximum", value),
        "exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"],
        "exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"],
        "multipleOf" not in schema or value % schema["multipleOf"] == 0,
    ]


def at(root: Any, reference: str) -> Any:
    found = root
    for part in reference.replace("%20", " ").split("/")[1:]:
        found = found[part.replace("~1", "/")]
    return found
