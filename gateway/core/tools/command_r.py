"""Command R7B and Command A: ``<|START_ACTION|>[{"tool_name": ..., "parameters": {...}}]<|END_ACTION|>``.

The plan between ``<|START_THINKING|>`` and ``<|END_THINKING|>`` is reasoning; the tokens around a response
are markup. Source: https://docs.cohere.com/docs/command-r7b-hf
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.tools import json_text
from gateway.core.tools.dialect import Dialect, Said, object_begun, object_text
from gateway.core.tools.reader import Reader, Reading

ACTION, ACTION_END = "<|START_ACTION|>", "<|END_ACTION|>"
THINKING, THINKING_END = "<|START_THINKING|>", "<|END_THINKING|>"
RESPONSE, RESPONSE_END = "<|START_RESPONSE|>", "<|END_RESPONSE|>"
KEYS = ("tool_name", "parameters")


def _read(reader: Reader) -> Reading[None]:
    while marker := (yield from reader.text_until(ACTION, ACTION_END, THINKING, RESPONSE, RESPONSE_END)):
        if marker == ACTION:
            yield from reader.attempt(_calls(reader))
        elif marker == THINKING:
            reader.drop()
            yield from reader.attempt(_thinking(reader))
        elif marker != ACTION_END:
            reader.drop()
        else:
            reader.close()


def _calls(reader: Reader) -> Reading[None]:
    yield from reader.spaces()
    yield from json_text.call_list(reader)


def _thinking(reader: Reader) -> Reading[None]:
    yield from reader.raw_until((THINKING_END,), reader.think)
    reader.drop()


def _write(calls: Sequence[Said]) -> str:
    return f"{ACTION}[\n    {_joined(calls)}\n]{ACTION_END}"


def _joined(calls: Sequence[Said]) -> str:
    return ",\n    ".join(
        f'{{"tool_call_id": "{number}", {object_text(call, KEYS)[1:]}' for number, call in enumerate(calls)
    )


COMMAND_R = Dialect(
    name="command_r",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: content,
    begin=f"{ACTION}[\n",
    begin_named=lambda name: f"{ACTION}[\n    {object_begun(name, KEYS)}",
    always=True,
    keys=KEYS,
)
