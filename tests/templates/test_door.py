"""Templates are found by name, alias, file and repository; a file of one's own says what it is."""

from pathlib import Path

import pytest

from gateway.core.template import TemplateError, compile_template, split
from gateway.templates import load, names
from gateway.templates.folder import read_text
from tests.templates import TEMPLATES

HELLO = [{"role": "user", "content": "Hello"}]

SHORT_NAMES = {
    "vicuna": "vicuna_v1.1",
    "vicuna-v1.1": "vicuna_v1.1",
    "vicuna-13b-v1.5": "vicuna_v1.1",
    "yi": "Yi-34b-chat",
    "openchat": "openchat_3.5",
    "baichuan2": "baichuan2-chat",
    "llama2": "llama-2",
    "Llama-2-7b-chat": "llama-2",
    "chatglm-6b": "chatglm",
    "chatglm2-6b": "chatglm2",
    "THUDM/chatglm2-6b": "chatglm2",
    "chatglm3-6b": "chatglm3",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2.5",
    "qwen": "qwen-7b-chat",
    "qwen3-8b": "qwen3",
    "llama3": "llama-3",
    "llama3.1": "llama-3.1",
    "falcon-40b-instruct": "falcon",
    "phi3": "phi-3",
    "tinyllama": "TinyLlama",
    "gemma-2-9b-it": "gemma",
    "mistral-7b-instruct-v0.3": "mistral-v0.3",
    "gpt-oss-20b": "gpt-oss",
}


@pytest.mark.parametrize(("short", "name"), SHORT_NAMES.items())
def test_short_names_and_repositories_find_their_family(short: str, name: str) -> None:
    assert load(short).name == name


def test_no_name_or_alias_is_used_twice() -> None:
    known = [name for template in TEMPLATES for name in (template.name, *template.aliases)]
    keys = [name.casefold().replace("_", "-") for name in known]
    assert sorted(keys) == sorted(set(keys))
    assert all(load(name).name == template.name for template in TEMPLATES for name in template.aliases)


def test_built_in_templates_are_kept() -> None:
    assert load("vicuna") is load("vicuna_v1.1")
    assert names() == tuple(sorted(names(), key=str.casefold))


def test_every_template_ends_an_answer_somewhere() -> None:
    assert [template.name for template in TEMPLATES if not template.stops] == ["raw"]


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(TemplateError, match=r"no template 'vicunna': the nearest are vicuna_v1\.1"):
        load("vicunna")
    with pytest.raises(TemplateError, match="name a built-in one"):
        load("zzzz")
    with pytest.raises(TemplateError, match=r"'missing\.jinja': no such file"):
        load("missing.jinja")


def test_a_relative_path_starts_at_the_base(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[0]['content'] }}!")
    template = load("mine.jinja", tmp_path)
    assert template.name == "mine"
    assert template.render(HELLO) == "Hello!"
    (tmp_path / "mine.jinja").write_text("{{ messages[0]['content'] }}?")
    assert load("mine.jinja", tmp_path).render(HELLO) == "Hello?", "a file is read anew"


def test_a_file_of_ones_own_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(
        '{#+++\nsystem = "hoist"\ndefault_system = "Be good."\nstops = ["<q>"]\ncontrol = ["<q>", "<a>"]\n'
        'turns = ["<q>"]\nstop_token_ids = [7]\nnotes = "mine"\nbos = "<b>"\n+++#}\n'
        "{{ bos_token }}{{ system }}{% for m in messages %}<q>{{ m['content'] }}{% endfor %}<a>"
    )
    template = load(str(tmp_path / "mine.jinja"))
    assert template.render(HELLO) == "<b>Be good.<q>Hello<a>"
    assert (template.stops, template.stop_token_ids, template.notes) == (("<q>",), (7,), "mine")
    assert (template.control, template.turns) == (("<q>", "<a>"), ("<q>",))


def test_a_file_may_give_values_to_a_family(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(
        '{#+++\nfamily = "turns"\n[values]\nuser = "U"\nassistant = "A"\ncolon = ":"\nbare = ">"\n+++#}\n'
    )
    assert load(str(tmp_path / "mine.jinja")).render(HELLO) == "U:HelloA>"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('{#+++\nstop = ["x"]\n+++#}', "no key 'stop'; the nearest is 'stops'"),
        ("{#+++\nstops = x\n+++#}", "no TOML"),
        ("{#+++\nstops = 3\n+++#}", "stops: "),
        ('{#+++\nturns = ["<a>"]\n+++#}', "turns must be among control"),
        ('{#+++\ncontrol = ["<"]\n+++#}', "cannot be a control string"),
        ("{#+++\nfamily = 'nine'\n+++#}", "no family 'nine', only "),
        ("{#+++\nfamily = 'turns'\n[values]\nusre = 'x'\n+++#}", r"no values \['usre'\], only "),
        ("{#+++\nfamily = 'turns'\n+++#}\nbody", "no body of its own"),
        ("{{ 1", "line 1 of the template"),
        ("a\n{% if %}", "line 2 of the template"),
        ("{{ x | nofilter }}", "nofilter"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "mine.jinja").write_text(source)
    with pytest.raises(TemplateError, match=message) as caught:
        load("mine.jinja", tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateError, match=r"^mine\.jinja is not UTF-8$"):
        load("mine.jinja", tmp_path)
    with pytest.raises(TemplateError, match=f"^{tmp_path.name} cannot be read: "):
        read_text(tmp_path)


def test_a_comment_without_plus_signs_is_a_comment() -> None:
    assert split("{# stops = 1 #}x") == (None, "{# stops = 1 #}x")
    assert compile_template("mine", "{# (c) someone #}{{ messages[0]['content'] }}").render(HELLO) == "Hello"
