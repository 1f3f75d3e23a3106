"""JSON that was asked for: instructed, taken out of the text, judged, and asked for again."""

import asyncio
import json
from typing import Any

import pytest

from gateway.core.call import Call, PromptCall, Traits
from gateway.core.errors import UpstreamUnavailable
from gateway.core.events import Finish, Text, Usage
from tests.serve.house import Desk, Line, Scripted, Step, deployed, soon
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
    assert header(line, b"x-gateway-json") is None


CUTS: list[tuple[Step, dict[str, Any], str]] = [
    ([Text('{"x": 1'), Finish("length", Usage(1, 1))], {}, "length"),
    ([Text('{"x"'), Finish("content_filter", Usage(1, 1))], {}, "content_filter"),
    ([Text('{"x": 1, END'), END], {"stop": ["END"]}, "stop"),
]


@pytest.mark.parametrize(("step", "fields", "finish"), CUTS, ids=[finish for _, _, finish in CUTS])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("json_stream", ["live", "buffered"])
async def test_an_answer_that_was_cut_is_neither_judged_nor_vouched_for(
    step: Step, fields: dict[str, Any], finish: str, guided: bool, json_stream: Any
) -> None:
    upstream = Scripted("a", [step])
    deployment = deployed(upstream, json_stream=json_stream, spec={"guided": guided})
    whole = await Desk(deployment).ask(response_format=FORMAT, **fields)
    assert json.loads(whole.body)["choices"][0]["finish_reason"] == finish
    assert header(whole, b"x-gateway-json") is None
    told = {"stream": True, "stream_options": {"include_usage": True}}
    stream = await Desk(deployment).ask(response_format=FORMAT, **fields, **told)
    last = chunks(stream.body.decode())
    assert last[-2]["choices"][0]["finish_reason"] == finish
    assert "json" not in last[-1]["x_gateway"]
    assert len(upstream.calls) == 2  # nothing was asked for again


async def test_a_stop_that_the_template_has_too_cuts_nothing() -> None:
    steps: list[Step] = [[Text('{"x": 1}<|im_end|>more'), END]]
    desk = Desk(deployed(Scripted("a", steps), spec={"stops": ("<|im_end|>",)}))
    line = await desk.ask(response_format=FORMAT, stop=["<|im_end|>"])
    assert (message(line)["content"], header(line, b"x-gateway-json")) == ('{"x": 1}', "validated")


async def test_several_answers_are_vouched_for_together() -> None:
    cut: list[Step] = [[Text('{"x": 1'), Finish("length", Usage(1, 1))]]
    line = await Desk(deployed(Scripted("a", RIGHT, cut))).ask(response_format=FORMAT, n=2)
    assert (line.status, header(line, b"x-gateway-json")) == (200, None)


async def test_json_in_a_fence_is_found_behind_braces_in_prose() -> None:
    steps: list[Step] = [[Text('Here {"y"} is: ```json\n{"x": 1}\n```'), END]]
    line = await Desk(deployed(Scripted("a", steps))).ask(response_format=FORMAT)
    assert (message(line)["content"], header(line, b"x-gateway-json")) == ('{"x": 1}', "validated")


async def test_a_server_of_chats_gets_the_format_as_it_was() -> None:
    upstream = Scripted("a", [[Text("{}"), END]], traits=Traits("chat"))
    line = await Desk(deployed(upstream)).ask(response_format={"type": "json_object"})
    assert header(line, b"x-gateway-json") is None
    assert upstream.calls[0].body["response_format"] == {"type": "json_object"}  # type: ignore[union-attr]


async def test_several_answers_are_judged_each() -> None:
    line = await Desk(deployed(Scripted("a", RIGHT, WRONG))).ask(response_format=FORMAT, n=2)
    assert (line.status, line.error["code"]) == (502, "invalid_json_answer")


# --- what it costs, however it ends ---


def used(desk: Desk) -> tuple[int, int]:
    """Tokens of the prompts and of the answers of the only request."""
    [record] = desk.records
    assert record.usage is not None
    return record.usage.prompt_tokens, record.usage.completion_tokens


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
async def test_an_answer_is_paid_for_when_asking_again_fails(fields: dict[str, Any]) -> None:
    upstream = Scripted("a", WRONG, [UpstreamUnavailable("gone")])
    desk = Desk(deployed(upstream, json_stream="buffered"))
    line = await desk.ask(response_format=FORMAT, **fields)
    assert (line.status, used(desk)) == (503, (3, 5))


async def test_an_answer_is_paid_for_when_the_conversation_became_too_long() -> None:
    def count(text: str) -> int:
        return 9000 if "is not of type" in text else 1

    desk = Desk(deployed(Scripted("a", WRONG), count=count, spec={"context_length": 5000}))
    line = await desk.ask(response_format=FORMAT, max_tokens=9)
    assert (line.error["code"], used(desk)) == ("invalid_json_answer", (3, 5))


async def left(desk: Desk, upstream: Scripted, calls: int) -> None:
    """Ask, and hang up once so many calls were made and the last one waits."""
    line = desk.line(response_format=FORMAT)
    async with asyncio.TaskGroup() as group:
        group.create_task(soon(desk.take(line)))
        while len(upstream.calls) < calls:
            await soon(upstream.asked.wait())
            upstream.asked.clear()
        line.left.set()
    [record] = desk.records
    assert record.client_left


async def test_a_client_that_leaves_before_the_end_pays_for_what_was_said() -> None:
    upstream = Scripted("a", [[Text('{"x": 123456789')], asyncio.Event().wait])
    desk = Desk(deployed(upstream))
    await left(desk, upstream, 1)
    assert used(desk)[1] == 4


async def test_a_client_that_leaves_while_it_is_asked_again_pays_for_the_first_answer() -> None:
    upstream = Scripted("a", WRONG, [asyncio.Event().wait])
    desk = Desk(deployed(upstream))
    await left(desk, upstream, 2)
    assert used(desk) == (3, 5)


async def test_a_fallback_that_cannot_take_it_leaves_what_was_said_to_be_paid() -> None:
    gone = UpstreamUnavailable("gone", retry="elsewhere")
    desk = Desk(
        deployed(Scripted("a", [[Text('{"x": 123456789')], gone]), fallback=("x",)),
        deployed(Scripted("b"), name="x", spec={"context_length": 3}, count=len),
    )
    line = await desk.ask(response_format=FORMAT)
    assert (line.status, used(desk)[1]) == (503, 4)
    [record] = desk.records
    assert (record.model, record.upstream) == ("m", "a")
