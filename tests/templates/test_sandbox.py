"""A template gets Hugging Face's helpers, and nothing else: no Python, no clock, no endless output."""

from datetime import datetime

import pytest

from gateway.core.template import TemplateError, compile_model
from gateway.core.template.sandbox import MAX_PROMPT

HELLO = [{"role": "user", "content": "Hello <é>"}]


def render(source: str, **options: object) -> str:
    return compile_model("mine", source).render(HELLO, options=options, now=datetime(2026, 11, 20, 9, 30))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hello <é>"}]'),
        ("{{ messages[0] | tojson(indent=1) }}", '{\n "role": "user",\n "content": "Hello <é>"\n}'),
        ("{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true, ensure_ascii=true) }}", '{"a": "\\u00e9", "b": 1}'),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ strftime_now('%d %b %Y') }}", "20 Nov 2026"),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "13"),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21"),
        ("  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),
        ("{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}{{ missing }}", "2"),
        ("{{ add_generation_prompt }}{{ tools is none }}{{ documents is none }}", "TrueTrueTrue"),
        ("{{ messages[0].content.split(' ')[0] }}{{ messages[0]['nothing'] }}", "Hello"),
    ],
)
def test_the_helpers_that_templates_expect(source: str, text: str) -> None:
    assert render(source) == text


def test_options_are_variables_and_replace_no_part_of_the_conversation() -> None:
    assert render("{{ enable_thinking }}", enable_thinking=False) == "False"
    assert render("{{ add_generation_prompt }}", add_generation_prompt=False) == "False"
    for name in ("messages", "tools", "documents", "strftime_now", "raise_exception", "chat_template"):
        with pytest.raises(TemplateError, match=f"'{name}' is no option"):
            render("", **{name: "x"})


def test_an_exception_of_the_template_is_its_message() -> None:
    with pytest.raises(TemplateError, match=r"^Roles must alternate$"):
        render("{{ raise_exception('Roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[5]['content'] }}",
        "{{ 1 + 'a' }}",
        "{{ 1 / 0 }}",
        "{{ missing() }}",
        "{{ missing.attribute }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ strftime_now.__self__.now() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{{ range(1000000) }}",
    ],
)
def test_what_a_template_may_not_do_is_an_error_that_shows_no_path(source: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(source)
    assert "/" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["{{ raise_exception.__globals__ }}", "{{ ''.__class__ }}", "{{ '{0.__class__}'.format(1) }}"]
)
def test_what_lies_under_python_values_is_not_there(source: str) -> None:
    assert render(source) == ""


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{{ 10000000000 * 'x' }}",
        "{{ [1] * 10000000000 }}",
    ],
)
def test_the_prompt_is_bounded(source: str) -> None:
    with pytest.raises(TemplateError, match=f"longer than {MAX_PROMPT} characters"):
        render(source)


def test_without_a_time_there_is_no_clock() -> None:
    template = compile_model("mine", "{{ strftime_now is defined }}")
    assert template.render(HELLO) == "False"
