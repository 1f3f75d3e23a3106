"""One argument written as plain text, read as it comes and passed on as JSON.

Rule: what its schema allows decides. A text where a string is allowed and nothing else fits is one, to the
character, and goes on as soon as it can be nothing else. What may be a literal is kept until it ends; one
longer than ``MAX_VALUE`` goes on from there as it came. Knows nothing about what stands around a value.
"""

from __future__ import annotations

import re

from gateway.core.tools.kinds import ANY, STRING, Kinds, kind_of
from gateway.core.tools.literals import literal, quoted
from gateway.core.tools.reader import MAX_VALUE, Reader, Reading, Sink

MAX_WORD = 64  # characters of a number or word, with the white space around it

_NUMBER = re.compile(r"[\d\s.eE+-]*")
_WORDS = {"null": ("null", "None"), "boolean": ("true", "false", "True", "False")}
_OPENING = {"array": "[(", "object": "{"}
_UNQUOTED = frozenset({"integer", "boolean"})


class Value:
    """A value on its way to ``sink``. What it becomes does not depend on how the text is cut.

    Without ``kinds`` it is source, where strings have quotes: white space around it means nothing.
    """

    def __init__(self, sink: Sink, kinds: Kinds | None = None) -> None:
        self._sink, self._kinds = sink, ANY if kinds is None else kinds
        self._kept: list[str] = []
        self._size = 0
        self._bare = kinds is None
        self._literal = kinds is None  # kept until it ends
        self._words = [word for kind, words in _WORDS.items() if kind in self._kinds for word in words]
        self._opening = "".join(mark for kind, mark in _OPENING.items() if kind in self._kinds)
        if "string" not in self._kinds or self._kinds & _UNQUOTED:  # quotes tell a string from a number
            self._opening += "\"'"
        self._passes: Sink | None = None  # how pieces go on, once that is decided
        if kinds == STRING:
            self._says()

    def read(self, text: str) -> None:
        """The next piece."""
        if self._passes is not None:
            self._passes(text)
            return
        self._kept.append(text)
        self._size += len(text)
        if self._literal:
            if self._size > MAX_VALUE:
                self._goes_on()
            return
        source = self._source()
        start = source.lstrip()
        if start and start[0] in self._opening:
            self._literal = True
        elif len(source) > MAX_WORD or not self._may_be(start):
            self._says()

    def end(self) -> None:
        """The value is complete."""
        if self._passes is None:
            source = self._source().strip() if self._bare else self._source()
            found = literal(source.strip())
            fits = found is not None and (kind_of(found) in self._kinds or "string" not in self._kinds)
            self._sink(found if fits and found is not None else quoted(source))
        elif self._passes == self._string:
            self._sink('"')

    def _may_be(self, start: str) -> bool:
        """Whether a text that begins so can be a number or a word; what cannot, cannot any more."""
        if any(word.startswith(start) or start.rstrip() == word for word in self._words):
            return True
        return not start or ("integer" in self._kinds and _NUMBER.fullmatch(start) is not None)

    def _says(self) -> None:
        """It is a string."""
        self._passes = self._string
        self._sink('"')
        self._release()

    def _goes_on(self) -> None:
        """It is too long to be looked at as a whole."""
        if self._source().lstrip()[0] in '[{"':
            self._passes = self._sink
            self._release()
        else:
            self._says()

    def _string(self, text: str) -> None:
        self._sink(quoted(text)[1:-1])

    def _source(self) -> str:
        if len(self._kept) > 1:
            self._kept = ["".join(self._kept)]
        return self._kept[0] if self._kept else ""

    def _release(self) -> None:
        kept, self._kept = self._source(), []
        if kept and self._passes is not None:
            self._passes(kept)


def value_until(
    reader: Reader, kinds: Kinds, end: str, others: tuple[str, ...] = (), trim: str = ""
) -> Reading[None]:
    """A value up to ``end``, which is read, or to one of ``others``, which is not.

    ``trim`` before it is left out.
    """
    value = Value(reader.pass_on, kinds)
    found = yield from reader.raw_until((end, *others), value.read, trim)
    if found != end:
        reader.at -= len(found)
    value.end()
