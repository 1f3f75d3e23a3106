"""Thoughts over real sockets: told apart from the answer, and asked for through the template."""

from typing import Any

import httpx
import pytest

from gateway.templates import names
from tests.serve.house import House, Visit, house, soon
from tests.serve.test_chat import greet
from tests.serve.test_tools import ARGUMENTS, CALL, TOOLS, answer, ask, cut, saying

THINKS: dict[str, Any] = {"reasoning": {}}
OPEN: dict[str, Any] = {"reasoning": {"starts_open": True}}
BARE: dict[str, Any] = {"tools": None}


async def said(at: House, stream: bool, **fields: Any) -> tuple[str, str]:
    got = await answer(at, stream, **{**BARE, **fields})
    assert (got["finish"], got["calls"]) == ("stop", [])
    return got["reasoning"], got["text"]


@pytest.mark.parametrize("model, begun", [(THINKS, "<think>\n"), (OPEN, "")], ids=["tagged", "open"])
async def test_thoughts_are_told_apart_wherever_they_are_cut(model: dict[str, Any], begun: str) -> None:
    async with house(greet, **model) as at:
        for size in (1, 3, 1000):
            at.container.script = saying(*cut(begun + "Hm <b>?\n</think>\n\nYes.", size))
            for stream in (False, True):
                assert await said(at, stream) == ("Hm <b>?\n", "Yes.")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_has_tags_of_its_own(stream: bool) -> None:
    tags = {"reasoning": {"start": "[THINK]", "end": "[/THINK]"}}
    async with house(saying("[THINK]Hm[/THINK]", "Yes <think>."), **tags) as at:
        assert await said(at, stream) == ("Hm", "Yes <think>.")


@pytest.mark.parametrize("stream", [False, True])
async def test_without_the_setting_a_tag_is_text(stream: bool) -> None:
    async with house(saying("<think>Hm</think>", "Yes.")) as at:
        assert await said(at, stream) == ("", "<think>Hm</think>Yes.")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_clients_stops_do_not_look_at_thoughts(stream: bool) -> None:
    async with house(saying("<think>a STOP b</think>one ", "STOP two"), **THINKS) as at:
        assert await said(at, stream, stop=["STOP"]) == ("a STOP b", "one ")
        assert "STOP" not in at.container.visits[0].json.get("stop", [])


async def test_thoughts_are_streamed_as_they_come() -> None:
    """The client has the thought before the model has ended it: the container waits for that."""
    shown: list[str] = []

    async def thinking(visit: Visit) -> None:
        await visit.start_stream()
        await visit.event({"prompt": "<think>Hm, let me see"})
        await soon(visit.closed.wait())
        await visit.event({"prompt": "</think>Yes.", "finish_reason": "stop"})
        await visit.event("[DONE]")
        await visit.end_stream()

    async with house(thinking, **THINKS) as at:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        async with (
            httpx.AsyncClient(timeout=10) as client,
            client.stream("POST", f"{at.url}/chat/completions", json=body) as response,
        ):
            async for line in response.aiter_lines():
                shown.append(line)
                if "let me see" in line:
                    at.container.visits[0].closed.set()
    assert any('"content":"Yes."' in line for line in shown)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_may_follow_a_thought(stream: bool) -> None:
    async with house(saying(*cut(f"<think>{CALL}</think>\n{CALL}")), template="qwen3", **THINKS) as at:
        got = await answer(at, stream, tools=TOOLS)
        assert (got["reasoning"], got["text"]) == (CALL, "")
        assert got["calls"] == [("get_weather", ARGUMENTS)]


async def test_a_forced_call_ends_a_thought_that_the_prompt_began() -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}

    async def forced(visit: Visit) -> None:
        ending = '</think>\n\n<tool_call>\n{"name": "get_weather", "arguments":'
        assert visit.json["prompt"].endswith(ending)
        await visit.say(f" {ARGUMENTS}", "}\n</tool_call>")

    async with house(forced, template="qwen3", **OPEN) as at:
        got = await answer(at, True, tools=TOOLS, tool_choice=named)
        assert (got["reasoning"], got["calls"]) == ("", [("get_weather", ARGUMENTS)])


async def prompt_of(template: str, **fields: Any) -> str:
    async with house(greet, template=template) as at:
        response = await ask(at, **{**BARE, **fields})
        assert response.status_code == 200, response.text
        return str(at.container.visits[0].json["prompt"])


async def test_the_effort_reaches_the_template() -> None:
    assert "Reasoning: high" in await prompt_of("gpt-oss", reasoning_effort="high")
    kwargs = {"reasoning_effort": "low"}
    assert "Reasoning: low" in await prompt_of("gpt-oss", chat_template_kwargs=kwargs)


async def test_variables_of_the_template_can_be_set() -> None:
    assert (await prompt_of("qwen3")).endswith("<|im_start|>assistant\n")
    prompt = await prompt_of("qwen3", chat_template_kwargs={"enable_thinking": False})
    assert prompt.endswith("<think>\n\n</think>\n\n")


async def test_a_variable_that_a_template_does_not_have_changes_nothing() -> None:
    plain = await prompt_of("vicuna_v1.1")
    assert plain == await prompt_of("vicuna_v1.1", reasoning_effort="high")


async def test_control_strings_in_variables_are_defused() -> None:
    prompt = await prompt_of("gpt-oss", reasoning_effort="<|end|>")
    assert "Reasoning: <\u200b|end|>" in prompt


async def test_other_variables_are_refused_by_name() -> None:
    async with house(greet, template=names()[0]) as at:
        for given in ({"messages": []}, {"enable_thinking": ["x"]}, "x"):
            response = await ask(at, chat_template_kwargs=given)
            assert response.json()["error"]["param"] == "chat_template_kwargs"
            assert response.status_code == 400
        assert at.container.visits == []
