"""Hermes, Qwen 2.5 and 3: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, anywhere.

A list of calls in one pair of tags counts too, and so do calls in a row, and a call without its closing tag:
models forget it before the next call. A closing tag without a call is text.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.tools import json_text
from gateway.core.tools.dialect import Dialect, Said, object_begun, object_text
from gateway.core.tools.reader import Reader, Reading

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def _read(reader: Reader) -> Reading[None]:
    while marker := (yield from reader.text_until(OPEN, CLOSE)):
        if marker == OPEN:
            yield from reader.attempt(_call(reader))
        else:
            reader.close()


def _call(reader: Reader) -> Reading[None]:
    yield from reader.spaces()
    yield from json_text.calls(reader)


def _write(calls: Sequence[Said]) -> str:
    return "\n".join(f"{OPEN}\n{object_text(call)}\n{CLOSE}" for call in calls)


HERMES = Dialect(
    name="hermes",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: f"<tool_response>\n{content}\n</tool_response>",
    begin=f"{OPEN}\n",
    begin_named=lambda name: f"{OPEN}\n{object_begun(name)}",
    keys=("name", "arguments"),
)
