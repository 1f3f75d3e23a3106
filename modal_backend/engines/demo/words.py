"""The words of a text, as far as two texts can be compared by the words that they share.

Rule: English words of three letters or more, without a plural's s and without those that are in every text,
and pairs of Chinese characters. Knows nothing about what the texts are for.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z]{3,}|[\u3400-\u4dbf\u4e00-\u9fff]{2,}")
_COMMON = frozenset(
    ("all", "and", "any", "are", "can", "for", "from", "function", "get", "give", "has", "how", "its", "not",
     "one", "our", "that", "the", "this", "tool", "use", "value", "was", "what", "when", "where", "which",
     "who", "why", "with", "you", "your")
)  # fmt: skip


def words(text: str) -> set[str]:
    """Each of them once, in small letters; ``getForecast`` and ``get_forecast`` are two words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text)
    found: set[str] = set()
    for word in _WORD.findall(spaced.lower()):
        if word.isascii():
            found.add(word.removesuffix("s"))
        else:
            found |= {word[at : at + 2] for at in range(len(word) - 1)}
    return found - _COMMON
