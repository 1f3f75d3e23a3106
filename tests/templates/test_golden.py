"""Every built-in template writes, byte for byte, what its golden file says.

The prompts of the FastChat names were made by FastChat 0.2.36 itself and compared with these files, but for
what the `notes` say of system messages (`falcon`, `deepseek-chat`, `yuan`). Those of models that publish a
template of their own were compared with that template, rendered by transformers.
"""

import json

import pytest

from gateway.core.template import Template
from tests.conftest import Golden
from tests.templates import CONVERSATIONS, GOLDEN, TEMPLATES

TEXT_TOOLS = ("chatglm2", "plain")  # two of the templates that show tools as text


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_prompts_are_the_golden_ones(template: Template, golden: Golden) -> None:
    prompts = {
        name: template.render(conversation["messages"], tools=conversation.get("tools"))
        for name, conversation in CONVERSATIONS.items()
        if "tools" not in conversation or template.renders_tools or template.name in TEXT_TOOLS
    }
    text = json.dumps({"stops": template.stops, "prompts": prompts}, ensure_ascii=False, indent=1)
    golden.check(GOLDEN / f"{template.name}.json", text + "\n")


def test_each_golden_file_has_its_template() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == {template.name for template in TEMPLATES}
