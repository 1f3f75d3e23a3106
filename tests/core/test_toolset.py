"""Tools of a request: every shape is either one that models can be told of, or a 400 that names its field."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.core.toolset import MODES, Toolset, modern, toolset
from gateway.core.wire import parse_chat

USER = [{"role": "user", "content": "hi"}]

names = st.sampled_from(["f", "g", "none", "auto", "required", "a b", "", "é"])
values = st.one_of(
    st.none(), st.booleans(), st.integers(), names, st.lists(names), st.dictionaries(names, names)
)
fields = st.sampled_from(["name", "parameters", "description", "type", "function", "mode", "tools"])
functions = st.fixed_dictionaries({"name": names}, optional={"parameters": values, "description": values})
tools = st.one_of(
    functions.map(lambda function: {"type": "function", "function": function}),
    st.dictionaries(fields, st.one_of(values, functions), max_size=3),
)
choices = st.one_of(
    st.sampled_from([*MODES, "any", None]),
    tools,
    functions,
    st.lists(tools, max_size=2).map(lambda some: {"type": "allowed_tools", "allowed_tools": {"tools": some}}),
    values,
)


def asked(**body: Any) -> Toolset | None:
    return toolset(parse_chat(json.dumps({"messages": USER, **body}).encode()))


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "tools": st.lists(tools, max_size=3),
            "functions": st.lists(functions, max_size=3),
            "tool_choice": choices,
            "function_call": choices,
            "parallel_tool_calls": values,
        },
    )
)
def test_any_shape_is_read_or_refused_by_name(body: dict[str, Any]) -> None:
    try:
        found = asked(**body)
    except BadRequest as refused:
        assert refused.param and refused.param.partition("[")[0].partition(".")[0] in body
        return
    if found is None:
        return
    assert found.names and len(set(found.names)) == len(found.names)
    assert all(isinstance(each["function"]["parameters"], dict) for each in found.definitions)
    assert found.named is None or (found.required and found.named in found.names)
    assert not found.legacy or found.single


def test_a_name_is_no_mode() -> None:
    for mode in MODES:
        found = asked(tools=[tool(mode), tool("f")], tool_choice=tool(mode))
        assert found is not None
        assert (found.named, found.required, len(found.definitions)) == (mode, True, 2)


def test_tools_go_before_functions() -> None:
    found = asked(tools=[tool("f")], functions=[{"name": "g"}], function_call="none")
    assert found is not None
    assert (found.names, found.legacy) == (("f",), False)


@given(st.one_of(values, functions, st.fixed_dictionaries({"name": names, "arguments": values})))
def test_an_older_call_becomes_a_call_or_is_refused(called: Any) -> None:
    message = {"role": "assistant", "content": None, "function_call": called}
    try:
        found = modern(message, "messages[0]")
    except BadRequest as refused:
        assert refused.param == "messages[0].function_call"
        return
    if called is None:
        assert found is message
    else:
        [call] = found["tool_calls"]
        assert call["function"] == called
        assert "function_call" not in found
