"""response_format: read, bounded, or refused with the name of the field."""

import json
import re
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.core.structured import Format, parse_format, verdict
from gateway.core.structured.limits import MAX_BYTES, MAX_DEPTH, MAX_PROPERTIES, MAX_STEPS
from gateway.core.structured.patterns import MAX_LENGTH, MAX_PATTERNS

SCHEMA = "response_format.json_schema.schema"


def form(schema: Any, **fields: Any) -> Format:
    found = parse_format({"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **fields}})
    assert found is not None
    return found


def refusal(value: dict[str, Any]) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse_format(value)
    assert len(caught.value.message) < 500
    return caught.value


def schema_refusal(schema: Any) -> str:
    error = refusal({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert error.param == SCHEMA
    return error.message


@pytest.mark.parametrize("value", [None, {"type": "text"}])
def test_plain_text_is_no_format(value: Any) -> None:
    assert parse_format(value) is None


def test_a_json_object() -> None:
    found = parse_format({"type": "json_object", "schema": {}, "strict": None})
    assert found == Format("json_object", ignored=("response_format.schema",))


def test_a_schema_with_all_its_fields() -> None:
    schema = {"type": "object", "x-order": 1, "properties": {"nullable": {"nullable": True}}}
    found = form(schema, description="a thing", strict=True, extra=1)
    assert (found.kind, found.name, found.description, found.strict) == ("json_schema", "x", "a thing", True)
    assert found.schema == schema
    assert found.ignored == tuple(f"response_format.{name}" for name in ("extra", "x-order", "nullable"))
    assert found.opens == {"object"}


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ({}, "response_format.type"),
        ({"type": "xml"}, "response_format.type"),
        ({"type": ["text"]}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": []}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.name"),
        (
            {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}},
            "response_format.json_schema.name",
        ),
        ({"type": "json_schema", "json_schema": {"name": "a" * 65}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": True}}, SCHEMA),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": "yes"}},
            "response_format.json_schema.strict",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "description": 1}},
            "response_format.json_schema.description",
        ),
    ],
)
def test_a_wrong_field_is_named(value: dict[str, Any], param: str) -> None:
    error = refusal(value)
    assert error.param == param
    assert param in error.message


def chain(length: int) -> dict[str, Any]:
    links = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": {**links, f"a{length}": {}}}


def doubling(length: int) -> dict[str, Any]:
    links = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": {**links, f"a{length}": {"type": "integer"}}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"description": "x" * MAX_BYTES}, "bytes"),
        (nested(MAX_DEPTH), "nest"),
        (nested(500), "nest"),
        ({"default": 10**40}, "JSON"),
        ({"default": "\ud800"}, "JSON"),
        ({"properties": {f"p{i}": {} for i in range(MAX_PROPERTIES + 1)}}, "properties"),
        ({"$ref": "https://example.com/schema"}, "$ref"),
        ({"$ref": "file:///etc/passwd"}, "$ref"),
        ({"$ref": "other.json#/a"}, "$ref"),
        ({"$ref": "#anchor"}, "$ref"),
        ({"$ref": 5}, "$ref"),
        ({"$ref": ""}, "$ref"),
        ({"$ref": "#/nowhere"}, "$ref #/nowhere"),
        ({"$ref": "#/required/0", "required": ["a"]}, "$ref"),
        ({"$dynamicRef": "#x"}, "$dynamicRef"),
        ({"properties": {"a": {"$anchor": "x"}}}, "$anchor"),
        ({"properties": {"a": {"$id": "urn:x"}}}, "$id"),
        ({"$schema": "https://example.com/mine"}, "$schema"),
        ({"$schema": 7}, "$schema"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "$schema"),
        (chain(MAX_DEPTH + 1), "references"),
        (doubling(20), "involved"),
        (doubling(40), "involved"),
        ({"enum": list(range(MAX_STEPS))}, "involved"),
        ({"type": "strange"}, "type"),
        ({"properties": []}, "properties"),
        ({"items": [{}]}, "items"),
        ({"minLength": -1}, "minLength"),
        ({"anyOf": []}, "anyOf"),
        ({"anyOf": {}}, "anyOf"),
        ({"allOf": [3]}, "allOf"),
        ({"pattern": "("}, "pattern"),
        ({"pattern": "a" * (MAX_LENGTH + 1)}, "pattern"),
        ({"pattern": "((a{100}){100}){100}"}, "pattern"),
        ({"pattern": "(" * 900}, "pattern"),
        ({"patternProperties": {"[": {}}}, "pattern"),
        ({"allOf": [{"pattern": f"a{i}"} for i in range(MAX_PATTERNS + 1)]}, "patterns"),
        ({"allOf": [{"properties": {"a": {"pattern": f"^.{{1,9{i:02}}}$"}}} for i in range(20)]}, "patterns"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else None,
)
def test_a_schema_beyond_bounds_is_refused_at_once(schema: Any, said: str) -> None:
    form({"pattern": "a"})  # the library is imported once
    begun = process_time()
    assert said in schema_refusal(schema)
    assert process_time() - begun < 2


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$ref": "#"},
        {"$id": "https://example.com/x", "$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a b": {}}, "items": [{}]},
        {"$ref": "#/definitions/a%20b~1c", "definitions": {"a b/c": {}}},
        {"allOf": [{"type": "object"}, {"$ref": "#/allOf/0"}]},
        {"properties": {"pattern": {"type": "string"}, "$ref": {"type": "string"}}},
        {"default": {"pattern": "(", "$ref": 5}, "examples": [{"$id": 1}], "const": {"$anchor": "x"}},
        {"pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"},
        {"pattern": r"^.{1,500}$"},
        {"properties": {f"p{i}": {"pattern": f"^.{{1,{200 + i}}}$"} for i in range(10)}},
        {"properties": {f"p{i}": {} for i in range(MAX_PROPERTIES)}},
        nested(MAX_DEPTH - 1),
        doubling(8),
    ],
    ids=lambda schema: json.dumps(schema)[:50],
)
def test_what_schemas_really_hold_is_accepted(schema: Any) -> None:
    found = form(schema)
    assert found.schema == schema
    assert found.ignored == ()


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [
        ({"type": ["integer", "null"]}, {"number", "null"}),
        ({"const": 1}, {"number"}),
        ({"enum": ["a", None, []]}, {"string", "null", "array"}),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array"}}}, {"array"}),
        ({"anyOf": [{"type": "string"}, {"oneOf": [{"type": "object"}]}]}, {"string", "object"}),
        ({"anyOf": [{"type": "string"}, {"$ref": "#"}], "type": ["string", "number"]}, {"string", "number"}),
        ({"$ref": "#"}, {"object", "array", "string", "number", "boolean", "null"}),
    ],
)
def test_the_types_that_a_value_may_have(schema: Any, kinds: set[str]) -> None:
    assert form(schema).opens == kinds


KEYWORDS = re.findall(
    r"\S+",
    """
    type enum const anyOf oneOf allOf not if $ref $defs items prefixItems pattern properties required minimum
    additionalProperties patternProperties dependentSchemas dependencies $schema $id
    """,
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["#", "#/items"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYWORDS),
            inner,
            max_size=4,
        )
    ),
)


@given(JUNK, st.sampled_from(["{}", "[1]", '"a"', "0", '{"items": {"type": []}}']))
def test_anything_in_a_schema_s_place_is_a_format_or_a_refusal(schema: Any, answer: str) -> None:
    try:
        found = parse_format({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    except BadRequest as exc:
        assert exc.param
    else:
        assert found is not None
        assert verdict(answer, found) is None or isinstance(verdict(answer, found), str)
