"""Thoughts that a prompt opens: found at its end, and ended where an answer cannot end them itself."""

import json
from typing import Any

import pytest

from gateway.core.call import Marks, PromptCall, Traits
from gateway.core.spec import ModelSpec
from gateway.core.template import Template, compile_template
from gateway.core.wire import parse_chat
from gateway.templates import load
from tests.core.test_plan import ORIGIN, USER, plan

SWITCHED = compile_template(
    "switched",
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}",
)
SILENT = compile_template(
    "silent",
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}A:"
    "{% if thinking is defined and not thinking %} briefly:{% endif %}",
)
OPEN = {"reasoning": Marks(starts_open=True)}
OFF = {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}
TOOLS = [{"type": "function", "function": {"name": "now"}}]
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
JSON = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
ENDED = "<think>\n</think>\n\n"


def planned(template: Template, spec: Any = None, **fields: Any) -> PromptCall:
    request = parse_chat(json.dumps({"messages": USER, **fields}).encode())
    call = plan(request, ModelSpec("m", template, **(spec or {})), Traits("prompt"), ORIGIN)
    assert isinstance(call, PromptCall)
    return call


@pytest.mark.parametrize(
    ("template", "fields", "begins_inside"),
    [
        (SWITCHED, {}, True),
        (SWITCHED, OFF, False),
        (SILENT, {}, True),  # nothing in the prompt says otherwise
        (SILENT, OFF, False),
        (load("vicuna_v1.1"), OFF, True),  # whose template does not hear it
    ],
)
def test_an_answer_begins_inside_only_if_its_prompt_opens_a_thought(
    template: Template, fields: dict[str, Any], begins_inside: bool
) -> None:
    assert planned(template, OPEN, **fields).watch.reasoning == Marks(starts_open=begins_inside)


def test_what_the_prompt_opens_needs_no_setting() -> None:
    assert planned(SWITCHED, {"reasoning": Marks()}).watch.reasoning == Marks(starts_open=True)
    assert planned(SWITCHED).watch.reasoning is None


@pytest.mark.parametrize("spec", [OPEN, {"reasoning": Marks()}, {}])
@pytest.mark.parametrize("template", [SWITCHED, load("deepseek-r1")])
def test_json_from_its_first_token_on_needs_a_thought_that_has_ended(template: Template, spec: Any) -> None:
    call = planned(template, {**spec, "guided": True}, response_format=JSON)
    assert call.prompt.endswith(ENDED) and call.watch.guaranteed
    assert call.watch.reasoning in (None, Marks())
    free = planned(template, spec, response_format=JSON)
    assert free.prompt.endswith("<think>\n")


@pytest.mark.parametrize("spec", [OPEN, {}])
def test_a_call_that_must_come_stands_behind_the_thought(spec: Any) -> None:
    for fields in ({}, OFF):
        call = planned(SWITCHED, spec, tools=TOOLS, tool_choice="required", **fields)
        assert call.prompt.count("</think>") == 1
        assert call.prompt.endswith("</think>\n\n<tool_call>\n")
        assert call.watch.reasoning is None


def test_options_that_a_template_does_not_look_at_are_named() -> None:
    told = {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": True, "thinking": True}}
    names = ("reasoning_effort", "chat_template_kwargs.enable_thinking", "chat_template_kwargs.thinking")
    assert planned(load("vicuna_v1.1"), **told).notes.ignored == names
    assert planned(SWITCHED, **told).notes.ignored == (names[0], names[2])
    assert planned(SILENT, **told).notes.ignored == names[:2]
    assert planned(load("gpt-oss"), **told).notes.ignored == names[1:]
    assert planned(load("qwen3"), **OFF).notes.ignored == names[2:]
