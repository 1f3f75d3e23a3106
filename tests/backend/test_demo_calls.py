"""The demo engine with tools: which it calls, with what, and what it says of their results."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_backend.engine import Piece, Request
from modal_backend.engines.demo import Demo
from modal_backend.engines.demo.arguments import arguments
from modal_backend.engines.demo.calls import called
from modal_backend.engines.demo.instances import instance

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def tool(name: str, about: str = "", **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": about, "parameters": parameters}


FORECAST = tool("get_forecast", "The weather of a place in the next days.", place=TEXT, days=NUMBER)
SUM = tool("sum_up", "Adds two numbers.", a=NUMBER, b=NUMBER)
CHINESE = tool("tianqi", "查询城市的天气", city=TEXT)
TOOLS = [FORECAST, SUM, CHINESE]


def prompt(asked: str, tools: list[dict[str, Any]] = TOOLS, begun: str = "") -> str:
    lines = "\n".join(json.dumps(each, ensure_ascii=False) for each in tools)
    return f"Tools:\n{lines}\nCall one so: <tool_call>\n\nUser: {asked}\nAssistant:{begun}"


def calls(said: str | None) -> list[tuple[str, dict[str, Any]]]:
    """The calls that this text consists of."""
    found = []
    for part in (said or "").split("<tool_call>\n")[1:]:
        text, end, _ = part.partition("\n</tool_call>")
        assert end
        call = json.loads(text)
        found.append((call["name"], call["arguments"]))
    return found


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("Will the weather be good in New York, NY for 3 days?",
         [("get_forecast", {"place": "New York, NY", "days": 3})]),
        ("Use get_forecast for 'paris', 2 days.", [("get_forecast", {"place": "paris", "days": 2})]),
        ("sum_up(4, -5)", [("sum_up", {"a": 4, "b": -5})]),
        ("Which numbers: 1 and 2?", [("sum_up", {"a": 1, "b": 2})]),
        ("sum_up(1, 2), then get_forecast of `Rome`",
         [("get_forecast", {"place": "Rome", "days": 1}), ("sum_up", {"a": 1, "b": 2})]),
        ("“北京”的天气怎么样？", [("tianqi", {"city": "北京"})]),
        ("Hello!", []),
        ("What can you do for me?", []),
    ],
)  # fmt: skip
def test_tools_that_are_named_or_meant_are_called(asked: str, wanted: list[Any]) -> None:
    assert calls(called(prompt(asked), None)) == wanted


def test_without_tools_nothing_is_called() -> None:
    assert called(prompt("sum_up(1, 2)", []), None) is None
    assert called("sum_up(1, 2)", None) is None
    assert called(prompt("sum_up(1, 2)").replace("<tool_call>", ""), None) is None


def test_tools_may_stand_as_in_a_request() -> None:
    wrapped = [{"type": "function", "function": each} for each in TOOLS]
    assert calls(called(prompt("sum_up(1, 2)", wrapped), None)) == [("sum_up", {"a": 1, "b": 2})]


def test_results_are_told() -> None:
    result = "<tool_response>\nsun\n</tool_response>\n<tool_response>\n7\n</tool_response>"
    for tools in (TOOLS, []):
        assert called(prompt(result, tools), None) == "I was told: sun; 7"


def test_a_call_that_is_begun_is_gone_on_with() -> None:
    assert calls("<tool_call>\n" + str(called(prompt("Hello!", begun="<tool_call>\n"), None)))
    begun = '<tool_call>\n{"name": "sum_up", "arguments":'
    said = called(prompt("the weather on day 3", begun=begun), None)
    assert calls(begun + str(said)) == [("sum_up", {"a": 3, "b": 0})]


def test_with_a_schema_nothing_but_its_value_is_said() -> None:
    begun = '<tool_call>\n{"name": "sum_up", "arguments":'
    said = called(prompt("3 and 4", begun=begun), SUM["parameters"])
    assert json.loads(said or "") == {"a": 3, "b": 4}
    schema = {"anyOf": [{"properties": {"name": {"const": each["name"]}}} for each in TOOLS]}
    said = called(prompt("add 3 and 4 numbers", begun="<tool_call>\n"), schema)
    assert json.loads(said or "") == {"name": "sum_up", "arguments": {"a": 3, "b": 4}}
    assert called(prompt("sum_up(1, 2)"), {"type": "object"}) is None  # the answer is to be a value, no call


@pytest.mark.parametrize(
    ("schema", "message", "wanted"),
    [
        ({"type": "integer", "maximum": 5}, "9, then 4", 4),
        ({"type": "integer", "exclusiveMinimum": 4}, "4", None),
        ({"type": "integer"}, "2.5", None),
        ({"type": "number"}, "2.5", 2.5),
        ({"type": "string", "maxLength": 3}, "'long' or 'abc'", "abc"),
        ({"enum": ["metric", "imperial"]}, "in imperial units", "imperial"),
        ({"enum": ["metric"]}, "in feet", None),
        ({"enum": ["metric", 2], "type": "integer"}, "metric", None),
        ({"type": "string", "pattern": "^x"}, "'abc'", None),
        ({"type": "string", "minLength": "no number"}, "'abc'", None),
        ({"type": "boolean"}, "1", None),
        ("no schema", "1", None),
    ],
)
def test_only_what_a_schema_allows_is_taken(schema: Any, message: str, wanted: Any) -> None:
    made = arguments({"properties": {"x": schema}}, message, {})
    assert made == ({} if wanted is None else {"x": wanted})


def test_a_required_text_is_the_whole_message_at_last() -> None:
    schema = {"properties": {"x": TEXT, "y": TEXT}, "required": ["x"]}
    assert arguments(schema, "just words", {}) == {"x": "just words"}


@pytest.mark.parametrize("tie", [{"maxProperties": 2}, {"anyOf": [{}]}, {"enum": [{}]}])
def test_an_object_that_is_tied_in_other_ways_takes_nothing(tie: dict[str, Any]) -> None:
    assert arguments({"properties": {"x": NUMBER}, **tie}, "7", {"x": 0}) == {"x": 0}


def answered(message: str, schema: dict[str, Any]) -> Any:
    """What the demo answers to a message where it may only write a value of ``schema``."""

    async def said() -> str:
        request = Request(prompt=message, json_schema=schema)
        return "".join(
            [each.text async for each in Demo(delay=0).generate(request) if isinstance(each, Piece)]
        )

    return json.loads(asyncio.run(said()))


def test_any_object_has_the_quoted_words_as_keys() -> None:
    assert list(answered("JSON with 'one' and \"two\"", {"type": "object"})) == ["one", "two"]


def test_a_value_takes_what_the_message_holds_as_a_call_does() -> None:
    schema = FORECAST["parameters"]
    assert answered("I will be in New York for 3 days.", schema) == {"place": "New York", "days": 3}


@given(st.text(), st.sampled_from(["", "<tool_call>\n", '<tool_call>\n{"name": "sum_up", "arguments":']))
def test_any_message_has_calls_that_are_json(asked: str, begun: str) -> None:
    said = called(prompt(asked, begun=begun), None)
    if said is not None and not said.startswith("I was told"):
        for name, filled in calls(begun + said):
            wanted = next(each for each in TOOLS if each["name"] == name)["parameters"]
            assert set(filled) == set(wanted["required"])
            assert {type(value) for value in filled.values()} == {
                type(value) for value in instance(wanted).values()
            }
