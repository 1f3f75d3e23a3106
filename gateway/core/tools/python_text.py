"""Arguments that are not JSON, Python's keywords and plain text, read as they come and passed on as JSON.

Rule: nothing is evaluated. A value that has no JSON becomes a string of its source. Each argument goes on
when it is complete. Knows nothing about what stands around a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.core.tools.reader import Broken, Reader, Reading

_MARKS = re.compile(r"""["'\\()\[\]{},]""")
_TOKEN = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(\w[\w.]*)|(.)""", re.DOTALL)
_ESCAPED = re.compile(
    r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}|.)", re.DOTALL
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": "", "0": "\0"}
_SAME = frozenset("\\'\"")
_WORDS = {"True": "true", "False": "false", "None": "null", "(": "[", ")": "]", ",": ", ", ":": ": "}


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
        value = as_json((yield from _value(reader)))
        reader.pass_on(f"{separator}{json.dumps(key)}: {value}")
        separator = ", "
        if not (yield from reader.takes(",")):
            break
    yield from reader.expect(")")


def _value(reader: Reader) -> Reading[str]:
    extent, parts = Extent(), list[str]()
    while not extent.closed:
        start = reader.at
        reader.at = extent.read(reader.text, start)
        parts.append(reader.text[start : reader.at])
        if not extent.closed:
            yield from reader.wait()
    source = "".join(parts).strip()
    if not source:
        raise Broken
    return source


def call_text(name: str, members: Mapping[str, Any]) -> str:
    """A call as Python writes it."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in members.items())})"


def value_until(reader: Reader, end: str, schema: Any, trim: str = "") -> Reading[None]:
    """A value in plain text up to ``end``, ``trim`` before that left out, passed on as JSON.

    What ``schema`` declares a string is one and streamed; anything else is one if it can be nothing else.
    """
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        reader.pass_on('"')
        yield from reader.raw_until((end,), lambda piece: reader.pass_on(quoted(piece)[1:-1]), trim)
        reader.pass_on('"')
        return
    parts: list[str] = []
    yield from reader.raw_until((end,), parts.append, trim)
    source = "".join(parts)
    reader.pass_on(as_json(source.strip()) if source.strip() else quoted(source))


def as_json(source: str) -> str:
    """A literal of Python or JSON as JSON; anything else as a string of its source."""
    for text in (source, _translated(source)):
        try:
            orjson.loads(text)
        except ValueError:
            continue
        return text
    return quoted(source)


def _translated(source: str) -> str:
    out: list[str] = []
    for match in _TOKEN.finditer(source):
        text, word, other = match.groups()
        if text is not None:
            out.append(quoted(_ESCAPED.sub(_unescaped, text[1:-1])))
        elif word is not None:
            out.append(_WORDS.get(word, word))
        elif not other.isspace():
            if other in ")]}" and out and out[-1] == ", ":
                out.pop()
            out.append(_WORDS.get(other, other))
    return "".join(out)


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) > 1:
        return chr(int(code[1:], 16))
    return code if code in _SAME else _ESCAPES.get(code, match[0])


def quoted(text: str) -> str:
    """A JSON string; half of a surrogate pair stays an escape, so that the text has an encoding."""
    try:
        return orjson.dumps(text).decode()
    except TypeError:
        return json.dumps(text)
