"""An honest guess at how many tokens a text has, for answers whose upstream did not count.

Rule: never presented as a count: usage made from it is labelled ``estimate``. Chinese, Japanese and Korean
characters count one each (their tokenizers give 0.6 to 1.5), other text one per four characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable

CHARACTERS_PER_TOKEN = 4  # English prose on byte-pair vocabularies of 32k to 200k entries: 3.5 to 4.5
_WIDE = re.compile(
    "[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]+"
)  # CJK radicals to unified ideographs, Hangul, compatibility forms, the supplementary planes


def estimate(text: str) -> int:
    """Tokens of ``text``, roughly; 0 only for no text."""
    if text.isascii():
        return -(-len(text) // CHARACTERS_PER_TOKEN)
    wide = sum(map(len, _WIDE.findall(text)))
    return wide - (-(len(text) - wide) // CHARACTERS_PER_TOKEN)


COUNTED_AT_ONCE = 1 << 14  # characters: a longer text is counted in parts, each cut costing a token at most


class Tally:
    """The tokens of a text that comes in pieces.

    Without a tokenizer only characters are kept, not the text.
    """

    __slots__ = ("_count", "_counted", "_held", "_narrow", "_pieces", "_wide")

    def __init__(self, count: Callable[[str], int] | None = None) -> None:
        self._count = count
        self._pieces: list[str] = []
        self._held = self._counted = 0  # characters in them; tokens of earlier ones
        self._narrow = 0
        self._wide = 0

    def add(self, text: str) -> None:
        if self._count is not None:
            self._pieces.append(text)
            self._held += len(text)
            if self._held > COUNTED_AT_ONCE:
                self._counted, self._pieces, self._held = self.total(), [], 0
        elif text.isascii():
            self._narrow += len(text)
        else:
            wide = sum(map(len, _WIDE.findall(text)))
            self._wide += wide
            self._narrow += len(text) - wide

    def total(self) -> int:
        if self._count is not None:
            return self._counted + self._count("".join(self._pieces))
        return self._wide - (-self._narrow // CHARACTERS_PER_TOKEN)
