"""A model folder renders as transformers renders it."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.templates import load
from tests.templates import CONVERSATIONS, TEMPLATES

pytestmark = pytest.mark.torch
REASON = "transformers is not installed: `make test-torch` installs it"

CHATML = """{% for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim }}
    {%- generation %}<|im_end|>{% endgeneration %}{{ '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>
{% endif %}{% endif %}"""

EVERYTHING = """{{ bos_token }}{{ unk_token }}{{ pad_token }}{{ sep_token }}
{%- if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}
{%- if tools %}{{ tools | tojson(indent=2) }}{% else %}{{ tools }}{% endif %}
{%- for document in documents or [] %}
  {{ loop.index }}. {{ document['title'] }}: {{ document.text | tojson }}
{% endfor %}
{%- set ns = namespace(users=0) %}
{%- for m in messages %}
    {%- if m.role == 'user' %}{% set ns.users = ns.users + 1 %}{% endif %}
    {%- if loop.index > 20 %}{% break %}{% endif %}
    {%- if m.tool_calls %}
        {%- for call in m.tool_calls %}
            {{- call.function.name }}({{ call.function.arguments | tojson }})
        {%- endfor %}
    {%- elif 'reasoning_content' in m %}
        {{- m.thinking }}
    {%- endif %}
    {{- m.role | upper }}: {{ m.content }}{{ eos_token }}{{ m.nothing }}
{%- endfor %}
{{- ns.users }}{{ colour | default('red') }}{{ dict(a=1) | items | list }}{{ messages[-1] | length > 9 }}"""

OPTIONS: list[dict[str, Any]] = [{}, {"enable_thinking": False, "colour": "blé", "pad_token": "<pad2>"}]
DOCUMENTS = [{"title": "A <b>", "text": "é\n"}, {"title": "C", "text": '"'}]


def folder_of(tmp_path: Path, source: str) -> Path:
    """A model folder with a tokenizer of three words, as transformers needs it."""
    model = {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1, "b": 2}, "unk_token": "<unk>"}
    special = [{"id": 0, "content": "<unk>", "special": True}]
    rest = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer = {"version": "1.0", "added_tokens": [token | rest for token in special], "model": model}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": source,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": {"__type": "AddedToken", "content": "<pad>", **rest},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def objects(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages as Hugging Face wants them: the arguments of calls as objects."""
    read = json.loads(json.dumps(messages))
    for message in read:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return read


# The first has no tools, and what a template would drop we show: there the two differ on purpose.
CASES = [("chatml", name) for name in CONVERSATIONS if "tools" not in CONVERSATIONS[name]]
CASES += [("everything", name) for name in CONVERSATIONS]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("source", "conversation"), CASES)
def test_a_folder_renders_as_transformers_does(
    tmp_path: Path, source: str, conversation: str, options: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers", reason=REASON)
    folder = folder_of(tmp_path, {"chatml": CHATML, "everything": EVERYTHING}[source])
    messages, tools = CONVERSATIONS[conversation]["messages"], CONVERSATIONS[conversation].get("tools")
    wanted = transformers.AutoTokenizer.from_pretrained(folder).apply_chat_template(
        objects(messages),
        tools=tools,
        documents=DOCUMENTS,
        add_generation_prompt=True,
        tokenize=False,
        **options,
    )
    template = load(str(folder))
    given = {"tools": tools, "documents": DOCUMENTS, "options": options, "now": datetime.now()}
    assert template.render(messages, **given) == wanted


def test_our_own_templates_render_alike_in_transformers() -> None:
    """The body of a template whose messages stay as they are is a Hugging Face template."""
    rendering = pytest.importorskip("transformers.utils.chat_template_utils", reason=REASON)
    source = (Path(__file__).parents[2] / "gateway/templates/families/chatml.jinja").read_text("utf-8")
    messages = CONVERSATIONS["rounds"]["messages"]
    rendered, _ = rendering.render_jinja_template([messages], chat_template=source)
    chatml = next(template for template in TEMPLATES if template.name == "chatml")
    assert rendered == [chatml.render(messages)]
