"""Llama 3.1 and later: ``{"name": ..., "parameters": {...}}`` as the whole answer.

``<|python_tag|>`` may stand before it. Several calls are parted by ``;``.
``<function=NAME>{...}</function>``, the format for tools of one's own, counts anywhere. A bare object is a
call only at the very start and of a tool that was offered: else it is an answer in JSON. Source:
https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.tools import json_text
from gateway.core.tools.dialect import Dialect, Said, object_begun, object_text
from gateway.core.tools.reader import Reader, Reading

TAG, FUNCTION = "<|python_tag|>", "<function="
KEYS = ("name", "parameters")


def _read(reader: Reader) -> Reading[None]:
    yield from reader.opening(_objects(reader, strict=True))
    while marker := (yield from reader.text_until(TAG, FUNCTION)):
        yield from reader.attempt(_objects(reader) if marker == TAG else _function(reader))


def _objects(reader: Reader, strict: bool = False) -> Reading[None]:
    while True:
        yield from reader.spaces()
        yield from json_text.call(reader, strict)
        yield from reader.spaces()
        if (yield from reader.takes(";", ",")):
            yield from reader.spaces()


def _function(reader: Reader) -> Reading[None]:
    name = yield from reader.word()
    yield from reader.expect(">")
    yield from reader.spaces()
    yield from json_text.call_arguments(reader, name)
    yield from reader.spaces()
    yield from reader.expect("</function>")
    reader.drop()


def _write(calls: Sequence[Said]) -> str:
    return "; ".join(object_text(call, KEYS) for call in calls)


LLAMA = Dialect(
    name="llama3_json",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: content,
    begin='{"name": "',
    begin_named=lambda name: object_begun(name, KEYS),
    bare=True,
    keys=KEYS,
    stops=("<|eom_id|>",),
)
