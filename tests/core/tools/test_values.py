"""Values in plain text: what a tool's schema allows decides what they are, and no length tears a call."""

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.events import Text, ToolArgs
from gateway.core.tools import DIALECTS
from gateway.core.tools.kinds import ANY, STRING, kinds_of
from gateway.core.tools.reader import MAX_HELD, MAX_VALUE
from tests.core.tools.answers import calls_of, pieces, read, text_of

STR, NULL = {"type": "string"}, {"type": "null"}
NULLABLE: list[Any] = [
    {"anyOf": [STR, NULL]},
    {"type": ["string", "null"]},
    {"$ref": "#/$defs/Zip"},
    {"oneOf": [{"$ref": "#/$defs/Zip"}, NULL]},
    {"allOf": [{"$ref": "#/$defs/Zip"}]},
]
DEFINED = {"Zip": {"anyOf": [STR, NULL]}, "Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}, STR]}}
TAGGED = pytest.mark.parametrize("dialect", ["qwen3_coder", "glm45"])


def schema(a: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": a}, "$defs": DEFINED}


def answer(dialect: str, value: str) -> str:
    if dialect == "glm45":
        return f"<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>{value}</arg_value>\n</tool_call>"
    return f"<tool_call>\n<function=f>\n<parameter=a>\n{value}\n</parameter>\n</function>\n</tool_call>"


def value(dialect: str, a: Any, source: str, size: int = 7) -> Any:
    """The argument, however the answer is cut."""
    text, found = answer(dialect, source), []
    for parts in ([text], pieces(text, range(0, len(text), size))):
        tools = [{"type": "function", "function": {"name": "f", "parameters": schema(a)}}]
        events = read(DIALECTS[dialect].watch(tools, map(str, count()).__next__), parts)
        ((name, arguments),) = calls_of(events)
        assert (name, text_of(events)) == ("f", "")
        found.append(arguments)
    assert found[0] == found[1]
    return json.loads(found[0])["a"]


@TAGGED
@pytest.mark.parametrize("a", NULLABLE, ids=range(len(NULLABLE)))
def test_a_text_that_may_be_a_string_or_null_is_no_number(dialect: str, a: Any) -> None:
    for source in ("90210", "1.10", "true", "nullify", "None of it", "[1]", '"x"', " nul", "", " "):
        assert value(dialect, a, source) == source
    assert value(dialect, a, "null") is None
    assert value(dialect, a, "None") is None


@TAGGED
@pytest.mark.parametrize(
    ("a", "source", "meant"),
    [
        ({"anyOf": [STR, {"type": "integer"}]}, "90210", 90210),
        ({"anyOf": [STR, {"type": "integer"}]}, "1.10", "1.10"),
        ({"anyOf": [STR, {"type": "number"}]}, "1.10", 1.1),
        ({"anyOf": [STR, {"type": "number"}]}, '"1.10"', "1.10"),
        ({"anyOf": [STR, {"type": "array"}]}, "['a', 1]", ["a", 1]),
        ({"anyOf": [STR, {"type": "array"}]}, "12", "12"),
        ({"anyOf": [STR, {"type": "array"}]}, "{1}", "{1}"),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"enum": ["1", 2, None]}, "2", 2),
        ({"const": "7"}, "7", "7"),
        ({"$ref": "#/$defs/Loop"}, "7", "7"),
        ({"$ref": "#/$defs/None"}, "7", 7),
        ({"$ref": "elsewhere"}, "7", 7),
        ({"type": "integer"}, "7", 7),
        ({"type": "array"}, "many", "many"),
        ({"type": 5, "anyOf": 5, "enum": {}}, "7", 7),
        ({}, "7", 7),
        ({}, "True ", True),
        ({}, "1 2", "1 2"),
        ({}, "t rue", "t rue"),
        ({}, "7th of May", "7th of May"),
        ({}, "'quoted'", "quoted"),
        (True, "[1, (2, None)]", [1, [2, None]]),
    ],
)
def test_what_the_schema_allows_decides(dialect: str, a: Any, source: str, meant: Any) -> None:
    assert value(dialect, a, source) == meant
    assert type(value(dialect, a, source)) is type(meant)


