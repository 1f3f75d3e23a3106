"""Models that see, with templates of their own: images reach them as parts, as transformers passes them.

The sources are written after the ways in which published templates treat parts.
"""

import json
from pathlib import Path

import pytest

from gateway.core.template import Template
from gateway.templates import load

# Texts, or lists of parts in their order (Qwen2-VL).
EITHER = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['content'] is string %}{{ m['content'] }}{% else %}
{%- for part in m['content'] %}
    {%- if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>
    {%- else %}{{ part['text'] }}{% endif %}
{%- endfor %}{% endif %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""
# Lists of parts alone, the images of a message first (LLaVA).
PARTS = """{% for m in messages %}{{ m['role'] | upper }}: {% set said = m['content'] %}
{%- for part in said | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}
{%- for part in said | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}
{%- endfor %}ASSISTANT:"""
# Another beginning where there is an image (Llama 3.2 Vision).
HEADED = """{% set ns = namespace(seen=false) %}
{%- for m in messages if m['content'] is not string %}
    {%- for part in m['content'] if part['type'] == 'image' %}{% set ns.seen = true %}{% endfor %}
{%- endfor %}
{%- if not ns.seen %}<|head|>Today is Friday.<|eot|>{% endif %}
{%- for m in messages %}<|{{ m['role'] }}|>
    {%- if m['content'] is string %}{{ m['content'] }}{% else %}
    {%- for part in m['content'] %}
        {{- '<|image|>' if part['type'] == 'image' else part['text'] | trim }}
    {%- endfor %}{% endif %}<|eot|>
{%- endfor %}<|assistant|>"""
# The token has the same last character as what stands before it (Pixtral).
BRACKETS = """{% for m in messages %}{% set said = m['content'] %}
{%- if m['role'] == 'user' %}[INST]
    {%- if said is string %}{{ said }}{% else %}
    {%- for part in said | selectattr('type', 'equalto', 'image') %}[IMG]{% endfor %}
    {%- for part in said | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}
    {%- endif %}[/INST]
{%- else %}{{ said }}</s>{% endif %}{% endfor %}"""
# Looks at no parts (Phi-3.5-vision), prints them as Python does, or numbers its images.
BLIND = "{% for m in messages %}<|{{ m.role }}|>{{ m.content + '' }}<|end|>{% endfor %}<|assistant|>"
PRINTED = BLIND.replace("m.content + ''", "m.content")
NUMBERED = """{% set ns = namespace(n=0) %}
{%- for m in messages %}<|{{ m.role }}|>
    {%- if m.content is string %}{{ m.content }}{% else %}
    {%- for part in m.content %}
        {%- if part.type == 'image' %}{% set ns.n = ns.n + 1 %}<|image_{{ ns.n }}|>
        {%- else %}{{ part.text }}{% endif %}
    {%- endfor %}{% endif %}<|end|>
{%- endfor %}<|assistant|>"""

SOURCES = {"either": EITHER, "parts": PARTS, "headed": HEADED, "brackets": BRACKETS}
TOKENS = {
    "either": "<|vision_start|><|image_pad|><|vision_end|>",
    "parts": "<image>",
    "headed": "<|image|>",
    "brackets": "[IMG]",
}


def template(folder: Path, source: str) -> Template:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": source, "eos_token": "</s>"}))
    return load(str(folder))


def pictured(made: Template, *said: str) -> str:
    """The prompt of a user's message in which each empty text is an image."""
    assert made.image is not None
    content = "".join(text or made.image.text for text in said)
    return made.render([{"role": "user", "content": content}])


@pytest.mark.parametrize("name", SOURCES)
def test_its_token_is_found_out(tmp_path: Path, name: str) -> None:
    made = template(tmp_path, SOURCES[name])
    assert made.image is not None and made.image.text.strip() == TOKENS[name]
    assert made.guard.images == made.image.pieces


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("either", "<|im_start|>user\n{0}what is {0}?<|im_end|>\n<|im_start|>assistant"),
        ("parts", "USER: {0}\n{0}\nwhat is  ? ASSISTANT:"),
        ("headed", "<|user|>{0}what is{0}?<|eot|><|assistant|>"),
        ("brackets", "[INST]{0}{0}what is ?[/INST]"),
    ],
)
def test_images_are_shown_as_the_template_does(tmp_path: Path, name: str, wanted: str) -> None:
    made = template(tmp_path, SOURCES[name])
    assert pictured(made, "", "what is ", "", "?") == wanted.format(TOKENS[name])


def test_without_images_it_writes_what_it_always_wrote(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "what?"}]
    assert (
        template(tmp_path, HEADED).render(said)
        == "<|head|>Today is Friday.<|eot|><|user|>what?<|eot|><|assistant|>"
    )


def test_a_text_is_a_part_where_only_parts_are_shown(tmp_path: Path) -> None:
    made = template(tmp_path, PARTS)
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "what?"},
        {"role": "assistant", "content": "that"},
        {"role": "user", "content": "why?"},
    ]
    assert made.render(said) == "SYSTEM: Be brief. USER: what? ASSISTANT: that USER: why? ASSISTANT:"


@pytest.mark.parametrize("source", [BLIND, PRINTED, NUMBERED])
def test_one_that_shows_no_parts_or_numbers_them_has_no_token_of_its_own(tmp_path: Path, source: str) -> None:
    made = template(tmp_path, source)
    assert made.image is None
    told = made.with_image("<|image_{n}|>\n")
    assert told.image is not None
    prompt = told.render([{"role": "user", "content": told.image.of(1) + "what?"}])
    assert prompt == "<|user|><|image_1|>\nwhat?<|end|><|assistant|>"


def test_another_token_is_written_as_it_is(tmp_path: Path) -> None:
    made = template(tmp_path, EITHER).with_image("<picture>")
    assert "user\n<picture>what?<|im_end|>" in made.render([{"role": "user", "content": "<picture>what?"}])


@pytest.mark.parametrize("token", ["x", "{n}"])
def test_a_token_must_be_one_that_can_be_told_from_text(token: str) -> None:
    with pytest.raises(ValueError, match="cannot be a control string"):
        load("chatml").with_image(token)


@pytest.mark.torch
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("said", [["what?"], ["", "what?"], ["what is ", "", "?"], ["", "", "and ", ""]])
def test_it_is_what_transformers_makes_of_the_parts(tmp_path: Path, name: str, said: list[str]) -> None:
    rendering = pytest.importorskip("transformers.utils.chat_template_utils", reason="no transformers here")
    parts = [{"type": "text", "text": text} if text else {"type": "image"} for text in said]
    [wanted], _ = rendering.render_jinja_template(
        [[{"role": "user", "content": parts}]], chat_template=SOURCES[name], add_generation_prompt=True
    )
    assert pictured(template(tmp_path, SOURCES[name]), *said) == wanted
