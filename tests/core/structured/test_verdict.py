"""Verdicts: right about every value, one line about a wrong one, and quick about hostile ones."""

import json
from time import process_time
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.structured import Format, parse_format, verdict
from gateway.core.structured.explain import MAX_LINE
from tests.backend.test_demo_schemas import CASES, schemas, valid
from tests.core.structured.test_form import doubling, form

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "mood": {"enum": ["good", "bad"]},
        "boss": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        "pets": {"type": "array", "items": {"$ref": "#/$defs/pet of/one"}},
        "näme %": {"$ref": "#/properties/name"},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {
        "pet of": {
            "one": {
                "oneOf": [
                    {
                        "type": "object",
                        "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}},
                    },
                    {"type": "object", "properties": {"kind": {"const": "dog"}, "tricks": {"type": "array"}}},
                ],
                "required": ["kind"],
            }
        }
    },
}


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"name": "A", "boss": None, "pets": [{"kind": "cat"}]}, None),
        ({}, '"name" is a required property'),
        ([], '[] is not of type "object"'),
        ({"name": ""}, 'at /name: "" is shorter than 1 character'),
        ({"name": "A", "age": "9"}, 'at /age: "9" is not of type "integer"'),
        ({"name": "A", "mood": "so"}, 'at /mood: "so" is not one of "good" or "bad"'),
        ({"name": "A", "extra": 1}, 'the property "extra" is not allowed'),
        ({"name": "A", "boss": {"name": "B", "age": -1}}, "at /boss/age: -1 is less than the minimum of 0"),
        ({"name": "A", "boss": 5}, "at /boss: 5 does not fit anyOf of 2 forms"),
        (
            {"name": "A", "pets": [{"kind": "cat", "lives": "9"}]},
            'at /pets/0/lives: "9" is not of type "integer"',
        ),
        ({"name": "A", "pets": [{"kind": "cat"}, {}]}, 'at /pets/1: "kind" is a required property'),
        (
            {"name": "A", "pets": [{"kind": "cow"}]},
            'at /pets/0: {"kind":"cow"} does not fit oneOf of 2 forms',
        ),
        ({"name": "A", "näme %": 1}, 'at /näme %: 1 is not of type "string"'),
    ],
)
def test_the_line_names_the_smallest_part_that_fails(answer: Any, line: str | None) -> None:
    schema = json.loads(json.dumps(PERSON).replace("pet of/one", "pet%20of/one"))
    assert verdict(json.dumps(answer), form(schema)) == line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        (" \n", "no JSON"),
        ("{", "not valid JSON"),
        ("{} {}", "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ('{"a": NaN}', "not valid JSON"),
        ('{"a": 1e999}', "not valid JSON"),
        ('"\ud800"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[" * 250 + "]" * 250, "deeper"),
        ("1" * (5 << 20), "longer"),
    ],
    ids=lambda value: value[:12],
)
def test_text_that_is_no_json(text: str, said: str) -> None:
    line = verdict(text, form({}))
    assert line is not None
    assert said in line
    assert "\n" not in line


def test_a_json_object_is_an_object() -> None:
    found = parse_format({"type": "json_object"})
    assert found is not None
    assert verdict(' {"a": [1]}\n', found) is None
    assert verdict("[]", found) == "the answer is JSON, but not an object"


def test_older_drafts_keep_their_meaning() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "items": [{"$ref": "#/definitions/a", "type": "string"}],
        "additionalItems": False,
        "definitions": {"a": {"type": "integer"}},
    }
    assert verdict("[1]", form(schema)) is None
    assert verdict('["a"]', form(schema)) == 'at /0: "a" is not of type "integer"'
    assert verdict("[1, 2]", form(schema)) == "at /1: nothing may stand here"