LITERALS = st.sampled_from(
    ["1", "-2.5", "null", "nul", "None", "true", "[1]", "{", "'a'", " ", "\n", "x", "Z"]
)


@TAGGED
@given(a=st.sampled_from([*NULLABLE, {}, {"type": "integer"}]), parts=st.lists(LITERALS, max_size=4))
def test_any_value_is_the_same_at_every_cut(dialect: str, a: Any, parts: list[str]) -> None:
    value(dialect, a, "".join(parts), 1)


@pytest.mark.parametrize("size", [MAX_VALUE - 2, MAX_VALUE - 1, MAX_VALUE + 9000])
@pytest.mark.parametrize("a", [STR, NULLABLE[0], {}, {"type": "array"}], ids=range(4))
@TAGGED
def test_a_long_value_tears_no_call(dialect: str, a: Any, size: int) -> None:
    text = "y" * size
    assert value(dialect, a, text, 4000) == text
    assert value(dialect, {"type": "array"}, f'["{text}"]', 4000) == [text]


@pytest.mark.parametrize(("dialect", "begin", "end"), [
    ("pythonic", "[f(a=", ")]"), ("chatglm3", "f\n```python\ntool_call(a=", ")\n```"),
])  # fmt: skip
def test_a_long_literal_tears_no_call(dialect: str, begin: str, end: str) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    for size in (70_000, MAX_VALUE - 2, MAX_VALUE + 9000):
        for source, long in (('"{}"', size > MAX_VALUE), ("'{}'", size > MAX_VALUE), ('["{}"]', False)):
            text = source.format("y" * size)
            events = read(DIALECTS[dialect].watch(tools, str), [begin + text + end])
            ((_, arguments),) = calls_of(events)
            assert text_of(events) == ""
            found = json.loads(arguments)["a"]
            assert "".join(found).strip("'") == "y" * size
            assert not long or found.startswith(source[0] if source[0] == "'" else "y")


def test_arguments_before_their_name_are_read_up_to_the_bound_and_text_beyond_it() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    for size, called in ((MAX_VALUE, True), (MAX_HELD, False)):
        text = f'<tool_call>{{"arguments": {{"a": "{"y" * size}"}}, "name": "f"}}</tool_call>'
        for parts in ([text], pieces(text, range(0, len(text), 3000))):
            events = read(DIALECTS["hermes"].watch(tools, lambda: "id"), parts)
            assert bool(calls_of(events)) is called
            assert text_of(events) == ("" if called else text)


@TAGGED
def test_what_can_only_be_a_string_goes_on_as_it_comes(dialect: str) -> None:
    for a in (STR, NULLABLE[0], {}):
        tools = [{"type": "function", "function": {"name": "f", "parameters": schema(a)}}]
        filter, text = DIALECTS[dialect].watch(tools, lambda: "id"), answer(dialect, "The whole of it, " * 9)
        events = [event for part in text for event in filter.feed([Text(part)])]
        assert max(len(event.text) for event in events if isinstance(event, ToolArgs)) < 16


def test_the_types_of_a_value_are_rather_too_many_than_too_few() -> None:
    assert kinds_of({}, "a") == kinds_of(None, "a") == kinds_of({"properties": []}, "a") == ANY
    assert kinds_of({"$ref": "#/$defs/P", "$defs": {"P": {"properties": {"a": STR}}}}, "a") == STRING
    assert kinds_of({"additionalProperties": STR}, "a") == STRING
    wide = {"anyOf": [{"anyOf": [STR] * 40} for _ in range(40)]}
    assert kinds_of({"properties": {"a": wide}}, "a") >= STRING
