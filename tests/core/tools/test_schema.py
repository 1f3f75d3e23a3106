"""One schema for a call of any tool: each tool's references mean what they meant in its own."""

from typing import Any

import jsonschema_rs
import pytest

from gateway.core.tools import DIALECTS

ITEM = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/Item"}}},
}
ORDER: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "$id": "https://example.com/order",
    "type": "object",
    "properties": {
        "item": {"$ref": "#/$defs/Item"},
        "again": {"$ref": "#/properties/item"},
        "default": {"$ref": "#/definitions/a~1b"},
        "whole": {"$ref": "#"},
        "fixed": {"const": {"$ref": "#/$defs/Item"}},
    },
    "required": ["item"],
    "$defs": {"Item": ITEM},
    "definitions": {"a/b": {"type": "integer"}},
}
OTHER = {
    "type": "object",
    "properties": {"item": {"$ref": "#/$defs/Item"}},
    "$defs": {"Item": {"type": "string"}},
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": parameters}}
    for name, parameters in (("order", ORDER), ("other", OTHER), ("bare", {}))
]
SPOKEN = [dialect for dialect in DIALECTS.values() if dialect.schema(TOOLS, None) is not None]


@pytest.mark.parametrize("dialect", SPOKEN, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    ("name", "arguments", "valid"),
    [
        ("order", {"item": {"name": "x", "kids": [{"name": "y"}]}}, True),
        ("order", {"item": {"kids": [{"name": 1}]}}, False),
        ("order", {}, False),
        ("order", {"item": {}, "again": {"name": "x"}}, True),
        ("order", {"item": {}, "again": 1}, False),
        ("order", {"item": {}, "default": 1}, True),
        ("order", {"item": {}, "default": "x"}, False),
        ("order", {"item": {}, "whole": {"item": {}}}, True),
        ("order", {"item": {}, "whole": {}}, False),
        ("order", {"item": {}, "fixed": {"$ref": "#/$defs/Item"}}, True),
        ("other", {"item": "x"}, True),
        ("other", {"item": {}}, False),
        ("bare", {"x": 1}, True),
        ("nobody", {}, False),
    ],
)
def test_references_mean_what_they_meant(dialect: Any, name: str, arguments: Any, valid: bool) -> None:
    schema = dialect.schema(TOOLS, None)
    validator = jsonschema_rs.Draft202012Validator(schema)
    assert validator.is_valid({dialect.keys[0]: name, dialect.keys[1]: arguments}) is valid


def test_schemas_without_references_are_as_they_were_sent() -> None:
    plain = [{"type": "function", "function": {"name": "f", "parameters": ITEM["properties"]["name"]}}]  # type: ignore[index]
    schema = DIALECTS["hermes"].schema(plain, None)
    assert schema is not None and schema.keys() == {"anyOf"}
    assert schema["anyOf"][0]["properties"] == {"name": {"const": "f"}, "arguments": {"type": "string"}}
