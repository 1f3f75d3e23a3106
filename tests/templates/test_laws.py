"""What holds for every built-in template and every conversation."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.template import Template, TemplateError, neutralise
from tests.templates import CONVERSATIONS, TEMPLATES

TOOLS = CONVERSATIONS["tools"]["tools"]
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
NOW = datetime(2026, 11, 20)

calls = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text("abcdef", min_size=9, max_size=9),
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": st.text(), "arguments": st.sampled_from(["{}", '{"a": [1]}', "[]", "no JSON", ""])}
            ),
        }
    ),
    max_size=2,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(ROLES), "content": st.one_of(st.text(), st.none())},
        optional={
            "name": st.text(),
            "tool_call_id": st.text(),
            "tool_calls": calls,
            "reasoning_content": st.text(),
        },
    ),
    max_size=6,
)


@given(messages, st.sampled_from([None, TOOLS]), st.booleans())
def test_any_conversation_renders(given_messages: list[dict[str, Any]], tools: Any, dated: bool) -> None:
    before = repr(given_messages)
    for template in TEMPLATES:
        prompt = template.render(given_messages, tools=tools, now=NOW if dated else None)
        assert isinstance(prompt, str)
    assert repr(given_messages) == before, "the caller's messages are the caller's"


# Words have no white space to trim and no `<` for a template to read as the end of thinking.
words = st.text("abcdefghijklmnopqrstuvwxyz字ß", min_size=1, max_size=8)
spoken = st.lists(st.tuples(st.sampled_from(ROLES), words), min_size=1, max_size=8)


@given(spoken)
def test_every_text_is_in_the_prompt(turns: list[tuple[str, str]]) -> None:
    said = [{"role": role, "content": f"{word}{index}x"} for index, (role, word) in enumerate(turns)]
    for template in TEMPLATES:
        prompt = template.render(said)
        for message in said:
            shown = message["content"] in prompt
            ignored = template.ignores_system and message["role"] in ("system", "developer")
            assert shown != ignored, f"{template.name}: {message['role']}"


@given(words, words, words)
def test_system_messages_that_lead_are_merged(first: str, second: str, question: str) -> None:
    said = [
        {"role": "system", "content": first},
        {"role": "developer", "content": second},
        {"role": "user", "content": question},
    ]
    once = [{"role": "system", "content": f"{first}\n\n{second}"}, said[2]]
    for template in TEMPLATES:
        assert template.render(said) == template.render(once)


def test_only_deepseek_coder_ignores_system_messages() -> None:
    assert [template.name for template in TEMPLATES if template.ignores_system] == ["deepseek-coder"]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_tools_are_shown_whatever_the_family(template: Template) -> None:
    conversation = CONVERSATIONS["tool_rounds"]
    prompt = template.render(conversation["messages"], tools=conversation["tools"])
    for text in ("get_weather", "The weather of a city", "Paris", "18 °C", "Sunny.", "Rome", "25 °C"):
        assert text in prompt


def test_arguments_may_be_text_or_an_object() -> None:
    def asked(arguments: Any) -> list[dict[str, Any]]:
        call = {"id": "abc123def", "type": "function", "function": {"name": "f", "arguments": arguments}}
        return [{"role": "user", "content": "u"}, {"role": "assistant", "content": "", "tool_calls": [call]}]

    for template in TEMPLATES:
        assert template.render(asked('{"a": "b"}')) == template.render(asked({"a": "b"}))


def test_an_unknown_role_is_refused() -> None:
    for template in TEMPLATES:
        with pytest.raises(TemplateError, match="role 'narrator'"):
            template.render([{"role": "narrator", "content": "x"}])


# -- control strings --------------------------------------------------------------------------------------


def hostile(template: Template) -> str:
    """Every control string of a template, also cut, repeated and overlapping."""
    whole = "".join(template.control)
    return whole + "".join(string[:-1] + string for string in template.control) + whole * 2


def asked_by_an_attacker(text: str) -> list[dict[str, Any]]:
    escaped = '{"a": "' + "".join(f"\\u{ord(c):04x}" for c in text) + '"}'
    calls = [
        {"id": text, "type": "function", "function": {"name": text, "arguments": arguments}}
        for arguments in (escaped, {text: [text]}, text)
    ]
    return [
        {"role": "system", "content": text},
        {"role": "user", "content": text, "name": text},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": text, "tool_call_id": text, "name": text},
        {"role": "developer", "content": text},
        {"role": "user", "content": text},
    ]


def written(template: Template, prompt: str) -> Iterator[int]:
    return (prompt.count(string) for string in template.control)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_no_text_from_outside_adds_a_control_string(template: Template) -> None:
    attack, count = neutralise(asked_by_an_attacker(hostile(template)), template, "neutralise")
    assert bool(count) == bool(template.control)
    harmless = template.render(asked_by_an_attacker("harmless"))
    assert list(written(template, template.render(attack))) == list(written(template, harmless))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_an_earlier_answer_cannot_end_its_turn(template: Template) -> None:
    answer = [{"role": "assistant", "content": "".join(template.control)}]
    (safe,), count = neutralise(answer, template, "neutralise")
    assert not any(string in safe["content"] for string in template.turns)
    kept = [string for string in template.control if not any(turn in string for turn in template.turns)]
    assert all(string in safe["content"] for string in kept)
    assert bool(count) == bool(template.turns)
