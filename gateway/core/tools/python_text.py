"""Arguments as Python's keywords, read as they come and passed on as JSON.

Rule: a value that has no JSON becomes a string of its source. Each argument goes on when it is complete, or
too long to wait for. Knows nothing about what stands around a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gateway.core.tools.reader import Broken, Reader, Reading
from gateway.core.tools.values import Value

_MARKS = re.compile(r"""["'\\()\[\]{},]""")


class Extent:
    """Finds the comma or bracket behind a value, fed in pieces."""

    def __init__(self) -> None:
        self.closed = False
        self._depth = 0
        self._quote = ""
        self._escaped = False

    def read(self, text: str, at: int) -> int:
        """Where reading ``text`` from ``at`` stops: before what ends the value, or at the end of the text."""
        if self._escaped and at < len(text):
            at, self._escaped = at + 1, False
        while mark := _MARKS.search(text, at):
            at, found = mark.end(), mark[0]
            if found == "\\":
                self._escaped = at == len(text)
                at += not self._escaped
            elif self._quote:
                self._quote = "" if found == self._quote else self._quote
            elif found in "\"'":
                self._quote = found
            elif self._ends(found):
                self.closed = True
                return at - 1
        return len(text)

    def _ends(self, found: str) -> bool:
        if self._depth == 0 and found in ",)]}":
            return True
        self._depth += (found in "([{") - (found in ")]}")
        return False


def keywords(reader: Reader, name: str) -> Reading[None]:
    """The call of ``name``, of which ``a=1, b='x')`` comes next: behind the bracket that opens it."""
    reader.start(name)
    reader.pass_on("{")
    try:
        yield from _members(reader)
    except Broken:
        reader.spill()
        raise
    reader.pass_on("}")
    reader.end()


def _members(reader: Reader) -> Reading[None]:
    separator = ""
    while True:
        yield from reader.spaces()
        if (yield from reader.takes(")")):
            return
        key = yield from reader.word()
        yield from reader.spaces()
        yield from reader.expect("=")
        yield from reader.spaces()
        reader.pass_on(f"{separator}{json.dumps(key)}: ")
        yield from _value(reader)
        separator = ", "
        if not (yield from reader.takes(",")):
            break
    yield from reader.expect(")")


def _value(reader: Reader) -> Reading[None]:
    extent, value = Extent(), Value(reader.pass_on)
    if (yield from reader.peek()) in ",)]}":
        raise Broken
    while not extent.closed:
        start = reader.at
        reader.at = extent.read(reader.text, start)
        value.read(reader.text[start : reader.at])
        if not extent.closed:
            yield from reader.wait()
    value.end()


def call_text(name: str, members: Mapping[str, Any]) -> str:
    """A call as Python writes it."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in members.items())})"
