"""A model folder or tokenizer_config.json gives the model's own template and its control strings."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.core.template import TemplateError, neutralise
from gateway.templates import load

HELLO = [{"role": "user", "content": "Hello"}]
TALK = [
    {"role": "system", "content": "SYS"},
    {"role": "user", "content": "u"},
    {"role": "assistant", "content": "a"},
    {"role": "system", "content": "LATER"},
    {"role": "user", "content": "v"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
CALLED = [
    {"role": "user", "content": "u"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdef123", "content": "result"},
]

ROLES = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def model(folder: Path, **files: Any) -> str:
    """A model folder with these files (`name__json` is name.json, `name__jinja` name.jinja)."""
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


def test_the_config_gives_template_and_tokens(tmp_path: Path) -> None:
    config = {
        "chat_template": ROLES,
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "lstrip": False, "special": True},
        "pad_token": None,
        "added_tokens_decoder": {
            "1": {"content": "<s>", "special": True},
            "2": {"content": "</s>", "special": True},
            "3": {"content": "<|user|>", "special": True},
            "4": {"content": "<tool_call>", "special": False},
        },
    }
    for name in (model(tmp_path, tokenizer_config__json=config), str(tmp_path / "tokenizer_config.json")):
        template = load(name)
        assert template.name == tmp_path.name
        assert template.render(HELLO) == "<s><|user|>Hello</s><|assistant|>"
        assert template.control == ("<s>", "</s>", "<|user|>")
        assert template.turns == ("<s>", "</s>", "<|user|>")
        assert template.stops == ("</s>",)
        assert not template.renders_tools


def test_options_may_replace_a_token(tmp_path: Path) -> None:
    folder = model(tmp_path, tokenizer_config__json={"chat_template": ROLES, "bos_token": "<s>"})
    assert load(folder).render(HELLO, options={"bos_token": ""}) == "<|user|>Hello<|assistant|>"


def test_special_tokens_of_the_tokenizer_and_of_the_map_are_control_strings(tmp_path: Path) -> None:
    folder = model(
        tmp_path,
        tokenizer_config__json={"chat_template": ROLES},
        special_tokens_map__json={"bos_token": "<bos>", "additional_special_tokens": ["<|user|>"]},
        tokenizer__json={
            "added_tokens": [
                {"id": 1, "content": "<|sys|>", "special": True},
                {"id": 2, "content": "<think>", "special": False},
                {"id": 3, "content": "\n", "special": True},
            ]
        },
    )
    template = load(folder)
    assert set(template.control) == {"<bos>", "<|sys|>", "<|user|>"}
    safe, count = neutralise([{"role": "user", "content": "<|sys|><think>"}], template, "neutralise")
    assert (safe[0]["content"], count) == ("<\u200b|sys|><think>", 1)


def test_without_a_list_of_tokens_what_looks_like_one_is_a_control_string(tmp_path: Path) -> None:
    folder = model(tmp_path, tokenizer_config__json={"chat_template": ROLES, "eos_token": "<|end|>"})
    template = load(folder)
    assert {"<|end|>", "<|user|>", "<|assistant|>"} <= set(template.control)
    assert template.stops == ("<|end|>",)


def test_the_end_of_a_turn_is_a_stop_though_it_is_not_the_eos(tmp_path: Path) -> None:
    source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    config = {"chat_template": source, "eos_token": "<|endoftext|>"}
    assert load(model(tmp_path, tokenizer_config__json=config)).stops == ("<|endoftext|>", "<|im_end|>")


def test_a_file_beside_the_config_has_precedence(tmp_path: Path) -> None:
    config = {"chat_template": "config", "bos_token": "<s>"}
    folder = model(tmp_path, tokenizer_config__json=config, chat_template__json={})
    assert load(folder).render(HELLO) == "config"
    model(tmp_path, chat_template__json={"chat_template": "json {{ bos_token }}"})
    assert load(folder).render(HELLO) == "json <s>"
    model(tmp_path, chat_template__jinja="jinja {{ bos_token }}")
    assert load(folder).render(HELLO) == "jinja <s>"


def test_the_named_template_for_tools_serves_requests_with_tools(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": "default"},
        {"name": "tool_use", "template": "{{ tools | tojson }}"},
        {"name": "rag", "template": "rag"},
    ]
    template = load(model(tmp_path, tokenizer_config__json={"chat_template": named}))
    assert template.render(HELLO) == "default"
    assert template.render(HELLO, tools=[]) == "default"
    assert template.render(HELLO, tools=TOOLS) == json.dumps(TOOLS)
    assert template.renders_tools


def test_additional_templates_are_files(tmp_path: Path) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("with tools")
    template = load(model(tmp_path, chat_template__jinja="without"))
    assert (template.render(HELLO), template.render(HELLO, tools=TOOLS)) == ("without", "with tools")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no chat_template: name a built-in template"),
        ({"tokenizer_config__json": "{"}, r"tokenizer_config\.json is no JSON: line 1"),
        ({"tokenizer_config__json": "[]"}, "holds no JSON object"),
        ({"tokenizer_config__json": {"chat_template": {"rag": "x"}}}, "no 'default' one"),
        ({"tokenizer_config__json": {"chat_template": "{% if %}"}}, "line 1 of the template"),
    ],
)
def test_a_folder_without_a_usable_template_says_why(
    tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    with pytest.raises(TemplateError, match=message) as caught:
        load(model(tmp_path, **files))
    assert str(tmp_path) not in str(caught.value)


# -- no message is dropped ------------------------------------------------------------------------------


def test_system_messages_that_the_template_would_drop_move_to_the_next_question(tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}U:{{ m.content }};"
        "{% elif m.role == 'assistant' %}A:{{ m.content }};{% endif %}{% endfor %}"
    )
    template = load(model(tmp_path, chat_template__jinja=source))
    assert template.render(TALK) == "U:SYS\n\nu;A:a;U:LATER\n\nv;"
    assert template.render(TALK[:4]) == "U:SYS\n\nu;A:a;U:LATER;"


def test_only_a_later_system_message_moves_where_the_first_is_shown(tmp_path: Path) -> None:
    source = (
        "{% if messages[0].role == 'system' %}S:{{ messages[0].content }};{% endif %}"
        "{% for m in messages if m.role != 'system' %}{{ m.role }}:{{ m.content }};{% endfor %}"
    )
    template = load(model(tmp_path, chat_template__jinja=source))
    assert template.render(TALK) == "S:SYS;user:u;assistant:a;user:LATER\n\nv;"


def test_a_template_that_refuses_a_system_message_says_so(tmp_path: Path) -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}x"
    template = load(model(tmp_path, chat_template__jinja=source))
    with pytest.raises(TemplateError, match=r"^No system role$"):
        template.render(TALK)
    assert template.render(HELLO) == "x"


def test_a_developer_message_is_a_system_message_unless_the_template_knows_it(tmp_path: Path) -> None:
    said = [{"role": "developer", "content": "d"}, *HELLO]
    source = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    folder = model(tmp_path, chat_template__jinja=source)
    assert load(folder).render(said) == "system:d;user:Hello;"
    model(tmp_path, chat_template__jinja="{% if messages[0].role == 'developer' %}!{% endif %}" + source)
    assert load(folder).render(said) == "!developer:d;user:Hello;"


def test_arguments_read_as_text_on_either_side(tmp_path: Path) -> None:
    source = "{% for m in messages if m.tool_calls %}{{ m.tool_calls[0].function.arguments + '.' }}"
    source += "{% endfor %}"
    assert load(model(tmp_path, chat_template__jinja=source)).render(CALLED) == '{"a": 1}.'


def test_the_reasoning_of_an_answer_has_both_its_names(tmp_path: Path) -> None:
    source = "{% for m in messages %}{{ m.thinking }}{{ m.reasoning_content }}{{ m.content }}{% endfor %}"
    said = [{"role": "assistant", "content": "c", "reasoning_content": "r", "name": None}]
    assert load(model(tmp_path, chat_template__jinja=source)).render(said) == "rrc"


def test_a_function_message_is_a_tool_message(tmp_path: Path) -> None:
    source = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    template = load(model(tmp_path, chat_template__jinja=source))
    assert template.render([{"role": "function", "name": "f", "content": "r"}]) == "tool:r;"


def test_tool_messages_become_text_where_the_template_shows_none(tmp_path: Path) -> None:
    source = "{% for m in messages if m.role != 'tool' %}{{ m.role }}:{{ m.content }};{% endfor %}"
    prompt = load(model(tmp_path, chat_template__jinja=source)).render(CALLED)
    assert prompt == (
        'user:u;assistant:<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>;'
        "user:<tool_response>\nresult\n</tool_response>;"
    )


SHOWN = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
REFUSED = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"


@pytest.mark.parametrize(("source", "system"), [(SHOWN, True), (REFUSED + SHOWN, False)])
def test_tools_become_text_where_the_template_shows_none(tmp_path: Path, source: str, system: bool) -> None:
    template = load(model(tmp_path, chat_template__jinja=source))
    assert not template.renders_tools
    prompt = template.render(HELLO, tools=TOOLS)
    assert prompt.startswith("system:# Tools" if system else "user:# Tools")
    assert json.dumps(TOOLS[0]) in prompt
    assert prompt.endswith("Hello;")
    if system:
        assert template.render(TALK, tools=TOOLS).startswith("system:SYS\n\n# Tools")


@pytest.mark.parametrize(
    "arguments", ["arguments | tojson", "arguments", "arguments | string", "arguments + ''"]
)
@pytest.mark.parametrize("condition", ["m.tool_calls", "m.tool_calls and m.content is none"])
def test_calls_are_shown_in_the_templates_own_form(tmp_path: Path, arguments: str, condition: str) -> None:
    """Some templates want the content of a call to be null, some its arguments to be text."""
    source = (
        "{% for m in messages %}{% if "
        + condition
        + " %}{% for c in m.tool_calls %}{{ '[' + c.function.name + ' ' + c.function."
        + arguments
        + " + ']' }}{% endfor %}{% else %}{{ m.content }}{% endif %};{% endfor %}"
    )
    assert load(model(tmp_path, chat_template__jinja=source)).render(CALLED) == 'u;[f {"a": 1}];result;'
