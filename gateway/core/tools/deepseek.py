"""DeepSeek V3, R1 and V3.1: calls between tokens of their own, the arguments in a fence or bare.

V3: ``function<｜tool▁sep｜>NAME``, then a JSON fence. V3.1: ``NAME<｜tool▁sep｜>{...}``.
Source: https://huggingface.co/deepseek-ai/DeepSeek-V3.1
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.tools import json_text
from gateway.core.tools.dialect import Dialect, Said
from gateway.core.tools.reader import Broken, Reader, Reading

ALL, ALL_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
ONE, SEP, ONE_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
FENCE = "```json"


def _read(reader: Reader) -> Reading[None]:
    while marker := (yield from reader.text_until(ALL, ONE, ONE_END, ALL_END)):
        if marker in (ALL, ONE):
            yield from reader.attempt(_call(reader, marker))
        elif reader.calls and not reader.spoke:
            reader.drop()
        else:
            reader.give_back()


def _call(reader: Reader, marker: str) -> Reading[None]:
    if marker == ALL:
        yield from reader.spaces()
        yield from reader.expect(ONE)
    yield from reader.spaces()
    name = yield from reader.word()
    yield from reader.expect(SEP)
    if (yield from reader.peek()) != "{":
        yield from _fenced(reader, name)
        return
    yield from json_text.call_arguments(reader, name)


def _fenced(reader: Reader, kind: str) -> Reading[None]:
    if kind != "function":
        raise Broken
    name = yield from reader.word()
    yield from reader.spaces()
    yield from reader.expect(FENCE)
    yield from reader.spaces()
    yield from json_text.call_arguments(reader, name)
    yield from reader.spaces()
    yield from reader.expect("```")
    reader.drop()


def _write(calls: Sequence[Said]) -> str:
    return ALL + "\n".join(f"{_begun(call.name)}{call.arguments}\n```{ONE_END}" for call in calls) + ALL_END


def _begun(name: str) -> str:
    return f"{ONE}function{SEP}{name}\n{FENCE}\n"


DEEPSEEK = Dialect(
    name="deepseek",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: f"<｜tool▁output▁begin｜>{content}<｜tool▁output▁end｜>",
    begin=f"{ALL}{ONE}function{SEP}",
    begin_named=lambda name: f"{ALL}{_begun(name)}",
)
