"""JSON read as it comes: where a value ends, a string's value, and a call written as an object.

Rule: arguments that are a JSON object go on as their own source text; nothing is written anew.
Knows nothing about what stands around a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.core.tools.reader import MAX_NAME, Broken, Reader, Reading, Sink

NAMES = frozenset({"name", "tool_name"})
ARGUMENTS = frozenset({"arguments", "parameters"})
BESIDE = frozenset({"id", "type", "tool_call_id", "index"})  # what else calls are seen to hold

_MARKS = re.compile(r'["\\{}\[\]<]')
_SPECIAL = re.compile(r'["\\]')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class Extent:
    """Finds the end of one JSON object or array, fed in pieces. Bad nesting is not its concern."""

    def __init__(self) -> None:
        self.closed = False
        self.broken = False  # by a ``<`` outside strings: markup, where JSON has no such character
        self._depth = 0
        self._quoted = False
        self._escaped = False  # the next character is taken as it is

    def read(self, text: str, at: int) -> int:
        """Where reading ``text`` from ``at`` stops: behind the value, or at the end of the text."""
        if self._escaped and at < len(text):
            at, self._escaped = at + 1, False
        while mark := _MARKS.search(text, at):
            at = mark.end()
            if mark[0] == '"':
                self._quoted = not self._quoted
            elif self._quoted:
                if mark[0] == "\\":
                    self._escaped = at == len(text)
                    at += not self._escaped
            elif mark[0] == "<":
                self.broken = True
                return at - 1
            elif mark[0] != "\\":
                self._depth += 1 if mark[0] in "{[" else -1
                if self._depth == 0:
                    self.closed = True
                    return at
        return len(text)


def nested(reader: Reader, sink: Sink) -> Reading[None]:
    """One object or array, its source handed on as it comes. Raises ``Broken`` if it does not close."""
    extent = Extent()
    while True:
        start = reader.at
        reader.at = extent.read(reader.text, start)
        if reader.at > start:
            sink(reader.text[start : reader.at])
        if extent.closed:
            return
        if extent.broken:
            raise Broken
        yield from reader.wait()


def decoded(reader: Reader, sink: Sink) -> Reading[None]:
    """One JSON string, its value handed on as it comes. Half a surrogate pair becomes U+FFFD."""
    yield from reader.expect('"')
    yield from _until_quote(reader, sink)


def _until_quote(reader: Reader, sink: Sink) -> Reading[None]:
    while True:
        mark = _SPECIAL.search(reader.text, reader.at)
        start, stop = reader.at, mark.start() if mark else len(reader.text)
        reader.at = stop
        if stop > start:
            sink(reader.text[start:stop])
        if mark is None:
            yield from reader.wait()
            continue
        reader.at += 1
        if mark[0] == '"':
            return
        sink((yield from _escape(reader)))


def string(reader: Reader) -> Reading[str]:
    """One JSON string, decoded."""
    parts: list[str] = []
    yield from decoded(reader, parts.append)
    return "".join(parts)


def _escape(reader: Reader) -> Reading[str]:
    kind = yield from reader.peek()
    reader.at += 1
    if kind != "u":
        return _ESCAPES.get(kind, kind)
    unit = yield from _hex(reader)
    if 0xD800 <= unit < 0xDC00 and (yield from reader.takes("\\u")):
        low = yield from _hex(reader)
        if 0xDC00 <= low < 0xE000:
            return chr(0x10000 + ((unit - 0xD800) << 10) + low - 0xDC00)
        return "\ufffd" + _scalar(low)
    return _scalar(unit)


def _scalar(unit: int) -> str:
    return "\ufffd" if 0xD800 <= unit < 0xE000 else chr(unit)


def _hex(reader: Reader) -> Reading[int]:
    value = 0
    for _ in range(4):
        digit = yield from reader.peek()
        if digit not in "0123456789abcdefABCDEF":
            raise Broken
        reader.at += 1
        value = value * 16 + int(digit, 16)
    return value


def colon(reader: Reader) -> Reading[None]:
    """A colon with white space around it."""
    yield from reader.spaces()
    yield from reader.expect(":")
    yield from reader.spaces()


def skip(reader: Reader) -> Reading[None]:
    """Any value."""
    first = yield from reader.peek()
    if first in "{[":
        yield from nested(reader, len)
    elif first == '"':
        yield from decoded(reader, len)
    elif first in ",}]":
        raise Broken
    else:
        while (yield from reader.peek()) not in ",}] \t\r\n":
            reader.at += 1


def call_arguments(reader: Reader, name: str) -> Reading[None]:
    """The call of ``name``, of which the JSON object that comes next is the arguments."""
    if (yield from reader.peek()) != "{":
        raise Broken
    reader.start(name)
    yield from nested(reader, reader.pass_on)
    reader.end()


def call(reader: Reader, strict: bool = False, begun: bool = False) -> Reading[None]:
    """One call, ``{"name": ..., "arguments": {...}}`` in any order, or ``{"tool_calls": [...]}``.

    ``strict``, where nothing else marks a call: the name must be a tool's, and nothing else may stand in it.
    ``begun``: the brace that opens it has been read.
    """
    if not begun:
        yield from reader.expect("{")
    yield from _Call(reader, strict).read()


def calls(reader: Reader) -> Reading[None]:
    """A list of calls, or calls in a row."""
    if (yield from reader.peek()) == "[":
        yield from call_list(reader)
        return
    yield from call(reader)
    yield from reader.spaces()
    while (yield from reader.peek()) == "{":
        yield from call(reader)
        yield from reader.spaces()
    reader.rewind()


def call_list(reader: Reader, strict: bool = False, begun: bool = False) -> Reading[None]:
    """Calls in an array; an empty one is none. ``begun``: its bracket has been read."""
    if not begun:
        yield from reader.expect("[")
    while True:
        yield from reader.spaces()
        yield from reader.expect("{")
        yield from _Call(reader, strict, listed=True).read()
        yield from reader.spaces()
        if not (yield from reader.takes(",")):
            break
    yield from reader.expect("]")
    reader.drop()


class _Call:
    """One object on its way to being a call."""

    def __init__(self, reader: Reader, strict: bool, listed: bool = False) -> None:
        self._reader, self._strict = reader, strict
        self._listed = listed  # it stands in a list of calls, and can hold no other
        self._name: str | None = None
        self._waiting: list[str] | None = None  # arguments that came before the name
        self._done = False  # the call has begun, or it held a list of calls

    def read(self) -> Reading[None]:
        yield from self._fields(self._field)
        if not self._done:
            if self._name is None or self._strict:
                raise Broken
            self._start("{}")  # a marked call may lack arguments
            self._reader.end()
        self._reader.drop()

    def _fields(self, field: Callable[[str], Reading[None]]) -> Reading[None]:
        """An object behind its brace, each of its fields read by ``field``."""
        reader = self._reader
        while True:
            yield from reader.spaces()
            if (yield from reader.takes("}")):
                return
            key = yield from string(reader)
            yield from colon(reader)
            yield from field(key)
            yield from reader.spaces()
            if not (yield from reader.takes(",")):
                break
        yield from reader.expect("}")

    def _field(self, key: str) -> Reading[None]:
        """A field of the object itself: OpenAI's own shape has the call one level deeper."""
        first = yield from self._reader.peek()
        if key == "function" and first == "{":
            yield from self._reader.expect("{")
            yield from self._fields(self._inner)
        elif key == "function" and first == '"':
            yield from self._inner("name")
        elif key == "tool_calls" and first == "[" and not (self._listed or self._done):
            yield from call_list(self._reader, self._strict)
            self._done = True
        else:
            yield from self._inner(key)

    def _inner(self, key: str) -> Reading[None]:
        if key in NAMES and self._name is None:
            yield from self._named()
        elif key in ARGUMENTS and self._waiting is None and not self._done:
            yield from self._arguments()
        elif self._strict and key not in BESIDE:
            raise Broken
        else:
            yield from skip(self._reader)

    def _named(self) -> Reading[None]:
        name = (yield from string(self._reader)).strip()
        if not name or len(name) > MAX_NAME or (self._strict and name not in self._reader.tools):
            raise Broken
        self._name = name
        if self._waiting is not None and not self._done:
            self._start("".join(self._waiting))
            self._reader.end()

    def _arguments(self) -> Reading[None]:
        if self._name is None:
            self._waiting = []
            yield from arguments(self._reader, self._waiting.append)
        else:
            yield from arguments(self._reader, self._pass_on)
            self._reader.end()

    def _pass_on(self, text: str) -> None:
        if self._done:
            self._reader.pass_on(text)
        else:
            self._start(text)

    def _start(self, text: str) -> None:
        self._reader.start(self._name or "")
        self._done = True
        self._reader.pass_on(text)


def arguments(reader: Reader, sink: Sink) -> Reading[None]:
    """Arguments as an object, as the same inside a string, or null for none."""
    first = yield from reader.peek()
    if first == "{":
        yield from nested(reader, sink)
    elif first == '"':
        reader.at += 1
        yield from reader.spaces()
        inside = yield from reader.peek()
        if inside not in '"{':
            raise Broken
        if inside == '"':
            sink("{}")
        yield from _until_quote(reader, sink)
    else:
        yield from reader.expect("null")
        sink("{}")
