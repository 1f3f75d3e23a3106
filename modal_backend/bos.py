"""Decide whether a prompt still needs its beginning-of-sequence token.

Rule: exactly one for a model that wants one. The prompt comes with its special tokens written out, so a
template may have put the token there already, and two of them are what no model was trained on.
Knows nothing about tokenizers: the caller says what its tokenizer does.
"""

from __future__ import annotations


def needs_bos(prompt: str, bos: str | None, *, added_by_default: bool) -> bool:
    """True if the engine must put ``bos`` in front of ``prompt``.

    ``added_by_default`` is what the tokenizer does to a plain text (``add_bos_token`` or its post-processor),
    and ``bos`` its text, None or empty for a tokenizer without one.
    """
    if not added_by_default or not bos:
        return False
    return not prompt.startswith(bos)
