"""GLM-4: the name of the tool on a line, then its arguments as JSON.

Only the beginning of an answer can be a call, and only of a tool that was offered.
Source: https://huggingface.co/zai-org/glm-4-9b-chat-hf
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.tools import json_text
from gateway.core.tools.dialect import Dialect, Said
from gateway.core.tools.reader import Broken, Reader, Reading


def _read(reader: Reader) -> Reading[None]:
    yield from reader.opening(_call(reader))
    while (yield from reader.text_until("<|assistant|>")):
        yield from reader.attempt(_call(reader))


def _call(reader: Reader) -> Reading[None]:
    yield from reader.spaces()
    name = yield from reader.word()
    if name not in reader.tools:
        raise Broken
    yield from reader.spaces()
    yield from json_text.call_arguments(reader, name)


def _write(calls: Sequence[Said]) -> str:
    return "<|assistant|>".join(f"{call.name}\n{call.arguments}" for call in calls)


GLM4 = Dialect(
    name="glm4",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: content,
    begin="",
    begin_named=lambda name: f"{name}\n",
    parallel=False,
    stops=("<|observation|>",),
)