def test_a_line_repeats_no_more_than_a_glance() -> None:
    schema = {"additionalProperties": {"type": "integer"}, "propertyNames": {"maxLength": 5000}}
    for answer in ({"k": "v" * 5000}, {"k" * 5000: "v"}, {"k": ["v\n"] * 5000}):
        line = verdict(json.dumps(answer), form(schema))
        assert line is not None
        assert len(line) <= MAX_LINE
        assert "v" * 81 not in line
        assert "k" * 81 not in line
        assert "\n" not in line
    line = verdict(json.dumps({"k" * 5000: 1}), form({"additionalProperties": False}))
    assert line is not None
    assert "k" * 81 not in line


NUMBERS = st.integers(-5, 8) | st.sampled_from([0.5, -1.5, 2.25])
SMALL = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.sampled_from(["", "a", "demo", "DEMO", "x1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(schemas, SMALL)
def test_the_verdict_agrees_with_a_plain_reading(schema: Any, value: Any) -> None:
    assume('"prefixItems": []' not in json.dumps(schema))  # JSON Schema wants at least one
    line = verdict(json.dumps(value), form(schema))
    assert (line is None) == valid(value, schema, schema)


# One case has a pattern that is none, which the demo leaves out and the gateway refuses.
SERVED = [(schema, value) for schema, value in CASES if "no such (thing" not in json.dumps(schema)]


@pytest.mark.parametrize(("schema", "value"), SERVED, ids=[json.dumps(schema)[:60] for schema, _ in SERVED])
def test_what_the_demo_makes_for_a_schema_fits_it(schema: Any, value: Any) -> None:
    assert verdict(json.dumps(value), form(schema)) is None


def nest(inner: Any, depth: int) -> Any:
    for _ in range(depth):
        inner = {"a": inner, "k": 3}
    return inner


TWICE = [{"properties": {"a": {"$ref": "#"}, "k": {"const": kind}}, "required": ["k"]} for kind in (1, 2)]
HOSTILE: list[tuple[str, Any, str]] = [
    ("alternatives that each go down again", {"anyOf": TWICE}, json.dumps(nest({}, 150))),
    ("one of them", {"oneOf": TWICE}, json.dumps(nest({}, 150))),
    ("all of them", {"allOf": TWICE, "not": {"not": {"anyOf": TWICE}}}, json.dumps(nest({}, 150))),
    ("a schema and its contrary", {"not": {"anyOf": TWICE}}, json.dumps(nest({}, 150))),
    ("conditions", {"if": TWICE[0], "then": TWICE[1], "else": TWICE[1]}, json.dumps(nest({}, 150))),
    ("unevaluated", {"anyOf": TWICE, "unevaluatedProperties": {"$ref": "#"}}, json.dumps(nest({}, 150))),
    ("references that double", doubling(8), "1"),
    ("nested repeats", {"pattern": "(a+)+$"}, json.dumps("a" * 100_000 + "!")),
    ("repeats behind a look-ahead", {"pattern": "(?=a)(a|aa)+$"}, json.dumps("a" * 100_000 + "!")),
    ("a wide pattern", {"pattern": "[ab]*a[ab]{3000}c"}, json.dumps("ab" * 50_000)),
    ("many of them", {"items": {"pattern": "[ab]*a[ab]{3000}c"}}, json.dumps(["ab" * 9_000] * 40)),
    (
        "unique items",
        {"uniqueItems": True, "items": {"type": "array"}},
        json.dumps([[i] for i in range(50_000)]),
    ),
    (
        "many forms",
        {"items": {"anyOf": [{"const": f"c{i}"} for i in range(900)]}},
        json.dumps(["x"] * 50_000),
    ),
    ("many properties", {"properties": {f"p{i}": False for i in range(4000)}}, json.dumps([{}] * 50_000)),
    ("many errors", {"items": {"type": "string"}}, json.dumps(list(range(200_000)))),
    ("a late error", {"items": {"type": "integer"}}, json.dumps([*range(100_000), "x"])),
]


@pytest.mark.parametrize(("schema", "answer"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_no_schema_and_answer_keep_the_check_busy(schema: Any, answer: str) -> None:
    found: Format = form(schema)
    begun = process_time()
    verdict(answer, found)
    assert process_time() - begun < 3
