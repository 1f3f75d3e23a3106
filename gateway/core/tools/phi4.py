"""Phi-4-mini: ``functools[{"name": ..., "arguments": {...}}]``, or that list behind ``<|tool_call|>``.

A call behind that token counts without a list too.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.tools import json_text
from gateway.core.tools.dialect import Dialect, Said, object_begun, object_text
from gateway.core.tools.reader import Reader, Reading

WORD, OPEN, CLOSE = "functools[", "<|tool_call|>", "<|/tool_call|>"


def _read(reader: Reader) -> Reading[None]:
    while marker := (yield from reader.text_until(WORD, OPEN, CLOSE)):
        if marker != CLOSE:
            yield from reader.attempt(_calls(reader, marker))
        else:
            reader.close()


def _calls(reader: Reader, marker: str) -> Reading[None]:
    if marker == WORD:
        yield from json_text.call_list(reader, begun=True)
        return
    yield from reader.spaces()
    yield from json_text.calls(reader)


def _write(calls: Sequence[Said]) -> str:
    return f"{WORD}{', '.join(object_text(call) for call in calls)}]"


PHI4_MINI = Dialect(
    name="phi4_mini",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: content,
    begin=WORD,
    begin_named=lambda name: f"{WORD}{object_begun(name)}",
    keys=("name", "arguments"),
)
