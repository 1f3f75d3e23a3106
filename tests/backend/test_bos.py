"""Exactly one beginning-of-sequence token, whatever the template already wrote."""

from __future__ import annotations

import pytest

from modal_backend.bos import needs_bos


@pytest.mark.parametrize(
    ("prompt", "bos", "added_by_default", "wanted"),
    [
        ("[INST] Hi [/INST]", "<s>", True, True),
        ("<s>[INST] Hi [/INST]", "<s>", True, False),
        ("<|begin_of_text|>Hi", "<|begin_of_text|>", True, False),
        ("Hi <s>", "<s>", True, True),  # not at the beginning
        (" <s>Hi", "<s>", True, True),  # the first token would be the space
        ("", "<s>", True, True),
        ("<|im_start|>user\nHi", None, True, False),  # a tokenizer without one
        ("<|im_start|>user\nHi", "", True, False),
        ("Hi", "<s>", False, False),  # one that the model was not trained to see
        ("<s>Hi", "<s>", False, False),
    ],
)
def test_it_is_added_only_where_it_belongs(
    prompt: str, bos: str | None, added_by_default: bool, wanted: bool
) -> None:
    assert needs_bos(prompt, bos, added_by_default=added_by_default) is wanted
