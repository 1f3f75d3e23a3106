"""Exactly one BOS for every family, end to end.

A prompt begins with one BOS or none; a backend adds one only if its tokenizer does so by default and the
prompt does not begin with it. The table says what the tokenizers of each family do.
"""

import pytest

from gateway.core.template import Template
from tests.templates import CONVERSATIONS, TEMPLATES

GLM, DEEPSEEK = "[gMASK]<sop>", "<｜begin▁of▁sentence｜>"

# BOS -> the families whose tokenizer adds it by default. The Llama and Mistral families are the rest.
ADDED = {
    "<bos>": {"gemma"},
    "<|begin_of_text|>": {"llama-3", "llama-3.1", "llama-3.2", "llama-3.2-vision"},
    DEEPSEEK: {"deepseek-coder", "deepseek-chat", "deepseek-v3", "deepseek-r1"},
    GLM: {"chatglm", "chatglm2", "chatglm3", "codegeex", "glm-4"},  # they call it the prefix tokens
}
# Families that use no BOS, and whose tokenizers add none.
WITHOUT = {
    *("dolly_v2", "oasst_pythia", "stablelm", "redpajama-incite", "rwkv", "polyglot_changgpt"),  # GPT-NeoX
    *("mpt-7b-chat", "mpt-30b-chat", "mpt-30b-instruct", "xgen", "starchat", "falcon", "falcon-chat"),
    *("phoenix", "ReaLM-7b-v1", "baichuan-chat", "baichuan2-chat", "Yi-34b-chat", "yuan", "yuan2"),
    *("aquila", "aquila-chat", "aquila-legacy", "aquila-v1"),
    *("qwen-7b-chat", "qwen2.5", "qwen2.5-coder", "qwen2-vl", "qwen3", "phi-4", "gpt-oss"),
}
# For any model: nothing is known of its tokenizer, so the prompt begins with no BOS of any family.
ANY = {"raw", "plain", "chatml", "claude"}
EVERY_BOS = ("<s>", "<|startoftext|>", "<|begin_of_text|>", "<bos>", DEEPSEEK, GLM)


def bos_of(template: Template) -> str | None:
    """The BOS that the tokenizer adds by default."""
    if template.name in WITHOUT | ANY:
        return None
    return next((bos for bos, family in ADDED.items() if template.name in family), "<s>")


def test_the_table_names_templates_that_exist() -> None:
    assert WITHOUT | ANY | set().union(*ADDED.values()) <= {template.name for template in TEMPLATES}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_one_bos_reaches_the_model(template: Template) -> None:
    bos = bos_of(template)
    for conversation in CONVERSATIONS.values():
        prompt = template.render(conversation["messages"], tools=conversation.get("tools"))
        if bos is None:
            assert not prompt.startswith(EVERY_BOS)
            continue
        tokenized = prompt if prompt.startswith(bos) else bos + prompt  # what the backend does
        assert tokenized.startswith(bos)
        assert not tokenized.removeprefix(bos).startswith(EVERY_BOS)


def test_text_cannot_forge_a_bos_at_the_start() -> None:
    for template in TEMPLATES:
        bos = bos_of(template)
        if bos in template.control:
            (message,), _ = template.guard.messages([{"role": "user", "content": bos}])
            assert not message["content"].startswith(bos)
