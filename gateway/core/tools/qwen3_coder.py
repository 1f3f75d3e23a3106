"""Qwen3-Coder: ``<function=NAME><parameter=KEY>VALUE</parameter></function>`` in ``<tool_call>``.

A value is the text between its tags without the line ends beside them. One that the tool's schema lets be a
string is one where nothing else fits; anything else is read as JSON or a literal, and is a string if it is
neither. The outer tag may be missing, and so may the one that ends a value: the next tag ends it too. Source:
https://huggingface.co/Qwen/Qwen3-Coder-480B-A35B-Instruct
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core.tools.dialect import Dialect, Said, plain
from gateway.core.tools.kinds import kinds_of
from gateway.core.tools.literals import quoted
from gateway.core.tools.reader import MAX_NAME, Broken, Reader, Reading
from gateway.core.tools.values import value_until

OPEN, FUNCTION, CLOSE = "<tool_call>", "<function=", "</tool_call>"
FUNCTION_END, PARAMETER, PARAMETER_END = "</function>", "<parameter=", "</parameter>"


def _read(reader: Reader) -> Reading[None]:
    while marker := (yield from reader.text_until(OPEN, FUNCTION, CLOSE)):
        if marker != CLOSE:
            yield from reader.attempt(_call(reader, marker))
        else:
            reader.close()


def _call(reader: Reader, marker: str) -> Reading[None]:
    if marker == OPEN:
        yield from reader.spaces()
        yield from reader.expect(FUNCTION)
    name = (yield from _until(reader, ">")).strip()
    if not name:
        raise Broken
    reader.start(name)
    reader.pass_on("{")
    try:
        yield from _parameters(reader, reader.tools.get(name, {}))
    except Broken:
        reader.spill()
        raise
    reader.pass_on("}")
    reader.end()


def _parameters(reader: Reader, schema: Mapping[str, Any]) -> Reading[None]:
    separator = ""
    while True:
        yield from reader.spaces()
        if (yield from reader.sees(FUNCTION_END, PARAMETER)) != PARAMETER:
            break
        yield from reader.expect(PARAMETER)
        key = (yield from _until(reader, ">")).strip()
        reader.pass_on(f"{separator}{quoted(key)}: ")
        yield from reader.takes("\n")
        yield from value_until(reader, kinds_of(schema, key), PARAMETER_END, (PARAMETER, FUNCTION_END), "\n")
        separator = ", "
    yield from reader.expect(FUNCTION_END)


def _until(reader: Reader, end: str) -> Reading[str]:
    parts: list[str] = []
    while (letter := (yield from reader.peek())) != end:
        parts.append(letter)
        if len(parts) > MAX_NAME or letter in "<\n":
            raise Broken
        reader.at += 1
    reader.at += 1
    return "".join(parts)


def _write(calls: Sequence[Said]) -> str:
    return "\n".join(_tags(call) for call in calls)


def _tags(call: Said) -> str:
    lines = [OPEN, f"{FUNCTION}{call.name}>"]
    for key, value in call.members().items():
        lines += [f"{PARAMETER}{key}>", plain(value), PARAMETER_END]
    return "\n".join([*lines, FUNCTION_END, CLOSE])


QWEN3_CODER = Dialect(
    name="qwen3_coder",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: f"<tool_response>\n{content}\n</tool_response>",
    begin=f"{OPEN}\n{FUNCTION}",
    begin_named=lambda name: f"{OPEN}\n{FUNCTION}{name}>\n",
    json=False,
)
