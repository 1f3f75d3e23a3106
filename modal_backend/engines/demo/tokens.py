"""The demo's idea of a token: a word with the space before it, a CJK character, or a mark.

Rule: the tokens of a text join to the text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from zlib import crc32

from modal_backend.engine import Alternative, Logprob

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
_TOKEN = re.compile(rf" ?[^\W\d_{_CJK}]+| ?\d+|\s+|.", re.DOTALL)

_OTHERS = (
    " the", " a", " of", " and", " to", " in", " is", " it", " on", " as",
    "的", "是", "在", "有", "和", ",", ".", "!", "?", "\n", " so",
)  # fmt: skip


def tokens(text: str) -> Iterator[str]:
    """The tokens of ``text``, one after the other."""
    return (found[0] for found in _TOKEN.finditer(text))


def logprob(token: str, position: int, alternatives: int) -> Logprob:
    """A made-up probability from 0.5 to 0.95, the same for the same token at the same position.

    ``alternatives`` entries stand beside it, at most 20, the token itself first; each of the others has half
    of what is left.
    """
    chance = 0.5 + 0.45 * crc32(f"{position}:{token}".encode(errors="replace")) / 0xFFFFFFFF
    top = [_alternative(token, chance)] if alternatives else []
    left = 1 - chance
    for other in [other for other in _OTHERS if other != token][: max(alternatives - 1, 0)]:
        left /= 2
        top.append(_alternative(other, left))
    return Logprob(token, math.log(chance), token.encode(errors="replace"), tuple(top))


def _alternative(token: str, chance: float) -> Alternative:
    return Alternative(token, math.log(chance), token.encode(errors="replace"))
