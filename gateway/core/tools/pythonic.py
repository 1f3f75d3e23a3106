"""Llama 3.2 and 4: ``[f(a=1), g(b='x')]`` as the whole answer.

``<|python_start|>`` and ``<|python_end|>`` may stand around it. Without them only tools that were offered
count: a list is an answer too. Source: https://www.llama.com/docs/model-cards-and-prompt-formats/llama4/
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.tools import python_text
from gateway.core.tools.dialect import Dialect, Said
from gateway.core.tools.python_text import call_text
from gateway.core.tools.reader import Broken, Reader, Reading

START, END = "<|python_start|>", "<|python_end|>"


def _read(reader: Reader) -> Reading[None]:
    yield from reader.opening(_calls(reader, strict=True))
    while marker := (yield from reader.text_until(START, END)):
        if marker == START:
            yield from reader.attempt(_calls(reader))
        else:
            reader.close()


def _calls(reader: Reader, strict: bool = False) -> Reading[None]:
    yield from reader.spaces()
    yield from reader.expect("[")
    while True:
        yield from reader.spaces()
        name = yield from reader.word()
        if strict and name not in reader.tools:
            raise Broken
        yield from reader.expect("(")
        yield from python_text.keywords(reader, name)
        yield from reader.spaces()
        if not (yield from reader.takes(",")):
            break
    yield from reader.expect("]")
    reader.drop()


def _write(calls: Sequence[Said]) -> str:
    return f"[{', '.join(call_text(call.name, call.members()) for call in calls)}]"


PYTHONIC = Dialect(
    name="pythonic",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: content,
    begin="[",
    begin_named=lambda name: f"[{name}(",
    json=False,
    stops=("<|eom_id|>", "<|eom|>"),
)
