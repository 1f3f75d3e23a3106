"""Where JSON begins in what a model says.

Rule: a bracket opens a value only with what must follow it in JSON, so that prose such as {name} or {"name"}
is none: for an object that is a name and its colon. A string, a number or a word opens one only where the
answer or a code fence begins. What could still become an opening is waited for, so that the result does not
depend on cuts. Knows nothing about events.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

MAX_GAP = 256  # blanks between a bracket and what must follow it, or behind a fence
MAX_WORD = 400  # characters of a number
MAX_KEY = 128  # characters of a name; a longer one opens an object before its end has come

_CHARACTER = r'(?:[^"\\\x00-\x1f]|\\.)'  # of a name
_KEY = rf'"(?:{_CHARACTER}{{{MAX_KEY}}}|{_CHARACTER}{{0,{MAX_KEY}}}"\s{{0,{MAX_GAP}}}:)'
_KEY_BEGUN = rf'"{_CHARACTER}{{0,{MAX_KEY}}}(?:\\|"\s{{0,{MAX_GAP}}})?'
_AFTER = {"object": rf"\{{%s(?:{_KEY}|\}})", "array": r"\[%s(?:[\]\[{\"0-9-]|true|false|null)"}
_BEGUN = {"object": rf"\{{%s(?:{_KEY_BEGUN})?", "array": r"\[%s(?:t|tr|tru|f|fa|fal|fals|n|nu|nul)?"}
_GAP = rf"\s{{0,{MAX_GAP}}}"
_FENCE = r"(?P<fence>```[\w+-]{0,20}\s)"
_FENCE_BEGUN = r"`{1,2}|```[\w+-]{0,20}"
_WORD = re.compile(r"[-+.\w]*")
_SCALAR = {
    "number": re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"),
    "boolean": re.compile("true|false"),
    "null": re.compile("null"),
}


@dataclass(slots=True, frozen=True)
class Openings:
    """What to look for: the patterns for some types of value."""

    opening: re.Pattern[str]
    begun: re.Pattern[str]  # the end of a text that may become an opening
    string: bool
    scalars: tuple[re.Pattern[str], ...]

    @property
    def at_front(self) -> bool:
        """True if the place where an answer begins matters."""
        return self.string or bool(self.scalars)


@lru_cache(maxsize=64)  # there are 63 sets of types
def openings(kinds: frozenset[str]) -> Openings:
    brackets = [kind for kind in _AFTER if kind in kinds]
    scalars = tuple(pattern for kind, pattern in _SCALAR.items() if kind in kinds)
    string = "string" in kinds
    fences = string or bool(scalars)
    whole = [_AFTER[kind] % _GAP for kind in brackets] + [_FENCE] * fences
    begun = [_BEGUN[kind] % _GAP for kind in brackets] + [_FENCE_BEGUN] * fences
    return Openings(
        opening=re.compile("|".join(whole) or r"(?!)"),
        begun=re.compile(rf"(?:{'|'.join(begun)})\Z" if begun else r"(?!)"),
        string=string,
        scalars=scalars,
    )


class Found(NamedTuple):
    """A value begins at ``start``; ``length`` is known only for numbers and words."""

    start: int
    length: int | None


class Seeker:
    """Reads an answer from its beginning up to its value. Each character is looked at a few times."""

    def __init__(self, kinds: frozenset[str]) -> None:
        self._openings = openings(kinds)
        self._front = self._openings.at_front
        self._tail = ""  # what could still become an opening
        self._read = 0  # characters before it

    @property
    def passed(self) -> int:
        """Characters in which no value begins."""
        return self._read

    def feed(self, text: str, final: bool = False) -> Found | None:
        """The value's place in all that was read, as soon as it is certain."""
        whole, place = self._tail + text, 0
        while True:
            if self._front:
                found = self._at_front(whole, place, final)
                if isinstance(found, Found):
                    return found._replace(start=self._read + found.start)
                if found is None:
                    break
                self._front = False
            match = self._openings.opening.search(whole, place)
            begun = None if final else self._openings.begun.search(whole, place)
            if match is None or (begun is not None and begun.start() < match.start()):
                place = begun.start() if begun else len(whole)
                break
            place = match.end()
            if match.lastgroup != "fence":
                return Found(self._read + match.start(), None)
            self._front = True
        self._tail, self._read = whole[place:], self._read + place
        return None

    def _at_front(self, whole: str, place: int, final: bool) -> Found | bool | None:
        """The value that begins here; ``False`` if none does, ``None`` if that is not yet certain."""
        start = place
        while start < len(whole) and whole[start].isspace() and start - place <= MAX_GAP:
            start += 1
        if start == len(whole):
            return None
        if whole[start] == '"' and self._openings.string:
            return Found(start, None)
        word = _WORD.match(whole, start)
        assert word is not None  # it may be empty
        if word.end() == len(whole) and not final and len(word.group()) <= MAX_WORD:
            return None
        follows = whole[word.end() : word.end() + 1]
        if follows and not follows.isspace() and follows != "`":
            return False
        if any(pattern.fullmatch(word.group()) for pattern in self._openings.scalars):
            return Found(start, len(word.group()))
        return False
