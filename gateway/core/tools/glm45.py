"""GLM-4.5 and later: ``<tool_call>NAME<arg_key>K</arg_key><arg_value>V</arg_value></tool_call>``.

A value that the tool's schema lets be a string is one where nothing else fits; anything else is read as JSON
or a literal, and is a string if it is neither. Source: https://huggingface.co/zai-org/GLM-4.5
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core.tools.dialect import Dialect, Said, plain
from gateway.core.tools.kinds import kinds_of
from gateway.core.tools.literals import quoted
from gateway.core.tools.reader import Broken, Reader, Reading
from gateway.core.tools.values import value_until

OPEN, CLOSE = "<tool_call>", "</tool_call>"
KEY, KEY_END, VALUE, VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"


def _read(reader: Reader) -> Reading[None]:
    while marker := (yield from reader.text_until(OPEN, CLOSE)):
        if marker == OPEN:
            yield from reader.attempt(_call(reader))
        else:
            reader.close()


def _call(reader: Reader) -> Reading[None]:
    yield from reader.spaces()
    name = yield from reader.word()
    yield from reader.spaces()
    if not (yield from reader.sees(KEY, CLOSE)):
        raise Broken
    reader.start(name)
    reader.pass_on("{")
    try:
        yield from _members(reader, reader.tools.get(name, {}))
    except Broken:
        reader.spill()
        raise
    reader.pass_on("}")
    reader.end()


def _members(reader: Reader, schema: Mapping[str, Any]) -> Reading[None]:
    separator = ""
    while True:
        yield from reader.spaces()
        if (yield from reader.sees(KEY, CLOSE)) != KEY:
            break
        yield from reader.expect(KEY)
        parts: list[str] = []
        yield from reader.raw_until((KEY_END,), parts.append)
        key = "".join(parts).strip()
        reader.pass_on(f"{separator}{quoted(key)}: ")
        yield from reader.spaces()
        yield from reader.expect(VALUE)
        yield from value_until(reader, kinds_of(schema, key), VALUE_END)
        separator = ", "
    if (yield from reader.sees(CLOSE)) != CLOSE:
        raise Broken


def _write(calls: Sequence[Said]) -> str:
    return "\n".join(_tagged(call) for call in calls)


def _tagged(call: Said) -> str:
    lines = [f"{OPEN}{call.name}"]
    for key, value in call.members().items():
        lines += [f"{KEY}{key}{KEY_END}", f"{VALUE}{plain(value)}{VALUE_END}"]
    return "\n".join([*lines, CLOSE])


GLM45 = Dialect(
    name="glm45",
    grammar=_read,
    write=_write,
    result=lambda name, id, content: f"<tool_response>\n{content}\n</tool_response>",
    begin=OPEN,
    begin_named=lambda name: f"{OPEN}{name}\n",
    json=False,
    stops=("<|observation|>",),
)
