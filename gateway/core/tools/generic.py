"""For models that were trained on no format: JSON as the instructions ask for it, in a fence or not.

``{"tool_calls": [...]}``, one call, or a list of calls, as the whole answer, on a line of its own, or in a
fence. Nothing marks a call but its shape, so only tools that were offered count, and nothing else may stand
in the object.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.tools import json_text
from gateway.core.tools.dialect import Dialect, Said, object_begun, object_text
from gateway.core.tools.reader import Reader, Reading

FENCE, LINE = "```", "\n{"


def _read(reader: Reader) -> Reading[None]:
    yield from reader.opening(_calls(reader))
    while marker := (yield from reader.text_until(FENCE, LINE)):
        yield from reader.attempt(_fenced(reader) if marker == FENCE else _object(reader))


def _calls(reader: Reader) -> Reading[None]:
    yield from reader.spaces()
    if (yield from reader.peek()) == "[":
        yield from json_text.call_list(reader, strict=True)
    else:
        yield from json_text.call(reader, strict=True)


def _object(reader: Reader) -> Reading[None]:
    yield from json_text.call(reader, strict=True, begun=True)


def _fenced(reader: Reader) -> Reading[None]:
    if not (yield from reader.peek()).isspace():
        yield from reader.word()
    yield from _calls(reader)
    yield from reader.spaces()
    yield from reader.expect(FENCE)
    reader.drop()


def _write(calls: Sequence[Said]) -> str:
    return f'{{"tool_calls": [{", ".join(object_text(call) for call in calls)}]}}'


GENERIC = Dialect(
    name="generic",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: f"Result of {name}:\n{content}",
    begin='{"tool_calls": [',
    begin_named=lambda name: f'{{"tool_calls": [{object_begun(name)}',
    keys=("name", "arguments"),
)
