"""Where a JSON value ends in text that comes in pieces.

Rule: strings, escapes and nesting are followed and nothing else; whether the value is right is judged when it
is whole. Each character is looked at once. Knows nothing about events or schemas.
"""

from __future__ import annotations

import re

# Outside strings only brackets count, and strings: whole ones, or the quote that begins one. Inside a string
# that began in an earlier piece, only quotes and backslashes do.
_MARKS = re.compile(r'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.DOTALL)
_STRING_MARKS = re.compile(r'["\\]')


class Scanner:
    """Follows one object, array or string from its first character to its last."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False  # the last piece ended behind a backslash

    def end(self, text: str, start: int = 0) -> int:
        """The place behind the value's last character, or -1 if it goes on after ``text``."""
        place = start
        while place < len(text):
            if self._quoted:
                place, self._quoted = self._in_string(text, place)
                if not (self._quoted or self._depth):
                    return place
                continue
            found = _MARKS.search(text, place)
            if found is None:
                return -1
            place = found.end()
            mark = text[found.start()]
            if mark == '"':
                self._quoted = place == found.start() + 1
                if not (self._quoted or self._depth):
                    return place
            elif mark in "{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth <= 0:
                    return place
        return -1

    def _in_string(self, text: str, place: int) -> tuple[int, bool]:
        """The place behind the string's end, or behind ``text``, and whether the string goes on."""
        if self._escaped:
            self._escaped = False
            place += 1
        while found := _STRING_MARKS.search(text, place):
            place = found.end()
            if found.group() == '"':
                return place, False
            self._escaped = place == len(text)
            place += 1
        return len(text), True
