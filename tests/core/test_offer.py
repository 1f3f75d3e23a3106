"""What a model is told of tools: laws of every template and every dialect."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.core.call import PromptCall, Traits
from gateway.core.plan import Origin, plan
from gateway.core.spec import ModelSpec
from gateway.core.template import Template
from gateway.core.tools import DIALECTS
from gateway.core.wire import parse_chat
from gateway.templates import load, names
from tests.core.tools.answers import TOOLS

USER = [{"role": "user", "content": "hi"}]
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Köln"}'},
}
TALK = [
    *USER,
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
]
NAMED = {"type": "function", "function": {"name": "now"}}


def planned(template: Template, spec: Any = None, **fields: Any) -> PromptCall:
    request = parse_chat(json.dumps({"messages": USER, "tools": TOOLS, **fields}).encode())
    origin = Origin("req_1", datetime(2026, 1, 2, tzinfo=UTC))
    call = plan(request, ModelSpec("m", template, **(spec or {})), Traits("prompt"), origin)
    assert isinstance(call, PromptCall)
    return call


@pytest.mark.parametrize("name", names())
def test_every_template_tells_of_the_tools_and_keeps_what_it_says(name: str) -> None:
    template = load(name)
    prompt = planned(template).prompt
    assert "get_weather" in prompt and "The forecast." in prompt
    assert prompt.rindex("hi") > 0
    if template.default_system and not template.renders_tools:
        assert template.default_system in prompt


@pytest.mark.parametrize("name", names())
def test_every_template_shows_a_call_and_its_result(name: str) -> None:
    prompt = planned(load(name), messages=TALK).prompt
    called = prompt.rindex("Köln")
    assert prompt.index("rain", called) > called


@pytest.mark.parametrize("name", names())
def test_a_named_call_is_begun_at_the_end_of_every_prompt(name: str) -> None:
    template = load(name)
    call = planned(template, tool_choice=NAMED)
    begun = DIALECTS[template.dialect].prefix("now")
    prompt = planned(template).prompt
    closing = "</think>\n\n" if prompt.endswith("<think>\n") else ""  # a call cannot begin within a thought
    assert call.prompt == prompt + closing + begun
    assert call.watch.tooling is not None and call.watch.tooling.begin == begun


@pytest.mark.parametrize("name", DIALECTS)
def test_a_schema_goes_upstream_only_for_what_follows_the_prompt(name: str) -> None:
    dialect = DIALECTS[name]
    for guided in (True, False):
        for choice in ("auto", "required", NAMED):
            call = planned(load("vicuna_v1.1"), {"dialect": name, "guided": guided}, tool_choice=choice)
            named = "now" if choice == NAMED else None
            wanted = dialect.schema(TOOLS, named) if guided and choice != "auto" else None
            assert call.arguments.get("json_schema") == wanted
            begun = dialect.prefix(named, held=wanted is not None) if choice != "auto" else ""
            assert call.watch.tooling is not None and call.watch.tooling.begin == begun
            assert call.prompt.endswith(begun)
            assert ("tool_choice" in call.notes.ignored) == (
                choice == "required" and not begun and not wanted
            )


@pytest.mark.parametrize("name", [name for name, dialect in DIALECTS.items() if dialect.json])
def test_one_tool_that_must_be_called_is_held_to_its_schema_in_every_dialect_of_json(name: str) -> None:
    spec = {"dialect": name, "guided": True}
    call = planned(load("vicuna_v1.1"), spec, tools=TOOLS[:1], tool_choice="required")
    assert call.arguments["json_schema"] == TOOLS[0]["function"]["parameters"]
    assert call.prompt.endswith(DIALECTS[name].prefix("get_weather"))


def test_a_model_trained_on_another_dialect_than_its_templates_is_told_in_its_own() -> None:
    for name, other in (("qwen2.5", "llama3_json"), ("llama-3.1", "hermes"), ("mistral-v0.3", "pythonic")):
        template = load(name)
        shown = planned(template, messages=TALK).prompt
        prompt = planned(template, {"dialect": other}, messages=TALK).prompt
        dialect = DIALECTS[other]
        assert dialect.instruct(TOOLS) in prompt and dialect.instruct(TOOLS) not in shown
        assert dialect.said([CALL]) in prompt and dialect.said([CALL]) not in shown
        assert planned(template, {"dialect": template.dialect}, messages=TALK).prompt == shown


def test_a_template_that_came_with_a_model_shows_the_tools_itself_whatever_dialect_is_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "own.jinja").write_text(
        "{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    template = load("own.jinja", tmp_path)
    assert planned(template, {"dialect": "mistral"}).prompt == planned(template).prompt


@pytest.mark.parametrize("manner", ["drops", "refuses"])
def test_a_template_that_came_with_a_model_and_has_no_system_turn_tells_the_user(
    manner: str, tmp_path: Path
) -> None:
    wrong = "{{ raise_exception('no system') }}" if manner == "refuses" else ""
    (tmp_path / "own.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'system' %}" + wrong + "{% else %}"
        "<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endif %}{% endfor %}<assistant>"
    )
    template = load("own.jinja", tmp_path)
    prompt = planned(template).prompt
    assert prompt.startswith("<user>You can call these tools:")
    assert prompt.endswith("\n\nhi</user><assistant>")
    assert "rain" in planned(template, messages=TALK).prompt


def test_a_system_message_of_the_model_stands_before_the_words() -> None:
    prompt = planned(load("vicuna_v1.1"), {"system_default": "Be brief."}).prompt
    assert prompt.index("Be brief.") < prompt.index("get_weather")


def test_the_clients_messages_are_not_changed() -> None:
    request = parse_chat(json.dumps({"messages": TALK, "tools": TOOLS}).encode())
    before = json.dumps(request.messages)
    for name in ("vicuna_v1.1", "mistral-v0.3"):
        origin = Origin("req_1", datetime(2026, 1, 2, tzinfo=UTC))
        plan(request, ModelSpec("m", load(name)), Traits("prompt"), origin)
    assert json.dumps(request.messages) == before
