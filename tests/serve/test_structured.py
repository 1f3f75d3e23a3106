"""JSON that was asked for: instructed, taken out of the text, judged, and asked for again."""

import json
from typing import Any

import pytest

from gateway.core.call import Call, PromptCall, Traits
from gateway.core.errors import UpstreamUnavailable
from gateway.core.events import Finish, Text, Usage
from tests.serve.house import Desk, Line, Scripted, Step, deployed
from tests.serve.test_chat import chunks
from tests.serve.test_failures import error_event

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "point", "schema": SCHEMA}}
END = Finish("stop", Usage(3, 5))
WRONG: list[Step] = [[Text('Here it is:\n```json\n{"x": "one"}\n```'), END]]
RIGHT: list[Step] = [[Text('```json\n{"x"')], [Text(": 1}\n```"), END]]


def prompt(call: Call) -> str:
    assert isinstance(call, PromptCall)
    return call.prompt


def message(line: Line) -> dict[str, Any]:
    assert line.status == 200
    return dict(json.loads(line.body)["choices"][0]["message"])


def header(line: Line, name: bytes) -> str | None:
    value = dict(line.said[0]["headers"]).get(name)
    return None if value is None else value.decode()


def text(line: Line) -> str:
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(line.body.decode()) if chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


async def test_the_model_is_told_and_its_json_comes_bare() -> None:
    upstream = Scripted("a", RIGHT)
    line = await Desk(deployed(upstream)).ask(response_format=FORMAT)
    assert message(line)["content"] == '{"x": 1}'
    assert header(line, b"x-gateway-json") == "validated"
    assert json.dumps(SCHEMA, separators=(",", ":")) in prompt(upstream.calls[0])


async def test_wrong_json_is_asked_for_again_with_what_is_wrong() -> None:
    upstream = Scripted("a", WRONG, RIGHT)
    line = await Desk(deployed(upstream)).ask(response_format=FORMAT)
    assert message(line)["content"] == '{"x": 1}'
    assert header(line, b"x-gateway-json") == "repaired"
    assert '"one" is not of type "integer"' in prompt(upstream.calls[1])
    assert json.loads(line.body)["usage"]["completion_tokens"] == 10  # both answers were paid for


@pytest.mark.parametrize(("attempts", "calls"), [(0, 1), (1, 2), (3, 4)])
async def test_it_is_asked_for_only_so_often(attempts: int, calls: int) -> None:
    upstream = Scripted("a", WRONG)
    line = await Desk(deployed(upstream, repair_attempts=attempts)).ask(response_format=FORMAT)
    assert (line.status, line.error["code"]) == (502, "invalid_json_answer")
    assert "/x" in line.error["message"]
    assert len(upstream.calls) == calls


async def test_a_live_stream_that_turns_out_wrong_has_no_end() -> None:
    line = await Desk(deployed(Scripted("a", WRONG))).ask(response_format=FORMAT, stream=True)
    assert error_event(line.body)["code"] == "invalid_json_answer"
    assert b'"finish_reason":"stop"' not in line.body


async def test_a_live_stream_comes_as_it_is_said() -> None:
    line = await Desk(deployed(Scripted("a", RIGHT))).ask(response_format=FORMAT, stream=True)
    assert text(line) == '{"x": 1}'
    assert line.body.endswith(b"data: [DONE]\n\n")


async def test_a_buffered_stream_is_mended_before_it_is_sent() -> None:
    upstream = Scripted("a", WRONG, RIGHT)
    desk = Desk(deployed(upstream, json_stream="buffered"))
    options = {"include_usage": True}
    line = await desk.ask(response_format=FORMAT, stream=True, stream_options=options)
    assert text(line) == '{"x": 1}'
    assert chunks(line.body.decode())[-1]["x_gateway"]["json"] == "repaired"


async def test_a_buffered_answer_that_fails_midway_is_tried_elsewhere() -> None:
    broken = Scripted("a", [[Text('{"x": ')], UpstreamUnavailable("gone", retry="elsewhere")])
    desk = Desk(deployed(broken, Scripted("b", RIGHT), balance="round_robin"))
    assert message(await desk.ask(response_format=FORMAT))["content"] == '{"x": 1}'


async def test_a_backend_that_constrains_gets_the_schema_and_is_trusted() -> None:
    upstream = Scripted("a", [[Text('{"x":1}'), END]])
    line = await Desk(deployed(upstream, spec={"guided": True})).ask(response_format=FORMAT)
    call = upstream.calls[0]
    assert isinstance(call, PromptCall)
    assert (call.prompt, call.arguments["json_schema"]) == ("hi", SCHEMA)
    assert header(line, b"x-gateway-json") == "guaranteed"


async def test_an_answer_cut_at_max_tokens_says_so_itself() -> None:
    upstream = Scripted("a", [[Text('{"x": 1'), Finish("length", Usage(1, 1))]])
    line = await Desk(deployed(upstream)).ask(response_format=FORMAT)
    assert json.loads(line.body)["choices"][0]["finish_reason"] == "length"
    assert len(upstream.calls) == 1


async def test_a_call_of_a_tool_is_no_json_answer() -> None:
    upstream = Scripted("a", [[Text('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'), END]])
    tools = [{"type": "function", "function": {"name": "f"}}]
    line = await Desk(deployed(upstream)).ask(response_format=FORMAT, tools=tools)
    assert message(line)["tool_calls"][0]["function"]["name"] == "f"
    assert len(upstream.calls) == 1


async def test_a_server_of_chats_gets_the_format_as_it_was() -> None:
    upstream = Scripted("a", [[Text("{}"), END]], traits=Traits("chat"))
    line = await Desk(deployed(upstream)).ask(response_format={"type": "json_object"})
    assert header(line, b"x-gateway-json") is None
    assert upstream.calls[0].body["response_format"] == {"type": "json_object"}  # type: ignore[union-attr]


async def test_several_answers_are_judged_each() -> None:
    line = await Desk(deployed(Scripted("a", RIGHT, WRONG))).ask(response_format=FORMAT, n=2)
    assert (line.status, line.error["code"]) == (502, "invalid_json_answer")
